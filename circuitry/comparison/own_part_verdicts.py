"""Verdicts on own parts: at which depth a class is lost, and whether two styles have the same part.

An own part is a set of units that the model needs to recognise a class, and does not need for other classes. The style
of an image is its domain. Verdicts come from tables of lesions (`lesion`) alone: values decide, not their intervals.

Does not import torch.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from circuitry.comparison.lesion_reading import (
    SPARED,
    TAKEN,
    LesionTable,
    known_cells,
)
from circuitry.comparison.overlap_reading import ENOUGH_IMAGES, across_styles

SELECTIVE = 2.0
"""A part has evidence of its own if its lesion lowers the log-odds of its class at least this many times as much as it
lowers those of other classes, and as random units lower those of the class."""
SAME = 0.75
"""A part of another style is the same part if it does at least this share of what the style's own part does."""
OTHER = 0.25
"""A part of another style is another part if it does at most this share of what the style's own part does."""

# What a lesion takes.
NOTHING = "nothing of its own"
EVIDENCE = "evidence, not the answer"
MARGIN = "the answer; one constant gives it back"
ANSWER = "the answer, not the information"
INFORMATION = "the information"
AT_LEAST_ANSWER = "the answer; the information is not tested"
OPEN = "cannot be told"

# Whether two styles have the same part.
SAME_PART = "the same part"
OVERLAPPING = "overlapping parts"
OTHER_PARTS = "other parts"
NO_PART = "no own part"


def depths_of_loss(lesions: LesionTable) -> pd.DataFrame:
    """Decide for each own part what its lesion takes in its own style: evidence, the answer, or the information.

    The verdicts are, from the least to the most that is lost:

    - ``nothing of its own``: The log-odds of the class fall less than `SELECTIVE` times as much as those of other
      classes, or as those of the class after the lesion of random units.
    - ``evidence, not the answer``: The log-odds fall, but more than the share `TAKEN` of the right answers is left.
    - ``the answer; one constant gives it back``: At most the share `TAKEN` of the right answers is left, but after one
      constant is added to the logit of the class, at least the share `SPARED` of them is right again, and so are other
      classes. A lowered bias does the same.
    - ``the answer, not the information``: The answers are lost, but a new head still tells the class from others.
    - ``the information``: A new head does not tell the class from others either: of the area under its ROC curve above
      chance at most the share `TAKEN` is left.
    - ``the answer; the information is not tested``: The answers are lost, but no new head was fitted.
    - ``cannot be told``: There are no unseen images of other classes.

    Args:
        lesions: Table from `lesion`, of parts of one size.

    Returns:
        A row for each part whose class the model knows. Columns: class, domain; fall, others_fall, random_fall (of the
        log-odds); auc; right, others_right (shares of right answers that are left); rank; constant, others_constant
        (the same with one constant); refit, others_refit, refit_auc (of a new head); takes (the verdict).

    Example:
        >>> part = {"part_class": "clock", "part_domain": "real", "domain": "real", "cut": "part"}
        >>> cells = {"class": ["clock", "cup"], "whole_right": 1.0, "right": [0.0, 1.0]}
        >>> odds = {"whole_log_odds": 5.0, "log_odds": [-2.0, 4.5]}
        >>> depths_of_loss(pd.DataFrame({**part, **cells, **odds}))["takes"].tolist()
        ['the answer; the information is not tested']
    """
    table = known_cells(lesions)
    table = table[table["part_domain"] == table["domain"]]
    table = table.assign(fall=table["whole_log_odds"] - table["log_odds"])
    table["left"] = table["right"] / table["whole_right"]
    for column in ("auc", "rank", "constant", "refit", "refit_auc", "whole_refit_auc"):
        if column not in table:
            table[column] = np.nan
    is_own = table["part_class"] == table["class"]
    is_part = table["cut"] == "part"
    keys = ["part_class", "part_domain"]
    own = table[is_own & is_part].set_index(keys)
    random = table[is_own & ~is_part].set_index(keys)
    others = table[~is_own & is_part].groupby(keys).mean(numeric_only=True)
    rows = pd.DataFrame(
        {
            "fall": own["fall"],
            "others_fall": others["fall"].reindex(own.index),
            "random_fall": random["fall"].reindex(own.index),
            "auc": own["auc"],
            "right": own["left"],
            "others_right": others["left"].reindex(own.index),
            "rank": own["rank"],
            "constant": own["constant"] / own["whole_right"],
            "others_constant": (others["constant"] / others["whole_right"]).reindex(
                own.index
            ),
            "refit": own["refit"],
            "others_refit": others["refit"].reindex(own.index),
            "refit_auc": own["refit_auc"],
        }
    )
    # A new head has an area of 0.5 by chance.
    left = (own["refit_auc"] - 0.5) / (own["whole_refit_auc"] - 0.5)
    rows["takes"] = [
        _depth(row, of_head)
        for (_, row), of_head in zip(rows.iterrows(), left, strict=True)
    ]
    return rows.reset_index(names=["class", "domain"])


