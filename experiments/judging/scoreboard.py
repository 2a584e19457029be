"""Tables of a scoreboard of methods: how well circuits of each size work, the smallest that do, and their cost.

All methods share one grid of sizes. The smallest size of a class is censored: a class may reach a target at no size of
the grid. So sizes are told by their median over classes, and by how many classes have one; methods are compared class
by class (`paired_differences`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Annotated, Any, NamedTuple

from circuitry.runs import InputError, Share
from circuitry.circuits.graph import Scores
from circuitry.comparison.table import with_columns
from circuitry.interventions.curve_reading import CURVE_MEASURES
from circuitry.interventions.curves import CURVE_RUNS, FaithfulnessCurve, pool_curves
from circuitry.interventions.intervention_settings import MIB_SIZES
from circuitry.interventions.verdicts import does_work, why_open
from circuitry.runs.arguments import SOME

import numpy as np
import pandas as pd
from scipy import stats

JOB = ("class", "method", "budget", "baseline", "metric")
"""Columns that identify a search."""
SEARCH = JOB[1:]
SOUGHT = ("selectivity", "kl recovered")
"""Measures whose targets are sought."""
NEVER = 1.0
"""The size of a class that reaches a target at no size: the whole model has 1 of every measure."""


class Judged(NamedTuple):
    """One search: the circuits of one class by one method and budget, with one baseline and metric."""

    curve: FaithfulnessCurve
    """One circuit for each size of the grid, measured on images not used to find it."""
    graph: Scores
    """Scores of all units."""
    seconds: float  #: Wall time of the search.
    operations: int  #: Floating-point operations of the search.


def scoreboard_tables(
    judged: Annotated[Mapping[tuple[str, ...], Judged], SOME],
    sizes: Annotated[Sequence[Share], SOME],
    targets: Annotated[Sequence[float], SOME],
    counted: str,
) -> dict[str, pd.DataFrame]:
    """Return the tables of a scoreboard.

    Args:
        judged: Searches by `JOB`; the method ``patching`` is the reference of ranks.
        targets: Selectivities, and shares of KL recovered, for `smallest_of`.
        counted: The units that sizes are shares of, e.g. "1840 units at 17 sites"; a column of every table.

    Returns:
        ``curves``: all measures of circuits, and of what is beside them, by size, classes pooled (`pool_curves`);
        ``by_class``: of each class and search the smallest sizes for the targets and to work (`does_work`), CPR and CMD
        (`areas_of`), rank correlation with exact patching, seconds and GFLOP; ``summary`` and ``paired``: see
        `over_classes` and `paired_differences`.
    """
    facts = list[dict[str, Any]]()
    pooled = dict[tuple[str, ...], list[FaithfulnessCurve]]()
    exact = {
        (job[0], *job[3:]): one.graph.node_scores
        for job, one in judged.items()
        if job[1] == "patching"
    }
    for job, one in judged.items():
        names = dict(zip(JOB, job, strict=True))
        pooled.setdefault(job[1:], []).append(one.curve)
        known = smallest_of(one.curve, sizes, targets) | areas_of(one.curve, sizes)
        if (same := (job[0], *job[3:])) in exact:
            known["rank correlation"] = rank_agreement(one.graph.ranked_by, exact[same])
        known |= {"seconds": one.seconds, "GFLOP": one.operations / 1e9}
        facts += [
            {**names, "counted": counted, "what": what, "value": value}
            for what, value in known.items()
        ]
    by_class = pd.DataFrame(facts)
    curves = [
        curve_by_size(pool_curves(of), sizes).assign(
            **dict(zip(SEARCH, search, strict=True)), counted=counted
        )
        for search, of in pooled.items()
    ]
    tables = {"curves": pd.concat(curves, ignore_index=True), "by_class": by_class}
    return tables | {
        "summary": over_classes(by_class),
        "paired": paired_differences(by_class).assign(counted=counted),
    }


def curve_by_size(curve: FaithfulnessCurve, sizes: Sequence[float]) -> pd.DataFrame:
    """Return all measures of a curve by size: measure, circuit, size, n_units, weights, value, low, high."""
    columns = ["measure", "circuit", "n_units", "weights", "value", "low", "high"]
    parts = [curve.to_pandas(measure)[columns] for measure in CURVE_MEASURES]
    return pd.concat(
        [part.assign(size=np.tile(sizes, len(part) // len(sizes))) for part in parts],
        ignore_index=True,
    )


def smallest_of(
    curve: FaithfulnessCurve, sizes: Sequence[float], targets: Sequence[float]
) -> dict[str, float]:
    """Return the smallest sizes for targets, and to work, of a curve's circuits, random ones and other classes'.

    Measures that are not known of the class are left out.
    """
    values = [curve.at(place) for place in range(len(sizes))]
    found = dict[str, float]()
    for circuit in ("kept", "random", "foreign"):
        for measure in SOUGHT if circuit in values[0][SOUGHT[0]] else ():
            for target in targets if not curve.reason(measure) else ():
                reached = [of_size[measure][circuit] >= target for of_size in values]
                found[f"size for {target:g} {measure}, {circuit}"] = smallest_size(
                    sizes, reached
                )
        if circuit in values[0]["right"] and not why_open(curve):
            reached = [does_work(of_size, circuit) for of_size in values]
            found[f"size to work, {circuit}"] = smallest_size(sizes, reached)
    return found


def smallest_size(sizes: Sequence[float], reached: Iterable[bool]) -> float:
    """Return the smallest size from which on every size of the grid reaches a target; `NEVER` where none does."""
    smallest = NEVER
    for size, holds in sorted(zip(sizes, reached, strict=True), reverse=True):
        if not holds:
            break
        smallest = size
    return float(smallest)


def areas_of(curve: FaithfulnessCurve, sizes: Sequence[float]) -> dict[str, float]:
    """Return CPR and CMD over MIB's sizes (`MIB_SIZES`) if the grid has all of them, else over the grid."""
    on_grid = set(MIB_SIZES) <= set(sizes)
    chosen = [i for i, size in enumerate(sizes) if size in MIB_SIZES or not on_grid]
    taken: dict[str, Any] = {
        name: getattr(curve, name)[..., chosen, :] for name in CURVE_RUNS[2:]
    }
    taken |= {
        name: tuple(getattr(curve, name)[i] for i in chosen)
        for name in ("sizes", "n_units")
    }
    taken["weights"] = ()
    areas = replace(curve, **taken).areas().query("circuit == 'kept'")
    return dict(zip(areas["measure"], areas["value"], strict=True))


