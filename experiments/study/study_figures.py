"""Which figures does the study draw, and of which rows of its tables? The figures of its plan and of its claims.

Few of these figures have committed tables. The tables of the others come from a run of the whole study.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from circuitry.runs import InputError
from circuitry.reports.figures import domain_marks
from circuitry.training import AMONG_GROUP, CLASSIFIER
from experiments.study import (
    claim_charts,
    claims,
    mark_claims,
    real_claims,
    style_claims,
    style_curves,
)
from experiments.study.domain_charts import similarity_panels
from experiments.study.figure_registry import figure, table
from experiments.study.mark_charts import worst_against_mean
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
from experiments.study.style_command import MAIN

import pandas as pd
import plotly.graph_objects as go

REAL = "real_study"
"""Folder of the committed tables of the study on real pictures."""
KINDS_OF_MODEL = tuple(name for name in MODEL if name != "captions")
"""Columns that identify a kind of model; captions are no such column here, because they belong to the setting."""
INTERPOLATIONS = ("class-interpolation", "domain-interpolation")
N_OTHERS = 4  # number of DomainNet's domains except photographs and the test domain
NO_SKETCHES = "none"
SKETCHES = "imagenet-sketch"
SKETCH_PAIRS = {
    ("natural-only", SKETCHES): "natural-only with ImageNet-Sketch",
    ("cg-low", NO_SKETCHES): "cg-low",
    ("leave-out", SKETCHES): "leave-out with ImageNet-Sketch",
    ("cg-high", NO_SKETCHES): "cg-high",
}
"""Takes a setting and a variant of ImageNet-Sketch. Returns the name in the figure of ImageNet-Sketch.

The study compares photographs and ImageNet-Sketch with CG low, and leave-out and ImageNet-Sketch with CG high."""
CAPTION_PAIRS = {
    ("cg-high", NO_SKETCHES): "cg-high, standard captions",
    ("aligned", NO_SKETCHES): "cg-high, aligned captions",
}
"""Takes a setting and a variant of ImageNet-Sketch. Returns the name in the figure of captions."""
N_SKETCH_CLASSES = 345 - 15  # classes of DomainNet without the held-out classes
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
"""Line and share of the held-out classes of the settings at the ends of the class interpolations."""


def main_settings(table: pd.DataFrame) -> pd.DataFrame:
    """Return all settings except interpolations, of the kind of model with most settings (of equals the first)."""
    rows = in_test_domain(table)
    return _most(rows[~rows["setting"].str.startswith(INTERPOLATIONS)])


def side_by_side(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the rows of models that differ only in one column, such as ``model`` or ``base``."""
    rows = in_test_domain(table)
    alike = ["test_domain", "setting", *KINDS_OF_MODEL]
    alike.remove(column)
    chosen = rows[rows.groupby(alike)[column].transform("nunique") > 1]
    # Photographs alone are tested in every domain, also in domains without any other setting to compare.
    several = chosen.groupby("test_domain")["setting"].transform("nunique") > 1
    if several.any():
        chosen = chosen[several]
    check_like_classes(chosen)
    return _needed(chosen, f"differ in their {column} alone")


def renamed_settings(
    table: pd.DataFrame, names: Mapping[tuple[str, str], str]
) -> pd.DataFrame:
    """Return the rows of some settings under new names, of the models that have all of these settings.

    Args:
        names: Takes a setting and a variant of ImageNet-Sketch. Returns the new name of the setting.
    """
    keys = ["setting", "sketches"]
    index = pd.MultiIndex.from_tuples(names, names=keys)
    order = pd.DataFrame({"name": names.values(), "order": range(len(names))}, index)
    rows = in_test_domain(table).merge(order, left_on=keys, right_index=True)
    # Sketches and captions are in the new names, so they must not make different kinds of models.
    rows = rows.assign(setting=rows["name"], sketches=NO_SKETCHES, captions="")
    rows = rows.sort_values("order", kind="stable")
    alike = ["test_domain", *KINDS_OF_MODEL]
    rows = rows[rows.groupby(alike)["setting"].transform("nunique") == len(names)]
    _needed(rows, f"have all of {', '.join(names.values())}")
    return rows.reset_index(drop=True)


