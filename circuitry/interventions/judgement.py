"""Tests of a circuit: is it sufficient, is it necessary, is each unit needed, and what does the complement do?

After "Hypothesis Testing the Circuit Hypothesis in LLMs" (Shi et al. 2024, arXiv 2410.13032). The measure is
selectivity where there are images of other classes, else faithfulness; which cannot tell a circuit of the class from
one that gives every image the same answer.

- circuit: the measure of the circuit alone, with its bootstrap interval over images. Holds if the circuit works (see
  `verdicts`; where there is no verdict: recovers half of the measure) and the interval lies above what random circuits
  with as many units at every site reach (97.5 % of them).
- complement: the measure of everything but the circuit. Holds if the row of the circuit does, and the complement does
  not work and lies below the circuit's interval.
- sufficiency: the circuit against the random circuits. Null: the circuit beats at most a share q of them; with s wins
  of n, p = P(Binomial(n, q) >= s). To beat random circuits that recover nothing is easy: it holds if p is below `LEVEL`
  and the row of the circuit holds. Neither says that the circuit recovers all; the value of its row says how much.
- necessity: the same for what is left without the circuit, or without as many random units: it is to do worse. Holds if
  p is below `LEVEL` and what is left does not work.
- minimality: each unit in turn is taken out of the circuit. Null: the metric's contrast does not fall; one-sided t-test
  over images (Welch's, between images of the class and others, for selectivity), Holm over units. Holds if it falls
  without each.

A circuit of edges is put to the same tests, edge by edge, against random edges (`Circuit.random`).
"""

import logging
import warnings
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from circuitry.circuits.asked_alike import ANY_CLASS, check_made_with, named_sites
from circuitry.circuits.found_on import own_and_others, tell_seen
from circuitry.circuits.graph import Circuit
from circuitry.comparison.significance import LEVEL, holm
from circuitry.encoder.task import Task
from circuitry.encoder.tensor_batches import digests_of
from circuitry.interventions.curves import FaithfulnessCurve
from circuitry.interventions.faithfulness import measure_circuits, measure_each
from circuitry.interventions.intervention_settings import AblationSettings
from circuitry.interventions.verdicts import ANSWERS, does_work, why_open
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError

DRAWS = 40
"""Random circuits of each kind; 40 wins of 40 are significant against `SHARE` at `LEVEL`."""
SHARE = 0.9
"""The share q of random circuits that a circuit has to beat."""
OF_RANDOM = (2.5, 97.5)
"""Percentiles of random circuits that are shown; a circuit is to lie above the second."""

log = logging.getLogger(__name__)


Row = dict[str, Any]
"""A row of the table of `judge_circuit`, by column."""
_COLUMNS = (
    "test",
    "measure",
    "value",
    "low",
    "high",
    "random_low",
    "random_high",
    "n",
    "p",
    "holds",
)


