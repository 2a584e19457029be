// The page: reads the index, keeps the state, and joins the panels.
import { html, number, render, useEffect, useMemo, usePromise, useRef, useState } from "circuitry/view.js";
import { DataError, load } from "circuitry/data.js";
import { cutSeries, keyOf, overlay, readSeries, strongest } from "circuitry/cut.js";
import { TABS, VIEWS, asFile, checkedState, createStore, fromFile, fromHash, initialState, unknown } from "circuitry/state.js";
import { firstState, shelfOf, useSaved } from "circuitry/saved.js";
import { isLive, isServed } from "circuitry/served.js";
import { lookOf, readNames, splitName, unitName } from "circuitry/names.js";
import { trust } from "circuitry/measured.js";
import { unitsOfSite } from "circuitry/layout.js";
import { download, exported } from "circuitry/exports.js";
import { Graph, useDark } from "circuitry/graph.js";
import { Table, placeName } from "circuitry/table.js";
import { Toolbar, Help } from "circuitry/toolbar.js";
import { Controls, ThisCut } from "circuitry/controls.js";
import { Lost } from "circuitry/lost.js";
import { Ways } from "circuitry/ways.js";
import { Card } from "circuitry/card.js";
import { Shelf } from "circuitry/shelf.js";
import { Images } from "circuitry/images.js";

const TAB_NAMES = { ways: "comparison", graph: "graph", unit: "unit", images: "images" };

function useClass(index, className) {
  return usePromise(async () => {
    const { series, arrays, lesions } = await load(`class/${index.classes.indexOf(className)}`);
    const read = new Map();  // when it is needed: of a class's series, few are on the screen
    const at = place => {
      if (!read.has(place)) read.set(place, readSeries(series[place], arrays, place));
      return read.get(place);
    };
    return Object.assign(series.map((header, place) => ({ ...header, read: () => at(place) })), { lesions });
  }, [className]);
}

// The series that are on the screen, each with its label.
function shownOf(state, series) {
  if (state.twins) {
    return state.twins.flatMap(([domain, fold]) => {
      const one = series.find(other => other.domain === domain && other.fold === fold);
      return one ? [{ ...one.read(), label: `${domain}, fold ${fold + 1}` }] : [];
    });
  }
  return state.domains.flatMap(domain => {
    const one = series.find(other => other.domain === domain && other.fold === null);
    return one ? [{ ...one.read(), label: domain }] : [];
  });
}

