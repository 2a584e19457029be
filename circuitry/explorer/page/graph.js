// The drawn graph: a canvas that is painted when the cut changes, and one over it for what the reader points at.
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "circuitry/view.js";
import { layOut, nearest } from "circuitry/layout.js";
import { canvasPen, paint, paintLit, readTheme } from "circuitry/paint.js";

const MOVING_EDGES = 1000;
const QUIET_MS = 160;

function useSize(element) {
  const [size, setSize] = useState({ width: 0, height: 0 });
  useLayoutEffect(() => {
    const measure = () => setSize({ width: element.current.clientWidth, height: element.current.clientHeight });
    const observer = new ResizeObserver(measure);
    observer.observe(element.current);
    measure();
    return () => observer.disconnect();
  }, []);
  return size;
}

export function useDark() {
  const query = useMemo(() => matchMedia("(prefers-color-scheme: dark)"), []);
  const [dark, setDark] = useState(query.matches);
  useEffect(() => {
    const change = () => setDark(query.matches);
    query.addEventListener("change", change);
    return () => query.removeEventListener("change", change);
  }, []);
  return dark;
}

function prepared(canvas, { width, height }) {
  const ratio = globalThis.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return canvasPen(context);
}

export function siteLabels(layout, sites) {
  return layout.columns.map(site => ({ x: layout.xs.get(site) - 4, text: sites[site].name }));
}

export function Graph({ drawn: picture, index, state, shown, dark, bandNames, marks, select, describe, share }) {
  const frame = useRef(), under = useRef(), over = useRef(), hovered = useRef(null);
  const size = useSize(frame);
  const hidden = useMemo(() => new Set(index.sites.flatMap((site, place) => (state.hidden.includes(site.name) ? [place] : []))), [state.hidden]);
  const layout = useMemo(
    () => (size.width ? layOut(picture, { ...size, hidden, view: state.view, sites: index.sites }) : null),
    [picture, size, hidden, state.view],
  );
  const [tip, setTip] = useState(null);
  share.current = layout ? { layout, picture, theme: () => readTheme(frame.current) } : null;

  useEffect(() => {
    if (!layout) return undefined;
    const options = most => ({ most, labels: siteLabels(layout, index.sites), bandNames });
    const draw = most => paint(prepared(under.current, size), picture, layout, readTheme(frame.current), options(most));
    const many = picture.edges.length > MOVING_EDGES;
    draw(many ? MOVING_EDGES : Infinity);
    if (!many) return undefined;
    const timer = setTimeout(() => draw(Infinity), QUIET_MS);
    return () => clearTimeout(timer);
  }, [layout, dark]);

  const light = key => {
    if (!layout) return;
    const lit = new Set(key === null ? [] : [key]);
    if (marks.selected !== null) lit.add(marks.selected);
    marks.lit.forEach(one => lit.add(one));
    paintLit(prepared(over.current, size), picture, layout, readTheme(frame.current), { ...marks, lit });
  };
  useEffect(() => light(hovered.current), [layout, dark, marks]);

  const at = event => {
    const box = frame.current.getBoundingClientRect();
    return layout && nearest(layout, event.clientX - box.left, event.clientY - box.top);
  };
  const move = event => {
    const point = at(event), key = point ? point.node.key : null;
    if (key === hovered.current) return;
    hovered.current = key;
    light(key);
    setTip(point && { x: point.x, y: point.y, text: describe(point.node) });
  };
  const leave = () => {
    hovered.current = null;
    light(null);
    setTip(null);
  };
  const side = tip && tip.x > size.width / 2 ? "tip left" : "tip";
  return html`<div class="graph" ref=${frame} style=${{ minHeight: state.view === "rows" ? `${120 + 160 * shown.length}px` : null }} onPointerMove=${move} onPointerLeave=${leave}
      onClick=${event => { const point = at(event); select(point ? point.node : null, event); }}>
    <canvas ref=${under} class=${marks.selected !== null && picture.byKey.has(marks.selected) ? "dim" : ""} role="img"
      aria-label=${`${picture.nodes.length} units and ${picture.edges.length} edges, drawn; the table view lists all units.`}></canvas>
    <canvas ref=${over} aria-hidden="true"></canvas>
    ${tip && html`<div class=${side} style=${{ left: `${tip.x}px`, top: `${tip.y}px` }}>${tip.text.map(line => html`<div>${line}</div>`)}</div>`}
    ${!picture.nodes.length && shown.length > 0 && html`<p class="empty">No unit is left: move the sliders back.</p>`}
  </div>`;
}
