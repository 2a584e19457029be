"""Figures of the study that are drawn by its plan; few have committed tables. No torch."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from circuitry.runs import InputError
from circuitry.reports.figures import domain_marks
from circuitry.training import CLASSIFIER
from experiments.study.domain_charts import similarity_panels
from experiments.study.figure_registry import figure, table
from experiments.study.measure_charts import apart_panels, group_panel, relation_panels
from experiments.study.run_tables import MODEL, check_like_classes, model_names
from experiments.study.selection import CLASS_SHARES, DOMAINNET_ROUND
from experiments.study.setting_charts import (
    in_test_domain,
    interpolation_lines,
    robustness_scatter,
    setting_dots,
    settings_bars,
)
from experiments.study.sharing import LABEL_FREE, SHARED

import pandas as pd
import plotly.graph_objects as go

KINDS_OF_MODEL = tuple(name for name in MODEL if name != "captions")
"""Columns that identify a kind of model, without captions, which belong to the setting."""
INTERPOLATIONS = ("class-interpolation", "domain-interpolation")
N_OTHERS = 4  # domains of DomainNet in CG high, without photographs and the test domain
NO_SKETCHES = "none"
SKETCHES = "imagenet-sketch"
SKETCH_PAIRS = {
    ("natural-only", SKETCHES): "natural-only with ImageNet-Sketch",
    ("cg-low", NO_SKETCHES): "cg-low",
    ("leave-out", SKETCHES): "leave-out with ImageNet-Sketch",
    ("cg-high", NO_SKETCHES): "cg-high",
}
"""What the study compares of ImageNet-Sketch: photographs with it and CG low, leave-out with it and CG high."""
CAPTION_PAIRS = {
    ("cg-high", NO_SKETCHES): "cg-high, standard captions",
    ("aligned", NO_SKETCHES): "cg-high, aligned captions",
}
"""Captions that name the style, and captions that do not."""
N_SKETCH_CLASSES = 345 - 15  # seen sketch classes of DomainNet
_CLASS = re.compile(r"class-interpolation-([\d.]+)(-low)?")
_DOMAIN = re.compile(r"domain-interpolation-(.+)")
_LOW = "CG low"
_HIGH = "CG high"
_ENDS = {
    "cg-low": (_LOW, 0.0),
    "upper-low": (_LOW, 1.0),
    "cg-high": (_HIGH, 0.0),
    "upper-high": (_HIGH, 1.0),
}


def main_settings(table: pd.DataFrame) -> pd.DataFrame:
    """Return all settings except interpolations of the model with most settings (ties: the first)."""
    rows = in_test_domain(table)
    return _most(rows[~rows["setting"].str.startswith(INTERPOLATIONS)])


def side_by_side(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the rows of models that differ only in one column, such as ``model`` or ``base``."""
    rows = in_test_domain(table)
    alike = [
        "test_domain",
        "setting",
        *(name for name in KINDS_OF_MODEL if name != column),
    ]
    chosen = rows[rows.groupby(alike)[column].transform("nunique") > 1]
    settings = chosen.groupby("test_domain")["setting"].transform("nunique")
    # Photographs alone are tested in every domain.
    chosen = chosen[settings > 1] if (settings > 1).any() else chosen
    check_like_classes(chosen)
    return _needed(chosen, f"differ in their {column} alone")


def renamed_settings(
    table: pd.DataFrame, names: Mapping[tuple[str, str], str]
) -> pd.DataFrame:
    """Return the rows of some (setting, sketches) under new names of settings, of models that have all of them."""
    order = pd.DataFrame(
        [(*key, name, i) for i, (key, name) in enumerate(names.items())]
    )
    order.columns = pd.Index(["setting", "sketches", "name", "order"])
    rows = in_test_domain(table).merge(order, on=["setting", "sketches"])
    rows = rows.assign(
        setting=rows["name"], sketches=NO_SKETCHES, captions=""
    ).sort_values("order", kind="stable")
    alike = ["test_domain", *(name for name in KINDS_OF_MODEL if name != "sketches")]
    rows = rows[rows.groupby(alike)["setting"].transform("nunique") == len(names)]
    return _needed(rows, f"have all of {', '.join(names.values())}").reset_index(
        drop=True
    )


def _needed(rows: pd.DataFrame, what: str) -> pd.DataFrame:
    """Return rows of models, if there are any."""
    if rows.empty:
        raise InputError(
            f"The figure needs models that {what}, but the table has none: train such models first."
        )
    return rows


