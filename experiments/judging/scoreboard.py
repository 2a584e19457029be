"""Which method finds the smallest circuits that work, and at which cost? The tables of a scoreboard of methods.

All methods are measured at one grid of sizes. The smallest size that reaches a target is censored, because a class may
reach the target at no size of the grid. So the tables give the median over classes, and how many classes reach the
target. Methods are compared class by class (`paired_differences`): if the differences of two methods are not
significant, the scoreboard does not decide between them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, product
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
"""Measures with targets, for which the smallest size is sought."""
NEVER = 1.0
"""The size of a class that reaches a target at no size of the grid. It is the size of the whole model, for which every
measure is 1."""


class Judged(NamedTuple):
    """The result of one search: the circuits of one class by one method and budget, with one baseline and metric."""

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
        judged: The result of each search, by the values of `JOB`. The method ``patching`` is the reference of ranks.
        sizes: The grid of sizes, at which every curve was measured.
        targets: Selectivities, and shares of KL recovered, for `smallest_of`.
        counted: The units whose shares are the sizes, e.g. "1840 units at 17 sites"; a column of every table.

    Returns:
        The tables by name:

        - ``curves``: all measures by size, with classes pooled (`pool_curves`), of the circuits and of random circuits
          and other runs that they are compared with;
        - ``by_class``: for each class and search the smallest sizes that reach the targets and that work (`does_work`),
          CPR and CMD (`areas_of`), the rank correlation with exact patching, seconds and GFLOP;
        - ``summary``: see `over_classes`;
        - ``paired``: see `paired_differences`.
    """
    exact = dict[tuple[str, ...], Mapping[str, np.ndarray]]()
    for (name, method, _, *task), search in judged.items():
        if method == "patching":
            exact[name, *task] = search.graph.node_scores
    facts = list[tuple[Any, ...]]()
    pooled = dict[tuple[str, ...], list[FaithfulnessCurve]]()
    for job, search in judged.items():
        pooled.setdefault(job[1:], []).append(search.curve)
        values = smallest_of(search.curve, sizes, targets)
        values |= areas_of(search.curve, sizes)
        # Exact effects are of a class, baseline and metric; they hold for every budget.
        effects = exact.get((job[0], *job[3:]))
        if effects is not None:
            values["rank correlation"] = rank_agreement(search.graph.ranked_by, effects)
        values["seconds"] = search.seconds
        values["GFLOP"] = search.operations / 1e9
        facts += [(*job, counted, what, value) for what, value in values.items()]
    by_class = pd.DataFrame(facts, columns=[*JOB, "counted", "what", "value"])
    curves = []
    for key, of_classes in pooled.items():
        table = curve_by_size(pool_curves(of_classes), sizes)
        labels = dict(zip(SEARCH, key, strict=True))
        curves.append(table.assign(**labels, counted=counted))
    return {
        "curves": pd.concat(curves, ignore_index=True),
        "by_class": by_class,
        "summary": over_classes(by_class),
        "paired": paired_differences(by_class).assign(counted=counted),
    }


def curve_by_size(curve: FaithfulnessCurve, sizes: Sequence[float]) -> pd.DataFrame:
    """Return all measures of a curve by size: measure, circuit, size, n_units, weights, value, low, high."""
    columns = ["measure", "circuit", "n_units", "weights", "value", "low", "high"]
    tables = []
    for measure in CURVE_MEASURES:
        table = curve.to_pandas(measure)[columns]
        # Each circuit has the whole grid, in its order.
        n_circuits = len(table) // len(sizes)
        tables.append(table.assign(size=np.tile(sizes, n_circuits)))
    return pd.concat(tables, ignore_index=True)


def smallest_of(
    curve: FaithfulnessCurve, sizes: Sequence[float], targets: Sequence[float]
) -> dict[str, float]:
    """Return the smallest sizes that reach the targets, and the smallest sizes that work.

    The sizes are of three kinds of circuits: ``kept`` (found for the class), ``random``, and ``foreign`` (of other
    classes).

    Returns:
        Sizes by a text that names the target and the kind of circuit. Measures that are unknown for the class, and
        kinds of circuits that the curve lacks, are left out.
    """
    values = [curve.at(place) for place in range(len(sizes))]
    smallest = dict[str, float]()
    measures = [measure for measure in SOUGHT if not curve.reason(measure)]
    for circuit in ("kept", "random", "foreign"):
        # A curve may lack random or foreign circuits.
        if circuit in values[0][SOUGHT[0]]:
            for measure, target in product(measures, targets):
                reached = [of_size[measure][circuit] >= target for of_size in values]
                what = f"size for {target:g} {measure}, {circuit}"
                smallest[what] = smallest_size(sizes, reached)
        # There is no verdict if the whole model recognises no image of the class, or if a measure is unknown.
        if circuit in values[0]["right"] and not why_open(curve):
            reached = [does_work(of_size, circuit) for of_size in values]
            smallest[f"size to work, {circuit}"] = smallest_size(sizes, reached)
    return smallest


