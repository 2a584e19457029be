// The direct effect of heads, MLPs and pooling pairs on any word: a dot product of two vectors.
import { html, number, useMemo, usePromise, useState } from "circuitry/view.js";
import { load } from "circuitry/data.js";
import { splitName } from "circuitry/names.js";

const SHOWN = 12, MOST_WORDS = 5;

export function Words({ index, state, set }) {
  const place = index.classes.indexOf(state.className);
  const there = (index.direct ?? []).includes(place);
  const [opened, open] = useState(null);
  const { value, error } = usePromise(() => (there ? Promise.all([load("words"), load(`direct/${place}`)]) : null), [place, there]);
  if (!index.predicted) return html`<div><h3>Direct effects on words</h3><p class="hint">They need the model: <code>circuitry explore --circuits ${index.graphs} --with-model</code></p></div>`;
  if (!there) return html`<div><h3>Direct effects on words</h3><p class="hint">${index.directReason || "There are none for this class."}</p></div>`;
  if (error) return html`<p class="error">${error.message}</p>`;
  const [{ words, arrays: { texts } } = { words: [], arrays: {} }, direct] = value ?? [];
  const row = direct ? direct.components.indexOf(opened) : -1;
  const word = words.includes(state.word) ? state.word : words.includes(state.className) ? state.className : words[0];
  return html`<div class="words"><h3>Direct effects on a word</h3>
    <label class="line">word <input id="word" type="text" list="vocabulary" class="grow" placeholder=${word ?? ""} value=${state.word} onInput=${event => set({ word: event.target.value }, "word")} /></label>
    <datalist id="vocabulary">${words.map(one => html`<option value=${one}></option>`)}</datalist>
    ${direct && html`<${Effects} direct=${direct} text=${textOf(texts, words.indexOf(word))} word=${word} domains=${state.domains} className=${state.className} opened=${opened} open=${open} />`}
    ${row >= 0 && html`<${Component} index=${index} direct=${direct} row=${row} words=${words} texts=${texts} state=${state} set=${set} />`}
    ${state.word && !words.includes(state.word) && value && html`<p class="hint">“${state.word}” is not in the vocabulary of ${words.length} words.</p>`}</div>`;
}

const textOf = (texts, row) => texts.subarray(row * texts.shape[1], (row + 1) * texts.shape[1]);

// The effect of each component on a text, by domain.
export function directEffects(direct, text) {
  const { vectors } = direct.arrays;
  const [domains, components, d] = vectors.shape;
  return Array.from({ length: components }, (_, p) => ({
    name: direct.components[p],
    effects: Array.from({ length: domains }, (_, k) => {
      let sum = 0;
      const first = (k * components + p) * d;
      for (let i = 0; i < d; i++) sum += vectors[first + i] * text[i];
      return sum;
    }),
  }));
}

// The words that a component adds most to, and those that it takes most from.
export function strongestWords(direct, row, domain, words, texts) {
  const d = texts.shape[1], first = (direct.domains.indexOf(domain) * direct.components.length + row) * d;
  const effects = words.map((word, w) => {
    let sum = 0;
    for (let i = 0; i < d; i++) sum += direct.arrays.vectors[first + i] * texts[w * d + i];
    return { word, effect: sum };
  });
  effects.sort((a, b) => b.effect - a.effect);
  return { most: effects.slice(0, MOST_WORDS), least: effects.slice(-MOST_WORDS).reverse() };
}

// The card of a head, an MLP or a pooling pair: its words in each domain, and the unit that it reads, if it is a pair.
function Component({ index, direct, row, words, texts, state, set }) {
  const name = direct.components[row], unit = name.slice(name.lastIndexOf(" ") + 1);
  const rows = useMemo(
    () => state.domains.filter(domain => direct.domains.includes(domain)).map(domain => ({ domain, ...strongestWords(direct, row, domain, words, texts) })),
    [direct, row, state.domains],
  );
  const list = some => some.map(({ word, effect }) => `${word} ${number(effect, 2)}`).join(", ");
  return html`<section class="component" aria-label=${`Component ${name}`}><h4>${name}</h4>
    <table><thead><tr><th scope="col">in</th><th scope="col">adds most to</th><th scope="col">takes most from</th></tr></thead>
      <tbody>${rows.map(({ domain, most, least }) => html`<tr><th scope="row">${domain}</th><td>${list(most)}</td><td>${list(least)}</td></tr>`)}</tbody></table>
    ${splitName(index, unit).site >= 0 && html`<button type="button" onClick=${() => set({ selected: unit, tab: "unit" })}>card of ${unit}</button>`}</section>`;
}

function Effects({ direct, text, word, domains, className, opened, open }) {
  const chosen = domains.filter(domain => direct.domains.includes(domain));
  const at = chosen.map(domain => direct.domains.indexOf(domain));
  const rows = directEffects(direct, text).map(row => ({ name: row.name, effects: at.map(k => row.effects[k]) }));
  rows.sort((a, b) => Math.max(...b.effects.map(Math.abs)) - Math.max(...a.effects.map(Math.abs)));
  return html`<table id="direct"><thead><tr><th scope="col">adds to “${word}”</th>${chosen.map(domain => html`<th scope="col">${domain}</th>`)}</tr></thead>
    <tbody>${rows.slice(0, SHOWN).map(row => html`<tr><th scope="row" title=${row.name}><button type="button" aria-expanded=${opened === row.name} onClick=${() => open(opened === row.name ? null : row.name)}>${row.name}</button></th>${row.effects.map(effect => html`<td class="n">${number(effect, 2)}</td>`)}</tr>`)}</tbody></table>
    <p class="hint">Cosine logit that each component adds directly, mean over images of ${className}; of the ${direct.components.length} strongest components of the class.</p>`;
}
