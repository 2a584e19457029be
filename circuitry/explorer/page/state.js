// What the reader chose and wrote, as one plain value: undone step by step, kept in the address and in a small file.
const FORMAT = "circuitry explorer state 1";
const STEPS = 200;
const TOGETHER_MS = 600;

export const VIEWS = ["overlay", "rows", "table"];
export const TABS = ["ways", "graph", "unit", "images"];

export function initialState(index) {
  return {
    className: index.classes[0], domains: index.domains.slice(0, 2), twins: null, view: "overlay",
    share: index.nodeFraction, edges: Math.min(3, index.edgesPerNode), stability: 0, shared: false,
    most: 20, hidden: [], measure: index.comparisons[0]?.measure ?? null, matrixOf: "ratio", selected: null, image: null, query: "", word: "", tab: "graph",
    pins: [], groups: [], notes: {}, labels: {},
  };
}

// A state that can be changed, undone and listened to. Changes with one tag that follow each other are one step.
export function createStore(initial) {
  let state = initial, past = [], future = [], last = { tag: null, at: 0 };
  const listeners = new Set();
  const tell = () => listeners.forEach(listener => listener(state));
  return {
    get: () => state,
    listen(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    set(change, tag = null) {
      const patch = typeof change === "function" ? change(state) : change;
      const next = { ...state, ...patch };
      if (JSON.stringify(next) === JSON.stringify(state)) return;
      const now = Date.now();
      if (!(tag && tag === last.tag && now - last.at < TOGETHER_MS)) past = [...past.slice(-STEPS), state];
      last = { tag, at: now };
      future = [];
      state = next;
      tell();
    },
    undo() {
      if (!past.length) return false;
      future = [state, ...future];
      state = past[past.length - 1];
      past = past.slice(0, -1);
      last = { tag: null, at: 0 };
      tell();
      return true;
    },
    redo() {
      if (!future.length) return false;
      past = [...past, state];
      [state, ...future] = future;
      tell();
      return true;
    },
  };
}

const CALLED = { className: "class", selected: "unit" };
export const unknown = leftOut => `This study does not have what was asked for: ${leftOut.join(", ")}. It is left out.`;

const isText = value => typeof value === "string";
const isShare = value => typeof value === "number" && value >= 0 && value <= 1;
const isBoolean = value => typeof value === "boolean";
const isTexts = value => Array.isArray(value) && value.every(isText);
const isNotes = value => typeof value === "object" && value !== null && !Array.isArray(value) && Object.values(value).every(isText);

// Return of a foreign value what is a state of this study, and the names of what was left out.
export function checkedState(value, index) {
  const sites = new Map(index.sites.map(site => [site.name, site.units]));
  const isUnit = name => {
    const cut = isText(name) ? name.lastIndexOf("/") : -1;
    const unit = isText(name) ? name.slice(cut + 1) : "";
    return /^\d+$/.test(unit) && Number(unit) < (sites.get(name.slice(0, cut)) ?? 0);
  };
  const isUnits = value => isTexts(value) && value.every(isUnit);
  const ofUnits = value => isNotes(value) && Object.keys(value).every(isUnit);
  const isDomain = name => index.domains.includes(name);
  const rules = {
    className: name => index.classes.includes(name),
    domains: value => isTexts(value) && value.length > 0 && value.every(isDomain),
    twins: value => value === null || (Array.isArray(value) && value.length === 2 && value.every(one => Array.isArray(one) && isDomain(one[0]) && Number.isInteger(one[1]))),
    view: name => VIEWS.includes(name),
    share: value => isShare(value) && value > 0 && value <= index.nodeFraction,
    most: value => Number.isInteger(value) && value >= 0,
    edges: value => Number.isInteger(value) && value >= 0 && value <= index.edgesPerNode,
    stability: isShare, shared: isBoolean,
    matrixOf: name => ["ratio", "all", "class"].includes(name),
    hidden: value => isTexts(value) && value.every(name => sites.has(name)),
    measure: name => index.comparisons.some(one => one.measure === name),
    selected: name => name === null || isUnit(name),
    image: value => value === null || isText(value), query: isText, word: isText, tab: name => TABS.includes(name),
    pins: isUnits, notes: ofUnits, labels: ofUnits,
    groups: value => Array.isArray(value) && value.every(one => one && isText(one.name) && isUnits(one.units)),
  };
  const state = {}, leftOut = [];
  for (const [name, item] of Object.entries(value)) {
    if (Object.hasOwn(rules, name) && rules[name](item)) state[name] = item;
    else leftOut.push(`${CALLED[name] ?? name}${isText(item) ? ` “${item.slice(0, 60)}”` : ""}`);
  }
  return { state, leftOut };
}

function changed(state, index) {
  const start = initialState(index);
  return Object.fromEntries(Object.entries(state).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(start[name])));
}

export const asHash = (state, index) => `#${encodeURIComponent(JSON.stringify(changed(state, index)))}`;

// Read an address; {} for none, and null for one that is damaged.
export function fromHash(hash) {
  if (hash.length < 2) return {};
  try {
    const found = JSON.parse(decodeURIComponent(hash.slice(1)));
    return typeof found === "object" && found !== null && !Array.isArray(found) ? found : null;
  } catch {
    return null;
  }
}

export const asFile = (state, index) =>
  JSON.stringify({ format: FORMAT, study: index.study, title: index.title, state: changed(state, index) }, null, 1);

// Read a state file; throws an Error that says what is wrong with it.
export function fromFile(text, index) {
  let found;
  try {
    found = JSON.parse(text);
  } catch {
    throw new Error("The file is no JSON: drop a state file that this page saved.");
  }
  if (found?.format !== FORMAT) {
    throw new Error(`The file is no state of an explorer (format ${JSON.stringify(found?.format ?? null)}, expected "${FORMAT}").`);
  }
  if (found.study !== index.study) {
    throw new Error(`The file is of another study, "${found.title}" (${found.study}); this is "${index.title}" (${index.study}).`);
  }
  if (typeof found.state !== "object" || found.state === null) throw new Error("The state in the file is damaged.");
  return checkedState(found.state, index);
}
