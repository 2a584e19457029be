// Where everything stands: sites are columns, and what is shared or own is a band of rows. Pure functions.
import { placeOf } from "circuitry/cut.js";

export const LEAN = Math.PI / 3; // of the names of sites
const LEFT = 18, RIGHT = 18, TOP = 38, BOTTOM = 14, GAP = 20, LETTER = 6.2;
const ROW = 11, LEAST_ROW = 4, HIGH = 34;
const FEW = 60; // units that are drawn by size, and numbered where there is room

// Lay an overlay out. Two cuts: the first one's own units on top, the shared in the middle, the second's below.
// More: shared by all, by some, then each one's own. `rows` gives each cut a panel of its own.
export function layOut(picture, { width, height, hidden, view, sites }) {
  const columns = sites.map((_, place) => place).filter(place => !hidden.has(place));
  const longest = LETTER * Math.max(0, ...columns.map(site => sites[site].name.length));
  const over = Math.max(0, longest * Math.cos(LEAN) - RIGHT), start = TOP + longest * Math.sin(LEAN);
  const step = (width - LEFT - RIGHT - over) / Math.max(1, columns.length);
  const xs = new Map(columns.map((site, i) => [site, LEFT + (i + 0.5) * step]));
  const panels = view === "rows" && picture.count > 1
    ? Array.from({ length: picture.count }, (_, c) => ({ cut: c, bands: picture.count > 2 ? ["all", "some", c] : ["all", c] }))
    : [{ cut: null, bands: bandsOf(picture.count) }];
  const space = (height - start - BOTTOM - GAP * (panels.length - 1)) / panels.length;
  const largest = picture.nodes.length > FEW ? 0 : Math.max(...picture.nodes.map(node => node.size));
  panels.forEach((panel, p) => fill(panel, picture, { top: start + p * (space + GAP), space, xs, step, largest }));
  return { width, height, xs, step, panels, top: start, columns };
}

function bandsOf(count) {
  if (count === 1) return ["all"];
  if (count === 2) return [0, "all", 1];
  return ["all", "some", ...Array.from({ length: count }, (_, c) => c)];
}

function fill(panel, picture, { top, space, xs, step, largest }) {
  const bands = panel.bands.map(name => ({ name, bySite: new Map(), most: 0 }));
  const named = new Map(bands.map(band => [band.name, band]));
  for (const node of picture.nodes) {
    if (!xs.has(node.site)) continue;
    if (panel.cut !== null && !(node.mask & (1 << panel.cut))) continue;
    const band = named.get(placeOf(node.mask, picture.full));
    if (!band) continue;
    if (!band.bySite.has(node.site)) band.bySite.set(node.site, []);
    band.bySite.get(node.site).push(node);
  }
  for (const band of bands) {
    for (const nodes of band.bySite.values()) {
      nodes.sort((a, b) => b.size - a.size || a.unit - b.unit);
      band.most = Math.max(band.most, nodes.length);
    }
  }
  const filled = bands.filter(band => band.most);
  const gaps = GAP * Math.max(0, filled.length - 1);
  const weights = filled.map(band => Math.sqrt(band.most));
  const total = weights.reduce((a, b) => a + b, 0) || 1;
  panel.points = new Map();
  panel.bands = [];
  panel.top = top;
  let y = top;
  filled.forEach((band, b) => {
    const high = ((space - gaps) * weights[b]) / total;
    panel.bands.push({ name: band.name, top: y, bottom: y + high });
    for (const [site, nodes] of band.bySite) place(panel.points, nodes, xs.get(site), step, y, high, largest);
    y += high + GAP;
  });
}

// Place the units of a site in a band: a column where they fit, else several columns side by side.
function place(points, nodes, x, step, top, high, largest) {
  const wide = Math.max(1, Math.floor((step * 0.62) / ROW));
  let rows = Math.max(1, Math.floor(high / ROW));
  if (Math.ceil(nodes.length / rows) > wide) rows = Math.max(rows, Math.min(Math.ceil(nodes.length / wide), Math.floor(high / LEAST_ROW)));
  const columns = Math.ceil(nodes.length / rows);
  rows = Math.ceil(nodes.length / columns);
  const pitch = Math.min(largest ? HIGH : 22, high / rows), side = Math.min(ROW, (step * 0.7) / columns);
  const radius = Math.max(1.4, Math.min(4.6, pitch * 0.42, side * 0.46));
  const numbered = largest > 0 && step > 26 && columns === 1 && pitch > 24;
  const bySize = node => Math.min(numbered ? (pitch - 11) / 2 : pitch * 0.42, step * 0.42, Math.max(3, 12 * Math.sqrt(node.size / largest)));
  const first = top + (high - pitch * rows) / 2;
  nodes.forEach((node, i) => {
    const column = Math.floor(i / rows), row = i % rows;
    points.set(node.key, { node, x: x + (column - (columns - 1) / 2) * side, y: first + (row + 0.5) * pitch, radius: largest ? bySize(node) : radius, numbered });
  });
}

// Units of one site in the order in which they are drawn, over all panels, each once.
export function unitsOfSite(layout, site) {
  return [...new Set(layout.panels.flatMap(panel => {
    const here = [...panel.points.values()].filter(point => point.node.site === site);
    const bandOf = point => panel.bands.findIndex(band => point.y <= band.bottom + 1);
    return here.sort((a, b) => bandOf(a) - bandOf(b) || a.x - b.x || a.y - b.y).map(point => point.node.key);
  }))];
}

// The nearest drawn unit within reach of a place.
export function nearest(layout, x, y, reach = 14) {
  let best = null, least = reach * reach;
  for (const panel of layout.panels) {
    for (const point of panel.points.values()) {
      const d = (point.x - x) ** 2 + (point.y - y) ** 2;
      if (d < least) [best, least] = [point, d];
    }
  }
  return best;
}
