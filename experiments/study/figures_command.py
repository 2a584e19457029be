"""Which figures do the tables give? Draw figures by name, from committed tables or from tables of your own.

    python -m experiments.study figures                      # every figure that has committed tables, in a checkout
    python -m experiments.study figures domain_similarity --tables runs/mine/tables --out runs/figures

A figure computes nothing, so that a number in a figure is a number in a table. Each function below is a figure. Its
decorator has the title and the folder of the committed tables, below experiments/results. Figures without committed
tables need the tables of a whole study; the program plan prints the commands that make them.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from circuitry.runs import InputError, one_of
from circuitry.comparison import FALL, LossMeasure, mean_interval
from circuitry.data import chosen_names
from circuitry.reports import figures as charts
from circuitry.reports import lesion_lines_of, write_figure
from circuitry.reports.figures import style
from experiments.study import study_figures  # noqa: F401  registers them
from experiments.study.figure_registry import FIGURES, figure, heatmap, table
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

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from tyro.conf import Positional

SHARED = LossMeasure("share of the ceiling, or transfer", "value")
"""What pairs of styles are compared by; 1 is the same part."""
MODELS = {
    "efficientnet_lite0": "EfficientNet-Lite0, hidden channels",
    "efficientnet_lite0_outputs": "EfficientNet-Lite0, outputs of blocks",
    "efficientnet_lite1": "EfficientNet-Lite1, hidden channels",
    "efficientnet_lite2": "EfficientNet-Lite2, hidden channels",
    "toy": "small CLIP, hidden channels",
    "toy_vit": "small ViT, heads and neurons",
}
"""A dictionary from each folder of the scoreboard to the name of its network and units."""
# Queries of a scoreboard. Learned masks have the name of the method as their budget.
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
    # Random circuits give the chance level of each site.
    circuits = both.query("circuit == 'kept'")
    random = both.query("circuit == 'random'")
    chance = random.groupby("site", sort=False)["value"].mean().reset_index()
    return charts.overlap_over_depth(
        circuits,
        list(circuits["site"].unique()),
        chance=chance,
        measure="selectivity, one site ablated",
        chance_label="random units",
        title=title,
    )


@figure(
    "How far do the log-odds of a class fall after removing its part? Photographs",
    "own_parts/lite0",
)
def own_parts(tables: Path, title: str) -> go.Figure:
    by_style = table(tables, "by_style")
    in_photographs = by_style[by_style["part_domain"] == "photo"]
    styles = np.where(
        in_photographs["domain"] == "photo", "its own style", in_photographs["domain"]
    )
    lines = lesion_lines_of(in_photographs.assign(styles=styles), FALL)
    # Shares of units become per cent.
    place = 100 * lines["share_of_units"]
    drawn = charts.lesion_lines(
        lines.assign(place=place), "ablated units (%)", title, FALL
    )
    return drawn.update_xaxes(type="log", tickvals=[0.5, 1, 2, 5])


@figure(
    "From which place on is a class lost to a new head? 5 % of the units",
    "own_parts/depth",
)
def own_parts_depth(tables: Path, title: str) -> go.Figure:
    depth = table(tables, "depth").query("cut == 'part' and answers == 'own class'")
    head = LossMeasure(
        "right answers of a new head left", "refit", "whole_refit", is_share=True
    )
    heads = depth[depth["measure"] == head.name]
    lines = heads.assign(
        line=heads["domain"], place=heads["sites"].str.removesuffix(".bn2")
    )
    early = lines[lines["sites"].str.startswith("up to")]
    late = lines[lines["sites"].str.startswith("from")]
    # A point without a value breaks each line, so that the two halves of the axis are not joined.
    nothing = dict.fromkeys(("value", "low", "high"), float("nan"))
    gap = early.drop_duplicates("line").assign(place=" ", **nothing)
    axis = "where the ablated units may lie"
    return charts.lesion_lines(pd.concat([early, gap, late]), axis, title, head)


@figure("Is the part of a class the same in two styles?", "own_parts/lite0")
def own_parts_styles(tables: Path, title: str) -> go.Figure:
    by_pair = table(tables, "overlap_by_styles").query("share_of_units == 0.02")
    transfers = table(tables, "transfers").query("share_of_units == 0.02")
    rows = [
        by_pair.assign(line="overlap of " + by_pair["compared"] + ", of the ceiling")
    ]
    for way, (found_on, tested_on) in {
        "evidence that the part of the first takes in the second": ("a", "b"),
        "evidence that the part of the second takes in the first": ("b", "a"),
    }.items():
        of_way = transfers.rename(
            columns={
                "part_domain": f"domain_{found_on}",
                "domain": f"domain_{tested_on}",
            }
        )
        of_way = of_way[of_way["domain_a"] < of_way["domain_b"]]
        for (a, b), of_pair in of_way.groupby(["domain_a", "domain_b"]):
            mean, low, high = mean_interval(of_pair["transfer"].to_numpy(dtype=float))
            row = {"domain_a": a, "domain_b": b, "value": mean, "low": low}
            rows.append(pd.DataFrame([row | {"high": high, "line": way}]))
    lines = pd.concat(rows)
    pairs = lines["domain_a"] + ",<br>" + lines["domain_b"]
    names = sorted(set(pairs))
    ways = list(dict.fromkeys(lines["line"]))
    # The lines of a pair stand side by side, so that their bars do not cover each other.
    beside = (lines["line"].map(ways.index) - (len(ways) - 1) / 2) / 8
    lines = lines.assign(place=pairs.map(names.index) + beside)
    drawn = charts.lesion_lines(lines, "pair of styles", title, SHARED)
    # Pairs have no order, so that no line joins them.
    drawn.update_traces(mode="markers")
    drawn.add_hline(y=1, line_color=style.GREY, line_width=1)
    return drawn.update_xaxes(tickvals=list(range(len(names))), ticktext=names)


def of_models(tables: Path, name: str) -> pd.DataFrame:
    """Return a table of the scoreboard for all `MODELS`. The column ``setting`` has the name of the network."""
    return pd.concat(
        table(tables, f"{folder}/{name}").assign(setting=setting)
        for folder, setting in MODELS.items()
    )


@figure("Which circuits recover the answers?", "scoreboard")
def scoreboard_answers(tables: Path, title: str) -> go.Figure:
    curves = of_models(tables, "curves").query(
        f"{MEAN} and measure == 'kl recovered' and {IN_PANELS}"
    )
    # Panels of one network may count other units.
    counted = curves["counted"].map(style.faint)
    curves = curves.assign(panel=curves["setting"] + "<br>" + counted)
    return size_panels(curves, "kl recovered", title)


@figure("Cost of a circuit and its smallest size", "scoreboard")
def scoreboard_cost(tables: Path, title: str) -> go.Figure:
    summary = of_models(tables, "summary").query(MEAN)
    # The table of each network numbers its rows from 0.
    return cost_against_quality(summary.reset_index(drop=True), title=title)


@figure(
    "Which edges recover the answers? Vision transformer, drawn images",
    "scoreboard/toy_vit_edges",
)
def scoreboard_edges(tables: Path, title: str) -> go.Figure:
    curves = table(tables, "curves").query(
        "measure == 'kl recovered' and method in ['gradient', 'exact', 'learned']"
    )
    drawn = size_curves(curves, "kl recovered", title)
    # The chart is of units; this scoreboard counts edges.
    for trace in drawn.data:
        trace.name = trace.name.replace("random units", "random edges")
    return drawn.update_xaxes(title_text="edges kept (%)")


@figure("Where do the styles look alike to the model?")
def cka_over_depth(tables: Path, title: str) -> go.Figure:
    domains = table(tables, "cka_over_depth").query("group == 'all'")
    ceilings = table(tables, "cka_ceilings").query("group == 'all'")
    return draw_cka(domains, ceilings, title=title)


@figure("Where does one style part from the others?")
def cka_apart(tables: Path, title: str) -> go.Figure:
    apart = table(tables, "cka_apart").query("group == 'all' and kernel == 'linear'")
    return charts.overlap_over_depth(
        apart, list(apart["site"].unique()), measure="CKA, linear kernel", title=title
    )


@figure("Do captions that name no style bring the styles together?", "real_separation")
def embedding_map(tables: Path, title: str) -> go.Figure:
    return embedding_maps(table(tables, "map"), title=title)


@figure("How far do the styles lie apart, and does accuracy follow?")
def separation(tables: Path, title: str) -> go.Figure:
    summary = table(tables, "summary").query("domain != 'all'")
    # Guessing depends on the number of classes, which no table has.
    provenance = json.loads((tables / "provenance.json").read_text())
    references = panel_references(summary, provenance["classes"])
    return separation_panels(
        summary, PANELS, table(tables, "by_seed"), references, title=title
    )


@dataclass(frozen=True)
class Config:
    """Settings: which figures are drawn, from which tables."""

    names: Positional[tuple[Annotated[str, one_of(*FIGURES)], ...]] = ()
    """Names of figures (default: all figures that have committed tables)."""
    tables: Path | None = None
    """Folder of the tables of the named figures (default: the folder of the committed tables of each figure)."""
    out: Path = Path("figures")
    """Folder of the results: an HTML file of each figure and, if Chrome is installed, a PNG file."""


def main(config: Config) -> None:
    """Draw the named figures, and print the files."""
    committed = [name for name, (*_, results) in FIGURES.items() if results]
    for name in chosen_names("figure", config.names or committed, tuple(FIGURES)):
        draw, title, results = FIGURES[name]
        tables = config.tables or results
        if tables is None or not tables.is_dir():
            raise InputError(
                f"The figure {name} has no tables at {tables}: give the folder of its tables (--tables)."
            )
        print(*write_figure(draw(tables, title), config.out / name), sep="\n")
