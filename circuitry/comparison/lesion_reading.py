"""What lesions of own parts say: is a class lost, are the others spared, and is it one part in two styles? No torch."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd

from circuitry.comparison.statistics import mean_interval
from circuitry.comparison.table import with_columns

KNOWN = 0.5
"""The model knows a class in a style from this share of right answers on: lesions of other cells tell nothing."""
TAKEN, SPARED = 0.2, 0.9
"""A part takes a class if it leaves at most this share of the right answers, and spares others from this share on."""
EVERYWHERE = "everywhere"
"""The name of parts whose units may lie at any site that counts."""
OWN, OTHERS = "own class", "other classes"
BY_STYLE = ("part_domain", "domain")
OWN_STYLE, OTHER_STYLE = "its own style", "another style"
SAME_PART, OTHER_PARTS = "the same part", "other parts"
NO_PART, UNTESTED = "no own part", "not tested"
IN_COMMON = {
    (True, True): "one class in two styles",
    (False, False): "two classes in one style",
    (False, True): "two classes in two styles",
}

LesionTable = Annotated[
    pd.DataFrame,
    with_columns(
        "part_class", "part_domain", "class", "domain", "cut", "whole_right", "right"
    ),
]


def known_cells(lesions: LesionTable) -> pd.DataFrame:
    """Return the rows of parts and images of classes that the whole model knows in their style."""
    known = lesions[lesions["whole_right"] >= KNOWN]
    part_cells = pd.MultiIndex.from_frame(known[["part_class", "part_domain"]])
    known_images = pd.MultiIndex.from_frame(known[["class", "domain"]])
    tested = pd.MultiIndex.from_frame(lesions[["class", "domain"]])
    # A part of a class that no image tests may be of a class that the model knows.
    return known[part_cells.isin(known_images) | ~part_cells.isin(tested)]


def lesion_summary(lesions: LesionTable, by: Sequence[str] = BY_STYLE) -> pd.DataFrame:
    """Return what is left of right answers after lesions: own class and other classes, mean over classes.

    Args:
        lesions: From `lesion`, perhaps with further columns such as share and sites.
        by: Columns that are separated; ``styles`` separates parts on their own style from parts on another.

    Returns:
        These columns, then cut, answers (``own class``: of the part; ``other classes``: each part's mean over them),
        value, low, high (Student's 95 % over classes), n_classes. Values are right answers after the lesion as a share
        of the whole model's before, of classes that it knows. They are more than 1 where images become right without
        the units; the interval ends at 1 only where the value does not lie above.

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
        if value <= 1:
            high = min(high, 1.0)
        rows.append((*key, value, max(low, 0.0), high, len(part)))
    return pd.DataFrame(rows, columns=[*keys, "value", "low", "high", "n_classes"])


def told_share(lesions: pd.DataFrame) -> float:
    """Return the smallest share of units whose loss takes the classes from the style that found it, else the last.

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
    lesions: LesionTable, answers: str = OWN, cut: str = "part"
) -> pd.DataFrame:
    """Return the rows of `lesion_summary` by style of one kind of answers and cut: value, low, high, n_classes."""
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
        values: What is left, or the number of classes behind it.

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
    """Return the mean overlap of parts by what is alike (`IN_COMMON`): units, beside chance, and edges, over pairs.

    The interval is over classes, of two classes in one pair over the first.

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
            "low": max(low, min(value, 0.0)),
            "high": high,
            "chance": pairs["chance"].mean(),
            "edges": pairs["edges"].mean(),
            "n_pairs": len(pairs),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def style_verdicts(lesions: LesionTable, overlaps: pd.DataFrame) -> pd.DataFrame:
    """Say of each class and two styles whether the model uses the same part in both.

    ``the same part``: each style's part takes the class in both, spares the others, and they overlap more than chance
    and than two classes of one style do on average; ``other parts``: each takes it in its own style, and not both in
    the other; ``no own part``: one of them does not take it in its own style, or takes others with it; ``not tested``:
    there is no unseen image to test one of them in its own style, or on other classes, and the rest speaks for it.

    Returns:
        Columns class, domain_a, domain_b, own_a, own_b (what is left in the own style, NaN where no image is unseen),
        a_on_b, b_on_a (in the other), others (least of both), overlap, verdict; classes that the model knows in both.

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
        styles = (pair["domain_a"], pair["domain_b"])
        in_own_style = [float(left.get((name, a, a), np.nan)) for a in styles]
        in_other = [
            float(left.get((name, *way), np.nan)) for way in (styles, styles[::-1])
        ]
        if np.isnan(in_other).any():
            continue
        of_others = [float(spared.get((name, a), np.nan)) for a in styles]
        others = min(of_others)
        least = max(pair["chance"], least_overlap)
        # A comparison with NaN is false: what was not tested speaks neither for a part nor against it.
        fails = (
            np.greater(in_own_style, TAKEN).any() or np.less(of_others, SPARED).any()
        )
        if fails:
            verdict = NO_PART
        elif np.isnan([*in_own_style, *of_others]).any():
            verdict = UNTESTED
        elif max(in_other) <= TAKEN and pair["overlap"] > least:
            verdict = SAME_PART
        else:
            verdict = OTHER_PARTS
        numbers = (*in_own_style, *in_other, others, pair["overlap"])
        rows.append((name, *styles, *numbers, verdict))
    columns = "class domain_a domain_b own_a own_b a_on_b b_on_a others overlap verdict"
    return pd.DataFrame(rows, columns=columns.split())