@checked
def judge_circuit(
    task: Task,
    circuit: Circuit,
    settings: AblationSettings = AblationSettings(),
    *,
    minimality: bool = True,
) -> pd.DataFrame:
    """Test the units of a circuit, and its edges where it has some: sufficiency, necessity, minimality, complement.

    Args:
        task: See `faithfulness_curve`; with a baseline of the same name as the circuit's, such as that of the task that
            it was found with.
        circuit: A circuit of `find_circuit`, or one with edges such as ``graph.circuit(3)``: its edges are tested too.
        settings: Seed of the random circuits.
        minimality: Whether to test each unit and each edge, a run for each.

    Returns:
        One row per test; a test of edges has "(edges)" in its name. Columns:

        - test, measure;
        - value: the measure itself (circuit, complement), the share of random circuits beaten (sufficiency, necessity),
          or the share of units or edges without which the measure falls (minimality);
        - low, high: the interval of the value;
        - random_low, random_high: the range of 95 % of the random circuits (circuit, sufficiency), or of the model
          without them (complement, necessity);
        - n: images, random circuits, or units, that the test counts;
        - p: of the test, for minimality the largest after Holm; NaN for circuit and complement;
        - holds: see the module's docstring; None if all images of the class also found the circuit, so that nothing
          was tested;
        - n_seen: the images of the class that also found the circuit. The log tells of them.

        Where the model itself has no lead in the measure, as by another class's metric, the shares of it are NaN, and
        the log says why.

    Example:
        >>> small = circuitry.find_circuit(task, size=0.05)
        >>> table = circuitry.judge_circuit(task, small, minimality=False)
        >>> table["test"].tolist()
        ['circuit', 'complement', 'sufficiency', 'necessity']
    """
    check_made_with(task, [circuit.source], (*ANY_CLASS, "baseline"))
    seen = tell_seen(
        own_and_others(task, circuit.source), [circuit.source], "A test of a circuit"
    )
    n_seen = next(iter(seen.values()))  # the images of the class come first
    sites = named_sites(task)
    units = replace(circuit, edges=None)
    tested = {"units": units if sites is None else units.at(sites)}
    if circuit.edges is not None:
        tested["edges"] = circuit
    for kind, of_kind in tested.items():
        if not of_kind.count:
            raise InputError(
                f"A test of {kind} needs some, but the circuit of {circuit.source.title} has none: add one."
            )
    # One generator for both kinds: random edges are drawn after random units.
    rng = np.random.default_rng(settings.seed)
    rows = list[Row]()
    for kind, of_kind in tested.items():
        rows += _rows(task, of_kind, kind, settings, rng, minimality)
    table = pd.DataFrame(rows, columns=_COLUMNS).assign(n_seen=n_seen)
    if n_seen and n_seen == len(digests_of(task.images)):
        table["holds"] = None
    return table


def _rows(
    task: Task,
    circuit: Circuit,
    kind: str,
    settings: AblationSettings,
    rng: np.random.Generator,
    minimality: bool,
) -> list[Row]:
    """Return the rows of a circuit of units, or of edges."""
    measure = "faithfulness" if task.others is None else "selectivity"
    # Sufficiency and necessity have random circuits of their own, so that their tests are independent.
    random = [circuit.random(rng) for _ in range(2 * DRAWS)]
    alone = [circuit, *random[:DRAWS]]
    # Made one by one: a complement has nearly all edges of the model.
    rests = (whole.complement() for whole in [circuit, *random[DRAWS:]])
    curve = measure_circuits(task, [circuit], replace(settings, random_draws=0))
    _say_why_nan(task, circuit, curve, measure)
    metrics = measure_each(
        task, chain(alone, rests), 2 * (1 + DRAWS), "random circuits"
    )
    rows = _beside_random(curve, metrics, measure)
    if kind == "edges":
        for row in rows:
            row["test"] += " (edges)"
    if minimality:
        without = chain([circuit], circuit.without_each())
        changed = measure_each(task, without, 1 + circuit.count, "one by one")
        rows.append(_minimality(f" ({kind})", measure, changed, curve.own))
    return rows


def _say_why_nan(
    task: Task, circuit: Circuit, curve: FaithfulnessCurve, measure: str
) -> None:
    """Warn that there is no share of the model's lead, and why; nothing where there is one."""
    reason = curve.reason(measure)
    if not reason:
        return
    found_by = circuit.source.settings.get("label")
    asked = task.identity.get("label")
    # The usual cause: the metric of another class.
    if found_by is not None and asked is not None and found_by != asked:
        reason += f"; the circuit was found by the metric of label {found_by}, and the task has that of label {asked}"
    log.warning(
        "The %s of a circuit is a share of the model's own lead, but there is none, so it is NaN (%s): give the metric "
        "of the images' class, images that the model recognises, or another baseline.",
        measure,
        reason,
    )


