"""Tables of a scoreboard of methods: smallest working circuit, cost, agreement with exact patching.

All methods share one grid of sizes. Numbers are computed by class, then averaged over classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from circuitry.circuits.graph import AttributionGraph
from circuitry.comparison.statistics import mean_interval
from circuitry.comparison.table import with_columns
from circuitry.interventions.curve_reading import CURVE_MEASURES
from circuitry.interventions.curves import FaithfulnessCurve
from circuitry.interventions.intervention_settings import MIB_FRACTIONS
from circuitry.runs.errors import InputError
from circuitry.runs.given import SOME, Share

JOB = ("class", "method", "budget", "baseline", "metric")
"""Columns that identify a search."""


class Judged(NamedTuple):
    """One search: the circuits of one class by one method and budget, with one baseline and metric."""

    curve: FaithfulnessCurve
    """One circuit for each size of the grid, measured on images not used to find it."""
    graph: AttributionGraph
    """Scores of all units."""
    seconds: float
    operations: int


def _names_of(job: tuple[str, ...]) -> dict[str, str]:
    if len(job) != len(JOB):
        raise InputError(f"Searches are given by {', '.join(JOB)}, but {job} was given: name each.")
    return dict(zip(JOB, job, strict=True))


def scoreboard_tables(
    judged: Annotated[Mapping[tuple[str, ...], Judged], SOME],
    sizes: Annotated[Sequence[Share], SOME],
    targets: Annotated[Sequence[float], SOME],
    counted: str,
) -> dict[str, pd.DataFrame]:
    """Return the tables of a scoreboard.

    Args:
        judged: Searches by `JOB`; the method ``patching`` is the reference of ranks.
        sizes: The grid.
        targets: Selectivities for `smallest_sizes`.
        counted: The units that sizes are shares of, e.g. "1840 units at 17 sites"; a column of every table.

    Returns:
        ``curves``: both measures of circuit, complement and random units by size; ``summary``: smallest sizes, CPR and
        CMD (`areas_of`), rank correlation with exact patching, seconds and GFLOP of each method; both are means over
        classes with Student's intervals; ``by_class``: the summary by class.
    """
    curves, facts = list[pd.DataFrame](), list[dict[str, Any]]()
    exact = {(job[0], *job[3:]): one.graph.node_scores for job, one in judged.items() if job[1] == "patching"}
    for job, one in judged.items():
        names = {**_names_of(job), "counted": counted}
        curves.append(curve_by_size(one.curve, sizes).assign(**names))
        known = areas_of(one.curve, sizes)
        if (same := (job[0], *job[3:])) in exact:
            known["rank correlation"] = rank_agreement(one.graph.ranked_by, exact[same])
        known |= {"seconds": one.seconds, "GFLOP": one.operations / 1e9}
        facts += [{**names, "what": what, "value": value} for what, value in known.items()]
    everything = pd.concat(curves, ignore_index=True)
    smallest = smallest_sizes(everything[everything["measure"] == "selectivity"], targets)
    named = [f"size for {t:g}, {c}" for t, c in zip(smallest["target"], smallest["circuit"], strict=True)]
    by_class = pd.concat(
        [smallest.assign(what=named)[[*JOB, "counted", "what", "value"]], pd.DataFrame(facts)], ignore_index=True
    )
    return {"curves": over_classes(everything), "summary": over_classes(by_class), "by_class": by_class}


def curve_by_size(curve: FaithfulnessCurve, sizes: Sequence[float]) -> pd.DataFrame:
    """Return both measures of a curve by size: measure, circuit, size, n_units, value."""
    parts = []
    for measure in CURVE_MEASURES:
        table = curve.to_pandas(measure)[["measure", "circuit", "n_units", "value"]]
        parts.append(table.assign(size=np.tile(sizes, len(table) // len(sizes))))
    return pd.concat(parts, ignore_index=True)


def areas_of(curve: FaithfulnessCurve, sizes: Sequence[float]) -> dict[str, float]:
    """Return CPR and CMD over MIB's sizes (`MIB_FRACTIONS`) if the grid has all of them, else over the grid."""
    on_grid = set(MIB_FRACTIONS) <= set(sizes)
    chosen = [i for i, size in enumerate(sizes) if size in MIB_FRACTIONS or not on_grid]
    taken: dict[str, Any] = {name: getattr(curve, name)[..., chosen, :] for name in ("kept", "complement", "random")}
    taken |= {name: tuple(getattr(curve, name)[i] for i in chosen) for name in ("fractions", "n_units")}
    areas = replace(curve, **taken).areas().query("circuit == 'kept'")
    return dict(zip(areas["measure"], areas["value"], strict=True))


def smallest_sizes(
    curves: Annotated[pd.DataFrame, with_columns("circuit", "size", "value")], targets: Sequence[float]
) -> pd.DataFrame:
    """Return the smallest size of the grid from which a measure stays at or above a target, for each circuit.

    If no size reaches the target, the result is 1: the whole model has faithfulness and selectivity 1. Complements are
    left out.

    Args:
        curves: Columns ``circuit``, ``size``, ``value``, and others that identify a curve.
        targets: Targets.

    Returns:
        The other columns, with ``target`` and ``value``, the size.
    """
    apart = [name for name in curves.columns if name not in ("size", "value", "low", "high", "n_units")]
    rows = []
    for key, curve in curves[curves["circuit"] != "complement"].groupby(apart, sort=False, dropna=False):
        ordered = curve.sort_values("size", ascending=False)
        for target in targets:
            below = ~(ordered["value"] >= target).to_numpy()
            holds = int(below.argmax()) if below.any() else len(ordered)
            rows.append((*key, target, float(ordered["size"].iloc[holds - 1]) if holds else 1.0))
    return pd.DataFrame(rows, columns=[*apart, "target", "value"])


def rank_agreement(scores: Mapping[str, np.ndarray], exact: Mapping[str, np.ndarray]) -> float:
    """Return Spearman's correlation of scores with exact effects, mean over sites where both vary."""
    if other := [site for site in scores if site not in exact or scores[site].shape != exact[site].shape]:
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


def over_classes(table: Annotated[pd.DataFrame, with_columns("class", "value")]) -> pd.DataFrame:
    """Return the mean of ``value`` over classes with Student's 95 % interval, for each combination of other columns.

    Columns value, low, high, n_classes replace class and value.
    """
    apart = [name for name in table.columns if name not in ("class", "value", "low", "high", "n_units")]
    if table.duplicated([*apart, "class"]).any():
        raise InputError("A mean over classes needs one value of each class, but one class has several: add a column.")
    rows = [
        (*key, *mean_interval(part["value"].to_numpy(dtype=float)), int(part["value"].notna().sum()))
        for key, part in table.groupby(apart, sort=False, dropna=False)
    ]
    return pd.DataFrame(rows, columns=[*apart, "value", "low", "high", "n_classes"])