def rank_agreement(
    scores: Mapping[str, np.ndarray], exact: Mapping[str, np.ndarray]
) -> float:
    """Return Spearman's correlation of scores with exact effects, mean over sites where both vary."""
    if other := [
        site
        for site in scores
        if site not in exact or scores[site].shape != exact[site].shape
    ]:
        raise InputError(
            f"Scores are compared with exact effects of the same units, but there are none for the sites "
            f"{', '.join(other)}: measure them."
        )
    found = [
        float(stats.spearmanr(scores[site], exact[site]).statistic)
        for site in scores
        if np.ptp(scores[site]) > 0 and np.ptp(exact[site]) > 0
    ]
    return float(np.mean(found)) if found else float("nan")


def over_classes(
    table: Annotated[pd.DataFrame, with_columns("class", "what", "value")],
) -> pd.DataFrame:
    """Return the median of ``value`` over classes for each combination of the other columns.

    Columns value, least, most, n_classes, n_reached replace class and value. Of a size ``n_reached`` is the number of
    classes that have one below `NEVER`.
    """
    apart = [name for name in table.columns if name not in ("class", "value")]
    if table.duplicated([*apart, "class"]).any():
        raise InputError(
            "A median over classes needs one value of each class, but one has several: add a column."
        )
    rows = []
    for key, part in table.groupby(apart, sort=False, dropna=False):
        values = part["value"].dropna()
        reached = (
            int((values < NEVER).sum())
            if str(part["what"].iloc[0]).startswith("size")
            else len(values)
        )
        rows.append(
            (*key, values.median(), values.min(), values.max(), len(values), reached)
        )
    return pd.DataFrame(
        rows, columns=[*apart, "value", "least", "most", "n_classes", "n_reached"]
    )


def paired_differences(
    by_class: Annotated[pd.DataFrame, with_columns(*JOB, "what", "value")],
) -> pd.DataFrame:
    """Return how the sizes of two searches differ, class by class.

    Columns what, baseline, metric, a, b (method and budget), median of a less b, n_less, n_equal, n_more (classes in
    which a needs less, as much, more), and p of Wilcoxon's signed-rank test, 1 where all are equal.
    """
    sizes = by_class[
        by_class["what"].str.startswith("size") & by_class["what"].str.endswith("kept")
    ]
    named = sizes.assign(search=sizes["method"] + " (" + sizes["budget"] + ")")
    rows = []
    for (what, baseline, metric), part in named.groupby(
        ["what", "baseline", "metric"], sort=False
    ):
        wide = part.pivot(index="class", columns="search", values="value")
        for a, b in combinations(dict.fromkeys(part["search"]), 2):
            less = (wide[a] - wide[b]).dropna().round(9)
            p = float(stats.wilcoxon(less).pvalue) if less.any() else 1.0
            signs = [int((np.sign(less) == sign).sum()) for sign in (-1, 0, 1)]
            rows.append((what, baseline, metric, a, b, float(less.median()), *signs, p))
    columns = [
        "what",
        "baseline",
        "metric",
        "a",
        "b",
        "median",
        "n_less",
        "n_equal",
        "n_more",
        "p",
    ]
    return pd.DataFrame(rows, columns=columns)