def _beside_random(
    curve: FaithfulnessCurve, values: np.ndarray, measure: str
) -> list[Row]:
    """Set the circuit beside random ones, and its complement beside theirs.

    ``values`` [circuits, images] are the metrics of the circuit, of random circuits, and then of their complements.
    """
    table = curve.to_pandas(measure).set_index("circuit")
    intervals = table[["value", "low", "high"]].astype(float)
    kept: Row = dict(intervals.loc["kept"])
    rest: Row = dict(intervals.loc["complement"])
    ends = np.stack([curve.full[0], curve.empty[0]])
    full, empty = _contrasts(ends, curve.own, measure)
    # Without a lead there is no share of it: the percentiles of random circuits are NaN then.
    lead = np.nan if table["reason"].iloc[0] else full - empty
    circuits, rests = np.split(_contrasts(values, curve.own, measure), 2)
    beside = _range_of((circuits[1:] - empty) / lead)
    without = _range_of((rests[1:] - empty) / lead)
    if why_open(curve):  # no verdict: half of the measure decides
        works = kept["value"] >= ANSWERS
        left = rest["value"] >= ANSWERS
    else:
        works = does_work(curve.at(0), "kept")
        left = does_work(curve.at(0), "complement")
    # A circuit that works as random ones do shows nothing: its interval lies above theirs.
    enough = bool(works and kept["low"] > beside["random_high"])
    apart = bool(enough and not left and rest["value"] < kept["low"])
    n = int(curve.own.sum())
    beaten = _win_test(circuits[1:] < circuits[0])
    worse = _win_test(rests[1:] > rests[0])
    rows: list[Row] = [
        {"test": "circuit", **kept, **beside, "n": n, "holds": enough},
        {"test": "complement", **rest, **without, "n": n, "holds": apart},
        {"test": "sufficiency", **beaten, **beside},
        {"test": "necessity", **worse, **without},
    ]
    rows[2]["holds"] = enough and beaten["p"] < LEVEL
    rows[3]["holds"] = not left and worse["p"] < LEVEL
    return [{"measure": measure, **row} for row in rows]


def _range_of(values: np.ndarray) -> Row:
    """Return the range that holds 95 % of random circuits, as columns."""
    low, high = np.percentile(values, OF_RANDOM)
    return {"random_low": float(low), "random_high": float(high)}


def _contrasts(values: np.ndarray, own: np.ndarray, measure: str) -> np.ndarray:
    """Return the measure's contrast of each row of metrics [rows, images]."""
    contrast = values[:, own].mean(1)
    if measure == "selectivity":
        contrast = contrast - values[:, ~own].mean(1)
    return np.asarray(contrast)


def _win_test(wins: np.ndarray) -> Row:
    """Test whether a circuit wins more often than in a share `SHARE` of cases; return the columns of the test."""
    n_wins = int(wins.sum())
    test = stats.binomtest(n_wins, len(wins), SHARE, alternative="greater")
    # The test's own interval is one-sided; the table shows a two-sided one.
    interval = stats.binomtest(n_wins, len(wins)).proportion_ci()
    return {
        "value": float(wins.mean()),
        "low": float(interval.low),
        "high": float(interval.high),
        "n": len(wins),
        "p": float(test.pvalue),
    }


def _minimality(kind: str, measure: str, values: np.ndarray, own: np.ndarray) -> Row:
    """Test for each unit or edge whether the contrast falls without it.

    ``values`` [1 + units, images] are the metrics of the circuit, and of the circuit without each unit or edge.
    """
    change = values[1:] - values[:1]
    inside = change[:, own]
    outside = change[:, ~own]
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        # A change that is the same for all images has no variance: scipy warns, and p is 0 or NaN.
        warnings.simplefilter("ignore", RuntimeWarning)
        if measure == "faithfulness":
            test = stats.ttest_1samp(inside, 0, axis=1, alternative="less")
            mean = inside.mean(1)
        else:
            test = stats.ttest_ind(
                inside, outside, axis=1, equal_var=False, alternative="less"
            )
            mean = inside.mean(1) - outside.mean(1)
    # A change within rounding is none, however small its p.
    changed = np.abs(mean) > 1e-6 * np.abs(values).max()
    p = np.where(changed & np.isfinite(test.pvalue), test.pvalue, 1.0)
    corrected = holm(pd.Series(p)).to_numpy()
    needed = corrected < LEVEL
    interval = stats.binomtest(int(needed.sum()), len(needed)).proportion_ci()
    return {
        "test": f"minimality{kind}",
        "measure": measure,
        "value": float(needed.mean()),
        "low": float(interval.low),
        "high": float(interval.high),
        "n": len(needed),
        "p": float(corrected.max()),
        "holds": bool(needed.all()),
    }
