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
from circuitry.runs.errors import InputError
from circuitry.runs.given import checked

DRAWS = 40
"""Random circuits of each kind; 40 wins of 40 are significant against `SHARE` at `LEVEL`."""
SHARE = 0.9
"""The share q of random circuits that a circuit has to beat."""
OF_RANDOM = (2.5, 97.5)
"""Percentiles of random circuits that are shown; a circuit is to lie above the second."""

log = logging.getLogger(__name__)

Row = tuple[str, str, float, float, float, float, float, int, float, bool]


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
        minimality: Whether to test each unit and each edge, a run for each.

    Returns:
        One row per test, with "(edges)" in the name of a test of edges: columns test, measure, value, low, high,
        random_low, random_high, n, p, holds. The value is the share of random circuits beaten (sufficiency, necessity),
        the share of units or edges without which the measure falls (minimality, p the largest after Holm), and the
        measure itself (circuit, complement; with low and high, no p). Between random_low and random_high lies that of
        95 % of the random circuits (circuit, sufficiency), or of the model without them (complement, necessity). The
        module's docstring says when a row holds. Where the model itself has no lead in the measure, as by another
        class's metric, the shares of it are NaN, and the log says why. Column n_seen counts the images of the class
        that found the circuit, and the log tells of them; where all did, nothing was tested and holds is None.

    Example:
        >>> circuit = find_circuit(task, size=0.4)
        >>> unseen = Task(encoder, more_cats, metric, baseline=task.baseline, others=more_not_cats)
        >>> judge_circuit(unseen, circuit)
    """
    check_made_with(task, [circuit.source], (*ANY_CLASS, "baseline"))
    seen = tell_seen(
        own_and_others(task, circuit.source), [circuit.source], "A test of a circuit"
    )
    n_seen = next(iter(seen.values()))  # the images of the class come first
    sites, units = named_sites(task), replace(circuit, edges=None)
    tested = {"units": units if sites is None else units.at(sites)}
    if circuit.edges is not None:
        tested["edges"] = circuit
    for kind, one in tested.items():
        if not one.count:
            raise InputError(
                f"A test of {kind} needs some, but the circuit of {circuit.source.title} has none: add one."
            )
    rng = np.random.default_rng(settings.seed)
    rows = [
        row
        for kind, one in tested.items()
        for row in _rows(task, one, kind, settings, rng, minimality)
    ]
    columns = [
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
    ]
    table = pd.DataFrame(rows, columns=columns).assign(n_seen=n_seen)
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
    measure, named = (
        "faithfulness" if task.others is None else "selectivity",
        " (edges)" if kind == "edges" else "",
    )
    random = [circuit.random(rng) for _ in range(2 * DRAWS)]
    rests = (one.complement() for one in (circuit, *random[DRAWS:]))
    curve = measure_circuits(task, [circuit], replace(settings, random_draws=0))
    _say_why_nan(task, circuit, curve, measure)
    beside = measure_each(
        task,
        chain([circuit, *random[:DRAWS]], rests),
        2 * (1 + DRAWS),
        "random circuits",
    )
    rows = [
        (row[0] + named, *row[1:]) for row in _beside_random(curve, beside, measure)
    ]
    if minimality:
        changed = measure_each(
            task,
            chain([circuit], circuit.without_each()),
            1 + circuit.count,
            "one by one",
        )
        rows.append(_minimality(f" ({kind})", measure, changed, curve.own))
    return rows


def _say_why_nan(
    task: Task, circuit: Circuit, curve: FaithfulnessCurve, measure: str
) -> None:
    """Say why there is no share of the model's lead; nothing where there is one."""
    reason = curve.reason(measure)
    if not reason:
        return
    found_by, asked = circuit.source.settings.get("label"), task.identity.get("label")
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
    contrasts, (full, empty) = (
        _contrasts(some, curve.own, measure)
        for some in (values, [curve.full[0], curve.empty[0]])
    )
    lead = np.nan if table["reason"].iloc[0] else full - empty
    circuits, rests = np.split(contrasts, 2)
    beaten, worse = (
        _win_test(circuits[1:] < circuits[0]),
        _win_test(rests[1:] > rests[0]),
    )
    kept, rest = (
        table.loc[["kept", "complement"], ["value", "low", "high"]]
        .to_numpy(dtype=float)
        .tolist()
    )
    of_random, without = (
        np.percentile((some[1:] - empty) / lead, OF_RANDOM).tolist()
        for some in (circuits, rests)
    )
    works, left = (
        value >= ANSWERS if why_open(curve) else does_work(curve.at(0), name)
        for name, value in (("kept", kept[0]), ("complement", rest[0]))
    )
    enough, n = bool(works and kept[1] > of_random[1]), int(curve.own.sum())
    return [
        ("circuit", measure, *kept, *of_random, n, np.nan, enough),
        (
            "complement",
            measure,
            *rest,
            *without,
            n,
            np.nan,
            enough and not left and rest[0] < kept[1],
        ),
        (
            "sufficiency",
            measure,
            *beaten[:3],
            *of_random,
            *beaten[3:],
            enough and beaten[-1] < LEVEL,
        ),
        (
            "necessity",
            measure,
            *worse[:3],
            *without,
            *worse[3:],
            not left and worse[-1] < LEVEL,
        ),
    ]


def _contrasts(
    values: np.ndarray | list[np.ndarray], own: np.ndarray, measure: str
) -> np.ndarray:
    values = np.asarray(values)
    return np.asarray(
        values[:, own].mean(1)
        - (0 if measure == "faithfulness" else values[:, ~own].mean(1))
    )


def _win_test(wins: np.ndarray) -> tuple[float, float, float, int, float]:
    """Return the share of wins with its interval, their number, and p of at most `SHARE` of them."""
    test = stats.binomtest(int(wins.sum()), len(wins), SHARE, alternative="greater")
    interval = stats.binomtest(int(wins.sum()), len(wins)).proportion_ci()
    return (
        float(wins.mean()),
        float(interval.low),
        float(interval.high),
        len(wins),
        float(test.pvalue),
    )


def _minimality(kind: str, measure: str, values: np.ndarray, own: np.ndarray) -> Row:
    """Test for each unit or edge whether the contrast falls without it.

    ``values`` [1 + units, images] are the metrics of the circuit, and of the circuit without each unit or edge.
    """
    change = values[1:] - values[:1]
    inside, outside = change[:, own], change[:, ~own]
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # the change is the same for all images: judged by its size
        if measure == "faithfulness":
            p, mean = (
                stats.ttest_1samp(inside, 0, axis=1, alternative="less").pvalue,
                inside.mean(1),
            )
        else:
            p = stats.ttest_ind(
                inside, outside, axis=1, equal_var=False, alternative="less"
            ).pvalue
            mean = inside.mean(1) - outside.mean(1)
    changed = np.abs(mean) > 1e-6 * np.abs(values).max()
    corrected = holm(pd.Series(np.where(changed & np.isfinite(p), p, 1.0))).to_numpy()
    needed = corrected < LEVEL
    interval = stats.binomtest(int(needed.sum()), len(needed)).proportion_ci()
    value, low, high = float(needed.mean()), float(interval.low), float(interval.high)
    p_value = float(corrected.max())
    return (
        f"minimality{kind}",
        measure,
        value,
        low,
        high,
        np.nan,
        np.nan,
        len(needed),
        p_value,
        bool(needed.all()),
    )