def _needed(rows: pd.DataFrame, what: str) -> pd.DataFrame:
    """Return the rows of models, after checking that there are rows; ``what`` says in an error which models lack."""
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
    _needed(rows, "saw cg-high and ImageNet-Sketch")
    # Without a variant all sketch classes stay; at least one class stays in each variant.
    shares = {**CLASS_SHARES, SKETCHES: 1}
    numbers = {
        name: max(1, int(float(share) * N_SKETCH_CLASSES))
        for name, share in shares.items()
    }
    rows = rows.assign(
        x=rows["sketches"].map(numbers), line="cg-high with ImageNet-Sketch"
    )
    return _in_panels(rows, ["captions", "sketches"])


def _in_panels(rows: pd.DataFrame, alike: list[str]) -> pd.DataFrame:
    """Return points with the column ``panel``, which names the test domain and the kind of model.

    Args:
        alike: Columns that do not make different kinds of models.
    """
    check_like_classes(rows)
    name = ", " + model_names(rows.drop(columns=alike))
    # Without a name only the comma would be left.
    panel = rows["test_domain"] + name.where(name != ", ", "")
    order = ["panel", "line", "x"]
    return rows.assign(panel=panel).sort_values(order, kind="stable", ignore_index=True)


def class_interpolations(table: pd.DataFrame) -> pd.DataFrame:
    """Return points of the class interpolations.

    ``line`` is CG low or CG high. ``x`` is the share of the held-out classes that are seen in the test domain.
    """

    def place(setting: str) -> tuple[str, float] | None:
        name = _CLASS.fullmatch(setting)
        if name is None:
            return _ENDS.get(setting)
        return _LOW if name[2] else _HIGH, float(name[1])

    return _points(table, place, "class-interpolation")


def domain_interpolations(table: pd.DataFrame) -> pd.DataFrame:
    """Return points of the domain interpolations.

    ``x`` is the number of further domains, ``line`` their names, ``label`` their first letters.
    """
    ends = {"cg-low": ("none", 0.0), "cg-high": ("all", float(N_OTHERS))}

    def place(setting: str) -> tuple[str, float] | None:
        name = _DOMAIN.fullmatch(setting)
        if name is None:
            return ends.get(setting)
        domains = name[1].split("+")
        return ", ".join(domains), float(len(domains))

    points = _points(table, place, "domain-interpolation")
    # No domain's name is "none" or "all": these words stay whole.
    at_end = points["line"].isin(["none", "all"])
    letters = points["line"].str.findall("(?:^|, )(.)").str.join(" ")
    return points.assign(label=points["line"].where(at_end, letters))


def _points(
    table: pd.DataFrame, place: Callable[[str], tuple[str, float] | None], kind: str
) -> pd.DataFrame:
    """Return the rows of settings that have a place, for models and test domains with interpolations of a kind.

    Args:
        place: Takes a setting. Returns its line and its position on the axis, or None if it is not drawn.
        kind: First words of the settings of the interpolations.
    """
    rows = in_test_domain(table)
    key = ["test_domain", *KINDS_OF_MODEL]
    interpolated = _needed(rows[rows["setting"].str.startswith(kind)], f"saw a {kind}")
    rows = rows.merge(interpolated[key].drop_duplicates(), on=key)
    placed = rows["setting"].map(place).dropna()
    # `str` takes entries of tuples, too.
    x = placed.str[1].astype(float)
    rows = rows.loc[placed.index].assign(line=placed.str[0], x=x)
    return _in_panels(rows, ["captions"])


