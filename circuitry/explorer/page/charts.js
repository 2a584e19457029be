// Small charts as SVG: lines with bands, and histograms.
import { html, number } from "circuitry/view.js";

const W = 240, H = 120, L = 30, R = 8, T = 8, B = 16;

// Lines over equally spaced places, or over `xs`; `mark` is a place on the axis; `pick` makes places buttons.
export function CurveChart({ label, lines, ticks, xs, mark, reference, pick, low, high, tickText }) {
  const n = ticks.length;
  const at = xs ?? ticks.map((_, i) => i);
  const [x0, x1] = [Math.min(...at), Math.max(...at)];
  const values = lines.flatMap(line => [...line.points, ...(line.band ?? []).flatMap(pair => pair ?? [])]).filter(value => value !== null && Number.isFinite(value));
  if (reference !== null && reference !== undefined) values.push(reference);
  const bottom = low ?? Math.min(0, ...values), top = high ?? Math.max(bottom + 1e-9, ...values);
  const clip = value => Math.min(top, Math.max(bottom, value));
  const x = value => L + ((value - x0) / (x1 - x0 || 1)) * (W - L - R);
  const y = value => H - B - ((clip(value) - bottom) / (top - bottom || 1)) * (H - T - B);
  const path = points => {
    let pen = "M", d = "";
    points.forEach((value, i) => {
      if (value === null) { pen = "M"; return; }
      d += `${pen}${x(at[i]).toFixed(1)} ${y(value).toFixed(1)}`;
      pen = "L";
    });
    return d;
  };
  const area = band => {
    const there = band.map((pair, i) => (pair && pair[0] !== null ? [x(at[i]), y(pair[0]), y(pair[1])] : null)).filter(Boolean);
    if (there.length < 2) return "";
    const forth = there.map(([px, , up]) => `${px.toFixed(1)} ${up.toFixed(1)}`), back = [...there].reverse().map(([px, down]) => `${px.toFixed(1)} ${down.toFixed(1)}`);
    return `M${forth.join("L")}L${back.join("L")}Z`;
  };
  const spoken = `${label}. ${lines.filter(line => !line.faint).map(line => `${line.label}: ${line.points.map((value, i) => `${ticks[i]} ${number(value, 2)}`).join(", ")}`).join("; ")}`;
  const shown = ticks.map((text, i) => ({ text, i })).filter(({ i }) => n < 3 || i === 0 || i === n - 1);
  return html`<svg class="chart" viewBox=${`0 0 ${W} ${H}`} role="img" aria-label=${spoken}>
    ${[bottom, top].map(value => html`<text x=${L - 4} y=${y(value) + 4} text-anchor="end">${number(value, 2)}</text>`)}
    <line class="axis" x1=${L} x2=${W - R} y1=${y(Math.max(bottom, 0))} y2=${y(Math.max(bottom, 0))} />
    ${reference !== null && reference !== undefined && html`<line class="reference" x1=${L} x2=${W - R} y1=${y(reference)} y2=${y(reference)} />`}
    ${lines.map(line => html`<g class=${`${line.faint ? "faint" : ""} ${line.kind ?? ""}`} style=${line.colour ? { "--line": line.colour } : {}}>
      ${line.band && html`<path class="band" d=${area(line.band)} />`}
      <path class="curve" d=${path(line.points)} stroke-dasharray=${line.dash ?? null} />
      ${!line.faint && line.points.map((value, i) => value !== null && html`<circle class="dot" cx=${x(at[i])} cy=${y(value)} r="1.8" />`)}
    </g>`)}
    ${mark !== undefined && mark !== null && html`<line class="here" x1=${x(mark)} x2=${x(mark)} y1=${T} y2=${H - B} />`}
    ${shown.map(({ text, i }) => html`<text x=${x(at[i])} y=${H - 3} text-anchor=${i === 0 && n > 1 ? "start" : i === n - 1 && n > 1 ? "end" : "middle"}>${tickText ? tickText(text) : text}</text>`)}
    ${pick && at.map((value, i) => html`<rect class="pick" x=${x(value) - (W - L - R) / n / 2} y=${T} width=${(W - L - R) / n} height=${H - T - B} onClick=${() => pick(i)}><title>${ticks[i]}</title></rect>`)}
  </svg>`;
}

// One row of bars for each domain, on one axis.
export function Histograms({ rows, edges, colourOf, label }) {
  const high = 26, wide = 240, left = Math.min(110, 8 + 5.4 * Math.max(...rows.map(row => row.domain.length)));
  const most = Math.max(1, ...rows.flatMap(row => row.counts.map(Math.log1p)));
  const bins = rows[0].counts.length;
  const step = (wide - left - 4) / bins;
  const spoken = `${label}. ${rows.map(row => `${row.domain}: ${row.counts.join(", ")}`).join("; ")}`;
  return html`<svg class="chart histogram" viewBox=${`0 0 ${wide} ${rows.length * (high + 4) + 14}`} role="img" aria-label=${spoken}>
    ${rows.map((row, r) => html`<g style=${{ "--line": colourOf(row.domain) }}>
      <text x=${left - 4} y=${r * (high + 4) + high - 4} text-anchor="end">${row.domain.slice(0, 20)}</text>
      ${row.counts.map((count, i) => count > 0 && html`<rect class="bar" x=${left + i * step} width=${Math.max(1, step - 1)} y=${r * (high + 4) + high - (Math.log1p(count) / most) * (high - 3)} height=${(Math.log1p(count) / most) * (high - 3)}><title>${`${number(edges[i])} to ${number(edges[i + 1])}: ${count} images`}</title></rect>`)}
      <line class="axis" x1=${left} x2=${wide - 4} y1=${r * (high + 4) + high} y2=${r * (high + 4) + high} /></g>`)}
    <text x=${left} y=${rows.length * (high + 4) + 10}>${number(edges[0], 2)}</text>
    <text x=${wide - 4} y=${rows.length * (high + 4) + 10} text-anchor="end">${number(edges[edges.length - 1], 2)}</text>
  </svg>`;
}
