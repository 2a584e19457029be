"""All figures by name: each is drawn from a folder of tables, the committed ones unless another is given.

    python -m experiments.study figures                      # every figure that has committed tables, in a checkout
    python -m experiments.study figures --list               # names and questions
    python -m experiments.study figures domain_similarity --tables runs/mine/tables --out runs/figures

An entry is a title, the folder of its committed tables below experiments/results, and the lines that read and draw
them. Figures without committed tables are drawn by the plan of the study.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from circuitry.runs import InputError, one_of
from circuitry.data import chosen_names
from circuitry.reports import (
    FIGURES,
    figure,
    heatmap,
    lesion_lines_of,
    table,
    write_figure,
)
from circuitry.reports import figures as charts
from circuitry.reports.figures import style
from experiments.study import study_figures  # noqa: F401  registers them
from experiments.study.measure_charts import cka_over_depth as draw_cka
from experiments.study.measure_charts import (
    cost_against_quality,
    measure_panels,
    size_curves,
    size_panels,
)
from experiments.study.separation_charts import (
    PANELS,
    embedding_maps,
    panel_references,
    separation_panels,
)

import pandas as pd
import plotly.graph_objects as go
from tyro.conf import Positional

MODELS = {
    "efficientnet_lite0": "EfficientNet-Lite0, hidden channels",
    "efficientnet_lite0_outputs": "EfficientNet-Lite0, outputs of blocks",
    "efficientnet_lite1": "EfficientNet-Lite1, hidden channels",
    "efficientnet_lite2": "EfficientNet-Lite2, hidden channels",
    "toy": "small CLIP, hidden channels",
    "toy_vit": "small ViT, heads and neurons",
}  # networks and units by folder of the scoreboard
MEAN = "baseline == 'mean' and (budget == 'global' or budget == method)"
IN_PANELS = "method in ['learned', 'iterative-fisher', 'fisher', 'gradient']"


@figure("Which styles share their circuits?")
def domain_similarity(tables: Path, title: str) -> go.Figure:
    return heatmap(tables, "edge_jaccard_matrix", title, "edge Jaccard index")


@figure("Which measures tell circuits apart? (dotted: guessing)", "measures")
def measures(tables: Path, title: str) -> go.Figure:
    return measure_panels(table(tables, "measures"), title=title)


@figure(
    "Where is the circuit of a class enough to tell it from others?", "faithfulness"
)
def selectivity_over_depth(tables: Path, title: str) -> go.Figure:
    both = table(tables, "selectivity_one_site").rename(columns={"sites": "site"})
    kept, random = (both[both["circuit"] == which] for which in ("kept", "random"))
    chance = random.groupby("site", sort=False)["value"].mean().reset_index()
    sites, names = (
        list(kept["site"].unique()),
        ("selectivity, one site ablated", "random units"),
    )
    return charts.overlap_over_depth(
        kept, sites, None, chance, measure=names[0], chance_label=names[1], title=title
    )


@figure(
    "Does a class have a part of its own? EfficientNet-Lite0, photographs",
    "own_parts/lite0_photo",
)
def own_parts(tables: Path, title: str) -> go.Figure:
    lines = lesion_lines_of(table(tables, "by_share"))
    drawn = charts.lesion_lines(
        lines.assign(place=100 * lines["share"]), "ablated hidden channels (%)", title
    )
    return drawn.update_xaxes(type="log", tickvals=[0.25, 0.5, 1, 2, 5])


@figure(
    "At which depth does a class have a part of its own? EfficientNet-Lite0",
    "own_parts/lite0_depth",
)
def own_parts_depth(tables: Path, title: str) -> go.Figure:
    lines = lesion_lines_of(table(tables, "by_depth")).assign(
        place=lambda rows: rows["sites"].str.removesuffix(".bn2")
    )
    early, late = (
        lines[lines["sites"].str.startswith(way)] for way in ("up to", "from")
    )
    gap = early.drop_duplicates("line").assign(
        place=" ", value=float("nan"), low=float("nan"), high=float("nan")
    )
    axis = "where the ablated 5 % of units may lie"
    return charts.lesion_lines(pd.concat([early, gap, late]), axis, title)


@figure(
    "What is left of a class without the part that another style found?",
    "real_networks",
)
def real_networks(tables: Path, title: str) -> go.Figure:
    left = table(tables, "left").query(
        "answers == 'own class' and cut == 'part' and domain != part_domain"
    )
    both = {
        "a drawing without the part of photographs": left.query(
            "part_domain == 'photo'"
        ).assign(place=left["domain"]),
        "a photograph without the part of drawings": left.query(
            "domain == 'photo'"
        ).assign(place=left["part_domain"]),
    }
    rows = pd.concat(
        [rows.assign(line=rows["model"] + ": " + name) for name, rows in both.items()]
    )
    styles, lines = sorted(set(rows["place"])), sorted(set(rows["line"]))
    rows["place"] = (
        rows["place"].map(styles.index) + (rows["line"].map(lines.index) - 2.5) / 10
    )  # bars side by side
    drawn = charts.lesion_lines(
        rows.sort_values(["line", "place"]), "drawn style", title
    ).update_traces(mode="markers")
    return drawn.update_xaxes(tickvals=list(range(len(styles))), ticktext=styles)


@figure("Which circuits recover the answers?", "scoreboard")
def scoreboard_answers(tables: Path, title: str) -> go.Figure:
    parts = [
        table(tables, f"{name}/curves").assign(panel=panel)
        for name, panel in MODELS.items()
    ]
    curves = pd.concat(parts).query(
        f"{MEAN} and measure == 'kl recovered' and {IN_PANELS}"
    )
    curves["panel"] += "<br>" + curves["counted"].map(style.faint)
    return size_panels(curves, "kl recovered", title)


@figure("Cost of a circuit and its smallest size", "scoreboard")
def scoreboard_cost(tables: Path, title: str) -> go.Figure:
    parts = [
        table(tables, f"{name}/summary").query(MEAN).assign(setting=MODELS[name])
        for name in MODELS
    ]
    return cost_against_quality(pd.concat(parts, ignore_index=True), title=title)


@figure(
    "Which edges recover the answers? Vision transformer, drawn images",
    "scoreboard/toy_vit_edges",
)
def scoreboard_edges(tables: Path, title: str) -> go.Figure:
    curves = table(tables, "curves").query(
        "measure == 'kl recovered' and method in ['gradient', 'exact', 'learned']"
    )
    drawn = size_curves(curves, "kl recovered", title)
    drawn.for_each_trace(
        lambda trace: trace.update(
            name=trace.name.replace("random units", "random edges")
        )
    )
    return drawn.update_xaxes(title_text="edges kept (%)")


@figure("Where do the styles look alike to the model?")
def cka_over_depth(tables: Path, title: str) -> go.Figure:
    domains, ceilings = (
        table(tables, name).query("group == 'all'")
        for name in ("cka_over_depth", "cka_ceilings")
    )
    return draw_cka(domains, ceilings, title=title)


@figure("Where does one style part from the others?")
def cka_apart(tables: Path, title: str) -> go.Figure:
    apart = table(tables, "cka_apart").query("group == 'all' and kernel == 'linear'")
    return charts.overlap_over_depth(
        apart, list(apart["site"].unique()), measure="CKA, linear kernel", title=title
    )


@figure("Do captions that name no style bring the styles together?")
def embedding_map(tables: Path, title: str) -> go.Figure:
    return embedding_maps(table(tables, "map"), title=title)


@figure("How far do the styles lie apart, and does accuracy follow?")
def separation(tables: Path, title: str) -> go.Figure:
    summary = table(tables, "summary").query("domain != 'all'")
    references = panel_references(
        summary, json.loads((tables / "provenance.json").read_text())["classes"]
    )
    return separation_panels(
        summary, PANELS, table(tables, "by_seed"), references, title=title
    )


@dataclass(frozen=True)
class Config:
    """Which figures are drawn."""

    names: Positional[tuple[Annotated[str, one_of(*FIGURES)], ...]] = ()
    """Figures (default: all that have committed tables)."""
    tables: Path | None = None
    """Folder of the tables of the named figures (default: the committed one of each)."""
    out: Path = Path("figures")
    """Folder of the results: an HTML file of each figure and, with Chrome, a PNG file."""
    list: bool = False
    """Only list the names."""


def main(config: Config) -> None:
    """Draw the figures that were asked for."""
    if config.list:
        print(
            *(f"{name}: {title}" for name, (_, title, _) in FIGURES.items()), sep="\n"
        )
        return
    committed = [name for name, (*_, results) in FIGURES.items() if results is not None]
    for name in chosen_names("figure", config.names or committed, tuple(FIGURES)):
        draw, title, results = FIGURES[name]
        tables = config.tables or results
        if tables is None or not tables.is_dir():
            raise InputError(
                f"The figure {name} has no tables at {tables}: give the folder of its tables (--tables)."
            )
        print(*write_figure(draw(tables, title), config.out / name), sep="\n")
