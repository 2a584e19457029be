"""All figures by name: each is drawn from a folder of tables, the committed ones unless another is given.

    circuitry figures                      # every figure that has committed tables, in a checkout
    circuitry figures --list               # names and questions
    circuitry figures accuracy --tables runs/quickstart/tables --out runs/figures

An entry is a title, the folder of its committed tables below experiments/results, and the lines that read and draw
them. Figures without committed tables are drawn by the plan of the study (circuitry study).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import plotly.graph_objects as go
from tyro.conf import Positional

from circuitry.data.names import chosen_names
from circuitry.reports import figures as charts
from circuitry.reports.figure_files import write_figure
from circuitry.runs import InputError
from circuitry.study import charts as study_charts
from circuitry.study.charts.cost_scatter import cost_against_quality
from circuitry.study.charts.group_panels import apart_panels, group_panel, similarity_panels
from circuitry.study.charts.measure_panels import measure_panels
from circuitry.study.charts.relation_panels import relation_panels
from circuitry.study.charts.setting_lines import interpolation_lines, setting_dots
from circuitry.study.generalization import CLASSIFIER
from circuitry.study.mixtures.subsampling import DOMAINNET_ROUND
from circuitry.study.run_selections import (
    CAPTION_PAIRS,
    SKETCH_PAIRS,
    class_interpolations,
    domain_interpolations,
    main_model,
    main_settings,
    renamed_settings,
    side_by_side,
    sketch_classes,
)
from circuitry.study.sections.relations import LABEL_FREE, SHARED
from circuitry.study.sections.scoreboards import size_curves
from circuitry.study.sections.separations import PANELS, panel_references

COMMITTED = Path("experiments/results")
SMALL_SITES = {"act1": 1, "act2": 1}
"""Units that a circuit of a tenth keeps of 6 channels: overlaps at these sites are means of 0 and 1."""
PHOTOGRAPHS = "EfficientNet-Lite0, photographs"
MODELS = {"efficientnet_body": PHOTOGRAPHS, "toy_body": "small CLIP, drawn set"}
MEAN_MARGIN = "baseline == 'mean' and metric == 'margin'"
CUT_ONCE = f"{MEAN_MARGIN} and (budget == 'global' or method == 'learned')"

Draw = Callable[[Path, str], go.Figure]  # from a folder of tables and a title


class RegisteredFigure(NamedTuple):
    """A figure of the registry, with the folder of its committed tables (None: there are none)."""

    draw: Draw
    title: str
    results: Path | None


FIGURES: dict[str, RegisteredFigure] = {}


def figure(title: str, results: str | None = None) -> Callable[[Draw], Draw]:
    """Register the function below as the figure of its name."""

    def register(draw: Draw) -> Draw:
        FIGURES[draw.__name__] = RegisteredFigure(draw, title, None if results is None else COMMITTED / results)
        return draw

    return register


def table(tables: Path, name: str, dtype: dict[str, type] | None = None) -> pd.DataFrame:
    """Read a table."""
    return pd.read_csv(tables / f"{name}.csv", dtype=dtype)


def matrix(tables: Path, name: str) -> pd.DataFrame:
    """Read a table of domains by domains."""
    return table(tables, name).set_index("domain").rename_axis(index=None)


def heatmap(tables: Path, name: str, title: str, measure: str) -> go.Figure:
    """Draw a table of domains by domains, similar ones beside each other."""
    return charts.similarity_heatmap(matrix(tables, name), title=title, measure=measure, clustered=True)


@figure("Which styles does the model recognise?", "quickstart")
def accuracy(tables: Path, title: str) -> go.Figure:
    return study_charts.accuracy_bars(table(tables, "accuracy"), title=title)


@figure("Which styles share their circuits?", "quickstart")
def domain_similarity(tables: Path, title: str) -> go.Figure:
    return heatmap(tables, "edge_jaccard_matrix", title, "edge Jaccard index")


@figure("Do styles use the same units of the model?", "quickstart")
def overlap_over_depth(tables: Path, title: str) -> go.Figure:
    names = ("node_overlap_over_depth", "node_overlap_ceiling_by_site", "chance_node_overlap")
    depth, ceiling, chance = (table(tables, name) for name in names)
    chance["kept"] = chance["site"].map(SMALL_SITES)
    return charts.overlap_over_depth(depth, list(chance["site"]), ceiling, chance, title=title)


@figure("Which styles of emoji share their circuits?", "emoji")
def emoji_ratios(tables: Path, title: str) -> go.Figure:
    return heatmap(tables, "edge_jaccard_ratio_matrix", title, "edge Jaccard index, ratio to the ceiling")


@figure("Which measures tell circuits apart? (dotted: guessing)", "measures")
def measures(tables: Path, title: str) -> go.Figure:
    return measure_panels(table(tables, "measures"), title=title)


@figure("How much of a model does a circuit need?", "faithfulness")
def faithfulness_curves(tables: Path, title: str) -> go.Figure:
    return charts.faithfulness_curves(table(tables, "faithfulness_absolute"), title=title)


@figure("Where is the circuit of a class enough to tell it from others?", "faithfulness")
def selectivity_over_depth(tables: Path, title: str) -> go.Figure:
    both = table(tables, "selectivity_one_site").rename(columns={"sites": "site"})
    kept, random = (both[both["circuit"] == which] for which in ("kept", "random"))
    chance = random.groupby("site", sort=False)["value"].mean().reset_index()
    sites, names = list(kept["site"].unique()), ("selectivity, one site ablated", "random units")
    return charts.overlap_over_depth(kept, sites, None, chance, measure=names[0], chance_label=names[1], title=title)


@figure("Do circuits transfer between similar domains?", "transfer")
def transfer_beside_similarity(tables: Path, title: str) -> go.Figure:
    agreement = table(tables, "correlations").set_index("sites")["selectivity: rho"]
    site = str(agreement.drop("all").idxmax())
    at_site = table(tables, "matrices").query("sites == @site")
    transfer = at_site.pivot(index="circuit of", columns="images of", values="selectivity")
    similarity = matrix(tables, "edge_jaccard_matrix")
    measure = f"selectivity at {site}"
    return charts.transfer_beside_similarity(transfer, similarity, measure=measure, title=title, clustered=True)


@figure(f"Which circuits tell a class from others? {PHOTOGRAPHS}", "scoreboard/efficientnet_body")
def scoreboard_selectivity(tables: Path, title: str) -> go.Figure:
    curves = table(tables, "curves").query(f"{MEAN_MARGIN} and measure == 'selectivity'")
    budgets = curves["budget"].where(curves["budget"] != curves["method"], "own counts")
    return size_curves(curves.assign(method=curves["method"] + ", " + budgets), "selectivity", title)


@figure("Cost of a circuit and its smallest size", "scoreboard")
def scoreboard_cost(tables: Path, title: str) -> go.Figure:
    parts = [table(tables, f"{name}/summary").query(CUT_ONCE).assign(setting=MODELS[name]) for name in MODELS]
    return cost_against_quality(pd.concat(parts, ignore_index=True), title=title)


@figure("Which edges tell a class from others? Vision transformer, drawn images", "scoreboard/components")
def scoreboard_edges(tables: Path, title: str) -> go.Figure:
    curves = table(tables, "curves").query("measure == 'selectivity' and method in ['gradient', 'exact', 'learned']")
    drawn = size_curves(curves, "selectivity", title)
    drawn.for_each_trace(lambda trace: trace.update(name=trace.name.replace("random units", "random edges")))
    return drawn.update_xaxes(title_text="edges kept (%)")


@figure("What does each head and MLP add to the answer directly?", "components")
def direct_effects(tables: Path, title: str) -> go.Figure:
    effects = table(tables, "direct_effects", dtype={"component": str})
    return charts.component_heatmap(effects, title=title, measure="effect on the lead of the class")


@figure("How few pooling pairs carry the answers?", "pooling_pairs")
def accuracy_of_pairs(tables: Path, title: str) -> go.Figure:
    drawn = charts.faithfulness_curves(table(tables, "accuracy"), measure="accuracy", title=title)
    return drawn.update_xaxes(title_text="pairs of a pooling head and a unit that are kept (%)")


@figure("Where do the styles look alike to the model?", "representations")
def cka_over_depth(tables: Path, title: str) -> go.Figure:
    domains, ceilings = (table(tables, name).query("group == 'all'") for name in ("cka_over_depth", "cka_ceilings"))
    return charts.cka_over_depth(domains, ceilings, title=title)


@figure("Where does one style part from the others?", "representations")
def cka_apart(tables: Path, title: str) -> go.Figure:
    apart = table(tables, "cka_apart").query("group == 'all' and kernel == 'linear'")
    return charts.overlap_over_depth(apart, list(apart["site"].unique()), measure="CKA, linear kernel", title=title)


@figure("What can be read off the activations?", "representations")
def probes_over_depth(tables: Path, title: str) -> go.Figure:
    return charts.probes_over_depth(table(tables, "probes"), title=title)


@figure("Which styles share their features?", "shared_features")
def feature_sharing(tables: Path, title: str) -> go.Figure:
    drawn = heatmap(tables, "feature_sharing_matrix", title, "feature sharing")
    levels = table(tables, "feature_sharing_levels").set_index("what")["value"]
    low = ", ".join(f"{what} {levels[what]:.2f}" for what in ("two classes in two domains", "random features"))
    return drawn.update_layout(title_subtitle_text=f"{drawn.layout.title.subtitle.text}; {low}")


@figure("Do captions that name no style bring the styles together?", "embedding_separation")
def embedding_map(tables: Path, title: str) -> go.Figure:
    return charts.embedding_maps(table(tables, "map"), title=title)


@figure("How far do the styles lie apart, and does accuracy follow?", "embedding_separation")
def separation(tables: Path, title: str) -> go.Figure:
    summary = table(tables, "summary").query("domain != 'all'")
    references = panel_references(summary, json.loads((tables / "provenance.json").read_text())["classes"])
    return charts.separation_panels(summary, PANELS, table(tables, "by_seed"), references, title=title)


@figure("Does accuracy on photographs foretell accuracy on drawings?", "generalization")
def effective_robustness(tables: Path, title: str) -> go.Figure:
    return study_charts.robustness_scatter(main_model(table(tables, "robustness")), title=title)


@figure("Do models generalize where domains share circuitry?", "shared_circuitry")
def sharing_against_accuracy(tables: Path, title: str) -> go.Figure:
    points, relations = table(tables, "points"), table(tables, "relations")
    return relation_panels(points, relations, SHARED | LABEL_FREE, "alone", title=title)


def compared_settings(tables: Path, title: str, *, choose: Callable[[pd.DataFrame], pd.DataFrame]) -> go.Figure:
    """Draw accuracy in the test domain by setting, of the rows that are compared."""
    rows, marks = choose(table(tables, "told_apart")), charts.domain_marks(DOMAINNET_ROUND)
    return study_charts.settings_bars(rows, title=title, marks=marks)


for _name, _choose, _title, _results in (
    (
        *("accuracy_by_setting", main_settings),
        *("What must a model have seen to recognise new classes of a style?", COMMITTED / "generalization"),
    ),
    ("architectures", partial(side_by_side, column="model"), "Do architectures differ?", None),
    ("base_sets", partial(side_by_side, column="base"), "Does more natural data help?", None),
    ("supervised_against_clip", partial(side_by_side, column="trained"), "Does language help?", None),
    (
        *("imagenet_sketch", partial(renamed_settings, names=SKETCH_PAIRS)),
        *("Do sketches of other classes replace the domain?", None),
    ),
    ("aligned_captions", partial(renamed_settings, names=CAPTION_PAIRS), "Do captions that name no style help?", None),
):
    FIGURES[_name] = RegisteredFigure(partial(compared_settings, choose=_choose), _title, _results)


@figure("How many sketch classes are needed beside ImageNet-Sketch?")
def imagenet_sketch_classes(tables: Path, title: str) -> go.Figure:
    points = sketch_classes(table(tables, "told_apart"))
    drawn = interpolation_lines(points, axis="sketch classes of DomainNet trained on", title=title)
    return drawn.update_xaxes(type="log", tickvals=sorted(set(points["x"])))


@figure("How much of the held-out classes must be seen in the test domain?")
def class_interpolation(tables: Path, title: str) -> go.Figure:
    points = class_interpolations(table(tables, "told_apart"))
    return interpolation_lines(points, axis="share of the held-out classes seen", title=title)


@figure("Do further domains help, and which?")
def domain_interpolation(tables: Path, title: str) -> go.Figure:
    points = domain_interpolations(table(tables, "told_apart"))
    return interpolation_lines(points, axis="further domains trained on", title=title, joined=False)


@figure("Is it the measure?")
def top5_and_f1(tables: Path, title: str) -> go.Figure:
    rows = table(tables, "measures")
    rows = main_settings(rows[(rows["part"] == "held-out") & (rows["classifier"] == CLASSIFIER)])
    rows = rows.assign(panel=rows["test_domain"], series=rows["measure"], value=rows["mean"])
    return setting_dots(rows, axis="held-out classes", title=title, span=(-0.03, 1.03))


@figure("Do more diverse models share more features between domains?")
def sharing_by_setting(tables: Path, title: str) -> go.Figure:
    shared = table(tables, "sharing_over_settings")
    series = {"the test domain": "score", "the other domains, mean": "others"}
    rows = pd.concat([shared.assign(series=name, value=shared[column]) for name, column in series.items()])
    return setting_dots(
        rows.assign(panel=rows["test_domain"]), axis="features shared with the other domains", title=title
    )


@figure("Where do the circuits of one style part from the others?")
def units_apart(tables: Path, title: str) -> go.Figure:
    apart = table(tables, "domain_apart_over_depth")
    apart = apart.assign(panel=apart["group"].map(group_panel))
    return apart_panels(apart, measure="node overlap (Jaccard index)", title=title)


@figure("Which styles share their circuits, of held-out and of seen classes?")
def similarity_by_group(tables: Path, title: str) -> go.Figure:
    groups = table(tables, "similarity_by_group")
    return similarity_panels(groups[groups["measure"] != "node_overlap"], title=title)


@figure("Where do the representations of one style part from the others, of held-out and of seen classes?")
def cka_by_group(tables: Path, title: str) -> go.Figure:
    apart = table(tables, "cka_apart").sort_values("kernel", kind="stable")
    kernels = [group_panel(group, f"{kernel} kernel") for group, kernel in apart[["group", "kernel"]].to_numpy()]
    return apart_panels(apart.assign(panel=kernels), measure="CKA", title=title)


@dataclass(frozen=True)
class Config:
    """Which figures are drawn."""

    names: Positional[tuple[str, ...]] = ()
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
        print(*(f"{name}: {one.title}" for name, one in FIGURES.items()), sep="\n")
        return
    committed = [name for name, one in FIGURES.items() if one.results is not None]
    for name in chosen_names("figure", config.names or committed, tuple(FIGURES)):
        draw, title, results = FIGURES[name]
        tables = config.tables or results
        if tables is None or not tables.is_dir():
            raise InputError(f"The figure {name} has no tables at {tables}: give the folder of its tables (--tables).")
        print(*write_figure(draw(tables, title), config.out / name), sep="\n")
