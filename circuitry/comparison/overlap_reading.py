"""Summaries of overlaps of own parts, as shares of their ceiling.

The own part of a class in a style (domain) may be found twice, on two disjoint halves of the images. The overlap of
these two parts is the ceiling: how much two parts have in common if only the images differ. For styles a and b, with
S_ab the overlap of the parts of one class in both styles, across the halves, and R_a, R_b the ceilings:

    share = (S_ab - chance) / sqrt((R_a - chance) (R_b - chance))

This is the ratio of `comparison.ceiling` with the halves as two folds, so identical styles give 1 in expectation. The
ratio is of means over classes, and its interval is over classes.

Does not import torch.
"""

from collections.abc import Hashable, Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from circuitry.comparison.bootstrap import Draws, draw_resamples
from circuitry.comparison.ceiling import (
    PairCells,
    mean_ratio,
    pair_cells,
    pair_ratios,
)
from circuitry.comparison.fold_array import FoldArray
from circuitry.comparison.statistics import mean_interval
from circuitry.comparison.table import with_columns
from circuitry.runs.arguments import checked

LEAST_IMAGES = 4
"""An overlap cannot be told if fewer images than this found each part: the parts of one class in one style from single
images have no more in common than parts of two styles."""
ENOUGH_IMAGES = 8
"""An overlap is worth a sentence if at least this number of images found each part."""
IN_COMMON = {
    (True, False): "one class in one style",
    (True, True): "one class in two styles",
    (False, False): "two classes in one style",
    (False, True): "two classes in two styles",
}
"""Kinds of pairs of own parts. Keys say whether both parts are of the same class, and whether they are of two styles.

Two parts of one class in one style were found on two halves of the images, so their overlap is the ceiling."""
ACROSS_STYLES = IN_COMMON[True, True]
_TO_FOLDS = {"half_a": "fold_a", "half_b": "fold_b", "compared": "site"}
_MEASURES = {"units": ("overlap", "chance"), "edges": ("edges", "edges_chance")}
"""What two parts have in common, with the columns of the overlap and of the overlap by chance."""

OverlapTable = Annotated[
    pd.DataFrame,
    with_columns(
        "class_a",
        "domain_a",
        "half_a",
        "class_b",
        "domain_b",
        "half_b",
        "overlap",
        "chance",
        "edges",
        "edges_chance",
        "n_a",
        "n_b",
    ),
]
"""Table from `part_overlaps`."""


_UNKNOWN = (np.nan, np.nan, np.nan)
_FROM_RATIO = ("value", "low", "high", "ceiling_a", "ceiling_b", "n_classes")
_BY_STYLES = (
    "domain_a",
    "domain_b",
    "compared",
    "value",
    "low",
    "high",
    "overlap",
    "ceiling_a",
    "ceiling_b",
    "chance",
    "n_images",
    "n_classes",
    "reason",
)


class _Ceilings(NamedTuple):
    """The arguments of `pair_ratios`: the halves are folds, and units and edges are two sites."""

    cells: PairCells
    chance: Float[np.ndarray, " sites"]
    draws: Draws


@checked
def overlap_summary(overlaps: OverlapTable) -> pd.DataFrame:
    """Return the mean overlap of two own parts, for each kind of pair of parts, by units and by edges.

    The two parts are of one class in one style (the ceiling), of one class in two styles, of two classes in one style,
    or of two classes in two styles. The 95 % interval is over classes. In this interval, a pair of two classes belongs
    to its first class.

    Args:
        overlaps: Table from `part_overlaps`.

    Returns:
        Columns parts (the kind of pair), compared (``units`` or ``edges``; there are no rows of edges if these were not
        scored), value, low, high (the overlap), chance (the overlap of random units), share, share_low, share_high,
        n_images (the median number of images that found a part), n_classes, n_pairs, reason. For one class in two
        styles share is the share of the ceiling, the mean over pairs of styles (`overlap_by_styles`), with its 95 %
        interval. For other kinds it is NaN. The reason is a sentence on why the overlap cannot be told, or is not
        enough for a sentence. It is empty if the overlap can be told.

    Example:
        >>> pair = {"class_a": "clock", "class_b": "clock", "domain_a": "real", "domain_b": "sketch"}
        >>> found = {"half_a": 1, "half_b": 2, "n_a": 8, "n_b": 8}
        >>> common = {"overlap": [0.25], "chance": 0.01, "edges": 0.125, "edges_chance": 0.0}
        >>> summary = overlap_summary(pd.DataFrame({**pair, **found, **common}))
        >>> summary[["parts", "compared", "value"]].to_numpy().tolist()
        [['one class in two styles', 'units', 0.25], ['one class in two styles', 'edges', 0.125]]
    """
    table = _by_measure(overlaps)
    by_styles = overlap_by_styles(overlaps)
    shares = _mean_shares(table)
    same_class = table["class_a"] == table["class_b"]
    two_styles = table["domain_a"] != table["domain_b"]
    kinds = [IN_COMMON[kind] for kind in zip(same_class, two_styles, strict=True)]
    rows = list[Mapping[Hashable, Any]]()
    groups = table.assign(parts=kinds).groupby(["parts", "compared"], sort=False)
    for (kind, measure), pairs in groups:
        by_class = pairs.groupby("class_a")["value"].mean().to_numpy(dtype=float)
        value, low, high = mean_interval(by_class)
        n_images = _n_images(pairs)
        reason = _few_images(n_images)
        share = _UNKNOWN
        if kind == ACROSS_STYLES:
            share = shares.get(measure, _UNKNOWN)
            if np.isnan(share[0]):
                # Without the share of any pair of styles the reason is that of the first one.
                of_measure = by_styles["compared"] == measure
                reason = by_styles.loc[of_measure, "reason"].iloc[0]
        row: Mapping[Hashable, Any] = {
            "parts": kind,
            "compared": measure,
            "value": value,
            # An overlap cannot be below zero.
            "low": max(low, 0.0),
            "high": high,
            "chance": pairs["chance"].mean(),
            "share": share[0],
            "share_low": share[1],
            "share_high": share[2],
            "n_images": n_images,
            "n_classes": len(by_class),
            "n_pairs": len(pairs),
            "reason": reason,
        }
        rows.append(row)
    return pd.DataFrame(rows)


