// The card of a unit: what it does in all circuits, its neighbours here, and what it responds to.
import { html, number, percent, useEffect, usePromise, useRef, useState } from "circuitry/view.js";
import { load } from "circuitry/data.js";
import { keyOf } from "circuitry/cut.js";
import { Histograms } from "circuitry/charts.js";
import { circuitsWith, splitName, unitName } from "circuitry/names.js";
import { placeName } from "circuitry/table.js";
import { Live } from "circuitry/live.js";

const STEPS = 31, NONE = 0xffffffff;

export function Card(given) {
  if (!given.state.selected) return html`<section class="card" aria-label="Unit"><h2>Unit</h2><p class="hint">Click a mark in the drawing, or press <kbd>]</kbd> and <kbd>j</kbd>: here come the images that the unit responds to, its effects, and its neighbours.</p></section>`;
  return html`<${OneUnit} ...${given} />`;
}

function OneUnit({ index, state, set, shown, picture, names, colourOf, pin, focusNote }) {
  const name = state.selected, { site, unit } = splitName(index, name);
  const node = picture.byKey.get(keyOf(site, unit));
  const pinned = state.pins.includes(name);
  const note = useRef();
  useEffect(() => { if (focusNote) note.current?.focus(); }, [focusNote]);
  const write = (field, text, tag) => set(now => {
    const { [name]: _, ...others } = now[field];
    return { [field]: text ? { ...others, [name]: text } : others };
  }, `${tag}/${name}`);
  const tested = names.get(name), card = useCard(index, site, unit);
  return html`<section class="card" aria-label=${`Unit ${name}`}>
    <h2>${name} ${tested && html`<span class=${tested.weak ? "name weak" : "name"} title=${tested.weak ? "fits no better than chance" : "tested on other images"}>“${tested.name}”${tested.weak ? " (weak name)" : ""}${tested.style ? ", a style unit" : ""}</span>`}</h2>
    <div class="line">
      <button type="button" id="pin" aria-pressed=${pinned} onClick=${() => pin(name)}>${pinned ? "unpin" : "pin"} <kbd>p</kbd></button>
      <label class="grow">label <input id="label" type="text" value=${state.labels[name] ?? ""} placeholder="your own" onInput=${event => write("labels", event.target.value, "label")} /></label>
      <button type="button" onClick=${() => set({ selected: null })} aria-label="close the card">×</button>
    </div>
    ${index.cards
      ? html`<p class=${card.error ? "error" : "hint"}>${card.error?.message ?? card.hint}</p>${card.cards && html`<${Top} ...${card} colourOf=${colourOf} first=${state.domains} />`}`
      : html`<div class="missing"><h3>What it responds to</h3><p class="hint">There are no cards yet. To make them:</p><pre>circuitry cards --circuits ${index.graphs} && circuitry explore --circuits ${index.graphs}</pre></div>`}
    <h3>Effect on ${index.scored}</h3>
    ${node
      ? html`<p>${node.scores.map((score, c) => html`<span class="score" style=${{ "--line": colourOf(shown[c]?.domain) }}>${shown[c]?.label}: <b>${number(score)}</b>${node.stability[c] === null ? "" : `, found again in ${percent(node.stability[c])} of draws`}</span> `)}</p>`
      : html`<p class="hint">This unit is not in the cut that is drawn.</p>`}
    <${Everywhere} index=${index} site=${site} unit=${unit} state=${state} set=${set} />
    ${card.cards && html`<${Exact} index=${index} ...${card} />`}
    <${Live} className=${state.className} units=${[name]} />
    ${node && html`<${Neighbours} node=${node} index=${index} set=${set} names=${names} shown=${shown} labels=${state.labels} />`}
    <h3>Note</h3>
    <textarea id="note" ref=${note} rows="2" aria-label="note" placeholder="a note on this unit" value=${state.notes[name] ?? ""} onInput=${event => write("notes", event.target.value, "note")}></textarea>
    ${card.cards && html`<${Statistics} ...${card} words=${index.words} colourOf=${colourOf} />`}
  </section>`;
}

