// What was measured of a cut: the stored curves of the causal checks, read at the cut that is on the screen. Pure.
import { fixed, percent } from "circuitry/view.js";
import { saysLoss } from "circuitry/lost.js";

const SAME = 1e-9;
const MATTERS = 0.01;
const OPEN = "cannot be told";
export const MEASURES = ["right", "false", "kl recovered", "selectivity", "faithfulness"];

// The sizes of cuts that the slider stops at: measured ones, and three between each two.
export function stops(index) {
  const measured = new Set();
  for (const curve of Object.values(index.curves)) curve.fractions.forEach(f => f <= index.nodeFraction + SAME && measured.add(f));
  const known = measured.size > 1 ? [...measured] : [...measured, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5].filter(f => f < index.nodeFraction);
  const ends = [...new Set([...known, index.nodeFraction])].sort((a, b) => a - b);
  const found = [];
  ends.forEach((end, i) => {
    const last = ends[i - 1];
    if (last) for (const k of [0.25, 0.5, 0.75]) found.push(Number((last * (end / last) ** k).toPrecision(3)));
    found.push(end);
  });
  return { stops: found, measured };
}

// Why the cut on the screen is none that was measured, or null.
function difference(state) {
  const reasons = [];
  if (state.stability > 0) reasons.push("only stable units");
  if (state.shared) reasons.push("only shared units");
  return reasons.length ? reasons.join(", ") : null;
}

// The measured values of this cut, or of the nearest measured one, and whether it is this one exactly.
export function measuredCut(curve, state) {
  const distance = curve.fractions.map(f => Math.abs(Math.log(f / state.share)));
  const place = distance.indexOf(Math.min(...distance));
  const other = difference(state) ?? (distance[place] > 1e-6 ? "another share of the units" : null);
  const read = measure => {
    const found = curve[measure];
    const at = name => found[name]?.[place] ?? null;
    return { kept: at("kept"), random: at("random"), foreign: at("foreign"), reason: found.reason };
  };
  const values = Object.fromEntries(MEASURES.map(measure => [measure, read(measure)]));
  const { kept, random, reason } = values.selectivity;
  const said = curve.verdicts[place];
  const verdict = said === OPEN ? besideRandom(kept, random) : /^works(?! in part)/.test(said) ? "above" : "same";
  const told = said === OPEN ? `its selectivity is ${reason ? `unknown: ${reason}` : VERDICTS[verdict]}` : `it ${said}`;
  return { fraction: curve.fractions[place], exact: other === null, other, values, verdict, told };
}

function besideRandom(kept, random) {
  if (!kept || !random || [kept[1], random[2]].some(value => value === null)) return "unknown";
  if (kept[1] > random[2] + MATTERS) return "above";
  return kept[2] < random[1] - MATTERS ? "below" : "same";
}

export const VERDICTS = {
  above: "above that of random circuits",
  below: "below that of random circuits",
  same: "no better than that of random circuits",
  unknown: "without an interval",
};

export const interval = row => (row ? `${fixed(row[0])}${row[1] === null ? "" : ` [${fixed(row[1])}, ${fixed(row[2])}]`}` : "–");

// How far a picture can be trusted, in sentences; it goes into every export.
export function trust(index, state, shown, picture, lesions) {
  const made = index.made;
  const lines = [
    `${index.title}: ${state.className} in ${shown.map(one => one.label).join(" and ")}.`,
    `Scores are attributions, means over ${[...new Set(shown.map(one => one.images))].join(" or ")} images (baseline ${made.baseline}, effects on ${index.scored}); positive ones help.`,
    `The cut: the strongest ${percent(state.share)} of the units ${index.budget === "global" ? "of all sites together" : "of every site"}, at most ${state.edges} edges into a unit of the ${index.edgesPerNode} strongest, ${difference(state) ?? "nothing else left out"}.`,
  ];
  if (state.most && picture.nodes.length > state.most) lines.push(`Drawings show the ${state.most} strongest of its ${picture.nodes.length} units.`);
  if (state.hidden.length) lines.push(`Units of ${state.hidden.join(", ")} are hidden here, but they are in the cut.`);
  for (const one of shown) {
    const curve = index.curves[`${state.className}/${one.domain}`], lesion = lesions?.[one.domain];
    if (lesion) {
      lines.push(`${one.label}: ${saysLoss(index, lesion, one, state.className)}.`);
      continue;
    }
    if (index.tested) {
      lines.push(`${one.label}: what is lost without this part was not tested, or the model does not know the class there.`);
      continue;
    }
    if (!curve) {
      lines.push(`${one.label}: what this cut does was not measured.`);
      continue;
    }
    const cut = measuredCut(curve, state);
    const which = cut.exact && one.fold === null ? "this cut" : `the nearest measured cut (${percent(cut.fraction)} of the units of the circuit of all images)`;
    const s = cut.values.selectivity;
    lines.push(
      `${one.label}: on ${curve.images} images ${which} keeps ${interval(s.kept)} of the selectivity, random circuits ${interval(s.random)}: ${cut.told}.` +
        (cut.verdict === "above" ? "" : " Do not read it as a mechanism."),
    );
  }
  lines.push(`Model ${made.model}, ${made.weights}; circuits ${index.study}.`);
  return lines;
}
