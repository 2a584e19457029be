// Images of the class: which units fire, and what the model says with and without the circuit. And one of the reader's, explained.
import { html, percent, useEffect, useMemo, usePromise } from "circuitry/view.js";
import { load } from "circuitry/data.js";
import { keyOf, siteAndUnit } from "circuitry/cut.js";
import { unitName } from "circuitry/names.js";
import { Thumbnail } from "circuitry/card.js";
import { OwnImage, useOwn } from "circuitry/own.js";

const STEPS = 15, LEAST = 0.2, NAMED = 8;
const RUNS = ["the whole model", "only the circuit", "all but the circuit"];

export function Images({ index, state, set, drawn, setFire, colourOf, names, ownFile, setOwn }) {
  const place = index.classes.indexOf(state.className);
  const there = (index.images ?? []).includes(place);
  const { value, error } = usePromise(() => (there ? Promise.all([load(`images/${place}`), load("pictures")]) : null), [place, there]);
  const [file, { pictures } = {}] = value ?? [];
  const own = useOwn(index, ownFile);
  const rows = file ? [...file.arrays.pictures].map((number, row) => ({ row, picture: pictures[number] })) : [];
  const chosen = rows.find(one => one.picture[0] === state.image);
  const looked = state.image === null ? own : null;
  const fire = useMemo(() => {
    const found = chosen ? fired(file, chosen.row) : looked?.fire;
    return found ? new Map([...found].filter(([, strength]) => strength > LEAST).sort((a, b) => b[1] - a[1])) : null;
  }, [file, state.image, there, looked?.fire]);
  useEffect(() => setFire(fire), [fire]);
  const domains = index.domains.filter(domain => state.domains.includes(domain));
  return html`<section class="images" aria-label="Images"><h2>Images of ${state.className}</h2>
    ${error && html`<p class="error">${error.message}</p>`}
    ${!there && html`<p class="hint">${index.images ? "There are no images of this class." : html`There are no images yet. They come with cards: <code>circuitry cards --circuits ${index.graphs} && circuitry explore --circuits ${index.graphs}</code>`}</p>`}
    <div class="strip">${there && domains.map(domain => html`<div class="of" style=${{ "--line": colourOf(domain) }}><h4>${domain}</h4><div class="thumbs">
      ${rows.filter(one => one.picture[3] === domain).map(({ row, picture: [id, path, , , found] }) => html`<button type="button" class="pick" key=${id} aria-pressed=${state.image === id} onClick=${() => set({ image: state.image === id ? null : id })}>
        <${Thumbnail} id=${id} text=${`${path}${found ? ", the circuit was found on it" : ", not used to find the circuit"}`} /></button>`)}
      ${!rows.some(one => one.picture[3] === domain) && html`<p class="hint">none</p>`}</div></div>`)}
      <${OwnImage} own=${own} state=${state} set=${set} setOwn=${setOwn} />
      ${chosen ? html`<${ExportedAnswers} file=${file} row=${chosen.row} index=${index} className=${state.className} />`
        : looked?.said && html`<div class="said">${looked.said.map(sentence => html`<p>${sentence}</p>`)}</div>`}
      ${fire && html`<${Fired} fire=${fire} of=${chosen ? ["units of the class fire", "a unit's largest activation"] : ["units have the largest effects on the answer", "the largest effect"]} drawn=${drawn} index=${index} state=${state} set=${set} names=${names} />`}</div>
    ${there && html`<p class="hint">${fire ? "These units are ringed; the larger the share, the thicker." : "Click an image to see which units fire on it."}</p>`}
  </section>`;
}

// How strongly each unit fires, by its key.
function fired(file, row) {
  const { sites, units, fire } = file.arrays;
  return new Map([...units].map((unit, i) => [keyOf(sites[i], unit), fire[row * units.length + i] / STEPS]));
}

function Fired({ fire, of: [what, largest], drawn, index, state, set, names }) {
  const here = new Set(drawn.nodes.map(node => node.key)), [there, others] = [true, false].map(is => [...fire].filter(([key]) => here.has(key) === is));
  const shown = [...there, ...others].slice(0, NAMED).map(([key, strength]) => {
    const { site, unit } = siteAndUnit(key);
    return { name: unitName(index, site, unit), strength };
  });
  return html`<div class="fired"><h4>${fire.size} ${what}, ${there.length} of them drawn; shares are of ${largest}</h4><ol>${shown.map(({ name, strength }) => html`<li><button type="button" onClick=${() => set({ selected: name, tab: "unit" })}>${name}</button> ${percent(strength)} <span class="faint">${state.labels[name] ?? names.get(name)?.name ?? ""}</span></li>`)}</ol></div>`;
}

function ExportedAnswers({ file, row, index, className }) {
  const { answers, shares } = file.arrays;
  if (!answers) return html`<p class="hint">Predictions were not exported. They need the model: <code>circuitry explore --circuits ${index.graphs} --with-model</code></p>`;
  const [, runs, top] = answers.shape;
  if (Number.isNaN(shares[row * runs * top])) return html`<p class="hint">The model was not asked about this image.</p>`;
  const of = run => Array.from({ length: top }, (_, k) => {
    const at = (row * runs + run) * top + k;
    return [index.predicted[answers[at]], shares[at]];
  });
  return html`<${Answers} answers=${RUNS.map((_, run) => of(run))} ablatedTo=${index.ablatedTo} className=${className} />`;
}

// The likeliest classes of each run, with their shares.
function Answers({ answers, ablatedTo, className }) {
  return html`<table class="answers"><caption>predicted; what is left out is ablated to ${ablatedTo}</caption><tbody>${answers.map((likeliest, run) => html`<tr><th scope="row">${RUNS[run]}</th>
    ${likeliest.map(([name, share]) => html`<td class=${name === className ? "hit" : ""}>${name} ${percent(share)}</td>`)}</tr>`)}</tbody></table>`;
}
