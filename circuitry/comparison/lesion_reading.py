"""Summaries of tables of lesions.

An own part is a set of units that the model needs to recognise a class, and does not need for other classes. A lesion
ablates an own part. As a control, another lesion ablates equally many random units. The style of an image is its
domain. The tables answer two questions. What does the model lose of the class? Are other classes spared?

A loss has three depths, each with some of the `MEASURES`:

- *evidence*: the log-odds of the images' own class fall. Styles that begin at different margins can be compared.
- *answer*: right answers are lost. How many depends on the margin before, and on the candidate classes.
- *information*: a new head, fitted after the lesion, no longer tells the class from others either.

Verdicts are in `own_part_verdicts`. Does not import torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pandas as pd

from circuitry.comparison.statistics import mean_interval, share_interval
from circuitry.comparison.table import with_columns

KNOWN = 0.5
"""The model knows a class in a style if at least this share of its answers is right. Otherwise lesions tell nothing."""
TAKEN = 0.2
"""A lesion takes a class if at most this share of the right answers is left."""
SPARED = 0.9
"""A lesion spares classes if at least this share of their right answers is left."""
NEAREST = 0.1
"""The nearest classes are this share of the candidates, rounded up: those whose weights are nearest to the class."""
NARROW = 0.02
"""A lesion is tested on enough other classes if the 95 % interval of the right answers that these keep is at most this
share wide to either side."""
NARROWED = 0.9
"""More classes make wide intervals narrower if the last ones made them at most this share as wide as before. Otherwise
it is the parts that differ, and not the classes that each of them was tested on."""
EVERYWHERE = "everywhere"
"""Value of the column ``sites`` for parts whose units may lie at any site that counts."""
BY_STYLE = ("part_domain", "domain")
"""Two columns: the style in which a part was found, and the style of the images that test the part."""
# Values of the column answers.
OWN = "own class"
OTHERS = "other classes"
NEAR = "the nearest classes"
# Values of the column styles.
OWN_STYLE = "its own style"
OTHER_STYLE = "another style"


@dataclass(frozen=True)
class LossMeasure:
    """A number that tells what a lesion takes.

    Example:
        >>> from circuitry.comparison import FALL
        >>> FALL.after
        'log_odds'
    """

    name: str
    """The name in tables and charts."""
    after: str
    """The column of a table of lesions with the value after the lesion."""
    before: str | None = None
    """The column with the value of the whole model; None if the measure is the value after the lesion alone."""
    is_share: bool = False
    """Whether the measure is the share of the value before that is left. If False, it is the fall from ``before``, or
    the value after the lesion alone."""

    @property
    def columns(self) -> list[str]:
        """The columns that the measure reads."""
        return [self.after] if self.before is None else [self.after, self.before]


FALL = LossMeasure("fall of the log-odds", "log_odds", "whole_log_odds")
AUC = LossMeasure("AUC of the log-odds", "auc")
RIGHT = LossMeasure("right answers left", "right", "whole_right", is_share=True)
RANK = LossMeasure("rank of the class", "rank")
CONSTANT = LossMeasure(
    "right answers left, one constant added", "constant", "whole_right", is_share=True
)
REFIT = LossMeasure(
    "right answers of a new head left", "refit", "whole_refit", is_share=True
)
REFIT_AUC = LossMeasure("AUC of a new head", "refit_auc")
MEASURES = (FALL, AUC, RIGHT, RANK, CONSTANT, REFIT, REFIT_AUC)
"""All measures: of the evidence, of the answer, of the information."""

LesionTable = Annotated[
    pd.DataFrame,
    with_columns(
        "part_class",
        "part_domain",
        "class",
        "domain",
        "cut",
        "whole_right",
        "right",
    ),
]


def known_cells(lesions: LesionTable) -> pd.DataFrame:
    """Return the rows of two classes that the model knows: the class of the images, and the class of the own part.

    The model knows a class in a style if at least the share `KNOWN` of its answers is right. The class of the images
    must be known in the style of the images, and the class of the part in the style in which the part was found. If no
    image tests whether the class of the part is known, it counts as known.
    """
    known = lesions[lesions["whole_right"] >= KNOWN]
    part_cells = pd.MultiIndex.from_frame(known[["part_class", "part_domain"]])
    known_images = pd.MultiIndex.from_frame(known[["class", "domain"]])
    tested = pd.MultiIndex.from_frame(lesions[["class", "domain"]])
    # If no image tests the class of a part in its style, the model may know the class.
    return known[part_cells.isin(known_images) | ~part_cells.isin(tested)]


def lesion_summary(
    lesions: LesionTable,
    by: Sequence[str] = BY_STYLE,
    measure: LossMeasure = RIGHT,
) -> pd.DataFrame:
    """Return what is left after lesions, or what has fallen, for the own class and for other classes.

    A share is a number after the lesion divided by the number of the whole model, such as right answers. A share above
    1 means that more answers are right after the lesion than before. Classes that the model does not know are left out.

    Each part may be tested on a sample of the other classes of its own (`OwnPartSettings.other_cells`). The interval is
    still valid, and contains the error of the samples: a part's own sample is one of the things by which parts differ,
    and the interval is computed from how much they differ.

    Args:
        lesions: Table from `lesion`. It may have further columns, such as share and sites, for use in ``by``.
        by: Columns that define the groups of the summary. Besides the columns of ``lesions``, ``styles`` can be given:
            it says whether the images have the style in which the part was found, or another style.
        measure: What is summarised; see `MEASURES` (default: the share of right answers that is left).

    Returns:
        The columns ``by``, then cut (``part`` if own parts were ablated, ``random`` if random units were ablated),
        answers (``own class``, ``other classes``, or ``the nearest classes``: the share `NEAREST` of the candidates
        whose weights are nearest to the own class, which are also among the other classes), value (the mean over
        classes), low, high, n_classes. The bounds
        are those of a 95 % interval over classes: exact for shares up to 1 (`share_interval`), otherwise Student's.

    Example:
        >>> part = {"part_class": "clock", "part_domain": "real", "domain": "real", "cut": "part"}
        >>> lesions = pd.DataFrame({**part, "class": ["clock", "cup"], "whole_right": 1.0, "right": [0.25, 1.0]})
        >>> lesion_summary(lesions)["value"].tolist()
        [0.25, 1.0]
    """
    keys = [*by, "cut", "answers"]
    rows = []
    values = _values_of_parts(lesions, keys, measure)
    for key, of_parts in values.groupby(keys, sort=False):
        of_classes = of_parts["value"].to_numpy(dtype=float)
        n_images = float(of_parts["n_images"].max())
        if measure.is_share and n_images > 0 and (of_classes <= 1).all():
            interval = share_interval(of_classes, n_images)
        else:
            interval = mean_interval(of_classes)
        value, low, high = interval
        if measure.is_share:
            # Student's interval may contain impossible shares. If the value is above 1, it must not end at 1.
            low = max(low, 0.0)
            if value <= 1:
                high = min(high, 1.0)
        rows.append((*key, value, low, high, len(of_parts)))
    return pd.DataFrame(rows, columns=[*keys, "value", "low", "high", "n_classes"])


def summary_of_measures(lesions: LesionTable, by: Sequence[str]) -> pd.DataFrame:
    """Return `lesion_summary` for each measure that the table has the columns of, with the measure in a first column.

    Args:
        lesions, by: As for `lesion_summary`.
    """
    tables = list[pd.DataFrame]()
    for measure in MEASURES:
        if lesions.columns.isin(measure.columns).sum() == len(measure.columns):
            table = lesion_summary(lesions, by, measure)
            table.insert(0, "measure", measure.name)
            tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _values_of_parts(
    lesions: pd.DataFrame, keys: Sequence[str], measure: LossMeasure
) -> pd.DataFrame:
    """Return the value of a measure after the lesion of the part of each class.

    Args:
        lesions: Table from `lesion`.
        keys: Columns that define groups. They may include ``answers`` and ``styles``; see `lesion_summary`.
        measure: The measure.

    Returns:
        The columns ``keys``, part_class, value, n_images. The last has the number of images of the group that the whole
        model classifies as their own class, each image counted once.
    """
    table = known_cells(lesions).dropna(subset=measure.columns)
    is_own = table["part_class"] == table["class"]
    in_own_style = table["part_domain"] == table["domain"]
    n_images = table.get("n_images", pd.Series(np.nan, table.index))
    table = table.assign(
        answers=np.where(is_own, OWN, OTHERS),
        styles=np.where(in_own_style, OWN_STYLE, OTHER_STYLE),
        n_images=n_images * table["whole_right"],
    )
    if "nearness" in table:
        is_near = table["nearness"] <= np.ceil(NEAREST * table["candidates"])
        near = table[is_near & ~is_own].assign(answers=NEAR)
        table = pd.concat([table, near], ignore_index=True)
    of_group = table.drop_duplicates([*keys, "class", "domain"]).groupby(list(keys))
    images = of_group["n_images"].sum().rename("n_images")
    of_part = list(dict.fromkeys([*keys, "part_class"]))
    # Sums come first: the share of a part is over all images that test it, from whichever class.
    means = table.groupby(of_part, sort=False)[measure.columns].mean()
    values = means[measure.after]
    if measure.is_share:
        values = values / means[measure.before]
    elif measure.before is not None:
        values = means[measure.before] - values
    return values.rename("value").reset_index().join(images, on=list(keys))


def wants_more_cells(waves: Sequence[pd.DataFrame]) -> bool:
    """Return whether own parts should be tested on more other classes, to know how much these lose.

    If each part is tested on a sample of the classes, the samples are enlarged in waves. More are wanted if the 95 %
    interval of `lesion_summary` for other classes is wide (`NARROW`) for parts of any size, sites and domain on the
    images of any domain. But they are not wanted if the last wave did not make the wide intervals narrower
    (`NARROWED`). The decision depends only on the widths of the intervals, not on their values.

    Args:
        waves: For each wave so far a table from `lesion`, with the further columns share and sites.
    """
    widths = _widths_of_others(pd.concat(waves, ignore_index=True))
    wide = widths[widths > NARROW]
    if wide.empty or len(waves) == 1:
        return not wide.empty
    before = _widths_of_others(pd.concat(waves[:-1], ignore_index=True))
    return bool(wide.mean() <= NARROWED * before.reindex(wide.index).mean())


def _widths_of_others(lesions: pd.DataFrame) -> "pd.Series[float]":
    """Return half the width of the interval of the share of right answers that other classes keep.

    The entries are by share, sites, part_domain and domain. If a group has one class, the interval is unknown: NaN.
    """
    parts = lesions[lesions["cut"] == "part"]
    groups = ["share", "sites", *BY_STYLE]
    left = _values_of_parts(parts, [*groups, "answers"], RIGHT)
    others = left[left["answers"] == OTHERS].groupby(groups, sort=False)["value"]

    def half_width(of_parts: "pd.Series[float]") -> float:
        value, low, _ = mean_interval(of_parts.to_numpy(dtype=float))
        return value - low

    return others.agg(half_width)


def told_share(lesions: pd.DataFrame) -> float:
    """Return the size of own parts, as a share of all units, for which a report gives the results of lesions.

    This is the smallest share at which lesions take the classes: at most `TAKEN` of the right answers are left, on
    images of the style in which the parts were found. If no share is large enough, the largest share is returned. Only
    lesions at all sites count.

    Args:
        lesions: Table from `lesion`, with the further columns share (of the units that are ablated) and sites.

    Example:
        >>> part = {"part_class": "clock", "part_domain": "real", "domain": "real", "cut": "part", "class": "clock"}
        >>> shares = pd.DataFrame({"share": [0.01, 0.02], "right": [0.5, 0.0]})
        >>> told_share(shares.assign(**part, whole_right=1.0, sites="everywhere"))
        0.02
    """
    everywhere = lesions[lesions["sites"] == EVERYWHERE]
    table = lesion_summary(everywhere, ("share", "styles"))
    own = table[
        (table["styles"] == OWN_STYLE)
        & (table["cut"] == "part")
        & (table["answers"] == OWN)
    ]
    taken = own.loc[own["value"] <= TAKEN, "share"]
    share = taken.min() if len(taken) else everywhere["share"].max()
    return float(share)


def left_by_style(
    lesions: LesionTable,
    answers: str = OWN,
    measure: LossMeasure = RIGHT,
) -> pd.DataFrame:
    """Return the rows of `lesion_summary` for own parts and one kind of answers, by style.

    Args:
        answers: ``own class`` or ``other classes``.
        measure: What is summarised.
    """
    table = lesion_summary(lesions, measure=measure)
    chosen = table[(table["answers"] == answers) & (table["cut"] == "part")]
    return chosen.drop(columns=["answers", "cut"])


def lesion_matrix(
    lesions: LesionTable,
    answers: str = OWN,
    values: Literal["value", "n_classes"] = "value",
    measure: LossMeasure = RIGHT,
) -> pd.DataFrame:
    """Return `lesion_summary` as a matrix. Rows are styles in which parts were found, columns are styles of the images.

    Args:
        answers: ``own class`` or ``other classes``.
        values: If ``value``, the matrix has the mean over classes. If ``n_classes``, it has the number of classes.
        measure: What is summarised (default: the share of right answers that is left).

    Example:
        >>> part = {"part_class": "clock", "part_domain": "real", "cut": "part", "class": "clock"}
        >>> lesions = pd.DataFrame({**part, "domain": ["real", "sketch"], "whole_right": 1.0, "right": [0.0, 0.5]})
        >>> lesion_matrix(lesions).loc["real"].tolist()
        [0.0, 0.5]
    """
    table = left_by_style(lesions, answers, measure)
    matrix = table.pivot(index="part_domain", columns="domain", values=values)
    order = sorted({*matrix.index, *matrix.columns})
    matrix = matrix.reindex(index=order, columns=order)
    return matrix.rename_axis(index="found on", columns="tested on")
