"""Tests of a circuit: is it sufficient, is it necessary, is each unit needed, and what does the complement do?

The tests follow "Hypothesis Testing the Circuit Hypothesis in LLMs" (Shi et al. 2024, arXiv 2410.13032). The measure is
selectivity if there are images of other classes, and otherwise faithfulness. Faithfulness cannot separate a circuit of
the class from a circuit that gives every image the same answer.

- circuit: the measure of the circuit alone, with its bootstrap interval over images. The test holds if two conditions
  are met. First, the circuit works (see `verdicts`). If there is no verdict, a circuit works if it recovers at least
  half of the measure. Second, the interval lies above 97.5 % of random circuits that have as many units at every site.
- complement: the measure of everything except the circuit. The test holds if three conditions are met: the test
  "circuit" holds, the complement does not work, and its measure lies below the interval of the circuit.
- sufficiency: the circuit is compared with each of the random circuits. The null hypothesis is that the circuit beats
  at most a share q (`SHARE`) of the random circuits. With s wins in n comparisons, p = P(Binomial(n, q) >= s). Random
  circuits that recover nothing are easy to beat. The test therefore holds only if p is below `LEVEL` and the test
  "circuit" holds. Neither condition says that the circuit recovers everything; the value of the row "circuit" says how
  much it recovers.
- necessity: the model without the circuit is compared with the model without a random circuit of the same size. The
  model without the circuit should do worse. The p value is computed as for sufficiency. The test holds if p is below
  `LEVEL` and the model without the circuit does not work.
- minimality: each unit in turn is taken out of the circuit. The contrast is the mean metric on images of the class. For
  selectivity, the mean metric on images of other classes is subtracted from it. The null hypothesis for a unit is that
  the contrast does not fall. It is tested by a one-sided t-test over images (for selectivity, by Welch's t-test between
  the two sets of images). The p values are corrected over units by Holm's method. The test holds if p is below `LEVEL`
  for every unit.

A circuit of edges undergoes the same tests, edge by edge, against random edges (`Circuit.random`).
"""

import logging
import math
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
from circuitry.interventions.faithfulness import (
    AT_ONCE,
    curve_forwards,
    measure_circuits,
    measure_each,
)
from circuitry.interventions.intervention_settings import AblationSettings
from circuitry.interventions.verdicts import ANSWERS, does_work, why_open
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError
from circuitry.runs.identity import OF_WEIGHTS, Across
from circuitry.runs.plan import Forwards

DRAWS = 40
"""The number of random circuits of each kind. If the circuit beats all 40, this is significant against `SHARE` at
`LEVEL`."""
SHARE = 0.9
"""The share q of random circuits that a circuit has to beat."""
OF_RANDOM = (2.5, 97.5)
"""The percentiles of random circuits that the table shows. A circuit has to lie above the second one."""

log = logging.getLogger(__name__)