def _depth(row: "pd.Series[Any]", head_left: float) -> str:
    """Return what a lesion takes: one of the texts from `NOTHING` to `OPEN`.

    Args:
        row: Row of `depths_of_loss`.
        head_left: The share of the area above chance that a new head has left.
    """
    # Random units may not have been ablated; then other classes alone decide.
    beside = np.nanmax([row["others_fall"], row["random_fall"], 0.0])
    if np.isnan(row["fall"]) or np.isnan(row["others_fall"]):
        return OPEN
    if row["fall"] <= SELECTIVE * beside:
        return NOTHING
    if row["right"] > TAKEN:
        return EVIDENCE
    if np.isnan(head_left):
        return AT_LEAST_ANSWER
    if head_left <= TAKEN:
        return INFORMATION
    if min(row["constant"], row["others_constant"]) >= SPARED:
        return MARGIN
    return ANSWER


def transfers(lesions: LesionTable, share: float | None = None) -> pd.DataFrame:
    """Return how much of the evidence the parts of one style take in another style, at equal damage to other classes.

    In a style b the part of b lowers the log-odds of its class by F_b and those of other classes by D_b. The part that
    was found in style a is taken at the share of units at which it lowers those of other classes in b by D_b, too. It
    lowers those of the class by F_ab, and random units lower them by R_b. The transfer is (F_ab - R_b) / (F_b - R_b): 1
    if the part of a does in b what the part of b does, and 0 if it does what random units do. Between the shares that
    were tested the fall is interpolated over the damage. Beyond them it is that of the nearest share.

    Args:
        lesions: Table from `lesion`. It may have a further column share, with the size of the parts.
        share: The share of units of the part of b (default: the largest of the table).

    Returns:
        Columns class, part_domain (a), domain (b), fall (F_ab), own_fall (F_b), random_fall (R_b), damage (D_b),
        transfer.

    Example:
        >>> rows = [("clock", a, b, 5.0) for a in ("real", "sketch") for b in ("real", "sketch")]
        >>> rows += [("cup", a, b, 0.5) for a in ("real", "sketch") for b in ("real", "sketch")]
        >>> table = pd.DataFrame(rows, columns=["class", "part_domain", "domain", "fall"])
        >>> table = table.assign(part_class="clock", cut="part", whole_right=1.0, right=0.0, whole_log_odds=6.0)
        >>> transfers(table.assign(log_odds=6 - table["fall"]))["transfer"].tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    table = known_cells(lesions)
    if "share" not in table:
        table = table.assign(share=1.0)
    if share is None:
        share = float(table["share"].max())
    table = table.assign(fall=table["whole_log_odds"] - table["log_odds"])
    is_own = table["part_class"] == table["class"]
    is_part = table["cut"] == "part"
    keys = ["part_class", "part_domain", "domain", "share"]
    curves = pd.DataFrame(
        {
            "fall": table[is_own & is_part].groupby(keys)["fall"].mean(),
            "damage": table[~is_own & is_part].groupby(keys)["fall"].mean(),
            "random": table[is_own & ~is_part].groupby(keys)["fall"].mean(),
        }
    )
    by_key = curves.to_dict("index")
    rows = list[dict[str, Any]]()
    places = list[Hashable](keys[:-1])
    for key, curve in curves.groupby(places, sort=False):
        class_name, part_domain, domain = key
        curve = curve.droplevel(places)
        own = by_key.get((class_name, domain, domain, share))
        # There may be no unseen images to test the style's own part on.
        if own is None or share not in curve.index:
            continue
        damage = float(own["damage"])
        own_fall = float(own["fall"])
        # Without any damage there is no share of equal damage: parts of equal share are compared.
        fall = float(curve["fall"][share])
        if damage > 0 and part_domain != domain:
            fall = _at_damage(curve, damage)
        # Without random units the fall is compared with no fall.
        random = float(np.nan_to_num(own["random"]))
        gap = own_fall - random
        row = {
            "class": class_name,
            "part_domain": part_domain,
            "domain": domain,
            "fall": fall,
            "own_fall": own_fall,
            "random_fall": random,
            "damage": damage,
            "transfer": (fall - random) / gap if gap else np.nan,
        }
        rows.append(row)
    columns = ["class", "part_domain", "domain", "fall", "own_fall", "random_fall"]
    return pd.DataFrame(rows, columns=[*columns, "damage", "transfer"])


def _at_damage(curve: pd.DataFrame, damage: float) -> float:
    """Return the fall of a part at the share at which other classes have a given damage.

    Args:
        curve: Columns fall and damage, by share in the index.
        damage: The damage.
    """
    known = curve.sort_index().dropna(subset=["fall", "damage"])
    # Ablating no unit does nothing. That a larger part does less damage than a smaller part is noise.
    falls = np.append(0.0, known["fall"])
    damages = np.maximum.accumulate(np.append(0.0, known["damage"]))
    return float(np.interp(damage, damages, falls))


def style_verdicts(
    lesions: LesionTable, overlaps: pd.DataFrame, share: float | None = None
) -> pd.DataFrame:
    """Decide for each class and each two styles whether the model uses the same part in both.

    There are two verdicts, which may disagree: by *transfer*, what the part of one style takes in the other
    (`transfers`), and by *units*, the overlap of the two parts as a share of the ceiling (`across_styles`). They
    are:

    - ``the same part``: both transfers, or the share of the ceiling, are at least `SAME`.
    - ``other parts``: both transfers, or the share of the ceiling, are at most `OTHER`.
    - ``overlapping parts``: anything between.
    - ``no own part``: in one of the styles the part takes nothing of its own (`depths_of_loss`).
    - ``cannot be told``: one of the parts is not tested in one of the styles. By units also if there are no two halves,
      or fewer than `ENOUGH_IMAGES` images found a part.

    Args:
        lesions: Table from `lesion`. It may have a further column share, with the size of the parts.
        overlaps: Table from `part_overlaps`, for the parts of the size ``share``.
        share: The share of units for which the verdict is given (default: the largest of the table).

    Returns:
        Columns class, domain_a, domain_b (the styles a and b), takes_a, takes_b (what the lesion of each part takes in
        its own style), a_on_b (the transfer of the part of a to images of b), b_on_a, by_transfer (the verdict),
        overlap, chance, n_images, ceiling, share_of_ceiling (`across_styles`), by_units (the verdict). Only classes
        that the model knows in both styles have rows.

    Example:
        >>> rows = [("clock", a, b, 5.0) for a in ("real", "sketch") for b in ("real", "sketch")]
        >>> rows += [("cup", a, b, 0.5) for a in ("real", "sketch") for b in ("real", "sketch")]
        >>> table = pd.DataFrame(rows, columns=["class", "part_domain", "domain", "fall"])
        >>> table = table.assign(part_class="clock", cut="part", whole_right=1.0, right=0.5, whole_log_odds=6.0)
        >>> table = table.assign(log_odds=6 - table["fall"])
        >>> pair = {"class_a": "clock", "class_b": "clock", "domain_a": "real", "domain_b": "sketch"}
        >>> said = style_verdicts(table, pd.DataFrame({**pair, "overlap": [0.25], "chance": 0.01}))
        >>> said[["by_transfer", "by_units"]].iloc[0].tolist()
        ['the same part', 'cannot be told']
    """
    told = lesions
    if "share" in lesions:
        if share is None:
            share = float(lesions["share"].max())
        told = lesions[lesions["share"] == share]
    depths = depths_of_loss(told).set_index(["class", "domain"])["takes"]
    transfer = transfers(lesions, share)
    by_cell = transfer.set_index(["class", "part_domain", "domain"])["transfer"]
    rows = list[dict[Hashable, Any]]()
    for pair in across_styles(overlaps).to_dict("records"):
        name = pair["class"]
        styles = (pair["domain_a"], pair["domain_b"])
        takes = [depths.get((name, style)) for style in styles]
        # The model does not know the class in one of the styles.
        if None in takes:
            continue
        a_on_b = float(by_cell.get((name, *styles), np.nan))
        b_on_a = float(by_cell.get((name, *styles[::-1]), np.nan))
        has_enough = pair["n_images"] >= ENOUGH_IMAGES
        of_units = pair["share_of_ceiling"] if has_enough else np.nan
        row = {
            "class": name,
            "domain_a": styles[0],
            "domain_b": styles[1],
            "takes_a": takes[0],
            "takes_b": takes[1],
            "a_on_b": a_on_b,
            "b_on_a": b_on_a,
            "by_transfer": _style_verdict(takes, [a_on_b, b_on_a]),
            **pair,
            "by_units": _style_verdict(takes, [of_units]),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def _style_verdict(takes: Sequence[str | None], shares: Sequence[float]) -> str:
    """Return whether two styles have the same part.

    Args:
        takes: What the part of each style takes in its own style, as `_depth` says it.
        shares: Numbers that are 1 for the same part and 0 for parts that have nothing in common.
    """
    if NOTHING in takes:
        return NO_PART
    if OPEN in takes or np.isnan(shares).any():
        return OPEN
    if min(shares) >= SAME:
        return SAME_PART
    if max(shares) <= OTHER:
        return OTHER_PARTS
    return OVERLAPPING
