// What is seen, as files: PNG, SVG, GraphML, CSV, circuit-tracer's JSON; each says how far it can be trusted.
import { canvasPen, escaped, paint, svgPen } from "circuitry/paint.js";
import { siteLabels } from "circuitry/graph.js";
import { trust } from "circuitry/measured.js";
import { unitName } from "circuitry/names.js";
import { placeName } from "circuitry/table.js";

const TRACER = "circuit-tracer.json";
export const KINDS = [["png", "PNG picture"], ["svg", "SVG drawing"], ["units.csv", "CSV of units"], ["edges.csv", "CSV of edges"], ["graphml", "GraphML"], [TRACER, "circuit-tracer JSON, a file for each circuit"]];
const LINE = 15, PINNED = 10;

const plain = name => name.replace(/[^\w.-]+/g, "_");

// Return files, each a name and its content, a promise of a Blob: one of all circuits that are shown, or one of each.
export function exported(kind, seen) {
  const fileName = labels => plain([seen.state.className, ...labels].join("-"));
  const labels = seen.shown.map(one => one.label), here = visible(seen);
  if (kind === TRACER) return labels.map((label, c) => ({ name: `${fileName([label])}.${kind}`, content: Promise.resolve(asTracer(here, c)) }));
  const makers = { png: asPng, svg: asSvg, "units.csv": unitsCsv, "edges.csv": edgesCsv, graphml: asGraphml };
  return [{ name: `${fileName(labels)}.${kind}`, content: Promise.resolve(makers[kind](here)) }];
}

// Leave out what hidden sites hide.
function visible(seen) {
  const hidden = new Set(seen.state.hidden);
  const here = node => !hidden.has(seen.index.sites[node.site].name);
  return { ...seen, units: seen.picture.nodes.filter(here), links: seen.picture.edges.filter(edge => here(edge.from) && here(edge.to)) };
}

function drawInto(seen, pen) {
  const { layout, drawn: picture, theme, index, bandNames, lines } = seen;
  paint(pen, picture, layout, theme, { labels: siteLabels(layout, index.sites), bandNames });
  lines.forEach((line, i) => pen.text(8, layout.height + LINE * (i + 1), line, theme.faint));
  return layout.height + LINE * (lines.length + 1);
}

// A sentence after another, cut to the width of the drawing.
function fitted(seen) {
  const most = Math.floor(seen.layout.width / 6.4);
  const lines = [];
  for (const sentence of seen.trust) {
    let line = "";
    for (const word of sentence.split(" ")) {
      if (line && line.length + word.length >= most) { lines.push(line); line = ""; }
      line += `${line ? " " : ""}${word}`;
    }
    lines.push(line);
  }
  return { ...seen, lines };
}

function asPng(seen) {
  const whole = fitted(seen);
  const canvas = document.createElement("canvas");
  const high = whole.layout.height + LINE * (whole.lines.length + 1);
  canvas.width = 2 * whole.layout.width;
  canvas.height = 2 * high;
  const context = canvas.getContext("2d");
  context.scale(2, 2);
  context.fillStyle = whole.theme.paper;
  context.fillRect(0, 0, whole.layout.width, high);
  drawInto(whole, canvasPen(context));
  return new Promise(resolve => canvas.toBlob(resolve, "image/png"));
}

function asSvg(seen) {
  const whole = fitted(seen), pieces = [];
  const high = drawInto(whole, svgPen(pieces)), wide = whole.layout.width;
  return new Blob([
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${wide} ${high}" width="${wide}" height="${high}" font-family="system-ui, sans-serif">`,
    `<title>${escaped(seen.trust[0])}</title><desc>${escaped(seen.trust.join(" "))}</desc><rect width="100%" height="100%" fill="${whole.theme.paper}"/>`,
    ...pieces, "</svg>\n",
  ], { type: "image/svg+xml" });
}