def sketch_classes(table: pd.DataFrame) -> pd.DataFrame:
    """Return points of CG high with ImageNet-Sketch: ``x`` is the number of DomainNet's sketch classes that stay."""
    rows = in_test_domain(table)
    rows = rows[
        (rows["setting"] == "cg-high") & rows["sketches"].str.startswith(SKETCHES)
    ]
    shares = {name: float(share) for name, share in CLASS_SHARES.items()} | {
        SKETCHES: 1.0
    }
    kept = rows["sketches"].map(
        lambda name: max(1, int(shares[name] * N_SKETCH_CLASSES))
    )
    rows = _needed(rows, "saw cg-high and ImageNet-Sketch").assign(
        x=kept, line="cg-high with ImageNet-Sketch"
    )
    return _in_panels(rows, ["captions", "sketches"])


def _in_panels(rows: pd.DataFrame, alike: list[str]) -> pd.DataFrame:
    """Return points with a ``panel`` per test domain and model, whose columns ``alike`` do not count."""
    check_like_classes(rows)
    name = model_names(rows.drop(columns=alike))
    panel = rows["test_domain"] + name.map(lambda text: f", {text}" if text else "")
    return rows.assign(panel=panel).sort_values(
        ["panel", "line", "x"], kind="stable", ignore_index=True
    )


def class_interpolations(table: pd.DataFrame) -> pd.DataFrame:
    """Return points of the class interpolations: ``line`` (CG low, CG high), ``x``: share of held-out classes seen."""

    def place(setting: str) -> tuple[str, float] | None:
        found = _CLASS.fullmatch(setting)
        return (
            (_LOW if found[2] else _HIGH, float(found[1]))
            if found
            else _ENDS.get(setting)
        )

    return _points(table, place, "class-interpolation")


def domain_interpolations(table: pd.DataFrame) -> pd.DataFrame:
    """Return points of the domain interpolations: ``x`` is the number of further domains, ``label`` their letters."""

    def place(setting: str) -> tuple[str, float] | None:
        found = _DOMAIN.fullmatch(setting)
        ends = {"cg-low": ("none", 0.0), "cg-high": ("all", float(N_OTHERS))}
        return (
            (found[1].replace("+", ", "), found[1].count("+") + 1.0)
            if found
            else ends.get(setting)
        )

    points = _points(table, place, "domain-interpolation")
    whole = points["line"].isin(["none", "all"])
    letters = points["line"].map(
        lambda names: " ".join(name[0] for name in names.split(", "))
    )
    return points.assign(label=points["line"].where(whole, letters))


def _points(
    table: pd.DataFrame, place: Callable[[str], tuple[str, float] | None], kind: str
) -> pd.DataFrame:
    """Return the rows with a place, for the models and test domains that have interpolations of a kind."""
    rows = in_test_domain(table)
    key = ["test_domain", *KINDS_OF_MODEL]
    interpolated = _needed(rows[rows["setting"].str.startswith(kind)], f"saw a {kind}")
    rows = rows.merge(interpolated[key].drop_duplicates(), on=key)
    placed = rows["setting"].map(place).dropna()
    rows = rows.loc[placed.index].assign(
        line=placed.str[0], x=placed.str[1].astype(float)
    )
    return _in_panels(rows, ["captions"])


