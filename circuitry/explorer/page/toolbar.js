// The line on top: which class, which domains, how it is drawn, search, and what to do with it.
import { html, useEffect, useMemo, useRef, useState } from "circuitry/view.js";
import { KINDS } from "circuitry/exports.js";
import { searchUnits } from "circuitry/names.js";
import { keyOf } from "circuitry/cut.js";
import { isServed } from "circuitry/served.js";

const MOST = 30;

export function Toolbar({ index, state, set, glyphOf, colourOf, present, save, act, names, picture }) {
  const toggle = domain => set(now => {
    const domains = now.domains.includes(domain) ? now.domains.filter(other => other !== domain) : index.domains.filter(other => other === domain || now.domains.includes(other));
    return { domains: domains.length ? domains : now.domains, twins: null };
  });
  return html`<header class="toolbar">
    <h1 title=${index.title}>${index.title}</h1>
    ${index.report && !isServed && html`<a id="report" href=${index.report}>report</a>`}
    <label>class <select id="class" value=${state.className} onChange=${event => set({ className: event.target.value, image: null })}>${index.classes.map(name => html`<option value=${name}>${name}</option>`)}</select></label>
    <div class="chips" role="group" aria-label="Domains">${index.domains.map(domain => html`<button type="button" class="chip" aria-pressed=${state.domains.includes(domain)} disabled=${!present(domain)}
      title=${present(domain) ? "" : "no circuit of this class"} style=${{ "--line": colourOf(domain) }} onClick=${() => toggle(domain)}><span class="mark" aria-hidden="true">${glyphOf(domain)}</span>${domain}</button>`)}</div>
    <div class="chips" role="group" aria-label="View">${[["overlay", "overlay"], ["rows", "side by side"], ["table", "table"]].map(([view, title]) => html`<button type="button" class="chip" id=${`view-${view}`} aria-pressed=${state.view === view} onClick=${() => set({ view })}>${title}</button>`)}</div>
    <${Search} index=${index} state=${state} set=${set} names=${names} picture=${picture} />
    <div class="buttons">
      <button type="button" id="undo" title="undo (z)" aria-label="undo" onClick=${act.undo}>↶</button>
      <details class="menu-of" id="export"><summary>export</summary><div class="menu">${KINDS.map(([kind, title]) => html`<button type="button" data-kind=${kind} disabled=${(kind === "png" || kind === "svg") && state.view === "table"} onClick=${() => save(kind)}>${title}</button>`)}
        <button type="button" id="save-state" onClick=${act.saveState}>state file</button><button type="button" id="copy-link" onClick=${act.copyLink}>copy the link</button>
        <label class="file">open a state file<input id="open-state" type="file" accept=".json,application/json" onChange=${event => { act.openFile(event.target.files[0]); event.target.value = ""; }} /></label></div></details>
      <button type="button" id="help" title="help (?)" onClick=${act.help}>?</button>
    </div>
  </header>`;
}

function Search({ index, state, set, names, picture }) {
  const [open, setOpen] = useState(false);
  const box = useRef();
  const { found, total } = useMemo(() => (open ? searchUnits(index, names, state, state.query, MOST) : { found: [], total: 0 }), [open, index, names, state.query, state.labels, state.notes]);
  useEffect(() => {
    const close = event => box.current?.contains(event.target) || setOpen(false);
    document.addEventListener("pointerdown", close);
    return () => document.removeEventListener("pointerdown", close);
  }, []);
  return html`<div class="search" ref=${box} role="search">
    <input id="search" type="search" aria-label="Search units by number, label, name or note" placeholder="search units  /" value=${state.query} onFocus=${() => setOpen(true)}
      onInput=${event => { setOpen(true); set({ query: event.target.value }, "query"); }} onKeyDown=${event => { if (event.key === "Escape") { setOpen(false); event.target.blur(); } if (event.key === "Enter" && found.length) { set({ selected: found[0].name, tab: "unit" }); setOpen(false); event.target.blur(); } }} />
    ${open && state.query.trim() !== "" && html`<div class="results"><p class="hint">${total} units${total > found.length ? `, the first ${found.length}` : ""}</p><ul id="results">${found.map(one => html`<li key=${one.name}><button type="button" onClick=${() => { set({ selected: one.name, tab: "unit" }); setOpen(false); }}>
      <b>${one.name}</b> ${state.labels[one.name] ?? names.get(one.name)?.name ?? ""} <span class="faint">in ${one.circuits} of ${index.circuits.length} circuits${picture.byKey.has(keyOf(one.site, one.unit)) ? ", in the cut" : ""}</span></button></li>`)}</ul></div>`}
  </div>`;
}

export function Help({ index, close }) {
  const keys = [["j k", "next, previous unit of the site"], ["[ ]", "previous, next site"], ["/", "search"], ["p", "pin or unpin the unit"], ["g", "group the pinned units"], ["n", "write a note"], ["v", "next view"], ["z, shift z", "undo, redo"], ["Esc", "close, then let go of the unit"], ["?", "this help"]];
  const dialog = useRef();
  useEffect(() => dialog.current.showModal(), []);
  return html`<dialog ref=${dialog} aria-label="Help" onClose=${close}>
    <form method="dialog" class="line"><h2 class="grow">${index.title}</h2><button aria-label="close">×</button></form>
    <p>Each column is a site, each mark a unit of a circuit, and each line an edge. A domain has one mark and colour everywhere. With two domains, units of the first alone are in the band on top, shared ones in the middle (⬢), units of the second alone below. With more, ⬢ is in all of them, ⬡ in several.</p>
    <p>A cut is the strongest units of every site. Beside the sliders stands what exactly this cut was measured to do on images that the circuits were not found on: how many images of the class get it (right), how many others (false), how much of the answers is recovered (KL); selectivity 1 tells the class from others as well as the whole model, 0 not at all. A cut that does no better than random units or another class's circuit is no mechanism of the class.</p>
    <p>The page keeps the ${index.edgesPerNode} strongest edges into a unit; scores have three digits, those below 1/16,000 of the largest fewer.</p>
    <table>${keys.map(([key, text]) => html`<tr><th scope="row"><kbd>${key}</kbd></th><td>${text}</td></tr>`)}</table>
    <details><summary>What made it</summary><dl>${Object.entries(index.made).map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl></details>
  </dialog>`;
}
