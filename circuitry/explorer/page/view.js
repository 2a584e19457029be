// preact, its hooks and htm under one name: `html` makes elements whose texts are text nodes, never markup.
import { h, render } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import htm from "htm";

export const html = htm.bind(h);
export { render, useEffect, useLayoutEffect, useMemo, useRef, useState };

// A number as text: three significant digits, a true minus sign, a dash for what is not known.
export function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size === 0) return "0";
  const text = size < 1e-4 || size >= 1e5 ? value.toExponential(1) : Number(value.toPrecision(digits)).toString();
  return text.replace("-", "−");
}

// A share of a whole, to two decimals: .43.
export function fixed(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  return (Math.abs(value) < 0.005 ? 0 : value).toFixed(2).replace("-", "−").replace(/^(−?)0\./, "$1.");
}

export const percent = share => `${number(share * 100, 2)} %`;

// What a promise holds, or how it failed: {value} or {error}; {} while it is loaded.
export function usePromise(make, dependencies) {
  const [found, setFound] = useState({ key: null });
  const key = JSON.stringify(dependencies);
  useEffect(() => {
    let current = true;
    Promise.resolve(make()).then(
      value => current && setFound({ key, value }),
      error => current && setFound({ key, error }),
    );
    return () => { current = false; };
  }, [key]);
  return found.key === key ? found : {};
}
