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
    "Does a class have a part of its own? EfficientNet-Lite0, photographs",
    "own_parts/lite0_photo",
)
def own_parts(tables: Path, title: str) -> go.Figure:
    lines = lesion_lines_of(table(tables, "by_share"))
    # Shares of units become per cent.
    drawn = charts.lesion_lines(
        lines.assign(place=100 * lines["share"]), "ablated hidden channels (%)", title
    )
    return drawn.update_xaxes(type="log", tickvals=[0.25, 0.5, 1, 2, 5])


@figure(
    "At which depth does a class have a part of its own? EfficientNet-Lite0",
    "own_parts/lite0_depth",
)
def own_parts_depth(tables: Path, title: str) -> go.Figure:
    lines = lesion_lines_of(table(tables, "by_depth"))
    # Hidden channels are read at the same layer of each block, so that the block names the site.
    lines = lines.assign(place=lines["sites"].str.removesuffix(".bn2"))
    early = lines[lines["sites"].str.startswith("up to")]
    late = lines[lines["sites"].str.startswith("from")]
    # A point without a value breaks each line, so that the two halves of the axis are not joined.
    nothing = dict.fromkeys(("value", "low", "high"), float("nan"))
    gap = early.drop_duplicates("line").assign(place=" ", **nothing)
    axis = "where the ablated 5 % of units may lie"
    return charts.lesion_lines(pd.concat([early, gap, late]), axis, title)


@figure(
    "What is left of a class without the part that another style found?",
    "real_networks",
)
def real_networks(tables: Path, title: str) -> go.Figure:
    # Only images of another style than the images that the part was found on.
    left = table(tables, "left").query(
        "answers == 'own class' and cut == 'part' and domain != part_domain"
    )
    # Each pair of photographs and a drawn style stands at the place of the drawn style.
    of_drawings = left.query("part_domain == 'photo'").assign(
        place=left["domain"],
        line=left["model"] + ": a drawing without the part of photographs",
    )
    of_photographs = left.query("domain == 'photo'").assign(
        place=left["part_domain"],
        line=left["model"] + ": a photograph without the part of drawings",
    )
    rows = pd.concat([of_drawings, of_photographs])
    styles = sorted(set(rows["place"]))
    lines = sorted(set(rows["line"]))
    # Six lines (three networks, two ways) share a style's place: a tenth apart, their bars do not cover each other.
    beside = (rows["line"].map(lines.index) - 2.5) / 10
    rows["place"] = rows["place"].map(styles.index) + beside
    rows = rows.sort_values(["line", "place"])
    drawn = charts.lesion_lines(rows, "drawn style", title)
    # Styles have no order, so that no line joins them.
    drawn.update_traces(mode="markers")
    return drawn.update_xaxes(tickvals=list(range(len(styles))), ticktext=styles)


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


@figure("Do captions that name no style bring the styles together?")
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
