// An image of the reader's: why the server's model answers it as it does.
import { html, useEffect, useMemo, usePromise } from "circuitry/view.js";
import { isLive, isServed, look } from "circuitry/served.js";
import { splitName } from "circuitry/names.js";
import { keyOf } from "circuitry/cut.js";

// The file's address, and the explanation of the answer.
export function useOwn(index, file) {
  const address = useMemo(() => (file ? URL.createObjectURL(file) : null), [file]);
  useEffect(() => () => address && URL.revokeObjectURL(address), [address]);
  const { value, error } = usePromise(() => (file ? look(file) : null), [address]);
  const fire = useMemo(() => (value ? new Map(Object.entries(value.effects).map(([name, share]) => {
    const { site, unit } = splitName(index, name);
    return [keyOf(site, unit), share];
  }).filter(([key]) => key >= 0)) : null), [value]);  // units at sites of the circuits
  return { file, address, said: value?.said, fire, error };
}

export function OwnImage({ own, state, set, setOwn }) {
  if (!isServed) return null;
  if (!isLive) return html`<p class="hint">To look at an image of your own, start the server with <code>--with-model</code>.</p>`;
  return html`<div class="of own"><h4>your image</h4><div class="thumbs">
      ${own.file && html`<button type="button" class="pick" aria-pressed=${state.image === null} onClick=${() => set({ image: null })}><span class="thumb"><img src=${own.address} alt=${own.file.name} title=${own.file.name} width="96" height="96" /></span></button>`}
      <label class="give">${own.file ? "another" : "drop one here, or choose"} <input id="own-image" type="file" accept="image/*" onChange=${event => { const [file] = event.target.files; if (file) { set({ image: null }); setOwn(file); } }} /></label>
      ${own.file && html`<button type="button" class="small" aria-label="remove your image" onClick=${() => setOwn(null)}>×</button>`}</div>
    ${own.error && html`<p class="error" role="alert">${own.error.message}</p>`}
    ${own.file && !own.said && !own.error && html`<p class="hint">The model looks at it.</p>`}</div>`;
}
