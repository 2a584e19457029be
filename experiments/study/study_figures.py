"""Figures of the study that are drawn by its plan; few have committed tables. No torch."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from circuitry.runs import InputError
from circuitry.comparison import check_table
from circuitry.reports import figure, table
from circuitry.reports import figures as charts
from circuitry.training import CLASSIFIER
from experiments.study.measure_charts import apart_panels, group_panel, relation_panels
from experiments.study.relations import LABEL_FREE, SHARED
from experiments.study.run_tables import MODEL, check_like_classes, model_names
from experiments.study.selection import CLASS_SHARES, DOMAINNET_ROUND
from experiments.study.setting_charts import interpolation_lines, robustness_scatter, setting_dots, settings_bars

import pandas as pd
import plotly.graph_objects as go

KINDS_OF_MODEL = tuple(name for name in MODEL if name != "captions")
"""Columns that identify a kind of model, without captions, which belong to the setting."""
INTERPOLATIONS = ("class-interpolation", "domain-interpolation")
N_OTHERS = 4  # domains of DomainNet in CG high, without photographs and the test domain
NO_SKETCHES, SKETCHES = "none", "imagenet-sketch"
SKETCH_PAIRS = {
    ("natural-only", SKETCHES): "natural-only with ImageNet-Sketch",
    ("cg-low", NO_SKETCHES): "cg-low",
    ("leave-out", SKETCHES): "leave-out with ImageNet-Sketch",
    ("cg-high", NO_SKETCHES): "cg-high",
}  # what the study compares of ImageNet-Sketch: photographs with it and CG low, leave-out with it and CG high
CAPTION_PAIRS = {
    ("cg-high", NO_SKETCHES): "cg-high, standard captions",
    ("aligned", NO_SKETCHES): "cg-high, aligned captions",
}  # captions that name the style, and captions that do not
N_SKETCH_CLASSES = 345 - 15  # seen sketch classes of DomainNet
_CLASS = re.compile(r"class-interpolation-([\d.]+)(-low)?")
_DOMAIN = re.compile(r"domain-interpolation-(.+)")
_LOW, _HIGH = "CG low", "CG high"
_ENDS = {"cg-low": (_LOW, 0.0), "upper-low": (_LOW, 1.0), "cg-high": (_HIGH, 0.0), "upper-high": (_HIGH, 1.0)}


def in_test_domain(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a table over models in which the domain is the test domain."""
    check_table(table, "settings", ("test_domain", *MODEL, "setting", "domain"), key=())
    return table[table["domain"] == table["test_domain"]]


def main_settings(table: pd.DataFrame) -> pd.DataFrame:
    """Return all settings except interpolations of the model with most settings (ties: the first)."""
    rows = in_test_domain(table)
    rows = _most(rows[~rows["setting"].str.startswith(INTERPOLATIONS)], MODEL)
    check_like_classes(rows)
    return rows


