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
SAME_PART, OTHER_PARTS, NO_PART = "the same part", "other parts", "no own part"
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
    cells = set(zip(known["class"], known["domain"], strict=True))
    tested = set(zip(lesions["class"], lesions["domain"], strict=True))
    found_on = list(zip(known["part_class"], known["part_domain"], strict=True))
    return known.loc[
        [cell in cells or cell not in tested for cell in found_on]
    ]  # without loc none would be columns


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
    """
    table = known_cells(lesions)
    table = table.assign(
        answers=np.where(table["part_class"] == table["class"], OWN, OTHERS),
        styles=np.where(
            table["part_domain"] == table["domain"], OWN_STYLE, OTHER_STYLE
        ),
    )
    keys = [*by, "cut", "answers"]
    sums = table.groupby(list(dict.fromkeys([*keys, "part_class"])), sort=False)[
        ["right", "whole_right"]
    ].sum()
    left, rows = (sums["right"] / sums["whole_right"]).rename("left").reset_index(), []
    for key, part in left.groupby(keys, sort=False):
        value, low, high = mean_interval(part["left"].to_numpy(dtype=float))
        high = high if value > 1 else min(high, 1.0)
        rows.append((*key, value, max(low, 0.0), high, len(part)))
    return pd.DataFrame(rows, columns=[*keys, "value", "low", "high", "n_classes"])


def told_share(lesions: pd.DataFrame) -> float:
    """Return the smallest share of units whose loss takes the classes from the style that found it, else the last."""
    table = lesion_summary(lesions[lesions["sites"] == EVERYWHERE], ("share", "styles"))
    own = table[
        (table["styles"] == OWN_STYLE)
        & (table["cut"] == "part")
        & (table["answers"] == OWN)
    ]
    taken = own.loc[own["value"] <= TAKEN, "share"]
    return float(taken.min() if len(taken) else lesions["share"].max())


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
    """
    matrix = left_by_style(lesions, answers, cut).pivot(
        index="part_domain", columns="domain", values=values
    )
    order = sorted({*matrix.index, *matrix.columns})
    return matrix.reindex(index=order, columns=order).rename_axis(
        index="found on", columns="tested on"
    )


def overlap_summary(overlaps: pd.DataFrame) -> pd.DataFrame:
    """Return the mean overlap of parts by what is alike (`IN_COMMON`): units, beside chance, and edges, over pairs.

    The interval is over classes, of two classes in one pair over the first.
    """
    same_class = overlaps["class_a"] == overlaps["class_b"]
    two_styles = overlaps["domain_a"] != overlaps["domain_b"]
    kinds = [IN_COMMON[pair] for pair in zip(same_class, two_styles, strict=True)]
    rows = list[dict[str, Any]]()
    for kind, part in overlaps.assign(parts=kinds).groupby("parts", sort=False):
        by_class = part.groupby("class_a")["overlap"].mean().to_numpy(dtype=float)
        value, low, high = mean_interval(by_class)
        rows.append(
            {
                "parts": kind,
                "value": value,
                "low": max(low, min(value, 0.0)),
                "high": high,
            }
        )
        rows[-1] |= {
            "chance": part["chance"].mean(),
            "edges": part["edges"].mean(),
            "n_pairs": len(part),
        }
    return pd.DataFrame(rows)


def style_verdicts(lesions: LesionTable, overlaps: pd.DataFrame) -> pd.DataFrame:
    """Say of each class and two styles whether the model uses the same part in both.

    ``the same part``: each style's part takes the class in both, spares the others, and they overlap more than chance
    and than two classes of one style do on average; ``other parts``: each takes it in its own style, and not both in
    the other; ``no own part``: one of them does not take it in its own style, or takes others with it.

    Returns:
        Columns class, domain_a, domain_b, own_a, own_b (what is left in the own style, NaN where no image is unseen),
        a_on_b, b_on_a (in the other), others (least of both), overlap, verdict; classes that the model knows in both.
    """
    table = known_cells(lesions)
    table = table[table["cut"] == "part"]
    own = table[table["part_class"] == table["class"]]
    left = (own["right"] / own["whole_right"]).set_axis(
        pd.MultiIndex.from_frame(own[["class", "part_domain", "domain"]])
    )
    sums = (
        table[table["part_class"] != table["class"]]
        .groupby(["part_class", "part_domain"])[["right", "whole_right"]]
        .sum()
    )
    spared, rows = sums["right"] / sums["whole_right"], list[dict[str, Any]]()
    beside = overlaps.loc[
        (overlaps["class_a"] != overlaps["class_b"])
        & (overlaps["domain_a"] == overlaps["domain_b"])
    ]
    for _, pair in overlaps[overlaps["class_a"] == overlaps["class_b"]].iterrows():
        name, a, b = pair["class_a"], pair["domain_a"], pair["domain_b"]
        cells = {
            "own_a": (name, a, a),
            "own_b": (name, b, b),
            "a_on_b": (name, a, b),
            "b_on_a": (name, b, a),
        }
        values = {what: float(left.get(cell, np.nan)) for what, cell in cells.items()}
        if np.isnan([values["a_on_b"], values["b_on_a"]]).any():
            continue
        others = min(float(spared.get((name, domain), np.nan)) for domain in (a, b))
        own_left = max(np.nan_to_num([values["own_a"], values["own_b"]]))
        has_part = own_left <= TAKEN and others >= SPARED
        shared = max(values["a_on_b"], values["b_on_a"]) <= TAKEN
        alike = pair["overlap"] > max(
            pair["chance"], beside["overlap"].mean() if len(beside) else 0
        )
        verdict = (
            (SAME_PART if shared and alike else OTHER_PARTS) if has_part else NO_PART
        )
        named = {"class": name, "domain_a": a, "domain_b": b}
        rows.append(
            {
                **named,
                **values,
                "others": others,
                "overlap": pair["overlap"],
                "verdict": verdict,
            }
        )
    columns = "class domain_a domain_b own_a own_b a_on_b b_on_a others overlap verdict"
    return pd.DataFrame(rows, columns=columns.split())
