// A folded section or table opens where a link leads to it, and its figures then take the width of the page.
const figuresIn = element => element.querySelectorAll(".plotly-graph-div");
document.querySelectorAll("details").forEach(details => details.addEventListener("toggle", () => {
  if (details.open && window.Plotly) figuresIn(details).forEach(figure => Plotly.Plots.resize(figure));
}));
const follow = () => {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const folded = target && target.closest("details");
  if (folded) { folded.open = true; target.scrollIntoView(); }
};
addEventListener("hashchange", follow);
follow();

// Browsers do not lay a drawing out again for paper; 680 pixels fit the width of A4 and of Letter.
addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach(details => { details.open = true; });
  figuresIn(document).forEach(figure => {
    figure.screenWidth = figure.layout.width;
    Plotly.relayout(figure, {width: Math.min(680, figure.screenWidth ?? 680)});
  });
});
addEventListener("afterprint", () => figuresIn(document).forEach(figure =>
  Plotly.relayout(figure, {width: figure.screenWidth ?? null, autosize: !figure.screenWidth})));

// On a phone titles are broken into lines that fit, and the columns of a heat map have the symbols of its rows alone.
const SHORT = 40;
const broken = text => text.split(" ").reduce((lines, word) => {
  const line = lines[lines.length - 1];
  if (line && line.length + word.length >= SHORT) lines.push(word);
  else lines[lines.length - 1] = line ? `${line} ${word}` : word;
  return lines;
}, [""]);
if (window.Plotly && innerWidth <= 640) figuresIn(document).forEach(figure => {
  const {title, margin} = figure.layout;
  const [lines, below] = [title?.text, title?.subtitle?.text].map(text => broken(text ?? ""));
  const more = 18 * (lines.length + below.length - 2);
  const change = {
    "title.text": lines.join("<br>"),
    "title.subtitle.text": below.join("<br>"),
    "title.font.size": 14,
    "title.x": 0.02,
    "title.xref": "container",
    "margin.t": (margin?.t ?? 60) + more,
    height: (figure.layout.height ?? 450) + more,
  };
  if (figure.layout.xaxis2) { // panels side by side
    change.width = 640;
    figure.parentElement.style.overflowX = "auto";
  }
  for (const axis of Object.keys(figure.layout).filter(name => /^[xy]axis/.test(name))) {
    const name = figure.layout[axis].title?.text;
    if (name) change[`${axis}.title.text`] = broken(name).join("<br>");
  }
  for (const axis of Object.keys(figure.layout).filter(name => name.startsWith("xaxis"))) {
    const {tickangle, ticktext} = figure.layout[axis];
    if (tickangle === 0 && ticktext) change[`${axis}.ticktext`] = ticktext.map(text => text.split("</span>")[0] + "</span>");
  }
  figure.style.height = figure.parentElement.style.height = `${change.height}px`;
  Plotly.relayout(figure, change);
});