def _most(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the kind of model with most rows; of equals, the first in the table."""
    kinds = rows.groupby(list(MODEL), sort=False)
    return kinds.get_group(kinds.size().idxmax()).reset_index(drop=True)


def compare_settings(
    name: str,
    title: str,
    choose: Callable[[pd.DataFrame], pd.DataFrame],
    results: str | None = None,
) -> None:
    """Register a figure of accuracy in the test domain by setting.

    Args:
        choose: Function that returns the rows of the table which the figure compares.
        results: Name of the folder of committed tables (default: the figure has none).
    """

    def draw(tables: Path, title: str) -> go.Figure:
        marks = domain_marks(DOMAINNET_ROUND)
        return settings_bars(choose(table(tables, "told_apart")), marks, title)

    draw.__name__ = name
    figure(title, results)(draw)


compare_settings(
    "accuracy_by_setting",
    "What must a model have seen to recognise new classes of a style?",
    main_settings,
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


@figure("Does accuracy on photographs foretell accuracy on drawings?", REAL)
def effective_robustness(tables: Path, title: str) -> go.Figure:
    return robustness_scatter(_most(table(tables, "robustness")), title=title)


DRAWN_SHARED = (
    "study_units",
    "study_edges",
    "part_of_ceiling",
    "transfer",
    "cka",
    "features",
)
"""Measures that are drawn against accuracy; the tables have further measures."""


@figure("Do models generalize where domains share circuitry?", REAL)
def sharing_against_accuracy(tables: Path, title: str) -> go.Figure:
    points = table(tables, "points")
    relations = table(tables, "relations").query("within == 'pair'")
    names = {what: (SHARED | LABEL_FREE)[what] for what in DRAWN_SHARED}
    return relation_panels(points, relations, names, "held_out_all", title=title)


@figure("What must a model have seen to recognise new classes of a style?", REAL)
def accuracy_by_mixture(tables: Path, title: str) -> go.Figure:
    """Draw the accuracies of `claims`, counted as written."""
    shared = table(tables, "shared")
    far = str(shared["test_domain"].iloc[0])
    numbers = claims.Tables(table(tables, "accuracies"), shared, far)
    counted = claims.accuracies(numbers, claims.Choices())
    between = claims.accuracies(numbers, claims.Choices(among=AMONG_GROUP))
    return claim_charts.accuracy_by_mixture(counted, between, far, title)


@figure("Which claims stand, however they are counted?", REAL)
def claim_verdicts(tables: Path, title: str) -> go.Figure:
    judgements = table(tables, "claims")
    return claim_charts.verdicts_by_way(judgements, real_claims.CLAIMS, title)


STYLE = "style"
"""Folder of the committed tables of edits of a style."""


@figure("What gives a CLIP held-out classes back, at what cost?", STYLE)
def style_recovery(tables: Path, title: str) -> go.Figure:
    points = style_curves.curves(table(tables, "strengths"))
    facts = table(tables, "facts")
    # Further settings are of the far domain alone.
    far = str(facts.loc[facts["setting"] != MAIN, "test_domain"].iloc[0])
    return style_curves.recovery(points, far, title)


@figure("Which claims stand?", STYLE)
def style_verdicts(tables: Path, title: str) -> go.Figure:
    judgements = table(tables, "claims")
    return claim_charts.verdicts_by_way(judgements, style_claims.CLAIMS, title)


@figure("What does it cost to bring the worst group?", "mark")
def mark_cost(tables: Path, title: str) -> go.Figure:
    models = mark_claims.learned(table(tables, "models"))
    return worst_against_mean(models, title)


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
    held_out = rows["group"] == "held-out"
    rows = main_settings(rows[held_out & (rows["classifier"] == CLASSIFIER)])
    names = {"test_domain": "panel", "measure": "series", "mean": "value"}
    rows = rows.rename(columns=names)
    return setting_dots(rows, axis="held-out classes", title=title, span=(-0.03, 1.03))


@figure("Do more diverse models share more features between domains?")
def sharing_by_setting(tables: Path, title: str) -> go.Figure:
    shared = table(tables, "sharing_over_settings")
    names = {"score": "the test domain", "others": "the other domains, mean"}
    rows = shared.rename(columns=names).melt(
        ["test_domain", "setting"], list(names.values()), "series"
    )
    rows = rows.rename(columns={"test_domain": "panel"})
    axis = "features shared with the other domains"
    return setting_dots(rows, axis=axis, title=title)


@figure("Where do the circuits of one style part from the others?")
def units_apart(tables: Path, title: str) -> go.Figure:
    apart = table(tables, "domain_apart_over_depth")
    apart = apart.assign(panel=apart["group"].map(group_panel))
    return apart_panels(apart, measure="node overlap (Jaccard index)", title=title)


@figure("Which styles share their circuits, of held-out and of seen classes?")
def similarity_by_group(tables: Path, title: str) -> go.Figure:
    groups = table(tables, "similarity_by_group")
    # Node overlap has a figure of its own, `units_apart`.
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
    # Panels follow the order of rows: all groups by one kernel, then by the other.
    apart = table(tables, "cka_apart").sort_values("kernel", kind="stable")
    panels = list(map(group_panel, apart["group"], apart["kernel"] + " kernel"))
    return apart_panels(apart.assign(panel=panels), measure="CKA", title=title)