Row = dict[str, Any]
"""A row of the table of `judge_circuit`: a dictionary from columns to values."""
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
    across: Across | None = None,
) -> pd.DataFrame:
    """Test the units of a circuit, and its edges if it has any: sufficiency, necessity, minimality and complement.

    Args:
        task: As for `faithfulness_curve`. Its baseline must have the same name as the baseline that was used to find
            the circuit.
        circuit: A circuit of `find_circuit`, or a circuit with edges such as ``graph.circuit(3)``, whose edges are
            tested, too.
        settings: The seed of the random circuits; all other settings are ignored.
        minimality: True also tests each unit and each edge. This takes a run of the model for each unit and each edge.
        across: With ``models`` the circuit may be of another model of the task's architecture, such as the model before
            fine-tuning.

    Returns:
        A table with one row per test. The name of a test of edges ends with "(edges)". Columns:

        - test, measure: the names of the test and of the measure.
        - value: for circuit and complement the measure itself; for sufficiency the share of random circuits that do
          worse than the circuit; for necessity the share of random circuits whose ablation harms the model less than
          the ablation of the circuit does; for minimality the share of units or edges without which the measure falls.
        - low, high: the interval of the value.
        - random_low, random_high: the range that contains 95 % of the random circuits (for circuit and sufficiency), or
          of the models without a random circuit (for complement and necessity).
        - n: the sample size: the number of images of the class (for circuit and complement), of random circuits (for
          sufficiency and necessity), or of units or edges (for minimality).
        - p: the p value of the test. For minimality, it is the largest p value after Holm's correction. It is NaN for
          circuit and complement.
        - holds: whether the test holds; see the docstring of the module for the conditions. It is None if all images of
          the class were also used to find the circuit, because then nothing was tested.
        - n_seen: the number of images of the class that were also used to find the circuit. The log mentions them.
        - circuit_weights, weights: with ``across``, the digests of the weights of the model that the circuit was found
          in, and of the model that is tested.

        If the whole model is not above the baseline in the measure, values of the measure are NaN, and the log says
        why. This happens, for example, with the metric of another class.

    Raises:
        InputError: if the circuit has no units, or its set of edges is empty; and if the circuit was found with another
            model, metric, texts or baseline than the task has.

    Example:
        >>> small = circuitry.find_circuit(task, size=0.05)
        >>> table = circuitry.judge_circuit(task, small, minimality=False)
        >>> table["test"].tolist()
        ['circuit', 'complement', 'sufficiency', 'necessity']
    """
    found = circuit.source
    check_made_with(task, [found], (*ANY_CLASS, "baseline"), across)
    seen = tell_seen(own_and_others(task, found), [found], "A test of a circuit")
    if across:
        # The functions below take circuits of one model. They compare nothing that a circuit does not say.
        settings_of_all = dict(found.settings)
        for name in OF_WEIGHTS:
            settings_of_all.pop(name, None)
        circuit = replace(circuit, source=replace(found, settings=settings_of_all))
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
    # Units and edges share one generator: random edges are drawn after random units.
    rng = np.random.default_rng(settings.seed)
    rows = list[Row]()
    for kind, of_kind in tested.items():
        rows += _rows(task, of_kind, kind, settings, rng, minimality)
    table = pd.DataFrame(rows, columns=_COLUMNS).assign(n_seen=n_seen)
    if n_seen and n_seen == len(digests_of(task.images)):
        table["holds"] = None
    if not across:
        return table
    return table.assign(
        circuit_weights=found.settings.get("weights"),
        weights=task.identity["weights"],
    )


def judge_forwards(n_images: int) -> Forwards:
    """Return what `judge_circuit` runs for a circuit of units, without the test of minimality.

    Args:
        n_images: Number of images, of the class and of other classes.
    """
    n_circuits = 2 * (1 + DRAWS)
    n_stacks = math.ceil(n_circuits / AT_ONCE)
    # Each stack of circuits begins with a run of the images without gates.
    of_random = Forwards(alone=n_images * (n_circuits + n_stacks))
    return curve_forwards(n_images, [0.5], random_draws=0) + of_random


def _rows(
    task: Task,
    circuit: Circuit,
    kind: str,
    settings: AblationSettings,
    rng: np.random.Generator,
    minimality: bool,
) -> list[Row]:
    """Return the rows of all tests of a circuit, either of its units or of its edges.

    Args:
        task: The images to test on.
        circuit: The circuit: of units alone, or with edges.
        kind: ``units`` or ``edges``, for the names of the tests.
        settings: The settings of the measurement.
        rng: The generator of the random circuits.
        minimality: Whether to test each unit or edge.
    """
    measure = "faithfulness" if task.others is None else "selectivity"
    # Sufficiency and necessity have random circuits of their own, so that their tests are independent.
    random = [circuit.random(rng) for _ in range(2 * DRAWS)]
    alone = [circuit, *random[:DRAWS]]
    # Complements are made one by one, because each has nearly all edges of the model.
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
    """Log a warning if the measure has no value, for example because the model does no better than the baseline.

    The warning says why.
    """
    reason = curve.reason(measure)
    if not reason:
        return
    found_by = circuit.source.settings.get("label")
    asked = task.identity.get("label")
    # The usual cause is a metric of another class.
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
    """Return the rows of all tests except minimality.

    The circuit is compared with random circuits. The complement of the circuit is compared with the complements of
    random circuits.

    Args:
        curve: The curve of the circuit, at a single size.
        values: The metric [runs, images]. The first half of the runs are of the circuit and of random circuits. The
            second half are of the complement of the circuit, and of complements of other random circuits.
        measure: The measure, selectivity or faithfulness.
    """
    table = curve.to_pandas(measure).set_index("circuit")
    intervals = table[["value", "low", "high"]].astype(float)
    kept: Row = dict(intervals.loc["kept"])
    rest: Row = dict(intervals.loc["complement"])
    ends = np.stack([curve.full[0], curve.empty[0]])
    full, empty = _contrasts(ends, curve.own, measure)
    # Without a lead the percentiles of random circuits are NaN, too.
    lead = np.nan if table["reason"].iloc[0] else full - empty
    circuits, rests = np.split(_contrasts(values, curve.own, measure), 2)
    beside = _range_of((circuits[1:] - empty) / lead)
    without = _range_of((rests[1:] - empty) / lead)
    if why_open(curve):  # without a verdict, half of the measure decides
        works = kept["value"] >= ANSWERS
        left = rest["value"] >= ANSWERS
    else:
        works = does_work(curve.at(0), "kept")
        left = does_work(curve.at(0), "complement")
    # If random circuits work as well, the circuit shows nothing, so its interval has to lie above their range.
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
    """Return the range that contains 95 % of the random circuits, as the columns random_low and random_high.

    Args:
        values: The measure of each random circuit.
    """
    low, high = np.percentile(values, OF_RANDOM)
    return {"random_low": float(low), "random_high": float(high)}


