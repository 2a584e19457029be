// The ways in: the matrix of domains, similarity over depth, and twins.
import { fixed, html, number, useEffect, useMemo, useState } from "circuitry/view.js";
import { overlap } from "circuitry/cut.js";
import { CurveChart } from "circuitry/charts.js";
import { Words } from "circuitry/words.js";

const REST_MS = 150;

export function Ways({ index, state, set, cutsOf, colourOf }) {
  const comparison = index.comparisons.find(one => one.measure === state.measure);
  return html`<section class="ways" aria-label="Ways in">
    <h2>Domains compared</h2>
    ${comparison
      ? html`<${Matrix} comparison=${comparison} index=${index} state=${state} set=${set} />
          <${Depth} comparison=${comparison} index=${index} state=${state} set=${set} colourOf=${colourOf} />`
      : html`<p class="hint">${index.domains.length > 1 ? "No comparison was exported. The runs of circuitry compare and of circuitry quickstart come with theirs." : `There are circuits of ${index.domains[0]} alone, so there is nothing to compare.`}</p>`}
    <${Twins} state=${state} set=${set} cutsOf=${cutsOf} />
    <${Words} index=${index} state=${state} set=${set} />
  </section>`;
}

// How many classes the means are of: one number, or the least and the most.
function counted(rows) {
  const counts = rows.map(row => row[5]), least = Math.min(...counts), most = Math.max(...counts);
  return least === most ? `${most}` : `${least} to ${most}`;
}

const words = name => name.replaceAll("_", " ");

function Matrix({ comparison, index, state, set }) {
  const kinds = [["ratio", "ratio to ceiling"], ["all", comparison.directions ? "all classes" : "similarity"], ["class", "this class"]];
  const there = kinds.filter(([name]) => (name === "ratio" ? comparison.ratios.length : name === "class" ? comparison.byClass[state.className] : true));
  const kind = there.some(([name]) => name === state.matrixOf) ? state.matrixOf : "all";
  const cells = useMemo(() => {
    const found = new Map();
    const both = !comparison.directions;
    const rows = kind === "ratio" ? comparison.ratios : kind === "class" ? comparison.byClass[state.className] ?? [] : comparison.matrix;
    for (const row of rows) {
      found.set(`${row[0]}|${row[1]}`, row);
      if (both) found.set(`${row[1]}|${row[0]}`, row);
    }
    if (kind === "ratio") for (const row of rows) for (const end of [0, 1]) found.set(`${row[end]}|${row[end]}`, [row[end], row[end], 1, row[7 + end]]);
    return found;
  }, [comparison, kind, state.className]);
  const domains = index.domains;
  const values = [...cells.values()].filter(row => row[0] !== row[1]).map(row => row[2]).filter(value => value !== null);
  const least = Math.min(...values), most = Math.max(...values);
  const share = value => (value - least) / (most - least);
  const shade = value => (value === null || most === least ? 0 : comparison.alike ? share(value) : 1 - share(value));
  const say = row => kind === "ratio" && row[0] !== row[1]
    ? `${row[0]} and ${row[1]}: ratio ${number(row[2])} [${number(row[3])}, ${number(row[4])}] over ${row[5]} classes; similarity ${number(row[6])}, ceilings ${number(row[7])} and ${number(row[8])}`
    : kind === "ratio" ? `${row[0]}: 1; the similarity of two folds of its images, the ceiling, is ${number(row[3])}`
    : comparison.directions ? `${comparison.directions[0]} ${row[0]}, ${comparison.directions[1]} ${row[1]}: ${number(row[2])}${row[5] ? `, mean of ${row[5]} class${row[5] === 1 ? "" : "es"}` : ""}`
    : `${row[0]} and ${row[1]}: ${number(row[2])}`;
  return html`<div class="matrix">
    <div class="line">
      <select aria-label="Measure" value=${state.measure} onChange=${event => set({ measure: event.target.value })}>
        ${index.comparisons.map(one => html`<option value=${one.measure}>${words(one.measure)}</option>`)}
      </select>
      <select aria-label="Values" value=${kind} onChange=${event => set({ matrixOf: event.target.value })}>
        ${there.map(([name, label]) => html`<option value=${name}>${label}</option>`)}
      </select>
    </div>
    <div class="scroll"><table class="cells" style=${{ "--cell": `${Math.max(24, Math.min(33, Math.floor(205 / domains.length) - 2))}px` }}>
      <thead><tr><th></th>${domains.map(domain => html`<th scope="col" title=${domain}><span>${domain}</span></th>`)}</tr></thead>
      <tbody>${domains.map(a => html`<tr><th scope="row" title=${a}>${a}</th>
        ${domains.map(b => {
          const row = cells.get(`${a}|${b}`);
          if (!row) return html`<td class="none">·</td>`;
          const chosen = state.domains.length === 2 && state.domains.includes(a) && state.domains.includes(b) && a !== b;
          const own = a === b;
          return html`<td><button type="button" title=${say(row)} aria-label=${say(row)} aria-pressed=${chosen}
            class=${own ? "ceiling" : "cell"} style=${own ? {} : { "--shade": shade(row[2]).toFixed(3) }}
            onClick=${() => set(own ? { domains: [a], twins: null } : { domains: [a, b], twins: null })}>${fixed(row[2])}</button></td>`;
        })}</tr>`)}</tbody>
    </table></div>
    <p class="hint">${kind === "ratio"
      ? "1 is as similar as two folds of one domain's images, the ceiling. Point at a cell for its interval."
      : comparison.measure === "right_answers_left" ? `Share of right answers that are left without the own part of ${kind === "class" ? state.className : `a class, mean over the classes that the model knows (${counted(comparison.matrix)})`}: rows are domains that it was found in, columns domains of the images.`
      : kind === "class" ? `Similarity of the circuits of ${state.className}.` : "Mean similarity of circuits over classes."} A click shows the pair.</p>
  </div>`;
}

