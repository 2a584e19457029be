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

const PIN = "pinned", STRONGEST = "strongest";

// Rows of a table in the order of a column, whose header a click chooses; by effect at first.
function Sorted({ id, caption, columns, rows, most, chosen }) {
  const [order, setOrder] = useState({ by: STRONGEST, down: true });
  const by = columns.find(one => one.name === order.by) ?? { of: row => row[STRONGEST] };
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : (a ?? -Infinity) - (b ?? -Infinity));
  const sorted = [...rows].sort((a, b) => (order.down ? compare(by.of(b), by.of(a)) : compare(by.of(a), by.of(b))));
  const sort = ({ name, text }) => setOrder({ by: name, down: order.by === name ? !order.down : !text });
  return html`<table id=${id}><caption>${caption}${rows.length > most ? `, the first ${most}` : ""}</caption>
    <thead><tr>${columns.map(one => html`<th scope="col" aria-sort=${order.by !== one.name ? "none" : order.down ? "descending" : "ascending"}><button type="button" onClick=${() => sort(one)}>${one.name}${order.by === one.name ? (order.down ? " ▾" : " ▴") : ""}</button></th>`)}</tr></thead>
    <tbody>${sorted.slice(0, most).map(row => html`<tr key=${row.key} data-unit=${row.key} class=${chosen && row.key === chosen ? "chosen" : ""}>${columns.map(one => one.cell?.(row) ?? html`<td class=${one.text ? "" : "n"}>${one.text ? one.of(row) : (one.say ?? number)(one.of(row))}</td>`)}</tr>`)}</tbody></table>`;
}

export function Table({ index, state, shown, picture, names, set, pin }) {
  const [most, setMost] = useState(ROWS);
  const hidden = new Set(state.hidden), there = node => !hidden.has(index.sites[node.site].name);
  const here = node => unitName(index, node.site, node.unit);
  const units = picture.nodes.filter(there).map(node => ({ key: here(node), node, [STRONGEST]: node.size }));
  const edges = picture.edges.filter(edge => there(edge.from) && there(edge.to)).map(edge => ({ edge, [STRONGEST]: Math.max(...edge.weights) }));
  const effects = of => shown.map((one, c) => ({ name: `${of === "scores" ? "effect" : "score"}, ${one.label}`, of: row => (row.node ?? row.edge)[of][c] }));
  const shares = ({ node }) => node.stability.filter(share => share !== null);
  const stable = shown.some(one => one.unitStability) ? [{ name: "found again", of: row => Math.max(...shares(row)), cell: ({ node }) => html`<td class="n">${node.stability.map(share => (share === null ? "–" : percent(share))).join(", ")}</td>` }] : [];
  const place = (name, mask) => ({ name, text: true, of: row => placeName(mask(row), picture.full, shown) });
  const unit = { name: "unit", text: true, of: row => row.key, cell: ({ key }) => html`<th scope="row"><button type="button" onClick=${() => set({ selected: key, tab: "unit" })}>${key}</button></th>` };
  const pinned = { name: PIN, of: row => Number(state.pins.includes(row.key)), cell: ({ key }) => html`<td><input type="checkbox" aria-label=${`pin ${key}`} checked=${state.pins.includes(key)} onChange=${() => pin(key)} /></td>` };
  return html`<div class="table"><p class="hint">Effects are on ${index.scored}: what it loses without the unit, attributed; a mean over ${[...new Set(shown.map(one => one.images))].join(" or ")} images. A click on a header sorts.</p>
    <${Sorted} id="units" caption=${`${units.length} units`} rows=${units} most=${most} chosen=${state.selected} columns=${[unit,
      { name: "name", text: true, of: row => state.labels[row.key] ?? spoken(names.get(row.key)) }, place("in", row => row.node.mask), ...effects("scores"), ...stable,
      { name: `circuits of ${index.circuits.length}`, of: row => circuitsWith(index, row.node.site, row.node.unit) }, pinned]} />
    <${Sorted} id="edges-table" caption=${`${edges.length} edges`} rows=${edges} most=${most} columns=${[
      { name: "from", text: true, of: row => here(row.edge.from) }, { name: "to", text: true, of: row => here(row.edge.to) }, place("in", row => row.edge.mask), ...effects("weights")]} />
    ${Math.max(units.length, edges.length) > most && html`<button type="button" onClick=${() => setMost(most * 5)}>show more rows</button>`}
  </div>`;
}