function Neighbours({ index, node, set, names, shown, labels }) {
  const list = (title, edges, other) => {
    const sorted = [...edges].sort((a, b) => Math.max(...b.weights) - Math.max(...a.weights)).slice(0, 8);
    return html`<table><caption>${title} (${edges.length})</caption>${sorted.length > 0 && html`<thead><tr><th scope="col">unit</th>${shown.map(one => html`<th scope="col">${one.label}</th>`)}</tr></thead>`}<tbody>${sorted.map(edge => {
      const end = other(edge), name = unitName(index, end.site, end.unit);
      return html`<tr><th scope="row"><button type="button" onClick=${() => set({ selected: name })}>${name}</button><span class="called">${labels[name] ?? names.get(name)?.name ?? ""}</span></th>${edge.weights.map(weight => html`<td class="n">${number(weight)}</td>`)}</tr>`;
    })}</tbody></table>`;
  };
  if (!node.in.length && !node.out.length) return html`<p class="hint">No edge of this cut joins it to another unit.</p>`;
  return html`<div class="neighbours"><h3>Units that it acts through, by score of the edge</h3>${list("strongest in", node.in, edge => edge.from)}${list("strongest out", node.out, edge => edge.to)}</div>`;
}

function Everywhere({ index, site, unit, state, set }) {
  const { value, error } = usePromise(() => load(`site/${site}`), [site]);
  const count = circuitsWith(index, site, unit);
  if (error) return html`<p class="error">${error.message}</p>`;
  if (index.circuits.length === 1) return null;
  if (!value) return html`<p class="hint">In ${count} of ${index.circuits.length} circuits.</p>`;
  const { units, effects, scale, members } = value.arrays;
  const row = units.indexOf(unit);
  if (row < 0) return html`<p class="hint">In none of ${index.circuits.length} circuits.</p>`;
  const n = index.circuits.length, bytes = members.shape[1];
  const cells = new Map(index.circuits.map(([c, d], k) => {
    const raw = effects[row * n + k];
    return [`${c}/${d}`, { effect: raw === -128 ? null : (raw / STEPS) * scale[row], share: raw / STEPS, member: (members[row * bytes + (k >> 3)] >> (7 - (k & 7))) & 1 }];
  }));
  const strongest = index.circuits.map(([c, d]) => ({ c, d, ...cells.get(`${c}/${d}`) })).filter(one => one.effect !== null).sort((a, b) => Math.abs(b.effect) - Math.abs(a.effect)).slice(0, 3);
  const high = index.classes.length > 20 ? 7 : 12, left = 6 + Math.min(110, 5 * Math.max(...index.classes.map(name => name.length)));
  const wide = (290 - left) / index.domains.length, lean = wide < 5 * Math.max(...index.domains.map(name => name.length));
  const top = lean ? 46 : 14;
  return html`<div><p>In <b>${count}</b> of ${n} circuits. Strongest: ${strongest.map((one, i) => html`${i ? ", " : ""}${index.classes[one.c]} in ${index.domains[one.d]} ${number(one.effect, 2)}`)}.</p>
    <svg class="effects" viewBox=${`0 0 300 ${index.classes.length * high + top + 2}`} role="img" aria-label="Attributed effect on each class in each domain; a dot marks circuits with the unit">
      ${index.domains.map((domain, d) => html`<text transform=${`translate(${left + (d + 0.5) * wide} ${top - 4})${lean ? " rotate(-40)" : ""}`} text-anchor=${lean ? "start" : "middle"}>${domain}</text>`)}
      ${index.classes.map((className, c) => html`<g>
        ${high > 8 && html`<text x=${left - 4} y=${top + c * high + 9} text-anchor="end" class=${className === state.className ? "this" : ""}>${className.slice(0, 22)}</text>`}
        ${index.domains.map((domain, d) => {
          const cell = cells.get(`${c}/${d}`);
          if (!cell || cell.effect === null) return null;
          return html`<g class="cell" onClick=${() => set({ className, domains: state.domains.includes(domain) ? state.domains : [domain], twins: null })}>
            <rect x=${left + d * wide} y=${top + c * high} width=${wide - 1} height=${high - 1} class=${cell.share < 0 ? "against" : "for"} fill-opacity=${Math.abs(cell.share).toFixed(2)}><title>${`${className} in ${domain}: ${number(cell.effect)}${cell.member ? ", in the circuit" : ""}`}</title></rect>
            ${cell.member ? html`<circle cx=${left + (d + 0.5) * wide} cy=${top + c * high + (high - 1) / 2} r=${high > 8 ? 2 : 1.4} />` : null}</g>`;
        })}</g>`)}
    </svg></div>`;
}