def main_model(points: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `effective_robustness` of the model with most rows (ties: the first)."""
    return _most(points, MODEL)


def side_by_side(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the rows of models that differ only in one column, such as ``model`` or ``base``."""
    rows = in_test_domain(table)
    alike = ["test_domain", "setting", *(name for name in KINDS_OF_MODEL if name != column)]
    chosen = rows[rows.groupby(alike)[column].transform("nunique") > 1]
    settings = chosen.groupby("test_domain")["setting"].transform("nunique")
    chosen = chosen[settings > 1] if (settings > 1).any() else chosen  # photographs alone are tested in every domain
    if chosen.empty:
        raise InputError(f"Two models must differ in their {column} alone, but none of the table do: add such models.")
    return chosen


def renamed_settings(table: pd.DataFrame, names: Mapping[tuple[str, str], str]) -> pd.DataFrame:
    """Return the rows of some (setting, sketches) under new names of settings, of models that have all of them."""
    rows = in_test_domain(table)
    given = pd.Series(list(zip(rows["setting"], rows["sketches"], strict=True)), index=rows.index, dtype=object)
    rows = rows.assign(setting=given.map(names.get), sketches=NO_SKETCHES, captions="")
    rows = rows[rows["setting"].notna()]
    alike = ["test_domain", *(name for name in KINDS_OF_MODEL if name != "sketches")]
    rows = rows[rows.groupby(alike)["setting"].transform("nunique") == len(names)]
    if rows.empty:
        raise InputError(f"The table has no model of all of {', '.join(names.values())}: train such models first.")
    check_like_classes(rows)
    order = list(names.values())
    return rows.sort_values("setting", key=lambda column: column.map(order.index), kind="stable", ignore_index=True)


def sketch_classes(table: pd.DataFrame) -> pd.DataFrame:
    """Return points of CG high with ImageNet-Sketch: ``x`` is the number of DomainNet's sketch classes that stay."""
    rows = in_test_domain(table)
    rows = rows[(rows["setting"] == "cg-high") & rows["sketches"].str.startswith(SKETCHES)]
    if rows.empty:
        raise InputError("The table has no model of cg-high with ImageNet-Sketch: train such models first.")
    check_like_classes(rows)
    shares = {name: float(share) for name, share in CLASS_SHARES.items()} | {SKETCHES: 1.0}
    kept = rows["sketches"].map(lambda name: max(1, int(shares[name] * N_SKETCH_CLASSES)))
    name = model_names(rows.drop(columns=["captions", "sketches"]))
    panel = rows["test_domain"] + name.map(lambda text: f", {text}" if text else "")
    rows = rows.assign(x=kept, line="cg-high with ImageNet-Sketch", panel=panel)
    return rows.sort_values(["panel", "x"], kind="stable", ignore_index=True)


def class_interpolations(table: pd.DataFrame) -> pd.DataFrame:
    """Return points of the class interpolations: ``line`` (CG low, CG high), ``x``: share of held-out classes seen."""

    def place(setting: str) -> tuple[str, float] | None:
        found = _CLASS.fullmatch(setting)
        return (_LOW if found[2] else _HIGH, float(found[1])) if found else _ENDS.get(setting)

    return _points(table, place, "class-interpolation")


def domain_interpolations(table: pd.DataFrame) -> pd.DataFrame:
    """Return points of the domain interpolations: ``x`` is the number of further domains, ``label`` their letters."""

    def place(setting: str) -> tuple[str, float] | None:
        found = _DOMAIN.fullmatch(setting)
        ends = {"cg-low": ("none", 0.0), "cg-high": ("all", float(N_OTHERS))}
        return (found[1].replace("+", ", "), found[1].count("+") + 1.0) if found else ends.get(setting)

    points = _points(table, place, "domain-interpolation")
    whole = points["line"].isin(["none", "all"])
    letters = points["line"].map(lambda names: " ".join(name[0] for name in names.split(", ")))
    return points.assign(label=points["line"].where(whole, letters))


def _points(table: pd.DataFrame, place: Callable[[str], tuple[str, float] | None], kind: str) -> pd.DataFrame:
    """Return the rows with a place, for the models and test domains that have interpolations of a kind."""
    rows = in_test_domain(table)
    interpolated = rows[rows["setting"].str.startswith(kind)]
    if interpolated.empty:
        raise InputError(f"The table has no model of a {kind}: make such mixtures and train on them first.")
    key = ["test_domain", *KINDS_OF_MODEL]
    rows = rows.merge(interpolated[key].drop_duplicates(), on=key)
    placed = rows["setting"].map(place)
    rows, placed = rows[placed.notna()], placed.dropna()
    rows = rows.assign(line=[line for line, _ in placed], x=[x for _, x in placed])
    check_like_classes(rows)
    name = model_names(rows.drop(columns="captions"))
    return rows.assign(panel=rows["test_domain"] + name.map(lambda text: f", {text}" if text else "")).sort_values(
        ["panel", "line", "x"], kind="stable", ignore_index=True
    )


def _most(rows: pd.DataFrame, key: Sequence[str]) -> pd.DataFrame:
    """Return the rows of the largest group (ties: the first)."""
    sizes = rows.groupby(list(key), sort=False).size()
    largest = pd.DataFrame([sizes.idxmax()], columns=list(key))
    return rows.merge(largest, on=list(key))


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