@checked
def overlap_by_styles(overlaps: OverlapTable) -> pd.DataFrame:
    """Return the overlap of the parts of one class for each pair of styles, as a share of the ceiling.

    Only classes count whose parts of both halves are known in both styles, and were found by at least `LEAST_IMAGES`
    images. If there is no class with parts of both halves, the overlap is of all classes, and there is no share.

    Args:
        overlaps: Table from `part_overlaps`.

    Returns:
        Columns domain_a, domain_b (the two styles), compared (``units`` or ``edges``), value, low, high (the share of
        the ceiling, with its 95 % interval over classes), overlap, ceiling_a, ceiling_b, chance (the means over classes
        from which the share is computed; chance is one mean for all pairs of styles), n_images (the median number of
        images that found a part), n_classes, reason. The reason is a sentence on why the share cannot be told, or is
        not enough for a sentence. It is empty if the share can be told.

    Example:
        >>> ceilings = [("real", 1, "real", 2, 0.5), ("sketch", 1, "sketch", 2, 0.5)]
        >>> across = [("real", 1, "sketch", 2, 0.25), ("real", 2, "sketch", 1, 0.25)]
        >>> names = ["domain_a", "half_a", "domain_b", "half_b", "overlap"]
        >>> pairs = pd.DataFrame(ceilings + across, columns=names)
        >>> pairs = pairs.assign(chance=0.0, edges=np.nan, edges_chance=np.nan)
        >>> classes = [pairs.assign(class_a=name, class_b=name, n_a=8, n_b=8) for name in ("clock", "cup")]
        >>> overlap_by_styles(pd.concat(classes))["value"].tolist()
        [0.5]
    """
    table = _by_measure(overlaps)
    ratios = dict[tuple[Hashable, ...], Mapping[Hashable, Any]]()
    chance: Mapping[Hashable, float] = {}
    if ceilings := _ceilings(table):
        for ratio in pair_ratios(*ceilings).to_dict("records"):
            ratios[ratio["domain_a"], ratio["domain_b"], ratio["site"]] = ratio
        chance = dict(zip(ceilings.cells.sites, ceilings.chance, strict=True))
    across = table[table["domain_a"] != table["domain_b"]]
    across = across[across["class_a"] == across["class_b"]]
    styles = np.sort(across[["domain_a", "domain_b"]].to_numpy(dtype=str), axis=1)
    across = across.assign(domain_a=styles[:, 0], domain_b=styles[:, 1])
    rows = list[Mapping[Hashable, Any]]()
    groups = across.groupby(["domain_a", "domain_b", "compared"], sort=False)
    for (domain_a, domain_b, measure), pairs in groups:
        n_images = _n_images(pairs)
        row: dict[Hashable, Any] = {
            "domain_a": domain_a,
            "domain_b": domain_b,
            "compared": measure,
            "overlap": pairs.groupby("class_a")["value"].mean().mean(),
            "chance": pairs["chance"].mean(),
            "n_images": n_images,
            "n_classes": pairs["class_a"].nunique(),
            "reason": _few_images(n_images),
        }
        known = ratios.get((domain_a, domain_b, measure), {"n_classes": 0})
        if known["n_classes"]:
            row |= {name: known[name] for name in _FROM_RATIO}
            row |= {"overlap": known["similarity"], "chance": chance[measure]}
            if known["note"]:
                row["reason"] = f"cannot be told: {known['note']}"
        elif n_images >= LEAST_IMAGES:
            row["reason"] = (
                "cannot be told: no class has parts of both halves of its pictures in both styles; give at least "
                f"{3 * ENOUGH_IMAGES} pictures of a class"
            )
        rows.append(row)
    # Without a ceiling a row has no share.
    return pd.DataFrame(rows, columns=list(_BY_STYLES))