// What only cards have: {cards, row, pictures}, or a hint or an error.
function useCard(index, site, unit) {
  const there = index.cards?.includes(site);
  const { value, error } = usePromise(() => (there ? Promise.all([load(`cards/${site}`), load("pictures")]) : null), [site, there]);
  if (!there || error || !value) return { error, hint: there ? "The card is being loaded." : "This site has no cards." };
  const [cards, { pictures }] = value, row = cards.arrays.units.indexOf(unit);
  return row < 0 ? { hint: "This unit has no card: make the cards again for these circuits." } : { cards, row, pictures };
}

function Top({ cards, row, pictures, colourOf, first }) {
  const [by, setBy] = useState("activation"), [large, enlarge] = useState(null);
  const kinds = [["activation", "by activation"], ["effect", "by effect on the class"], ["matched", "the same thing in each domain"]].filter(([kind]) => cards.arrays[`${kind}/pictures`]);
  const kind = kinds.some(([name]) => name === by) ? by : kinds[0][0];
  return html`<div class="line"><h3>Top images</h3><select id="top-by" aria-label="Which images" value=${kind} onChange=${event => setBy(event.target.value)}>
      ${kinds.map(([name, title]) => html`<option value=${name}>${title}</option>`)}</select></div>
    <${TopImages} cards=${cards} row=${row} by=${kind} pictures=${pictures} colourOf=${colourOf} first=${first} enlarge=${enlarge} />
    ${kind === "matched" && html`<p class="hint">Each column is one thing, of the top images of the domains in turn; numbers are activations. “Not seen”: it is not among the images that cards were made of.</p>`}
    ${large && html`<dialog class="enlarged" ref=${element => element?.open === false && element.showModal()} onClose=${() => enlarge(null)} onClick=${() => enlarge(null)} aria-label="Image">
      <div class="line"><${Thumbnail} ...${large} heat=${null} />${large.heat && html`<${Thumbnail} ...${large} />`}</div><p>${large.text}${large.heat ? ". Orange: where the unit is active." : "."} A click closes it.</p></dialog>`}`;
}

const slice = (array, row) => {
  const size = array.length / array.shape[0];
  return array.subarray(row * size, (row + 1) * size);
};

function histogramRows(cards, row) {
  const bins = cards.arrays.histogram.shape[2], all = slice(cards.arrays.histogram, row);
  return cards.domains.map((domain, d) => ({ domain, counts: [...all.subarray(d * bins, (d + 1) * bins)] }));
}

function Statistics({ cards, row, words, colourOf }) {
  const name = cards.names[row];
  return html`<div><h3>Activations</h3>
    <${Histograms} label="Images by activation, logarithmic counts" colourOf=${colourOf} rows=${histogramRows(cards, row)} edges=${slice(cards.arrays.edges, row)} />
    ${name && html`<h3>How well the name fits</h3>
    <p>“${name.name}”: correlation <b>${number(name.correlation, 2)}</b>, AUPRC ${number(name.auprc, 2)} on images that it was not fitted on. Chance ${number(name.chance, 2)}${name.weak ? html`: <b>weak</b>` : ""}.${" "}
      ${name.runnerUp && html`Runner-up “${name.runnerUp}” ${number(name.runnerUpCorrelation, 2)}. `}${Object.entries(name.references).map(([kind, [label, value]]) => html`${kind} “${label}” ${number(value, 2)}. `)}</p>
    <p class="faint">${Object.entries(name.byDomain).map(([domain, [correlation]]) => `${domain} ${number(correlation, 2)}`).join(", ")}</p>`}
    ${words && html`<p class="hint">${words}</p>`}</div>`;
}

