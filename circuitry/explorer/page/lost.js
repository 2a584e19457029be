// What the model loses without a class's own part: the stored answers of its lesion.
import { fixed, html, percent } from "circuitry/view.js";

const WORST = 4;

const mean = values => (values.length ? values.reduce((a, b) => a + b, 0) / values.length : null);
// Right answers without the part over those of the whole model, of some classes; null where the model knows none of them.
const left = (index, rows, which) => { const known = rows.filter(row => row[which] !== null && row.whole >= index.known); return known.length ? mean(known.map(row => row[which])) / mean(known.map(row => row.whole)) : null; };

// What is left by class and domain, the class's own first, then the classes that lose most.
export function lossOf(index, lesion, className) {
  const rows = index.tested.map(([name, domain, whole], i) => ({ name, domain, whole, part: lesion.part[i], random: lesion.random[i] }));
  const domains = [...new Set(rows.map(row => row.domain))];
  const by = (names, which) => domains.map(domain => left(index, rows.filter(row => row.domain === domain && names.includes(row.name)), which));
  const others = [...new Set(rows.map(row => row.name))].filter(name => name !== className);
  const loss = name => mean(by([name], "part").filter(value => value !== null)) ?? Infinity;
  const worst = others.sort((a, b) => loss(a) - loss(b)).slice(0, WORST).filter(name => loss(name) < 1);
  const lines = [[className, [className], "part", "own"], ...worst.map(name => [name, [name], "part", ""]), [`other classes (${others.length})`, others, "part", "mean"], ["random units", [className], "random", "mean"]];
  return { domains, lines: lines.map(([label, names, which, kind]) => ({ label, kind, values: by(names, which) })) };
}

export const saysLoss = (index, lesion, one, className) => {
  const { domains, lines } = lossOf(index, lesion, className), at = domains.indexOf(one.domain), [own, others, random] = [lines[0], ...lines.slice(-2)].map(line => fixed(line.values[at]));
  return `without its ${lesion.units} units ${className} keeps ${own} of its right answers in ${one.domain}, other classes keep ${others}; without as many random units ${className} keeps ${random}`;
};

export function Lost({ index, state, shown, lesions }) {
  const found = [...new Set(shown.map(one => one.domain))].filter(domain => lesions?.[domain]);
  if (!found.length) return null;
  return html`<div class="thiscut lost" role="group" aria-label="What the model loses without the part">
    ${found.map(domain => {
      const { domains, lines } = lossOf(index, lesions[domain], state.className);
      return html`<table class="cells"><caption>Without its <b>${lesions[domain].units} units</b> in <b>${domain}</b>, tested on</caption>
        <thead><tr><th></th>${domains.map(name => html`<th scope="col" title=${name}><span>${name}</span></th>`)}</tr></thead>
        <tbody>${lines.map(({ label, kind, values }) => html`<tr class=${kind}><th scope="row" title=${label}>${label}</th>${values.map(value => html`<td><span class="cell" style=${{ "--shade": Math.min(1, value ?? 0).toFixed(3) }} title=${value === null ? "the model does not know it here, or it was not tested" : percent(value)}>${value === null ? "–" : fixed(value)}</span></td>`)}</tr>`)}</tbody></table>`;
    })}
    <p class="hint">What is left of right answers without the part of ${state.className}, and, as random units, what ${state.className} keeps without as many random ones: share of the whole model's right answers, on images that found no part; – where the model does not know the class.${state.share < index.nodeFraction - 1e-9 ? " It is of the whole part, not of this smaller cut." : ""} The other classes that lose most come first.</p>
  </div>`;
}
