// The sliders of the cut, and what exactly this cut was measured to do.
import { fixed, html, percent, useMemo } from "circuitry/view.js";
import { CurveChart } from "circuitry/charts.js";
import { MEASURES, interval, measuredCut, stops } from "circuitry/measured.js";

const DRAWN = [10, 20, 30, 60, 120, 250, 500, 1000, 0];

export function Controls({ index, state, set, shown, picture, drawn }) {
  const sizes = useMemo(() => stops(index), [index]);
  const near = sizes.stops.reduce((best, stop, i) => (Math.abs(Math.log(stop / state.share)) < Math.abs(Math.log(sizes.stops[best] / state.share)) ? i : best), 0);
  const several = shown.length > 1;
  const stable = shown.some(one => one.unitStability);
  const hide = name => set(now => ({ hidden: now.hidden.includes(name) ? now.hidden.filter(other => other !== name) : [...now.hidden, name] }));
  return html`<section class="controls" aria-label="The cut">
    <div class="sliders">
      <label>units drawn <output>${drawn.nodes.length} of ${picture.nodes.length}</output>
        <input id="most" type="range" min="0" max=${DRAWN.length - 1} value=${DRAWN.indexOf(state.most)} aria-valuetext=${`${drawn.nodes.length} of ${picture.nodes.length}`} onInput=${event => set({ most: DRAWN[event.target.value] }, "most")} /></label>
      <label>units kept <output>${percent(state.share)}</output>
        <input id="share" type="range" min="0" max=${sizes.stops.length - 1} value=${near} aria-valuetext=${percent(state.share)} onInput=${event => set({ share: sizes.stops[event.target.value] }, "share")} /></label>
      ${shown.some(one => one.weights.length) && html`<label>edges a unit <output>${state.edges}</output>
        <input id="edges" type="range" min="0" max=${index.edgesPerNode} value=${state.edges} onInput=${event => set({ edges: Number(event.target.value) }, "edges")} /></label>`}
      ${stable && html`<label>found again <output>${state.stability ? `in ${percent(state.stability)} of draws` : "any"}</output>
        <input id="stability" type="range" min="0" max="100" step="5" value=${Math.round(state.stability * 100)} onInput=${event => set({ stability: event.target.value / 100 }, "stability")} /></label>`}
      <div class="stack">${several && html`<label class="check"><input id="shared" type="checkbox" checked=${state.shared} onChange=${event => set({ shared: event.target.checked })} /> only shared</label>`}
      <details class="sites"><summary>sites${state.hidden.length ? ` (${state.hidden.length} hidden)` : ""}</summary>
        <div class="menu">${index.sites.map(site => html`<label class="check"><input type="checkbox" checked=${!state.hidden.includes(site.name)} onChange=${() => hide(site.name)} /> ${site.name}</label>`)}
          ${state.hidden.length > 0 && html`<button type="button" onClick=${() => set({ hidden: [] })}>show all</button>`}</div></details></div>
    </div>
  </section>`;
}

export function ThisCut({ index, state, shown, colourOf, picture }) {
  const count = html`<span class="count">${picture.nodes.length} units, ${picture.edges.length} edges</span>`;
  const rows = [...new Map(shown.map(one => [one.domain, one])).values()].map(one => ({ one, curve: index.curves[`${state.className}/${one.domain}`] }));
  const measured = rows.filter(row => row.curve);
  if (!measured.length) {
    return html`<div class="thiscut"><p class="hint">${count}. What this cut does was not measured. To measure it: <code>circuitry check --circuits ${index.graphs} && circuitry explore --circuits ${index.graphs}</code></p></div>`;
  }
  const cuts = measured.map(({ one, curve }) => ({ one, curve, cut: measuredCut(curve, state) }));
  const first = cuts[0].cut;
  const known = MEASURES.filter(measure => ["selectivity", "faithfulness"].includes(measure) || cuts.some(({ cut }) => !cut.values[measure].reason));
  const exact = first.exact && shown.every(one => one.fold === null);
  const fractions = cuts[0].curve.fractions;
  const pairs = rows => rows?.map(row => [row[1], row[2]]) ?? null;
  const lines = cuts.flatMap(({ one, curve }) => [
    { label: `random circuits, ${one.domain}`, kind: "random", points: curve.selectivity.random?.map(row => row[0]) ?? [], band: pairs(curve.selectivity.random), dash: "2 2" },
    { label: one.domain, colour: colourOf(one.domain), points: curve.selectivity.kept.map(row => row[0]), band: pairs(curve.selectivity.kept), dash: one === cuts[0].one ? null : "5 3" },
  ]).filter(line => line.points.length);
  return html`<div class="thiscut" role="group" aria-label="What this cut was measured to do">
    <div class="measured">
      <h3 class=${exact ? "" : "other"}>${count} ${exact ? "This cut, measured:" : `Not measured (${shown.some(one => one.fold !== null) ? "folds of the images" : first.other}); the nearest, ${percent(first.fraction)} of the units:`}</h3>
      <table id="measured"><thead><tr><th></th>${known.map(measure => html`<th scope="col">${measure}</th>`)}</tr></thead>
        <tbody>${cuts.map(({ one, curve, cut }) => html`<tr title=${`${curve.images} images of ${one.domain} that the circuit was not found on, ${curve.others} of other classes; ablated to ${curve.baseline}; ${curve.draws} random circuits`}>
          <th scope="row">${one.domain}</th>${known.map(measure => html`<td><b>${interval(cut.values[measure].kept)}</b></td>`)}</tr>
          ${[["random", "random units"], ["foreign", "other classes"]].map(([name, label]) => known.some(measure => cut.values[measure][name]) && html`<tr><th scope="row">${label}</th>${known.map(measure => html`<td title=${interval(cut.values[measure][name])}>${fixed(cut.values[measure][name]?.[0])}</td>`)}</tr>`)}
          <tr><th></th><td colspan=${known.length} class=${`verdict ${cut.verdict}`}>${cut.told}</td></tr>`)}</tbody></table>
      ${state.hidden.length > 0 && html`<p class="hint">Hidden sites are not drawn, but they are in the cut.</p>`}
    </div>
    ${fractions.length > 1 && html`<${CurveChart} label="Selectivity by share of the units kept, with random circuits" lines=${lines} ticks=${fractions} xs=${fractions.map(Math.log)} mark=${Math.log(state.share)}
      low=${-0.2} high=${1.1} tickText=${value => percent(value)} />`}
  </div>`;
}