// Images by domain, those of the domains that are drawn first and large.
function TopImages({ cards, row, by, pictures, colourOf, first, enlarge }) {
  const take = name => cards.arrays[`${by}/${name}`];
  const most = take("pictures").shape[2], [high, wide] = take("grid") ?? [0, 0];
  const numbers = slice(take("pictures"), row), values = slice(take("values"), row), heat = high && slice(take("heat"), row);
  const bytes = Math.ceil((high * wide) / 2);
  const shown = k => by === "matched" && cards.domains.some((_, d) => numbers[d * most + k] !== NONE);  // of what is not in all domains, a place stays empty
  const places = cards.domains.map((_, d) => d), drawn = d => first.includes(cards.domains[d]);
  return html`<div class="top">${[...places.filter(drawn), ...places.filter(d => !drawn(d))].map(d => html`<div key=${d} class=${drawn(d) ? "of large" : "of"} style=${{ "--line": colourOf(cards.domains[d]) }}><h4>${cards.domains[d]}</h4>
    <div class="thumbs">${Array.from({ length: most }, (_, k) => {
      const at = d * most + k;
      if (numbers[at] === NONE) return shown(k) ? html`<figure key=${k}><span class="thumb"><span class="gone">not seen</span></span></figure>` : null;
      const [id, path, className, , found] = pictures[numbers[at]];
      const image = { id, text: `${className} in ${cards.domains[d]}, ${by === "effect" ? "effect" : "activation"} ${number(values[at], 2)}${found ? "" : ", not used to find the circuit"}: ${path}`, heat: high ? heat.subarray(at * bytes, (at + 1) * bytes) : null, high, wide };
      return html`<figure key=${id}><button type="button" class="zoom" onClick=${() => enlarge(image)}><${Thumbnail} ...${image} /></button>
        <figcaption>${by === "matched" ? "" : className} ${number(values[at], 2)}</figcaption></figure>`;
    })}${by !== "matched" && numbers[d * most] === NONE && html`<p class="hint">none</p>`}</div></div>`)}</div>`;
}

export function Thumbnail({ id, text, heat, high, wide }) {
  const [gone, setGone] = useState(false);
  return html`<span class="thumb">${gone
    ? html`<span class="gone" title=${text}>image is missing</span>`
    : html`<img src=${`thumbnails/${id}.webp`} alt=${text} title=${text} width="160" height="160" loading="lazy" onError=${() => setGone(true)} />`}
    ${heat && html`<${Heat} heat=${heat} high=${high} wide=${wide} />`}</span>`;
}

function Heat({ heat, high, wide }) {
  const canvas = useRef();
  useEffect(() => {
    const context = canvas.current.getContext("2d");
    const image = context.createImageData(wide, high);
    for (let i = 0; i < high * wide; i++) {
      const strength = i % 2 ? heat[i >> 1] & 15 : heat[i >> 1] >> 4;
      image.data.set([255, 120, 0, strength * 10], i * 4);
    }
    context.putImageData(image, 0, 0);
  }, [heat]);
  return html`<canvas class="heat" ref=${canvas} width=${wide} height=${high} aria-hidden="true"></canvas>`;
}

function Exact({ index, cards, row }) {
  const { exactCells, exactCounts, exactEffects } = cards.arrays;
  const width = cards.exact.length + 1;
  let first = 0;
  for (let i = 0; i < row; i++) first += exactCounts[i];
  const cells = Array.from({ length: exactCounts[row] }, (_, k) => {
    const cell = exactCells[first + k], at = (first + k) * width;
    return { className: cards.classes[Math.floor(cell / cards.domains.length)], domain: cards.domains[cell % cards.domains.length], attributed: exactEffects[at], exact: cards.exact.map((_, i) => exactEffects[at + 1 + i]) };
  });
  if (!cells.length) return html`<p class="hint">No exact effects were measured of this unit.</p>`;
  const measured = cards.exact.map((_, i) => i).filter(i => cells.some(cell => Number.isFinite(cell.exact[i])));
  cells.sort((a, b) => Math.abs(b.attributed) - Math.abs(a.attributed));
  const differs = (a, b) => Number.isFinite(a) && Number.isFinite(b) && a * b < 0;
  return html`<div><h3>Exact effects, measured</h3><table class="exact"><thead><tr><th scope="col">class, domain</th><th scope="col" title=${`by ${cards.attributedLike}`}>attributed</th>${measured.map(i => html`<th scope="col">${cards.exact[i]}</th>`)}</tr></thead>
    <tbody>${cells.slice(0, 12).map(cell => html`<tr><th scope="row">${cell.className}, ${cell.domain}</th><td>${number(cell.attributed, 2)}</td>
      ${measured.map(i => cell.exact[i]).map(value => html`<td class=${differs(value, cell.attributed) ? "differs" : ""}>${number(value, 2)}${differs(value, cell.attributed) ? " ≠" : ""}</td>`)}</tr>`)}</tbody></table>
    <p class="hint">What the class's metric loses when the unit is put to zero, to its mean, or to its value in other domains; attributed are effects on ${index.scored}. ≠ marks another sign than the attributed effect (${cards.attributedLike}).${cells.length > 12 ? ` The strongest 12 of ${cells.length}.` : ""}</p></div>`;
}
