"""Figures of the study that are drawn by its plan; few have committed tables. No torch."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from circuitry.reports import figure, table
from circuitry.reports import figures as charts
from circuitry.training import CLASSIFIER
from experiments.study.group_panels import apart_panels, group_panel
from experiments.study.relation_panels import relation_panels
from experiments.study.relations import LABEL_FREE, SHARED
from experiments.study.robustness_lines import robustness_scatter
from experiments.study.run_selections import (
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
from experiments.study.setting_bars import settings_bars
from experiments.study.setting_lines import interpolation_lines, setting_dots
from experiments.study.subsampling import DOMAINNET_ROUND

import pandas as pd
import plotly.graph_objects as go


def compare_settings(
    name: str, title: str, choose: Callable[[pd.DataFrame], pd.DataFrame], results: str | None = None
) -> None:
    """Register a figure of accuracy in the test domain by setting, of the rows that are compared."""

    def draw(tables: Path, title: str) -> go.Figure:
        marks = charts.domain_marks(DOMAINNET_ROUND)
        return settings_bars(choose(table(tables, "told_apart")), title=title, marks=marks)

    draw.__name__ = name
    figure(title, results)(draw)


compare_settings(
    *("accuracy_by_setting", "What must a model have seen to recognise new classes of a style?"),
    *(main_settings, "generalization"),
)
compare_settings("architectures", "Do architectures differ?", partial(side_by_side, column="model"))
compare_settings("base_sets", "Does more natural data help?", partial(side_by_side, column="base"))
compare_settings("supervised_against_clip", "Does language help?", partial(side_by_side, column="trained"))
compare_settings(
    *("imagenet_sketch", "Do sketches of other classes replace the domain?"),
    partial(renamed_settings, names=SKETCH_PAIRS),
)
compare_settings(
    *("aligned_captions", "Do captions that name no style help?"), partial(renamed_settings, names=CAPTION_PAIRS)
)


@figure("Does accuracy on photographs foretell accuracy on drawings?", "generalization")
def effective_robustness(tables: Path, title: str) -> go.Figure:
    return robustness_scatter(main_model(table(tables, "robustness")), title=title)


@figure("Do models generalize where domains share circuitry?", "shared_circuitry")
def sharing_against_accuracy(tables: Path, title: str) -> go.Figure:
    points, relations = table(tables, "points"), table(tables, "relations")
    return relation_panels(points, relations, SHARED | LABEL_FREE, "alone", title=title)


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
    return charts.similarity_panels(
        groups[groups["measure"] != "node_overlap"],
        title=title,
        groups={name: group_panel(name) for name in set(groups["group"])},
        first="real",
    )


@figure("Where do the representations of one style part from the others, of held-out and of seen classes?")
def cka_by_group(tables: Path, title: str) -> go.Figure:
    apart = table(tables, "cka_apart").sort_values("kernel", kind="stable")
    kernels = [group_panel(group, f"{kernel} kernel") for group, kernel in apart[["group", "kernel"]].to_numpy()]
    return apart_panels(apart.assign(panel=kernels), measure="CKA", title=title)
