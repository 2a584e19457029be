"""Summaries and verdicts from tables of lesions.

An own part is a set of units that the model needs to recognise a class, and does not need for other classes. A lesion
ablates an own part and measures how many right answers are left. As a control, another lesion ablates equally many
random units. The style of an image is its domain. The tables answer three questions. Does the model lose the class? Are
other classes spared? Is the part of a class the same in two styles?

Does not import torch.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import pandas as pd

from circuitry.comparison.overlap_reading import across_styles
from circuitry.comparison.statistics import mean_interval
from circuitry.comparison.table import with_columns

KNOWN = 0.5
"""The model knows a class in a style if at least this share of its answers is right. Otherwise lesions tell nothing."""
TAKEN = 0.2
"""A lesion takes a class if at most this share of the right answers is left."""
SPARED = 0.9
"""A lesion spares classes if at least this share of their right answers is left."""
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
# Values of the column styles.
OWN_STYLE = "its own style"
OTHER_STYLE = "another style"
# Verdicts.
SAME_PART = "the same part"
OTHER_PARTS = "other parts"
NO_PART = "no own part"
UNTESTED = "not tested"
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


def lesion_summary(lesions: LesionTable, by: Sequence[str] = BY_STYLE) -> pd.DataFrame:
    """Return the share of right answers that is left after lesions, for the own class and for other classes.

    The share is the number of right answers after the lesion divided by the number of right answers of the whole model.
    Classes that the model does not know are left out. A share above 1 means that more answers are right after the
    lesion than before.

    Each part may be tested on a sample of the other classes of its own (`OwnPartSettings.other_cells`). The interval is
    still valid, and contains the error of the samples: a part's own sample is one of the things by which parts differ,
    and the interval is computed from how much they differ.

    Args:
        lesions: Table from `lesion`. It may have further columns, such as share and sites, for use in ``by``.
        by: Columns that define the groups of the summary. Besides the columns of ``lesions``, ``styles`` can be given:
            it says whether the images have the style in which the part was found, or another style.

    Returns:
        The columns ``by``, then cut (``part`` if own parts were ablated, ``random`` if random units were ablated),
        answers (``own class`` or ``other classes``), value (the mean share over classes), low, high (Student's 95 %
        interval over classes), n_classes. The interval is cut off at 0. It is also cut off at 1, unless the value is
        above 1.

    Example:
        >>> part = {"part_class": "clock", "part_domain": "real", "domain": "real", "cut": "part"}
        >>> lesions = pd.DataFrame({**part, "class": ["clock", "cup"], "whole_right": 1.0, "right": [0.25, 1.0]})
        >>> lesion_summary(lesions)["value"].tolist()
        [0.25, 1.0]
    """
    keys = [*by, "cut", "answers"]
    rows = []
    for key, part in _left_of_parts(lesions, keys).groupby(keys, sort=False):
        value, low, high = mean_interval(part["left"].to_numpy(dtype=float))
        # Student's interval may contain impossible shares. If the value is above 1, the interval must not end at 1.
        if value <= 1:
            high = min(high, 1.0)
        low = max(low, 0.0)
        rows.append((*key, value, low, high, len(part)))
    return pd.DataFrame(rows, columns=[*keys, "value", "low", "high", "n_classes"])


def _left_of_parts(lesions: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Return the share of right answers that is left after the lesion of the part of each class.

    Args:
        lesions: Table from `lesion`.
        keys: Columns that define groups. They may include ``answers`` and ``styles``; see `lesion_summary`.

    Returns:
        The columns ``keys``, part_class, left.
    """
    table = known_cells(lesions)
    is_own = table["part_class"] == table["class"]
    in_own_style = table["part_domain"] == table["domain"]
    table = table.assign(
        answers=np.where(is_own, OWN, OTHERS),
        styles=np.where(in_own_style, OWN_STYLE, OTHER_STYLE),
    )
    of_part = list(dict.fromkeys([*keys, "part_class"]))
    # Sums come first: the share of a part is over all images that test it, from whichever class.
    sums = table.groupby(of_part, sort=False)[["right", "whole_right"]].sum()
    return (sums["right"] / sums["whole_right"]).rename("left").reset_index()


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
    left = _left_of_parts(parts, [*groups, "answers"])
    others = left[left["answers"] == OTHERS].groupby(groups, sort=False)["left"]

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
    cut: str = "part",
) -> pd.DataFrame:
    """Return the rows of `lesion_summary` for one kind of answers and one kind of ablated units, by style.

    Args:
        answers: ``own class`` or ``other classes``.
        cut: ``part`` if own parts were ablated, or ``random`` if random units were ablated.
    """
    table = lesion_summary(lesions)
    chosen = table[(table["answers"] == answers) & (table["cut"] == cut)]
    return chosen.drop(columns=["answers", "cut"])


def lesion_matrix(
    lesions: LesionTable,
    answers: str = OWN,
    cut: str = "part",
    values: Literal["value", "n_classes"] = "value",
) -> pd.DataFrame:
    """Return `lesion_summary` as a matrix. Rows are styles in which parts were found, columns are styles of the images.

    Args:
        answers: ``own class`` or ``other classes``.
        cut: ``part`` if own parts were ablated, or ``random`` if random units were ablated.
        values: If ``value``, the matrix has the share of right answers that is left. If ``n_classes``, it has the
            number of classes.

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


def style_verdicts(lesions: LesionTable, overlaps: pd.DataFrame) -> pd.DataFrame:
    """Decide for each class and each pair of styles whether the model uses the same part in both styles.

    An own part was found for each class and style. A part takes its class in a style if at most the share `TAKEN` of
    the right answers is left after the lesion. A part spares the other classes if at least the share `SPARED` of their
    right answers is left. The verdicts are:

    - ``the same part``: Both parts take the class in both styles, and spare the other classes. They also overlap more
      than random units do, and more than the parts of two classes in one style do on average.
    - ``other parts``: Each part takes the class in its own style and spares the other classes, but the first verdict
      does not hold.
    - ``no own part``: A part does not take the class in its own style, or does not spare the other classes.
    - ``not tested``: There are no unseen images to test a part in its own style, or on other classes. The existing
      tests do not refute the parts.

    Args:
        lesions: Table from `lesion`.
        overlaps: Table from `part_overlaps`, for the same parts.

    Returns:
        Columns class, domain_a, domain_b (the two styles, a and b), own_a, own_b, a_on_b, b_on_a, others, overlap,
        verdict. own_a and own_b are the shares of right answers that are left after the lesion of each part, in its own
        style (NaN if there are no unseen images). a_on_b is this share after the lesion of part a on images of style b;
        b_on_a is the reverse. others is the share that is left of the right answers of other classes; of the two parts,
        the smaller share is given. Only classes that the model knows in both styles have rows.

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
    for _, pair in across_styles(overlaps).iterrows():
        name = pair["class"]
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
        # A comparison with NaN is false, so a missing test refutes no part.
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