function App({ index, store, first }) {
  const [state, setState] = useState(store.get());
  useEffect(() => store.listen(setState), []);
  const set = store.set;
  const [message, setMessage] = useState(first);
  const [naming, setNaming] = useState(false), [help, setHelp] = useState(false), [noting, setNoting] = useState(0);
  const [fire, setFire] = useState(null), [litGroup, setLitGroup] = useState([]), [ownFile, setOwn] = useState(null);
  const share = useRef(null);
  const names = useMemo(() => readNames(index), [index]);
  const sizes = useMemo(() => ({ sizes: index.sites.map(site => site.units), budget: index.budget }), [index]);
  const { value: loaded, error } = useClass(index, state.className);
  const lastSeries = useRef([]);
  if (loaded) lastSeries.current = loaded;
  const series = loaded ?? (error ? [] : lastSeries.current);
  const shown = useMemo(() => shownOf(state, series), [series, state.domains, state.twins]);
  const dark = useDark();
  const picture = useMemo(() => ({
    ...overlay(shown.map(one => cutSeries(one, sizes, state)), state.shared && shown.length > 1),
    looks: shown.map((one, c) => {  // the second fold of one domain's images has the empty mark
      const { shape, colour } = lookOf(index, one.domain, dark), again = shown.slice(0, c).some(other => other.domain === one.domain);
      return { colour, shape: again ? `${shape}-open`.replace("-open-open", "") : shape };
    }),
  }), [shown, state.share, state.edges, state.stability, state.shared, dark]);
  const pin = name => set(now => ({ pins: now.pins.includes(name) ? now.pins.filter(other => other !== name) : [...now.pins, name] }));

  const colourOf = domain => lookOf(index, domain, dark).colour;
  const bandNames = name => (name === "all" ? (shown.length > 1 ? "shared" : shown[0]?.label ?? "") : name === "some" ? "in several" : `${shown[name].label} only`);
  const unitKey = name => { const { site, unit } = splitName(index, name); return keyOf(site, unit); };
  const marks = useMemo(() => ({
    selected: state.selected ? unitKey(state.selected) : null, pinned: state.pins.map(unitKey), lit: litGroup.map(unitKey), fire,
    found: state.query.trim().length > 1 ? picture.nodes.filter(node => `${unitName(index, node.site, node.unit)} ${state.labels[unitName(index, node.site, node.unit)] ?? ""} ${names.get(unitName(index, node.site, node.unit))?.name ?? ""}`.toLowerCase().includes(state.query.trim().toLowerCase())).map(node => node.key) : [],
  }), [state.selected, state.pins, state.query, state.labels, picture, litGroup, fire]);
  const drawn = useMemo(() => strongest(picture, state.most, new Set([marks.selected, ...marks.pinned, ...marks.lit])), [picture, state.most, marks]);
  const describe = node => {
    const name = unitName(index, node.site, node.unit);
    return [`${name} ${state.labels[name] ?? names.get(name)?.name ?? ""}`, placeName(node.mask, picture.full, shown), ...node.scores.map((score, c) => `${shown[c].label} ${number(score)}`)];
  };
  const select = (node, event) => {
    const name = node && unitName(index, node.site, node.unit);
    if (node && event.shiftKey) pin(name);
    else set({ selected: name ?? null, ...(name ? { tab: state.tab === "graph" ? "graph" : "unit" } : {}) });
  };
  const cutsOf = useMemo(() => ({
    folds: domain => series.filter(one => one.domain === domain && one.fold !== null).map(one => one.fold),
    cut: (domain, fold) => { const one = series.find(other => other.domain === domain && other.fold === fold); return one && cutSeries(one.read(), sizes, { ...state, stability: 0 }); },
  }), [series, state.share, state.edges]);

  const act = {
    undo: () => store.undo() || setMessage("There is nothing to undo."),
    redo: () => store.redo(),
    help: () => setHelp(true),
    saveState: () => download(`${index.title.replace(/[^\w.-]+/g, "_")}.explorer.json`, new Blob([asFile(store.get(), index)], { type: "application/json" })),
    copyLink: async () => {
      try {
        await navigator.clipboard.writeText(location.href);
        setMessage("The link is copied; it holds all that you chose and wrote.");
      } catch {
        setMessage("The link is in the address bar; it holds all that you chose and wrote.");
      }
    },
    openFile: async file => {
      if (!file) return;
      if (file.type.startsWith("image/")) {
        if (isLive) { setOwn(file); set({ image: null, tab: "images" }); } else setMessage(`To look at an image of your own, serve the page with the model: circuitry explore --circuits ${index.graphs} --serve --with-model`);
        return;
      }
      try {
        const { state: found, leftOut } = fromFile(await file.text(), index);
        set({ ...initialState(index), ...found });
        setMessage(leftOut.length ? unknown(leftOut) : "The state file was opened.");
      } catch (problem) {
        setMessage(problem.message);
      }
    },
  };
  const save = async kind => {
    if (!loaded) {
      setMessage(`The circuits of ${state.className} are not loaded: nothing was exported.`);
      return;
    }
    const here = share.current ?? {};
    const seen = { index, state, shown, names, bandNames, picture, drawn, lesions: series.lesions, trust: trust(index, state, shown, picture, series.lesions), layout: here.layout, theme: here.theme?.() };
    const files = exported(kind, seen);
    for (const file of files) await download(file.name, file.content);
    if (files.length > 1) setMessage(`${files.length} files were written: such a file is of one circuit.`);
  };

  useKeys({ index, store, share, pin, act, setNaming, setNoting, setLitGroup, setMessage, setHelp, picture });
  useDrop(act.openFile);
  useEffect(() => { globalThis.circuitry.state = () => store.get(); globalThis.circuitry.seen = () => ({ units: picture.nodes.length, edges: picture.edges.length, loaded: Boolean(loaded) }); });
  useSaved({ index, state, set, setMessage });

  useEffect(() => {
    const changed = () => {
      const found = fromHash(location.hash);
      const shelf = isServed ? shelfOf(store.get()) : {};  // notes on disk win over the address
      if (!found) {
        setMessage("The address holds a damaged state; nothing was changed.");
        return;
      }
      const { state: asked, leftOut } = checkedState(found, index);
      store.set({ ...initialState(index), ...asked, ...shelf });
      if (leftOut.length) setMessage(unknown(leftOut));
    };
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);

  const missing = state.twins ? [] : state.domains.filter(domain => !shown.some(one => one.domain === domain));
  const body = { index, state, set, shown, picture, drawn, colourOf, names, pin };
  return html`<div data-loaded=${loaded ? state.className : null} class=${`page tab-${state.tab} ${state.view === "table" ? "as-table" : ""}`}>
    <${Toolbar} ...${body} glyphOf=${domain => lookOf(index, domain, dark).glyph} present=${domain => series.some(one => one.domain === domain && one.fold === null)} save=${save} act=${act} />
    <nav class="tabs" aria-label="Areas">${TABS.map(tab => html`<button type="button" aria-pressed=${state.tab === tab} onClick=${() => set({ tab })}>${TAB_NAMES[tab]}</button>`)}</nav>
    ${message && html`<p class="message" role="status">${message} <button type="button" aria-label="dismiss" onClick=${() => setMessage(null)}>×</button></p>`}
    ${index.finished[0] < index.finished[1] && html`<p class="message">The extraction is not finished: ${index.finished[0]} of ${index.finished[1]} circuits are here.</p>`}
    <aside class="left"><${Ways} ...${body} cutsOf=${cutsOf} /><${Shelf} ...${body} lightGroup=${group => { setLitGroup(litGroup === group.units ? [] : group.units); }} naming=${naming && (() => setNaming(false))} startNaming=${() => setNaming(true)} /></aside>
    <main>
      <${Controls} ...${body} />
      ${error && html`<p class="error" role="alert">${error.message}</p>`}
      ${missing.length > 0 && loaded && html`<p class="hint">No circuit of ${state.className} in ${missing.join(", ")}.</p>`}
      ${state.twins && html`<p class="hint twin-note">Circuits of folds of the images: ${shown.map(one => `${one.label} (${one.images} images)`).join(" beside ")}. <button type="button" onClick=${() => set({ twins: null })}>back to all images</button></p>`}
      ${state.view === "table" ? html`<${Table} ...${body} />` : html`<${Saw} ...${body} /><${Graph} ...${body} dark=${dark} bandNames=${bandNames} marks=${marks} select=${select} describe=${describe} share=${share} />`}
      ${index.tested ? html`<${Lost} ...${body} lesions=${series.lesions} />` : html`<${ThisCut} ...${body} />`}
    </main>
    <aside class="right"><${Card} ...${body} focusNote=${noting} /></aside>
    <footer><${Images} ...${body} setFire=${setFire} ownFile=${ownFile} setOwn=${setOwn} /></footer>
    ${help && html`<${Help} index=${index} close=${() => setHelp(false)} />`}
  </div>`;
}

// What is drawn, in a sentence.
function Saw({ index, state, picture, drawn, shown }) {
  if (!drawn.nodes.length) return null;
  const whole = drawn.nodes.length === picture.nodes.length, more = drawn.nodes.length - state.most, domains = new Intl.ListFormat("en").format(shown.map(one => one.label));
  return html`<p class="saw">${whole ? `All ${drawn.nodes.length}` : `The ${state.most} strongest${more > 0 ? ` and ${more} chosen` : ""} of ${picture.nodes.length}`} units of ${index.tested ? "the own part" : "the circuit"}${shown.length > 1 ? "s" : ""} of <b>${state.className}</b> in ${domains}, from the first site (left) to the last; a larger mark has a larger effect, for or against the class${drawn.edges.length ? ", a line joins a unit to one that it acts through" : ""}. <b>Click a mark</b> to see what the unit responds to.</p>`;
}

// Keys act unless the reader is writing, or something is open over the page.
function useKeys(tools) {
  const now = useRef(tools);
  now.current = tools;
  useEffect(() => {
    const press = event => {
      const writing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) && event.target.type !== "checkbox" && event.target.type !== "range";
      if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
      if (event.key === "Escape" && writing) event.target.blur();
      if (!writing && keyed(event.key, now.current)) event.preventDefault();
    };
    document.addEventListener("keydown", press);
    return () => document.removeEventListener("keydown", press);
  }, []);
}