def _most(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the kind of model with most rows (ties: the first)."""
    largest = pd.DataFrame(
        [rows.groupby(list(MODEL), sort=False).size().idxmax()], columns=list(MODEL)
    )
    return rows.merge(largest, on=list(MODEL))


def compare_settings(
    name: str,
    title: str,
    choose: Callable[[pd.DataFrame], pd.DataFrame],
    results: str | None = None,
) -> None:
    """Register a figure of accuracy in the test domain by setting, of the rows that are compared."""

    def draw(tables: Path, title: str) -> go.Figure:
        marks = domain_marks(DOMAINNET_ROUND)
        return settings_bars(choose(table(tables, "told_apart")), marks, title)

    draw.__name__ = name
    figure(title, results)(draw)


compare_settings(
    "accuracy_by_setting",
    "What must a model have seen to recognise new classes of a style?",
    main_settings,
    "toy_recounted",
)
compare_settings(
    "architectures", "Do architectures differ?", partial(side_by_side, column="model")
)
compare_settings(
    "base_sets", "Does more natural data help?", partial(side_by_side, column="base")
)
compare_settings(
    "supervised_against_clip",
    "Does language help?",
    partial(side_by_side, column="trained"),
)
compare_settings(
    "imagenet_sketch",
    "Do sketches of other classes replace the domain?",
    partial(renamed_settings, names=SKETCH_PAIRS),
)
compare_settings(
    "aligned_captions",
    "Do captions that name no style help?",
    partial(renamed_settings, names=CAPTION_PAIRS),
)


@figure("Does accuracy on photographs foretell accuracy on drawings?", "toy_study")
def effective_robustness(tables: Path, title: str) -> go.Figure:
    return robustness_scatter(_most(table(tables, "robustness")), title=title)


DRAWN_SHARED = ("overlap", "transfer", "lesion", "cka", "features", "shift")
"""What is drawn against accuracy; the tables have more."""


@figure("Do models generalize where domains share circuitry?", "toy_recounted")
def sharing_against_accuracy(tables: Path, title: str) -> go.Figure:
    points = table(tables, "points")
    relations = table(tables, "relations")
    names = {what: (SHARED | LABEL_FREE)[what] for what in DRAWN_SHARED}
    return relation_panels(points, relations, names, "held_out", title=title)


@figure("How many sketch classes are needed beside ImageNet-Sketch?")
def imagenet_sketch_classes(tables: Path, title: str) -> go.Figure:
    points = sketch_classes(table(tables, "told_apart"))
    drawn = interpolation_lines(
        points, axis="sketch classes of DomainNet trained on", title=title
    )
    return drawn.update_xaxes(type="log", tickvals=sorted(set(points["x"])))


@figure("How much of the held-out classes must be seen in the test domain?")
def class_interpolation(tables: Path, title: str) -> go.Figure:
    points = class_interpolations(table(tables, "told_apart"))
    return interpolation_lines(
        points, axis="share of the held-out classes seen", title=title
    )


@figure("Do further domains help, and which?")
def domain_interpolation(tables: Path, title: str) -> go.Figure:
    points = domain_interpolations(table(tables, "told_apart"))
    return interpolation_lines(
        points, axis="further domains trained on", title=title, joined=False
    )


@figure("Is it the measure?")
def top5_and_f1(tables: Path, title: str) -> go.Figure:
    rows = table(tables, "measures")
    rows = main_settings(
        rows[(rows["group"] == "held-out") & (rows["classifier"] == CLASSIFIER)]
    )
    rows = rows.assign(
        panel=rows["test_domain"], series=rows["measure"], value=rows["mean"]
    )
    return setting_dots(rows, axis="held-out classes", title=title, span=(-0.03, 1.03))


@figure("Do more diverse models share more features between domains?")
def sharing_by_setting(tables: Path, title: str) -> go.Figure:
    shared = table(tables, "sharing_over_settings")
    series = {"the test domain": "score", "the other domains, mean": "others"}
    rows = pd.concat(
        [
            shared.assign(series=name, value=shared[column])
            for name, column in series.items()
        ]
    )
    return setting_dots(
        rows.assign(panel=rows["test_domain"]),
        axis="features shared with the other domains",
        title=title,
    )


@figure("Where do the circuits of one style part from the others?")
def units_apart(tables: Path, title: str) -> go.Figure:
    apart = table(tables, "domain_apart_over_depth")
    apart = apart.assign(panel=apart["group"].map(group_panel))
    return apart_panels(apart, measure="node overlap (Jaccard index)", title=title)


@figure("Which styles share their circuits, of held-out and of seen classes?")
def similarity_by_group(tables: Path, title: str) -> go.Figure:
    groups = table(tables, "similarity_by_group")
    return similarity_panels(
        groups[groups["measure"] != "node_overlap"],
        title=title,
        groups={name: group_panel(name) for name in set(groups["group"])},
        first="real",
    )


@figure(
    "Where do the representations of one style part from the others, of held-out and of seen classes?"
)
def cka_by_group(tables: Path, title: str) -> go.Figure:
    apart = table(tables, "cka_apart").sort_values("kernel", kind="stable")
    kernels = [
        group_panel(group, f"{kernel} kernel")
        for group, kernel in apart[["group", "kernel"]].to_numpy()
    ]
    return apart_panels(apart.assign(panel=kernels), measure="CKA", title=title)
