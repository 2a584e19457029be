// The exact effect of units, measured by the server's model when it is asked for.
import { html, number, useState } from "circuitry/view.js";
import { isLive, isServed, measure } from "circuitry/served.js";

const KINDS = [["zero", "zero"], ["mean", "their mean"], ["other-domains", "their value in other domains"]];

export function Live({ className, units }) {
  const [by, setBy] = useState("zero");
  const [answer, setAnswer] = useState({});
  const asked = JSON.stringify([className, units, by]);
  const here = answer.asked === asked ? answer : {};
  if (!isLive) return isServed ? html`<p class="hint">To measure it, start the server with <code>--with-model</code>.</p>` : null;
  const ask = async () => {
    setAnswer({ asked, busy: true });
    try {
      setAnswer({ asked, found: await measure(className, units, by) });
    } catch (problem) {
      setAnswer({ asked, error: problem.message });
    }
  };
  return html`<div class="live"><div class="line"><label>put to <select value=${by} onChange=${event => setBy(event.target.value)}>${KINDS.map(([kind, title]) => html`<option value=${kind}>${title}</option>`)}</select></label>
      <button type="button" class="measure" disabled=${here.busy} onClick=${ask}>${here.busy ? "measuring …" : units.length > 1 ? "measure together" : "measure"}</button></div>
    ${here.error && html`<p class="error" role="alert">${here.error}</p>`}
    ${here.found && html`<table class="effects-of"><caption>What ${className} loses without ${units.length > 1 ? `all ${units.length}` : "it"}</caption>
      <thead><tr><th scope="col">domain</th><th scope="col">effect</th><th scope="col">of</th><th scope="col">images</th></tr></thead>
      <tbody>${Object.entries(here.found).map(([domain, one]) => html`<tr><th scope="row">${domain}</th><td class="n">${number(one.effect)}</td><td class="n">${number(one.metric)}</td><td class="n">${one.images}</td></tr>`)}</tbody></table>`}</div>`;
}
