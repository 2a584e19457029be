// Draw a picture with a pen: of a canvas, or of an SVG file. What is seen and what is exported are the same strokes.
import { placeOf } from "circuitry/cut.js";
import { LEAN } from "circuitry/layout.js";

export const SHAPES = ["triangle", "wedge", "square", "diamond", "cross", "bar"];
const MOST_WIDE = 300;

export function shapeOf(mask, full) {
  const place = placeOf(mask, full);
  return place === "all" ? "disc" : place === "some" ? "ring" : SHAPES[place % SHAPES.length];
}

export function colourOf(mask, full, theme) {
  const place = placeOf(mask, full);
  return place === "all" ? theme.shared : place === "some" ? theme.some : theme.series[place % theme.series.length];
}

const dashOf = (mask, full) => {
  const place = placeOf(mask, full);
  return place === "all" ? [] : place === "some" ? [8, 3] : [[5, 3], [2, 2], [8, 2, 2, 2], [1, 3], [6, 6], [3, 1]][place % 6];
};

// Draw the columns, bands, edges and units. `most` limits the edges to the strongest, while a slider moves.
export function paint(pen, picture, layout, theme, { most = Infinity, labels, bandNames } = {}) {
  const { full } = picture;
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
      pen.line(a.x, a.y, b.x, b.y, colourOf(edge.mask, full, theme), i >= thick ? 0.5 + 2.2 * edge.share : 1, i >= thick ? 0.5 : 0.22, []);
    }
    for (const point of panel.points.values()) {
      const mask = point.node.mask;
      pen.mark(shapeOf(mask, full), point.x, point.y, point.radius, colourOf(mask, full, theme), theme.paper);
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
        pen.line(a.x, a.y, b.x, b.y, colourOf(edge.mask, picture.full, theme), 1 + 2.5 * edge.share, 1, dashOf(edge.mask, picture.full));
        for (const end of [a, b]) pen.mark(shapeOf(end.node.mask, picture.full), end.x, end.y, end.radius + 0.8, colourOf(end.node.mask, picture.full, theme), theme.paper);
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

function ring(pen, panel, key, colour, wider, width) {
  const point = panel.points.get(key);
  if (point) pen.ring(point.x, point.y, point.radius + wider, colour, width);
}

// A corner each, clockwise, of a shape around (0, 0).
const CORNERS = {
  triangle: [[0, -1.25], [1.1, 0.75], [-1.1, 0.75]],
  wedge: [[0, 1.25], [-1.1, -0.75], [1.1, -0.75]],
  square: [[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]],
  diamond: [[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]],
  cross: [[-0.4, -1.2], [0.4, -1.2], [0.4, -0.4], [1.2, -0.4], [1.2, 0.4], [0.4, 0.4], [0.4, 1.2], [-0.4, 1.2], [-0.4, 0.4], [-1.2, 0.4], [-1.2, -0.4], [-0.4, -0.4]],
  bar: [[-1.3, -0.5], [1.3, -0.5], [1.3, 0.5], [-1.3, 0.5]],
};

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
      context.fillStyle = shape === "ring" ? paper : colour;
      context.beginPath();
      if (CORNERS[shape]) {
        CORNERS[shape].forEach(([dx, dy], i) => (i ? context.lineTo(x + dx * r, y + dy * r) : context.moveTo(x + dx * r, y + dy * r)));
        context.closePath();
      } else {
        context.arc(x, y, r, 0, 7);
      }
      context.fill();
      if (shape === "ring") {
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

export function svgPen(parts) {
  const short = value => Number(value.toFixed(2));
  return {
    line(x1, y1, x2, y2, colour, width, alpha, dash) {
      const dashes = dash.length ? ` stroke-dasharray="${dash.join(" ")}"` : "";
      parts.push(`<line x1="${short(x1)}" y1="${short(y1)}" x2="${short(x2)}" y2="${short(y2)}" stroke="${colour}" stroke-width="${short(width)}" stroke-opacity="${short(alpha)}"${dashes}/>`);
    },
    mark(shape, x, y, r, colour, paper) {
      if (CORNERS[shape]) {
        parts.push(`<polygon points="${CORNERS[shape].map(([dx, dy]) => `${short(x + dx * r)},${short(y + dy * r)}`).join(" ")}" fill="${colour}"/>`);
      } else if (shape === "ring") {
        parts.push(`<circle cx="${short(x)}" cy="${short(y)}" r="${short(r)}" fill="${paper}" stroke="${colour}" stroke-width="${short(Math.max(1, r * 0.5))}"/>`);
      } else {
        parts.push(`<circle cx="${short(x)}" cy="${short(y)}" r="${short(r)}" fill="${colour}"/>`);
      }
    },
    ring(x, y, r, colour, width) {
      parts.push(`<circle cx="${short(x)}" cy="${short(y)}" r="${short(r)}" fill="none" stroke="${colour}" stroke-width="${width}"/>`);
    },
    text(x, y, text, colour) {
      parts.push(`<text x="${short(x)}" y="${short(y)}" font-size="11" font-weight="600" fill="${colour}">${escaped(text)}</text>`);
    },
    label(x, y, text, colour) {
      parts.push(`<text transform="translate(${short(x)} ${short(y)}) rotate(${short((-LEAN * 180) / Math.PI)})" font-size="11" fill="${colour}">${escaped(text)}</text>`);
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
    series: [1, 2, 3, 4, 5, 6].map(n => take(`series-${n}`)),
  };
}
