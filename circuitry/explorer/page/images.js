// Held-out images of the class: which units fire on one, and what the model says with and without the circuit.
import { html, percent, useEffect, usePromise } from "circuitry/view.js";
import { load } from "circuitry/data.js";
import { keyOf } from "circuitry/cut.js";
import { Thumbnail } from "circuitry/card.js";

const STEPS = 15;

export function Images({ index, state, set, setFire, colourOf }) {
  const place = index.classes.indexOf(state.className);
  const there = (index.images ?? []).includes(place);
  const { value, error } = usePromise(() => (there ? Promise.all([load(`images/${place}`), load("pictures")]) : null), [place, there]);
  const [file, { pictures } = {}] = value ?? [];
  const rows = file ? [...file.arrays.pictures].map((number, row) => ({ row, picture: pictures[number] })) : [];
  const chosen = rows.find(one => one.picture[0] === state.image);
  useEffect(() => {
    setFire(chosen ? fired(file, chosen.row) : null);
  }, [file, state.image, there]);
  if (!there) {
    return html`<section class="images" aria-label="Images"><h2>Images</h2><p class="hint">${index.images ? "There are no images of this class." : html`There are no images yet. Make cards with <code>circuitry cards --circuits ${index.graphs} --out …</code>, and export again.`}</p></section>`;
  }
  if (error) return html`<section class="images"><p class="error">${error.message}</p></section>`;
  const domains = index.domains.filter(domain => state.domains.includes(domain));
  return html`<section class="images" aria-label="Images"><h2>Images of ${state.className}</h2>
    <div class="strip">${domains.map(domain => html`<div class="of" style=${{ "--line": colourOf(domain) }}><h4>${domain}</h4><div class="thumbs">
      ${rows.filter(one => one.picture[3] === domain).map(({ row, picture: [id, path, , , found] }) => html`<button type="button" class="pick" key=${id} aria-pressed=${state.image === id} onClick=${() => set({ image: state.image === id ? null : id })}>
        <${Thumbnail} id=${id} text=${`${path}${found ? ", the circuit was found on it" : ", held out"}`} /></button>`)}
      ${!rows.some(one => one.picture[3] === domain) && html`<p class="hint">none</p>`}</div></div>`)}
      ${chosen && html`<${Answers} file=${file} row=${chosen.row} index=${index} className=${state.className} />`}</div>
    <p class="hint">${chosen ? "Units that fire on it are ringed; the stronger, the thicker." : "Click an image to see which units fire on it."}</p>
  </section>`;
}

function fired(file, row) {
  const { sites, units, fire } = file.arrays;
  const found = new Map();
  for (let i = 0; i < units.length; i++) {
    const strength = fire[row * units.length + i] / STEPS;
    if (strength > 0.2) found.set(keyOf(sites[i], units[i]), strength);
  }
  return found;
}

function Answers({ file, row, index, className }) {
  const { answers, shares } = file.arrays;
  if (!answers) return html`<p class="hint">Predictions were not exported: give circuitry explore the model.</p>`;
  const [, runs, top] = answers.shape;
  if (Number.isNaN(shares[row * runs * top])) return html`<p class="hint">The model was not asked about this image.</p>`;
  const titles = ["the whole model", "only the circuit", "all but the circuit"];
  return html`<table class="answers"><caption>predicted; what is left out is ablated to ${index.ablatedTo}</caption><tbody>${titles.slice(0, runs).map((title, run) => html`<tr><th scope="row">${title}</th>
    ${Array.from({ length: top }, (_, k) => {
      const at = (row * runs + run) * top + k, name = index.predicted[answers[at]];
      return html`<td class=${name === className ? "hit" : ""}>${name} ${percent(shares[at])}</td>`;
    })}</tr>`)}</tbody></table>`;
}
