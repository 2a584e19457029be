// Draw a picture with a pen: of a canvas, or of an SVG file. What is seen and what is exported are the same strokes.
import { placeOf } from "circuitry/cut.js";
import { LEAN } from "circuitry/layout.js";

const MOST_WIDE = 300;

// How a unit or edge looks: like the domain that it is of, or like what is shared by all or several.
function lookOf(mask, picture, theme) {
  const place = placeOf(mask, picture.full);
  if (place === "some") return { shape: "hexagon-open", colour: theme.some };
  if (place === "all" && picture.count > 1) return { shape: "hexagon", colour: theme.shared };
  return picture.looks[place === "all" ? 0 : place];
}

const dashOf = (mask, full) => {
  const place = placeOf(mask, full);
  return place === "all" ? [] : place === "some" ? [8, 3] : [[5, 3], [2, 2], [8, 2, 2, 2], [1, 3], [6, 6], [3, 1]][place % 6];
};

// Draw the columns, bands, edges and units. `most` limits the edges to the strongest, while a slider moves.
export function paint(pen, picture, layout, theme, { most = Infinity, labels, bandNames } = {}) {
  labels.forEach(({ x, text }) => pen.label(x, layout.top - 22, text, theme.text));
  let edges = picture.edges;
  if (edges.length > Math.min(most, MOST_WIDE)) edges = [...edges].sort((a, b) => a.share - b.share);
  const thick = edges.length - MOST_WIDE;
  const seen = Math.max(0, edges.length - most);
  for (const panel of layout.panels) {
    panel.bands.forEach(band => pen.text(3, band.top - 4, bandNames(band.name), theme.faint));
    for (let i = seen; i < edges.length; i++) {
      const edge = edges[i];
      if (panel.cut !== null && !(edge.mask & (1 << panel.cut))) continue;
      const a = panel.points.get(edge.from.key), b = panel.points.get(edge.to.key);
      if (!a || !b) continue;
      pen.line(a.x, a.y, b.x, b.y, lookOf(edge.mask, picture, theme).colour, i >= thick ? 0.5 + 2.2 * edge.share : 1, i >= thick ? 0.5 : 0.22, []);
    }
    for (const point of panel.points.values()) {
      mark(pen, point, 0, picture, theme);
      if (point.numbered) pen.text(point.x - 3.2 * String(point.node.unit).length, point.y + point.radius + 10, String(point.node.unit), theme.faint, 400);
    }
  }
}

// Draw over it: the neighbours of some units, the selected one, pins, groups, what a search finds, what fires.
export function paintLit(pen, picture, layout, theme, { lit, selected, pinned, found, fire }) {
  for (const panel of layout.panels) {
    for (const key of lit) {
      const node = picture.byKey.get(key);
      if (!node) continue;
      for (const edge of [...node.in, ...node.out]) {
        if (panel.cut !== null && !(edge.mask & (1 << panel.cut))) continue;
        const a = panel.points.get(edge.from.key), b = panel.points.get(edge.to.key);
        if (!a || !b) continue;
        pen.line(a.x, a.y, b.x, b.y, lookOf(edge.mask, picture, theme).colour, 1 + 2.5 * edge.share, 1, dashOf(edge.mask, picture.full));
        for (const end of [a, b]) mark(pen, end, 0.8, picture, theme);
      }
    }
    if (fire) {
      for (const point of panel.points.values()) {
        const strength = fire.get(point.node.key);
        if (strength) pen.ring(point.x, point.y, point.radius + 1.5 + 2 * strength, theme.fire, 0.6 + 3.4 * strength);
      }
    }
    for (const key of found) ring(pen, panel, key, theme.found, 3.5, 1.5);
    for (const key of pinned) ring(pen, panel, key, theme.pin, 2.5, 1.5);
    for (const key of lit) ring(pen, panel, key, theme.lit, 1.5, 1.5);
    if (selected !== null) ring(pen, panel, selected, theme.lit, 5, 2.5);
  }
}

function mark(pen, { node, x, y, radius }, wider, picture, theme) {
  const { shape, colour } = lookOf(node.mask, picture, theme);
  pen.mark(shape, x, y, radius + wider, colour, theme.paper);
}

function ring(pen, panel, key, colour, wider, width) {
  const point = panel.points.get(key);
  if (point) pen.ring(point.x, point.y, point.radius + wider, colour, width);
}

