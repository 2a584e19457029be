// Circuits as they are cut: pure functions from series and the settings of a cut to units and edges. No page.
const SITE = 2 ** 24;

export const keyOf = (site, unit) => site * SITE + unit;
export const siteAndUnit = key => ({ site: Math.floor(key / SITE), unit: key % SITE });

// Make a series ready for cutting: where its sites begin, the key of each unit, and where its edges begin.
export function readSeries(header, arrays, place) {
  const take = name => arrays[`${place}/${name}`];
  const series = { ...header, place };
  for (const name of header.arrays) series[name] = take(name);
  const n = series.units.length;
  series.site = new Uint16Array(n);
  series.rank = new Uint32Array(n);
  series.firstEdge = new Uint32Array(n + 1);
  series.key = new Float64Array(n);
  let i = 0;
  series.counts.forEach((count, site) => {
    for (let rank = 0; rank < count; rank++, i++) {
      series.site[i] = site;
      series.rank[i] = rank;
      series.key[i] = keyOf(site, series.units[i]);
    }
  });
  for (let j = 0; j < n; j++) series.firstEdge[j + 1] = series.firstEdge[j] + series.into[j];
  return series;
}

// How many units a share keeps: as the curves of faithfulness count them.
const unitsKept = (share, size) => Math.ceil(Number((share * size).toFixed(9)));

// How many units of each site a share keeps: the same share of every site, or the strongest of all sites together.
function mostBySite(series, sizes, budget, share) {
  if (budget !== "global") return sizes.map(size => unitsKept(share, size));
  const counts = sizes.map(() => 0);
  for (const i of series.order.slice(0, unitsKept(share, sizes.reduce((a, b) => a + b, 0)))) counts[series.site[i]]++;
  return counts;
}

// Cut a series: which of its units are kept, and which of its edges, as places in its arrays.
export function cutSeries(series, { sizes, budget }, { share, edges, stability }) {
  const n = series.units.length;
  const kept = new Uint8Array(n);
  const most = mostBySite(series, sizes, budget, share);
  const stable = Math.round(stability * 255);
  for (let i = 0; i < n; i++) {
    if (series.rank[i] >= most[series.site[i]]) continue;
    if (stable && series.unitStability && series.unitStability[i] < stable) continue;
    kept[i] = 1;
  }
  const chosen = [];
  for (let i = 0; i < n; i++) {
    if (!kept[i]) continue;
    let left = edges;
    for (let e = series.firstEdge[i]; e < series.firstEdge[i + 1] && left > 0; e++) {
      if (!kept[series.from[e]]) continue;
      left--;
      if (stable && series.edgeStability && series.edgeStability[e] < stable) continue;
      chosen.push(e, i);
    }
  }
  return { series, kept, chosen };
}

// Put cuts over each other: each unit and edge once, with the cuts that it is in as bits of `mask`.
export function overlay(cuts, onlyShared) {
  const full = 2 ** cuts.length - 1;
  const nodes = new Map();
  cuts.forEach(({ series, kept }, c) => {
    for (let i = 0; i < kept.length; i++) {
      if (!kept[i]) continue;
      let node = nodes.get(series.key[i]);
      if (!node) {
        node = { key: series.key[i], site: series.site[i], unit: series.units[i], mask: 0, scores: new Array(cuts.length).fill(null), stability: new Array(cuts.length).fill(null) };
        nodes.set(node.key, node);
      }
      node.mask |= 1 << c;
      node.scores[c] = series.scores[i];
      if (series.unitStability) node.stability[c] = series.unitStability[i] / 255;
    }
  });
  if (onlyShared) for (const [key, node] of nodes) if (node.mask !== full) nodes.delete(key);
  const listed = [...nodes.values()];
  listed.forEach((node, place) => { node.place = place; node.in = []; node.out = []; });
  const edges = new Map();
  cuts.forEach(({ series, chosen }, c) => {
    for (let k = 0; k < chosen.length; k += 2) {
      const from = nodes.get(series.key[series.from[chosen[k]]]), to = nodes.get(series.key[chosen[k + 1]]);
      if (!from || !to) continue;
      const key = from.place * listed.length + to.place;
      let edge = edges.get(key);
      if (!edge) {
        edge = { from, to, mask: 0, weights: new Array(cuts.length).fill(null), share: 0 };
        edges.set(key, edge);
      }
      edge.mask |= 1 << c;
      edge.weights[c] = series.weights[chosen[k]];
    }
  });
  const drawn = [...edges.values()].filter(edge => !onlyShared || edge.mask === full);
  strengthen(drawn, cuts.length);
  for (const edge of drawn) {
    edge.from.out.push(edge);
    edge.to.in.push(edge);
  }
  for (const node of listed) node.size = Math.max(...node.scores.map(score => Math.abs(score ?? 0)));
  return { nodes: listed, edges: drawn, byKey: nodes, full, count: cuts.length };
}

// The strongest units of a picture, and some that are wanted besides, with the edges between them; 0 for all units.
export function strongest(picture, most, wanted) {
  if (!most || picture.nodes.length <= most) return picture;
  const few = new Set([...picture.nodes].sort((a, b) => b.size - a.size).slice(0, most).map(node => node.key));
  const here = node => few.has(node.key) || wanted.has(node.key);
  return { ...picture, nodes: picture.nodes.filter(here), edges: picture.edges.filter(edge => here(edge.from) && here(edge.to)) };
}

// Give each edge its share of the largest score into the same site of its series: what its width is drawn by.
function strengthen(edges, count) {
  const largest = new Map();
  const at = (edge, c) => edge.to.site * count + c;
  const visit = act => edges.forEach(edge => edge.weights.forEach((weight, c) => weight !== null && act(edge, c, weight)));
  visit((edge, c, weight) => largest.set(at(edge, c), Math.max(largest.get(at(edge, c)) ?? 0, weight)));
  visit((edge, c, weight) => { edge.share = Math.max(edge.share, weight / (largest.get(at(edge, c)) || 1)); });
}

// Where a unit or edge belongs: "all" cuts, "some" of several, or the number of the only one.
export function placeOf(mask, full) {
  if (mask === full) return "all";
  const only = Math.log2(mask);
  return Number.isInteger(only) ? only : "some";
}

// Shares of units and of edges that two cuts have in common, of all that either has.
export function overlap(a, b) {
  const places = new Map();
  const placeOf = key => places.get(key) ?? places.set(key, places.size).size - 1;
  const most = a.series.key.length + b.series.key.length;
  const units = ({ series, kept }) => {
    const found = new Set();
    for (let i = 0; i < kept.length; i++) if (kept[i]) found.add(placeOf(series.key[i]));
    return found;
  };
  const edges = ({ series, chosen }) => {
    const found = new Set();
    for (let k = 0; k < chosen.length; k += 2) found.add(placeOf(series.key[series.from[chosen[k]]]) * most + placeOf(series.key[chosen[k + 1]]));
    return found;
  };
  return { units: jaccard(units(a), units(b)), edges: jaccard(edges(a), edges(b)) };
}

function jaccard(one, other) {
  let both = 0;
  for (const item of one) both += other.has(item);
  const either = one.size + other.size - both;
  return either ? both / either : null;
}
