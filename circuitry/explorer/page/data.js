// The one place where data come from: `load(key)` runs the script data/<key>.js, which calls `circuitry.load`.
// A page from disk may run scripts but not fetch files, so this is the same from disk, from a web host and served.
const FORMAT = "circuitry explorer 2";
const kept = new Map();
const waiting = new Map();
let exported = null;

// What a reader can do something about; shown as it is.
export class DataError extends Error {}

globalThis.circuitry = {
  load(key, about, packed) {
    waiting.get(key)?.({ about, packed });
  },
};

export function load(key) {
  if (!kept.has(key)) {
    const promise = run(key).then(unpack);
    promise.catch(() => kept.delete(key));
    kept.set(key, promise);
  }
  return kept.get(key);
}

function run(key) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = `data/${key}.js`;
    waiting.set(key, found => {
      try {
        check(key, found.about);
        resolve(found);
      } catch (error) {
        reject(error);
      }
    });
    script.onload = () => {
      script.remove();
      waiting.delete(key);
      reject(new DataError(`data/${key}.js is damaged: export the explorer again.`));
    };
    script.onerror = () => {
      script.remove();
      waiting.delete(key);
      reject(new DataError(`data/${key}.js is missing: the folder is not complete. Export the explorer again, and copy all of it.`));
    };
    document.head.append(script);
  });
}

function check(key, about) {
  if (about.format !== FORMAT) {
    throw new DataError(`data/${key}.js has the format "${about.format}", but this page reads "${FORMAT}": export the explorer again.`);
  }
  exported ??= about.export;
  if (about.export !== exported) {
    throw new DataError(`data/${key}.js is of another export than this page: export the explorer again.`);
  }
}

async function unpack({ about, packed }) {
  const { arrays: listed, ...found } = about;
  found.arrays = {};
  if (!packed) return found;
  const content = new Uint8Array(await inflate(bytesOf(packed)));
  let offset = 0;
  for (const [name, type, shape, factor] of listed) {
    const length = shape.reduce((a, b) => a * b, 1);
    const array = joined(type, content.subarray(offset, offset + length * TYPES[type].BYTES_PER_ELEMENT), length);
    offset += array.byteLength;
    found.arrays[name] = Object.assign(factor === null ? array : widened(array, factor), { shape });
  }
  return found;
}

function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

const TYPES = { u1: Uint8Array, i1: Int8Array, u2: Uint16Array, u4: Uint32Array, f2: Uint16Array };

// Numbers from their first bytes, then their second ones, and so on.
function joined(type, bytes, length) {
  const size = TYPES[type].BYTES_PER_ELEMENT;
  if (size === 1) return new TYPES[type](bytes.slice().buffer);
  const found = new Uint8Array(bytes.length);
  for (let k = 0; k < size; k++) for (let i = 0, at = k * length; i < length; i++, at++) found[i * size + k] = bytes[at];
  return new TYPES[type](found.buffer);
}

let halves = null;

// Half floats times a factor, as single floats.
function widened(bits, factor) {
  halves ??= Float32Array.from({ length: 1 << 16 }, (_, bit) => half(bit));
  const found = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) found[i] = halves[bits[i]] * factor;
  return found;
}

function half(bit) {
  const sign = bit >> 15 ? -1 : 1, exponent = (bit >> 10) & 31, fraction = bit & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
}