def _contrasts(values: np.ndarray, own: np.ndarray, measure: str) -> np.ndarray:
    """Return the mean metric over images of the class, for each run.

    For selectivity, the mean over images of other classes is subtracted.

    Args:
        values: The metric [runs, images].
        own: Whether each image is of the class.
        measure: The measure, selectivity or faithfulness.
    """
    contrast = values[:, own].mean(1)
    if measure == "selectivity":
        contrast = contrast - values[:, ~own].mean(1)
    return np.asarray(contrast)


def _win_test(wins: np.ndarray) -> Row:
    """Test whether a circuit wins in more than a share `SHARE` of all comparisons; return the columns of the test."""
    n_wins = int(wins.sum())
    test = stats.binomtest(n_wins, len(wins), SHARE, alternative="greater")
    # The interval of the test is one-sided, but the table shows a two-sided interval.
    return {**_share_of(wins), "p": float(test.pvalue)}


def _share_of(successes: np.ndarray) -> Row:
    """Return the share of successes with its exact interval, as the columns value, low, high and n."""
    n = len(successes)
    low, high = stats.binomtest(int(successes.sum()), n).proportion_ci()
    value = float(successes.mean())
    return {"value": value, "low": float(low), "high": float(high), "n": n}


def _minimality(kind: str, measure: str, values: np.ndarray, own: np.ndarray) -> Row:
    """Test for each unit or edge of a circuit whether the measure falls without it; return the row of the test.

    Args:
        kind: The kind of circuit in words, for the name of the test.
        measure: The measure, selectivity or faithfulness.
        values: The metric [1 + units, images]. The first row is of the whole circuit. Each further row is of the
            circuit without one unit or edge.
        own: Whether each image is of the class.
    """
    change = values[1:] - values[:1]
    inside = change[:, own]
    outside = change[:, ~own]
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        # If a change is the same for all images, it has no variance: scipy warns, and p is 0 or NaN.
        warnings.simplefilter("ignore", RuntimeWarning)
        if measure == "faithfulness":
            test = stats.ttest_1samp(inside, 0, axis=1, alternative="less")
            mean = inside.mean(1)
        else:
            test = stats.ttest_ind(
                inside, outside, axis=1, equal_var=False, alternative="less"
            )
            mean = inside.mean(1) - outside.mean(1)
    # A change within rounding does not count, however small its p value is.
    changed = np.abs(mean) > 1e-6 * np.abs(values).max()
    p = np.where(changed & np.isfinite(test.pvalue), test.pvalue, 1.0)
    corrected = holm(pd.Series(p)).to_numpy()
    needed = corrected < LEVEL
    return {
        "test": f"minimality{kind}",
        "measure": measure,
        **_share_of(needed),
        "p": float(corrected.max()),
        "holds": bool(needed.all()),
    }
