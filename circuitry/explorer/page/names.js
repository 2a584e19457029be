// What units are called: by number, by the reader's own label, by a tested name; and the search through all of them.
export const unitName = (index, site, unit) => `${index.sites[site].name}/${unit}`;

export function splitName(index, name) {
  const cut = name.lastIndexOf("/");
  const site = index.sites.findIndex(one => one.name === name.slice(0, cut));
  return { site, unit: Number(name.slice(cut + 1)) };
}

const lighter = colour => `#${[1, 3, 5].map(i => Math.round(Number.parseInt(colour.slice(i, i + 2), 16) * 0.6 + 102).toString(16).padStart(2, "0")).join("")}`;

// The mark and colour of a domain, the same in every picture and in the report.
export function lookOf(index, domain, dark) {
  const [colour, shape, glyph] = index.marks[index.domains.indexOf(domain)];
  return { colour: dark ? lighter(colour) : colour, shape, glyph };
}

// Tested names by unit name, once for an index.
export function readNames(index) {
  const found = new Map();
  for (const [site, rows] of Object.entries(index.names ?? {})) {
    for (const [unit, name, weak, style] of rows) found.set(unitName(index, Number(site), unit), { name, weak, style });
  }
  return found;
}

// In how many circuits each unit is.
export const circuitsWith = (index, site, unit) => index.arrays[`counts/${site}`]?.[unit] ?? 0;

// Units that are in a circuit and whose number, label, note or tested name holds all words, most circuits first.
export function searchUnits(index, names, state, query, most) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return { found: [], total: 0 };
  const found = [];
  index.sites.forEach((one, site) => {
    const counts = index.arrays[`counts/${site}`];
    for (let unit = 0; unit < counts.length; unit++) {
      if (!counts[unit]) continue;
      const name = `${one.name}/${unit}`;
      const text = `${name} ${state.labels[name] ?? ""} ${state.notes[name] ?? ""} ${names.get(name)?.name ?? ""}`.toLowerCase();
      if (words.every(word => text.includes(word))) found.push({ name, site, unit, circuits: counts[unit] });
    }
  });
  found.sort((a, b) => b.circuits - a.circuits || a.site - b.site || a.unit - b.unit);
  return { found: found.slice(0, most), total: found.length };
}
