// The graph as tables: what a screen reader reads, and what the drawing shows in numbers.
import { html, number, percent, useState } from "circuitry/view.js";
import { placeOf } from "circuitry/cut.js";
import { circuitsWith, unitName } from "circuitry/names.js";

const ROWS = 200;

export function placeName(mask, full, shown) {
  const place = placeOf(mask, full);
  if (shown.length === 1) return shown[0].label;
  if (place === "all") return "shared";
  return place === "some" ? shown.filter((_, c) => mask & (1 << c)).map(one => one.label).join(", ") : `${shown[place].label} only`;
}

const spoken = tested => (tested ? `${tested.name}${tested.weak ? " (weak)" : ""}` : "");

export function Table({ index, state, shown, picture, names, set, pin }) {
  const [rows, setRows] = useState(ROWS);
  const hidden = new Set(state.hidden);
  const units = picture.nodes.filter(node => !hidden.has(index.sites[node.site].name)).sort((a, b) => a.site - b.site || b.size - a.size);
  const here = node => unitName(index, node.site, node.unit);
  const edges = picture.edges.filter(edge => !hidden.has(index.sites[edge.from.site].name) && !hidden.has(index.sites[edge.to.site].name));
  edges.sort((a, b) => a.to.site - b.to.site || b.share - a.share);
  return html`<div class="table">
    <table id="units"><caption>${units.length} units${units.length > rows ? `, the first ${rows}` : ""}</caption>
      <thead><tr><th scope="col">unit</th><th scope="col">name</th><th scope="col">in</th>${shown.map(one => html`<th scope="col">score, ${one.label}</th>`)}
        ${shown.some(one => one.unitStability) && html`<th scope="col">stable</th>`}<th scope="col">circuits</th><th scope="col">pinned</th></tr></thead>
      <tbody>${units.slice(0, rows).map(node => {
        const name = here(node);
        return html`<tr key=${name} data-unit=${name} class=${name === state.selected ? "chosen" : ""}>
          <th scope="row"><button type="button" onClick=${() => set({ selected: name, tab: "unit" })}>${name}</button></th>
          <td>${state.labels[name] ?? spoken(names.get(name))}</td>
          <td>${placeName(node.mask, picture.full, shown)}</td>
          ${node.scores.map(score => html`<td class="n">${number(score)}</td>`)}
          ${shown.some(one => one.unitStability) && html`<td class="n">${node.stability.map(share => (share === null ? "–" : percent(share))).join(", ")}</td>`}
          <td class="n">${circuitsWith(index, node.site, node.unit)} of ${index.circuits.length}</td>
          <td><input type="checkbox" aria-label=${`pin ${name}`} checked=${state.pins.includes(name)} onChange=${() => pin(name)} /></td></tr>`;
      })}</tbody></table>
    <table id="edges-table"><caption>${edges.length} edges${edges.length > rows ? `, the first ${rows}` : ""}</caption>
      <thead><tr><th scope="col">from</th><th scope="col">to</th><th scope="col">in</th>${shown.map(one => html`<th scope="col">score, ${one.label}</th>`)}</tr></thead>
      <tbody>${edges.slice(0, rows).map(edge => html`<tr><td>${here(edge.from)}</td><td>${here(edge.to)}</td><td>${placeName(edge.mask, picture.full, shown)}</td>
        ${edge.weights.map(weight => html`<td class="n">${number(weight)}</td>`)}</tr>`)}</tbody></table>
    ${Math.max(units.length, edges.length) > rows && html`<button type="button" onClick=${() => setRows(rows * 5)}>show more rows</button>`}
  </div>`;
}