// A corner each, clockwise, of a shape around (0, 0); a circle has none. Shapes have plotly's names, as in the report.
const around = (n, radius = () => 1.15) => Array.from({ length: n }, (_, i) => [Math.sin((2 * Math.PI * i) / n) * radius(i), -Math.cos((2 * Math.PI * i) / n) * radius(i)]);
const CORNERS = {
  "triangle-up": [[0, -1.25], [1.1, 0.75], [-1.1, 0.75]],
  "triangle-down": [[0, 1.25], [-1.1, -0.75], [1.1, -0.75]],
  square: [[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]],
  diamond: [[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]],
  star: around(10, i => (i % 2 ? 0.6 : 1.4)),
  hexagon: around(6),
};
const cornersOf = shape => CORNERS[shape.replace("-open", "")];
const isOpen = shape => shape.endsWith("-open");

export function canvasPen(context) {
  return {
    line(x1, y1, x2, y2, colour, width, alpha, dash) {
      context.globalAlpha = alpha;
      context.strokeStyle = colour;
      context.lineWidth = width;
      if (dash.length) context.setLineDash(dash);
      context.beginPath();
      context.moveTo(x1, y1);
      context.lineTo(x2, y2);
      context.stroke();
      if (dash.length) context.setLineDash([]);
      context.globalAlpha = 1;
    },
    mark(shape, x, y, r, colour, paper) {
      const corners = cornersOf(shape);
      context.fillStyle = isOpen(shape) ? paper : colour;
      context.beginPath();
      if (corners) {
        corners.forEach(([dx, dy], i) => (i ? context.lineTo(x + dx * r, y + dy * r) : context.moveTo(x + dx * r, y + dy * r)));
        context.closePath();
      } else {
        context.arc(x, y, r, 0, 7);
      }
      context.fill();
      if (isOpen(shape)) {
        context.strokeStyle = colour;
        context.lineWidth = Math.max(1, r * 0.5);
        context.stroke();
      }
    },
    ring(x, y, r, colour, width) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.beginPath();
      context.arc(x, y, r, 0, 7);
      context.stroke();
    },
    text(x, y, text, colour, weight = 600) {
      context.font = `${weight} 11px system-ui, sans-serif`;
      context.fillStyle = colour;
      context.fillText(text, x, y);
    },
    label(x, y, text, colour) {
      context.save();
      context.translate(x, y);
      context.rotate(-LEAN);
      this.text(0, 0, text, colour, 400);
      context.restore();
    },
  };
}

export const escaped = text => String(text).replace(/[&<>"']/g, one => `&#${one.charCodeAt(0)};`).replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g, "");

export function svgPen(pieces) {
  const short = value => Number(value.toFixed(2));
  return {
    line(x1, y1, x2, y2, colour, width, alpha, dash) {
      const dashes = dash.length ? ` stroke-dasharray="${dash.join(" ")}"` : "";
      pieces.push(`<line x1="${short(x1)}" y1="${short(y1)}" x2="${short(x2)}" y2="${short(y2)}" stroke="${colour}" stroke-width="${short(width)}" stroke-opacity="${short(alpha)}"${dashes}/>`);
    },
    mark(shape, x, y, r, colour, paper) {
      const corners = cornersOf(shape)?.map(([dx, dy]) => `${short(x + dx * r)},${short(y + dy * r)}`).join(" ");
      const fill = isOpen(shape) ? `fill="${paper}" stroke="${colour}" stroke-width="${short(Math.max(1, r * 0.5))}"` : `fill="${colour}"`;
      pieces.push(corners ? `<polygon points="${corners}" ${fill}/>` : `<circle cx="${short(x)}" cy="${short(y)}" r="${short(r)}" ${fill}/>`);
    },
    ring(x, y, r, colour, width) {
      pieces.push(`<circle cx="${short(x)}" cy="${short(y)}" r="${short(r)}" fill="none" stroke="${colour}" stroke-width="${width}"/>`);
    },
    text(x, y, text, colour, weight = 600) {
      pieces.push(`<text x="${short(x)}" y="${short(y)}" font-size="11" font-weight="${weight}" fill="${colour}">${escaped(text)}</text>`);
    },
    label(x, y, text, colour) {
      pieces.push(`<text transform="translate(${short(x)} ${short(y)}) rotate(${short((-LEAN * 180) / Math.PI)})" font-size="11" fill="${colour}">${escaped(text)}</text>`);
    },
  };
}

// Colours by the names that the style sheet gives them, so that light and dark hold for the drawing, too.
export function readTheme(element) {
  const style = getComputedStyle(element);
  const take = name => style.getPropertyValue(`--${name}`).trim();
  return {
    paper: take("paper"), text: take("text"), faint: take("faint"), shared: take("shared"), some: take("some"), lit: take("lit"),
    pin: take("pin"), found: take("found"), fire: take("fire"),
  };
}
