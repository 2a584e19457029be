"""What lesions of own parts say: is a class lost, are the others spared, and is it one part in two styles? No torch."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd

from circuitry.comparison.statistics import mean_interval
from circuitry.comparison.table import with_columns

KNOWN = 0.5
"""The model knows a class in a style from this share of right answers on: lesions of other cells tell nothing."""
TAKEN = 0.2
"""A lesion takes a class if at most this share of the right answers is left."""
SPARED = 0.9
"""A lesion spares classes if at least this share of their right answers is left."""
EVERYWHERE = "everywhere"
"""The name of parts whose units may lie at any site that counts."""
BY_STYLE = ("part_domain", "domain")
"""Columns of the style that a part was found on, and of the style of the images."""
# Values of the column answers.
OWN = "own class"
OTHERS = "other classes"
# Values of the column styles.
OWN_STYLE = "its own style"
OTHER_STYLE = "another style"
# Verdicts.
SAME_PART = "the same part"
OTHER_PARTS = "other parts"
NO_PART = "no own part"
UNTESTED = "not tested"
IN_COMMON = {
    (True, True): "one class in two styles",
    (False, False): "two classes in one style",
    (False, True): "two classes in two styles",
}
"""Names of pairs of parts, by (same class, two styles); a class has one part in a style."""

_VERDICT_COLUMNS = (
    "class",
    "domain_a",
    "domain_b",
    "own_a",
    "own_b",
    "a_on_b",
    "b_on_a",
    "others",
    "overlap",
    "verdict",
)

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
    """Return the rows in which the whole model knows the class of the part and the class of the images.

    It knows a class in a style from the share `KNOWN` of right answers on.
    """
    known = lesions[lesions["whole_right"] >= KNOWN]
    part_cells = pd.MultiIndex.from_frame(known[["part_class", "part_domain"]])
    known_images = pd.MultiIndex.from_frame(known[["class", "domain"]])
    tested = pd.MultiIndex.from_frame(lesions[["class", "domain"]])
    # A part of a class that no image tests may be of a class that the model knows.
    return known[part_cells.isin(known_images) | ~part_cells.isin(tested)]


def lesion_summary(lesions: LesionTable, by: Sequence[str] = BY_STYLE) -> pd.DataFrame:
    """Return the share of right answers that is left after lesions, of the own class and of other classes.

    The share is the right answers after the lesion divided by those of the whole model, over classes that the model
    knows. It is above 1 if images become right without the units.

    Args:
        lesions: From `lesion`, perhaps with further columns such as share and sites.
        by: Columns whose values get rows of their own. The column ``styles`` tells images of the style that the part
            was found on from images of other styles.

    Returns:
        The columns ``by``, then cut, answers (``own class`` or ``other classes``), value (the mean over classes), low,
        high (Student's 95 % interval over classes), n_classes. The interval ends at 0 and, unless the value is above
        1, at 1.

    Example:
        >>> part = {"part_class": "clock", "part_domain": "real", "domain": "real", "cut": "part"}
        >>> lesions = pd.DataFrame({**part, "class": ["clock", "cup"], "whole_right": 1.0, "right": [0.25, 1.0]})
        >>> lesion_summary(lesions)["value"].tolist()
        [0.25, 1.0]
    """
    table = known_cells(lesions)
    is_own = table["part_class"] == table["class"]
    in_own_style = table["part_domain"] == table["domain"]
    table = table.assign(
        answers=np.where(is_own, OWN, OTHERS),
        styles=np.where(in_own_style, OWN_STYLE, OTHER_STYLE),
    )
    keys = [*by, "cut", "answers"]
    of_part = list(dict.fromkeys([*keys, "part_class"]))
    # Sums first: a part's share is of all its images, however they spread over other classes.
    sums = table.groupby(of_part, sort=False)[["right", "whole_right"]].sum()
    left = (sums["right"] / sums["whole_right"]).rename("left").reset_index()
    rows = []
    for key, part in left.groupby(keys, sort=False):
        value, low, high = mean_interval(part["left"].to_numpy(dtype=float))
        # Student's interval may leave the possible shares; one around a value above 1 must not end below it.
        if value <= 1:
            high = min(high, 1.0)
        low = max(low, 0.0)
        rows.append((*key, value, low, high, len(part)))
    return pd.DataFrame(rows, columns=[*keys, "value", "low", "high", "n_classes"])


def told_share(lesions: pd.DataFrame) -> float:
    """Return the smallest share of units whose lesion takes the classes in the style that the parts were found on.

    Without such a share, return the largest one that was tested.

    Example:
        >>> part = {"part_class": "clock", "part_domain": "real", "domain": "real", "cut": "part", "class": "clock"}
        >>> shares = pd.DataFrame({"share": [0.01, 0.02], "right": [0.5, 0.0]})
        >>> told_share(shares.assign(**part, whole_right=1.0, sites="everywhere"))
        0.02
    """
    table = lesion_summary(lesions[lesions["sites"] == EVERYWHERE], ("share", "styles"))
    own = table[
        (table["styles"] == OWN_STYLE)
        & (table["cut"] == "part")
        & (table["answers"] == OWN)
    ]
    taken = own.loc[own["value"] <= TAKEN, "share"]
    share = taken.min() if len(taken) else lesions["share"].max()
    return float(share)


def left_by_style(
    lesions: LesionTable,
    answers: str = OWN,
    cut: str = "part",
) -> pd.DataFrame:
    """Return the rows of `lesion_summary` for one kind of answers and one cut."""
    table = lesion_summary(lesions)
    chosen = table[(table["answers"] == answers) & (table["cut"] == cut)]
    return chosen.drop(columns=["answers", "cut"])


def lesion_matrix(
    lesions: LesionTable,
    answers: str = OWN,
    cut: str = "part",
    values: Literal["value", "n_classes"] = "value",
) -> pd.DataFrame:
    """Return `lesion_summary` as a matrix: rows are styles that parts were found on, columns styles of the images.

    Args:
        answers, cut: Which rows of the summary.
        values: Fill the matrix with the share of right answers that is left, or with the number of classes.

    Example:
        >>> part = {"part_class": "clock", "part_domain": "real", "cut": "part", "class": "clock"}
        >>> lesions = pd.DataFrame({**part, "domain": ["real", "sketch"], "whole_right": 1.0, "right": [0.0, 0.5]})
        >>> lesion_matrix(lesions).loc["real"].tolist()
        [0.0, 0.5]
    """
    table = left_by_style(lesions, answers, cut)
    matrix = table.pivot(index="part_domain", columns="domain", values=values)
    order = sorted({*matrix.index, *matrix.columns})
    matrix = matrix.reindex(index=order, columns=order)
    return matrix.rename_axis(index="found on", columns="tested on")


def overlap_summary(overlaps: pd.DataFrame) -> pd.DataFrame:
    """Return the mean overlap of pairs of own parts, for each kind of pair in `IN_COMMON`.

    The interval is over classes; a pair of two classes counts for its first class.

    Returns:
        Columns parts (the kind), value, low, high (overlap of units), chance (the overlap of random units), edges
        (overlap of edges), n_pairs.

    Example:
        >>> pair = {"class_a": "clock", "class_b": "clock", "domain_a": "real", "domain_b": "sketch"}
        >>> overlaps = pd.DataFrame({**pair, "overlap": [0.25], "chance": 0.01, "edges": 0.125})
        >>> overlap_summary(overlaps)["parts"].tolist()
        ['one class in two styles']
    """
    same_class = overlaps["class_a"] == overlaps["class_b"]
    two_styles = overlaps["domain_a"] != overlaps["domain_b"]
    kinds = [IN_COMMON[pair] for pair in zip(same_class, two_styles, strict=True)]
    rows = list[dict[str, Any]]()
    for kind, pairs in overlaps.groupby(pd.Series(kinds, overlaps.index), sort=False):
        by_class = pairs.groupby("class_a")["overlap"].mean().to_numpy(dtype=float)
        value, low, high = mean_interval(by_class)
        row = {
            "parts": kind,
            "value": value,
            # An overlap cannot be below zero.
            "low": max(low, 0.0),
            "high": high,
            "chance": pairs["chance"].mean(),
            "edges": pairs["edges"].mean(),
            "n_pairs": len(pairs),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def style_verdicts(lesions: LesionTable, overlaps: pd.DataFrame) -> pd.DataFrame:
    """Decide for each class and two styles whether the model uses the same part in both.

    A part is found for each style. The verdicts are:

    - ``the same part``: both parts take the class in both styles and spare the other classes, and they overlap more
      than random units do, and more than the parts of two classes in one style do on average;
    - ``other parts``: each part takes the class in its own style, and the first verdict does not hold;
    - ``no own part``: a part does not take the class in its own style, or does not spare the other classes;
    - ``not tested``: no unseen image tests a part in its own style or on other classes, and nothing refutes it.

    Returns:
        Columns class, domain_a, domain_b, own_a, own_b (share that each part leaves in its own style; NaN without
        unseen images), a_on_b, b_on_a (share that it leaves in the other style), others (the smaller share of other
        classes), overlap, verdict. Rows are of classes that the model knows in both styles.

    Example:
        >>> rows = [(a, b, 0.0) for a in ("real", "sketch") for b in ("real", "sketch")]
        >>> lesions = pd.DataFrame(rows, columns=["part_domain", "domain", "right"])
        >>> lesions = lesions.assign(part_class="clock", cut="part", whole_right=1.0)
        >>> others = lesions.assign(**{"class": "cup", "right": 1.0})
        >>> lesions = pd.concat([lesions.assign(**{"class": "clock"}), others])
        >>> pair = {"class_a": "clock", "class_b": "clock", "domain_a": "real", "domain_b": "sketch"}
        >>> style_verdicts(lesions, pd.DataFrame({**pair, "overlap": [0.25], "chance": 0.01}))["verdict"].tolist()
        ['the same part']
    """
    table = known_cells(lesions)
    table = table[table["cut"] == "part"]
    is_own = table["part_class"] == table["class"]
    own = table[is_own].set_index(["class", "part_domain", "domain"])
    left = own["right"] / own["whole_right"]
    of_part = table[~is_own].groupby(["part_class", "part_domain"])
    sums = of_part[["right", "whole_right"]].sum()
    spared = sums["right"] / sums["whole_right"]
    one_class = overlaps["class_a"] == overlaps["class_b"]
    one_style = overlaps["domain_a"] == overlaps["domain_b"]
    between_classes = overlaps.loc[~one_class & one_style, "overlap"]
    least_overlap = between_classes.mean() if len(between_classes) else 0
    rows = []
    for _, pair in overlaps[one_class].iterrows():
        name = pair["class_a"]
        a = pair["domain_a"]
        b = pair["domain_b"]
        # Shares that are left, by class, style of the part and style of the images.
        own_a = float(left.get((name, a, a), np.nan))
        own_b = float(left.get((name, b, b), np.nan))
        a_on_b = float(left.get((name, a, b), np.nan))
        b_on_a = float(left.get((name, b, a), np.nan))
        # The model does not know the class in one of the styles.
        if np.isnan([a_on_b, b_on_a]).any():
            continue
        others_a = float(spared.get((name, a), np.nan))
        others_b = float(spared.get((name, b), np.nan))
        least = max(pair["chance"], least_overlap)
        # A comparison with NaN is false: what was not tested speaks neither for a part nor against it.
        keeps_class = np.greater([own_a, own_b], TAKEN).any()
        takes_others = np.less([others_a, others_b], SPARED).any()
        if keeps_class or takes_others:
            verdict = NO_PART
        elif np.isnan([own_a, own_b, others_a, others_b]).any():
            verdict = UNTESTED
        elif max(a_on_b, b_on_a) <= TAKEN and pair["overlap"] > least:
            verdict = SAME_PART
        else:
            verdict = OTHER_PARTS
        row = {
            "class": name,
            "domain_a": a,
            "domain_b": b,
            "own_a": own_a,
            "own_b": own_b,
            "a_on_b": a_on_b,
            "b_on_a": b_on_a,
            "others": min(others_a, others_b),
            "overlap": pair["overlap"],
            "verdict": verdict,
        }
        rows.append(row)
    return pd.DataFrame(rows, columns=list(_VERDICT_COLUMNS))