def smallest_size(sizes: Sequence[float], reached: Iterable[bool]) -> float:
    """Return the smallest size such that it and all larger sizes reach a target; `NEVER` if the largest does not.

    Args:
        reached: Whether each of ``sizes`` reaches the target.
    """
    smallest = NEVER
    # From the largest size down: a small size that reaches the target by luck, below one that fails, does not count.
    for size, holds in sorted(zip(sizes, reached, strict=True), reverse=True):
        if not holds:
            break
        smallest = size
    return float(smallest)


def areas_of(curve: FaithfulnessCurve, sizes: Sequence[float]) -> dict[str, float]:
    """Return the areas CPR and CMD of a curve's circuits, over the sizes of the MIB benchmark.

    If the grid lacks some of `MIB_SIZES`, the areas are over all sizes of the grid.
    """
    chosen = list(range(len(sizes)))
    # Only then are the areas comparable with published areas, since more sizes change an area.
    if set(MIB_SIZES) <= set(sizes):
        chosen = [i for i in chosen if sizes[i] in MIB_SIZES]
    changed: dict[str, Any] = {
        "sizes": tuple(np.array(curve.sizes)[chosen].tolist()),
        "n_units": tuple(np.array(curve.n_units)[chosen].tolist()),
        # The shares of weights are of all sizes; areas are over shares of units.
        "weights": (),
    }
    # The first two runs, the whole model and the empty circuit, have no axis of sizes.
    for run in CURVE_RUNS[2:]:
        changed[run] = getattr(curve, run)[..., chosen, :]
    areas = replace(curve, **changed).areas()
    kept = areas[areas["circuit"] == "kept"]
    return dict(zip(kept["measure"], kept["value"], strict=True))


def rank_agreement(
    scores: Mapping[str, np.ndarray], exact: Mapping[str, np.ndarray]
) -> float:
    """Return Spearman's correlation of scores with exact effects, averaged over the sites where both vary.

    Returns:
        The mean, or NaN if scores or effects are constant at every site.
    """
    missing = []
    correlations = []
    for site, values in scores.items():
        if site not in exact or values.shape != exact[site].shape:
            missing.append(site)
        # A constant has no ranks to compare.
        elif np.ptp(values) > 0 and np.ptp(exact[site]) > 0:
            correlation = stats.spearmanr(values, exact[site]).statistic
            correlations.append(float(correlation))
    if missing:
        raise InputError(
            f"Scores are compared with exact effects of the same units, but there are none for the sites "
            f"{', '.join(missing)}: measure them."
        )
    # The mean of no numbers would warn.
    return float(np.mean(correlations)) if correlations else float("nan")


def over_classes(
    table: Annotated[pd.DataFrame, with_columns("class", "what", "value")],
) -> pd.DataFrame:
    """Return the median of ``value`` over classes for each combination of the other columns.

    The columns class and value are replaced by value (the median), least, most, n_classes and n_reached. For a size,
    n_reached is the number of classes that reach the target, with a size below `NEVER`. For other values, n_reached
    equals n_classes.
    """
    keys = list(table.columns.drop(["class", "value"]))
    if table.duplicated([*keys, "class"]).any():
        raise InputError(
            "A median over classes needs one value of each class, but one has several: add a column."
        )
    is_never = table["what"].str.startswith("size") & (table["value"] >= NEVER)
    reached = table["value"].notna() & ~is_never
    # Rows with an empty key are a combination, too.
    groups = table.assign(reached=reached).groupby(keys, sort=False, dropna=False)
    summary = groups.agg(
        value=("value", "median"),
        least=("value", "min"),
        most=("value", "max"),
        n_classes=("value", "count"),
        n_reached=("reached", "sum"),
    )
    return summary.reset_index()


def paired_differences(
    by_class: Annotated[pd.DataFrame, with_columns(*JOB, "what", "value")],
) -> pd.DataFrame:
    """Return how the sizes of every two searches differ, class by class.

    Returns:
        Columns what, baseline, metric, a and b (method and budget of both searches), median (of the difference a - b
        over classes), n_less, n_equal and n_more (numbers of classes in which a needs a smaller, an equal and a larger
        size than b), and p of Wilcoxon's signed-rank test. If all differences are zero, p is 1.
    """
    sizes = by_class[
        by_class["what"].str.startswith("size") & by_class["what"].str.endswith("kept")
    ]
    named = sizes.assign(search=sizes["method"] + " (" + sizes["budget"] + ")")
    rows = []
    keys = ["what", "baseline", "metric"]
    for key, group in named.groupby(keys, sort=False):
        wide = group.pivot(index="class", columns="search", values="value")
        for a, b in combinations(group["search"].unique(), 2):
            # Rounded, so that equal sizes have a difference of exactly zero.
            less = (wide[a] - wide[b]).dropna().round(9)
            # The test is undefined without a difference.
            p = float(stats.wilcoxon(less).pvalue) if less.any() else 1.0
            counts = (
                int((less < 0).sum()),
                int((less == 0).sum()),
                int((less > 0).sum()),
            )
            rows.append((*key, a, b, float(less.median()), *counts, p))
    columns = [*keys, "a", "b", "median", "n_less", "n_equal", "n_more", "p"]
    return pd.DataFrame(rows, columns=columns)
