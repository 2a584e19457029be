// Pins, groups and notes: what the reader keeps.
import { html, number, useEffect, useRef, useState } from "circuitry/view.js";
import { keyOf } from "circuitry/cut.js";
import { splitName } from "circuitry/names.js";
import { Live } from "circuitry/live.js";

export function Shelf({ index, state, set, picture, shown, pin, lightGroup, naming, startNaming }) {
  const notes = Object.entries(state.notes);
  return html`<section class="shelf" aria-label="Pins, groups and notes">
    <h2>Kept</h2>
    <h3>Pins (${state.pins.length})</h3>
    <ul id="pins">${state.pins.map(name => html`<li key=${name}><button type="button" onClick=${() => set({ selected: name, tab: "unit" })}>${name}</button> ${state.labels[name] ?? ""}
      <button type="button" class="small" aria-label=${`unpin ${name}`} onClick=${() => pin(name)}>×</button></li>`)}</ul>
    ${!state.pins.length && html`<p class="hint">Pin units with <kbd>p</kbd>; group the pinned ones with <kbd>g</kbd>.</p>`}
    ${state.pins.length > 0 && !naming && html`<button type="button" id="group" onClick=${startNaming}>group the pinned units <kbd>g</kbd></button>`}
    ${naming && html`<${NameGroup} state=${state} set=${set} done=${naming} />`}
    ${state.groups.length > 0 && html`<h3>Groups (${state.groups.length})</h3>`}
    <ul id="groups">${state.groups.map((group, place) => html`<li key=${`${group.name}/${place}`}>
      <button type="button" onClick=${() => lightGroup(group)}>${group.name}</button> ${group.units.length} units, ${shown.map((one, c) => `${one.label}: ${sum(index, picture, group, c)}`).join("; ")}
      <button type="button" class="small" aria-label=${`ungroup ${group.name}`} onClick=${() => set({ groups: state.groups.filter(other => other !== group) })}>×</button>
      ${group.units.length > 0 && html`<${Live} className=${state.className} units=${group.units} />`}</li>`)}</ul>
    ${state.groups.length > 0 && html`<p class="hint">Sums of attributed scores. What a group does together is not their sum: it has to be measured with the model.</p>`}
    ${notes.length > 0 && html`<h3>Notes (${notes.length})</h3>`}
    <ul id="notes">${notes.map(([name, text]) => html`<li key=${name}><button type="button" onClick=${() => set({ selected: name, tab: "unit" })}>${name}</button> ${text}</li>`)}</ul>
  </section>`;
}

function NameGroup({ state, set, done }) {
  const [name, setName] = useState(""), field = useRef();
  useEffect(() => field.current.focus(), []);
  const submit = event => {
    event.preventDefault();
    if (name.trim()) set({ groups: [...state.groups, { name: name.trim(), units: state.pins }], pins: [] });
    done();
  };
  return html`<form class="line" onSubmit=${submit}><label class="grow">group of ${state.pins.length}
    <input id="group-name" type="text" ref=${field} value=${name} onInput=${event => setName(event.target.value)} onKeyDown=${event => event.key === "Escape" && done()} /></label>
    <button type="submit">name it</button></form>`;
}

function sum(index, picture, group, c) {
  let total = 0, there = 0;
  for (const name of group.units) {
    const { site, unit } = splitName(index, name);
    const score = picture.byKey.get(keyOf(site, unit))?.scores[c];
    if (score === null || score === undefined) continue;
    total += score;
    there++;
  }
  return there ? `${number(total)} of ${there}` : "none here";
}