function Depth({ comparison, index, state, set, colourOf }) {
  if (comparison.measure === "right_answers_left") return null;
  if (!comparison.depth.some(row => row[1] !== null)) return html`<p class="hint">${words(comparison.measure)} has no values by site: choose node overlap for the curve over depth.</p>`;
  const names = index.sites.map(site => site.name).filter(name => comparison.depth.some(row => row[1] === name));
  const lines = index.domains.map(domain => {
    const rows = new Map(comparison.depth.filter(row => row[0] === domain).map(row => [row[1], row]));
    const chosen = state.domains.includes(domain);
    return { label: domain, colour: chosen ? colourOf(domain) : null, faint: !chosen, points: names.map(name => rows.get(name)?.[2] ?? null), band: chosen ? names.map(name => { const row = rows.get(name); return row ? [row[3], row[4]] : null; }) : null };
  });
  lines.sort((a, b) => Number(b.faint) - Number(a.faint));
  return html`<div><h3>Over depth</h3>
    <${CurveChart} label=${`${words(comparison.measure)} over depth: ${comparison.depthIs}`} lines=${lines} ticks=${names} reference=${comparison.depthIs.startsWith("ratio") ? 1 : null}
      pick=${i => set({ selected: null, query: `${names[i]}/` })} />
    <p class="hint">${comparison.depthIs}, by site. A click searches the site's units.</p></div>`;
}

// The overlap of pairs of folds, counted when the reader rests, since it takes longer than the drawing.
function useTwins(state, cutsOf) {
  const [rows, setRows] = useState([]);
  useEffect(() => {
    const timer = setTimeout(() => setRows(twinsOf(state.domains, cutsOf)), REST_MS);
    return () => clearTimeout(timer);
  }, [state.domains, cutsOf]);
  return rows;
}

function twinsOf([a, b], { folds, cut }) {
  const rows = [];
  const add = (label, one, other) => {
    const cuts = [cut(...one), cut(...other)];
    if (cuts.every(Boolean)) rows.push({ label, pair: [one, other], found: overlap(...cuts) });
  };
  for (const domain of [a, b].filter(Boolean)) {
    const [first, second] = folds(domain);
    if (second !== undefined) add(`${domain} with itself`, [domain, first], [domain, second]);
  }
  if (b) {
    const ours = folds(a), theirs = folds(b);
    if (ours.length && theirs.length > 1) add(`${a} with ${b}`, [a, ours[0]], [b, theirs[1]]);
  }
  return rows;
}

function Twins({ state, set, cutsOf }) {
  const rows = useTwins(state, cutsOf);
  if (!rows.length) return null;
  return html`<div class="twins"><h3>Twins</h3>
    <table><thead><tr><th scope="col">on two folds</th><th scope="col">units</th><th scope="col">edges</th></tr></thead>
      <tbody>${rows.map(({ label, pair, found }) => {
        const on = JSON.stringify(state.twins) === JSON.stringify(pair);
        return html`<tr><th scope="row"><button type="button" aria-pressed=${on} onClick=${() => set({ twins: on ? null : pair })}>${label}</button></th>
          <td>${fixed(found.units)}</td><td>${fixed(found.edges)}</td></tr>`;
      })}</tbody></table>
    <p class="hint">What this cut of ${state.className} shares on two folds of the images. If a domain differs from itself as much as from another, the picture shows chance.</p>
  </div>`;
}