// A field that no spreadsheet takes for a formula.
function field(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function csv(seen, head, rows) {
  const lines = [...seen.trust.map(line => `# ${line.replace(/[\r\n]+/g, " ")}`), head.map(field).join(","), ...rows.map(row => row.map(field).join(","))];
  return new Blob([lines.join("\n"), "\n"], { type: "text/csv" });
}

function unitsCsv(seen) {
  const { index, state, shown, names, picture } = seen;
  const rows = seen.units.map(node => {
    const name = unitName(index, node.site, node.unit);
    return [index.sites[node.site].name, node.unit, state.labels[name] ?? "", names.get(name)?.name ?? "", placeName(node.mask, picture.full, shown), ...node.scores, ...node.stability];
  });
  return csv(seen, ["site", "unit", "label", "name", "in", ...shown.map(one => `score ${one.label}`), ...shown.map(one => `stability ${one.label}`)], rows);
}

function edgesCsv(seen) {
  const { index, shown, picture } = seen;
  const rows = seen.links.map(edge => [index.sites[edge.from.site].name, edge.from.unit, index.sites[edge.to.site].name, edge.to.unit, placeName(edge.mask, picture.full, shown), ...edge.weights]);
  return csv(seen, ["upstream_site", "upstream_unit", "downstream_site", "downstream_unit", "in", ...shown.map(one => `score ${one.label}`)], rows);
}

function asGraphml(seen) {
  const { index, shown, state, names, picture } = seen;
  const keys = [["site", "node", "string"], ["unit", "node", "int"], ["label", "node", "string"], ["in", "node", "string"], ["edge_in", "edge", "string"], ["trust", "graph", "string"],
    ...shown.flatMap((one, c) => [[`score_${c}`, "node", "double", `score ${one.label}`], [`weight_${c}`, "edge", "double", `score ${one.label}`]])];
  const data = (key, value) => (value === null || value === "" ? "" : `<data key="${key}">${escaped(value)}</data>`);
  const nodes = seen.units.map(node => {
    const name = unitName(index, node.site, node.unit);
    return `<node id="${escaped(name)}">${data("site", index.sites[node.site].name)}${data("unit", node.unit)}${data("label", state.labels[name] ?? names.get(name)?.name ?? "")}${data("in", placeName(node.mask, picture.full, shown))}${node.scores.map((score, c) => data(`score_${c}`, score)).join("")}</node>`;
  });
  const edges = seen.links.map(edge => `<edge source="${escaped(unitName(index, edge.from.site, edge.from.unit))}" target="${escaped(unitName(index, edge.to.site, edge.to.unit))}">${data("edge_in", placeName(edge.mask, picture.full, shown))}${edge.weights.map((weight, c) => data(`weight_${c}`, weight)).join("")}</edge>`);
  return new Blob([
    `<?xml version="1.0" encoding="UTF-8"?>\n<graphml xmlns="http://graphml.graphdrawing.org/xmlns">\n`,
    keys.map(([id, of, type, title]) => `<key id="${id}" for="${of}" attr.name="${escaped(title ?? (id === "edge_in" ? "in" : id))}" attr.type="${type}"/>`).join("\n"),
    `\n<graph edgedefault="directed">${data("trust", seen.trust.join(" "))}\n`, nodes.join("\n"), "\n", edges.join("\n"), "\n</graph>\n</graphml>\n",
  ], { type: "application/xml" });
}

// A circuit as circuit-tracer's page and Neuronpedia open it. Such a file describes a language model on one prompt: here sites take the place of layers, units are
// features at the last token of a sentence that names class and domain, and the class is the token that they make likely. The pages read the probability from the label
// of the output, leave out a feature that is at more than two thirds of the tokens, and place a token by the one before it: so the sentence has several tokens.
function asTracer(seen, c) {
  const { index, shown, state, names, picture, lesions } = seen;
  const { className } = state, { label } = shown[c];
  const tokens = ["an", " image", " of", ` ${className}`, " in", ` ${label}`];
  const position = tokens.length - 1, top = index.sites.length;
  const inCircuit = seen.units.filter(node => node.scores[c] !== null).sort((a, b) => a.site - b.site || a.unit - b.unit);
  const idOf = node => `${node.site}_${node.unit}_${position}`;
  const byName = new Map(inCircuit.map(node => [unitName(index, node.site, node.unit), node]));
  const ids = list => list.filter(name => byName.has(name)).map(name => idOf(byName.get(name)));
  const labelOf = name => state.labels[name] || names.get(name)?.name;
  const logit = `${top}_0_${position}`;

  const nodes = [...byName].map(([name, node]) => tracerNode(node.site, node.unit, position, labelOf(name) ? `${name} ${labelOf(name)}` : name, node.scores[c]));
  const quoted = className.replaceAll('"', "'").replaceAll("(p=", "(p ");
  nodes.push({ ...tracerNode(top, 0, position, `Output "${quoted}" (p=?)`, null), feature_type: "logit", is_target_logit: true });
  const links = seen.links.filter(edge => edge.weights[c] !== null).map(edge => ({ source: idOf(edge.from), target: idOf(edge.to), weight: edge.weights[c] }));
  const last = Math.max(...inCircuit.map(node => node.site));
  for (const node of inCircuit) if (node.site === last) links.push({ source: idOf(node), target: logit, weight: node.scores[c] });
  const key = link => `${link.source} ${link.target}`;
  links.sort((a, b) => (key(a) < key(b) ? -1 : 1));
  const strongest = new Set([...inCircuit].sort((a, b) => Math.abs(b.scores[c]) - Math.abs(a.scores[c])).slice(0, PINNED));
  const file = {
    metadata: {
      slug: plain(`${className}-${label}`), scan: plain(index.made.model), transcoder_list: [], prompt_tokens: tokens, prompt: tokens.join(""), schema_version: 1,
      info: { description: trust(index, state, [shown[c]], picture, lesions).join(" "), generator: { name: "circuitry" } },
    },
    qParams: { pinnedIds: [...(state.pins.length ? ids(state.pins) : inCircuit.filter(node => strongest.has(node)).map(idOf)), logit], supernodes: state.groups.map(group => [group.name, ...ids(group.units)]), linkType: "both", clickedId: "", sg_pos: "" },
    nodes, links,
  };
  return new Blob([JSON.stringify(file)], { type: "application/json" });
}

function tracerNode(layer, unit, position, label, score) {
  const id = `${layer}_${unit}_${position}`;
  return {
    node_id: id, feature: ((layer + unit) * (layer + unit + 1)) / 2 + unit, layer: String(layer), ctx_idx: position, feature_type: "cross layer transcoder", token_prob: 0,
    is_target_logit: false, run_idx: 0, reverse_ctx_idx: 0, jsNodeId: `${id}-0`, clerp: label, influence: null, activation: null, score,
  };
}

// Hand a file to the reader.
export async function download(name, content) {
  const address = URL.createObjectURL(await content);
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