def across_styles(overlaps: pd.DataFrame) -> pd.DataFrame:
    """Return the overlap of the parts of each class in two styles, over the halves of the images, beside its ceiling.

    Args:
        overlaps: Table from `part_overlaps`. Without the columns on halves there are no ceilings.

    Returns:
        Columns class, domain_a, domain_b, overlap, chance (means over the halves), ceiling (the geometric mean of the
        overlaps of the two halves in either style, above chance), share_of_ceiling, n_images (that found each part).
        The share of one class is noisy: `overlap_by_styles` has shares of means over classes.

    Example:
        >>> pair = {"class_a": "clock", "class_b": "clock", "domain_a": "real", "domain_b": "sketch", "chance": 0.01}
        >>> across_styles(pd.DataFrame({**pair, "overlap": [0.25, 0.75]}))["overlap"].tolist()
        [0.5]
    """
    one_class = overlaps["class_a"] == overlaps["class_b"]
    two_styles = overlaps["domain_a"] != overlaps["domain_b"]
    named = overlaps.assign(n_images=np.nan).rename(columns={"class_a": "class"})
    if "n_a" in overlaps:
        named["n_images"] = _fewest_images(overlaps)
    enough = ~(named["n_images"] < LEAST_IMAGES)
    named["overlap"] = named["overlap"].where(enough)
    halves = named[one_class & ~two_styles].set_index(["class", "domain_a"])
    above_chance = halves["overlap"] - halves["chance"]
    by_pair = named[one_class & two_styles].groupby(
        ["class", "domain_a", "domain_b"], sort=False
    )
    table = by_pair[["overlap", "chance", "n_images"]].mean().reset_index()
    squares = pd.Series(1.0, table.index)
    for domain in ("domain_a", "domain_b"):
        keys = pd.MultiIndex.from_frame(table[["class", domain]])
        # Halves that have no more in common than random units are no ceiling.
        ceiling = above_chance.reindex(keys).clip(lower=0).to_numpy()
        squares = squares * ceiling
    ceiling = np.sqrt(squares.where(squares > 0))
    return table.assign(
        ceiling=ceiling + table["chance"],
        share_of_ceiling=(table["overlap"] - table["chance"]) / ceiling,
    )


def _by_measure(overlaps: pd.DataFrame) -> pd.DataFrame:
    """Return a table with a row for each pair of parts and each measure, without edges that were not scored.

    The new column compared has the name of the measure, value has the overlap, and chance the chance level. The overlap
    is NaN if fewer than `LEAST_IMAGES` images found a part.
    """
    enough = _fewest_images(overlaps) >= LEAST_IMAGES
    tables = list[pd.DataFrame]()
    for name, (value, chance) in _MEASURES.items():
        of_measure = overlaps.assign(
            compared=name, value=overlaps[value], chance=overlaps[chance]
        )
        scored = of_measure.dropna(subset="value")
        tables.append(scored.assign(value=scored["value"].where(enough)))
    return pd.concat(tables, ignore_index=True)


def _fewest_images(overlaps: pd.DataFrame) -> "pd.Series[int]":
    """Return by pair of parts the number of images that found a part, of the part with fewer images."""
    return overlaps[["n_a", "n_b"]].min(axis=1)


def _ceilings(table: pd.DataFrame) -> _Ceilings | None:
    """Return the overlaps of one class in one style and in two styles, across halves; None without two styles."""
    one_class = table["class_a"] == table["class_b"]
    # Parts of one half in two styles are compared only where a class has no ceiling.
    two_halves = table["half_a"] != table["half_b"]
    enough = _fewest_images(table) >= LEAST_IMAGES
    rows = table[one_class & two_halves & enough].rename(columns=_TO_FOLDS)
    if rows.empty:
        return None
    folds = FoldArray.from_table(rows)
    chance = rows.groupby("site")["chance"].mean().reindex(folds.sites).to_numpy()
    cells = pair_cells(folds)
    # A single style has a ceiling, but no pair.
    if not cells.pairs:
        return None
    return _Ceilings(cells, chance, draw_resamples(folds.classes, folds.n_folds))


def _mean_shares(table: pd.DataFrame) -> Mapping[Hashable, tuple[float, float, float]]:
    """Return the mean share of the ceiling over pairs of styles, with its 95 % interval, by measure."""
    ceilings = _ceilings(table)
    if ceilings is None:
        return {}
    spread = mean_ratio(*ceilings)
    values = zip(spread.value, *spread.interval(), strict=True)
    return dict(zip(ceilings.cells.sites, values, strict=True))


def _n_images(pairs: pd.DataFrame) -> int:
    """Return the median over pairs of the number of images that found a part, of the part with fewer images.

    Pairs of fewer images than `LEAST_IMAGES` are left out, if there are others. The median is rounded down.
    """
    numbers = _fewest_images(pairs)
    enough = numbers[numbers >= LEAST_IMAGES]
    return int((enough if len(enough) else numbers).median())


def _few_images(n_images: int) -> str:
    """Return a sentence if so many images a part are not enough for a sentence on overlaps; otherwise return ''."""
    if n_images >= ENOUGH_IMAGES:
        return ""
    said = "cannot be told" if n_images < LEAST_IMAGES else "not enough for a sentence"
    return f"{said}: {n_images} pictures found each part; give at least {ENOUGH_IMAGES} a half"