function keyed(key, { index, store, share, pin, act, setNaming, setNoting, setLitGroup, setMessage, setHelp, picture }) {
  const state = store.get();
  const keys = {
    "/": () => document.getElementById("search").focus(),
    "?": () => setHelp(true),
    p: () => state.selected && pin(state.selected),
    g: () => (state.pins.length ? setNaming(true) : setMessage("A group is of pinned units, but none is pinned: choose a unit and press p.")),
    n: () => (state.selected ? setNoting(Date.now()) : setMessage("A note is on a unit, but none is chosen: click one, or press ].")),
    v: () => store.set({ view: VIEWS[(VIEWS.indexOf(state.view) + 1) % VIEWS.length] }),
    z: act.undo,
    Z: act.redo,
    Escape: () => { setNaming(false); setLitGroup([]); store.set({ selected: null }); },
    j: () => step(1), k: () => step(-1), "]": () => jump(1), "[": () => jump(-1),
  };
  const inSite = site => (share.current ? unitsOfSite(share.current.layout, site) : picture.nodes.filter(node => node.site === site).map(node => node.key));
  const choose = key => { const node = picture.byKey.get(key); store.set({ selected: unitName(index, node.site, node.unit) }, "step"); };
  const here = state.selected ? splitName(index, state.selected) : null;
  const step = by => {
    if (!here) { jump(1); return; }
    const units = inSite(here.site);
    const at = units.indexOf(keyOf(here.site, here.unit));
    if (units.length) choose(units[(at + by + units.length) % units.length]);
  };
  const jump = by => {
    const sites = index.sites.map((_, site) => site).filter(site => !state.hidden.includes(index.sites[site].name) && inSite(site).length);
    if (!sites.length) return;
    const at = here ? sites.indexOf(here.site) : by > 0 ? -1 : 0;
    choose(inSite(sites[(at + by + sites.length) % sites.length])[0]);
  };
  if (!keys[key]) return false;
  keys[key]();
  return true;
}

function useDrop(open) {
  const now = useRef(open);
  now.current = open;
  useEffect(() => {
    const over = event => event.preventDefault();
    const drop = event => {
      event.preventDefault();
      now.current(event.dataTransfer?.files?.[0]);
    };
    document.addEventListener("dragover", over);
    document.addEventListener("drop", drop);
    return () => {
      document.removeEventListener("dragover", over);
      document.removeEventListener("drop", drop);
    };
  }, []);
}

async function start() {
  const root = document.getElementById("app");
  try {
    const index = await load("index");
    const { state, problem } = await firstState(index);
    root.replaceChildren();
    render(html`<${App} index=${index} store=${createStore(state)} first=${problem} />`, root);
  } catch (error) {
    const notice = document.createElement("p");
    notice.className = "notice error";
    notice.textContent = error instanceof DataError ? error.message : `The page could not start: ${error.message}`;
    root.replaceChildren(notice);
    if (!(error instanceof DataError)) throw error;
  }
}

start();
