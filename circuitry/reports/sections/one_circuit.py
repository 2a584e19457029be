"""The section and the findings on one circuit: does it work, is it needed, and how sure is that?

Does not import torch.
"""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from circuitry.circuits.graph import Circuit
from circuitry.comparison.domain_testing import THIS_MODEL
from circuitry.interventions.curves import FaithfulnessCurve
from circuitry.interventions.verdicts import OPEN, describe_leak, verdict_of, why_open
from circuitry.reports.page import Finding, Report
from circuitry.reports.plots import plot
from circuitry.reports.sections.compared import with_intervals
from circuitry.reports.sections.findings import HARDLY_ANY, NO, PARTLY, UNKNOWN, YES

_FEW = 6
"""With fewer images of the class than this number, a test says little."""
KINDS_OF_CIRCUITS = {
    "kept": "circuit",
    "foreign": "circuits of other classes",
    "random": "as many random units",
    "complement": "all except the circuit",
    "empty": "nothing kept",
    "full": "whole model",
}
"""The circuits of a curve by name, and what tables call them."""
_BESIDE = ("full", "empty", "random", "foreign")
"""Names of the circuits that a circuit is compared with, in the order in which a sentence lists them."""
_SAID = {
    "right": "right answers",
    "false": "false answers",
    "kl recovered": "KL of the answers recovered",
}
_Row = Mapping[str, Any]


def in_cells(curves: pd.DataFrame, index: list[str]) -> pd.DataFrame:
    """Return a table of the values of curves at one size. The values are texts: percentages with intervals.

    Unknown values are left out.

    Args:
        curves: Rows of `FaithfulnessCurve.to_pandas` at one size.
        index: Columns that identify a row of the result.

    Returns:
        A table with the columns of ``index`` and a column for each kind of circuit, named as in `KINDS_OF_CIRCUITS`.
    """
    known = curves[curves["reason"] == ""]
    cells = known.assign(cell=with_intervals(known, "z.0%")).pivot_table(
        "cell", index, "circuit", aggfunc="first", sort=False, fill_value=""
    )
    shown = [name for name in KINDS_OF_CIRCUITS if name in cells]
    cells = cells[shown].rename(columns=KINDS_OF_CIRCUITS)
    return cells.rename_axis(columns=None).reset_index()


def values_in_words(values: Mapping[str, Mapping[str, float]]) -> str:
    """Return a phrase that compares a circuit with other kinds of circuits, such as random units.

    For each kind, the phrase gives the share of right answers, the share of false answers, and the share of the KL
    divergence of the model's answers that is recovered.

    Args:
        values: Values by measure and kind of circuit, from `FaithfulnessCurve.at`.
    """
    said = []
    for measure, words in _SAID.items():
        shares = {name: f"{value:z.0%}" for name, value in values[measure].items()}
        # Without images of other classes there are no foreign circuits.
        known = [name for name in _BESIDE if name in shares]
        beside = [f"{KINDS_OF_CIRCUITS[name]} {shares[name]}" for name in known]
        said.append(f"{words} {shares['kept']} ({', '.join(beside)})")
    return "; ".join(said)


def add_circuit(report: Report, circuit: Circuit, caption: str) -> None:
    """Add a section that draws one circuit and lists its strongest units in a table.

    Args:
        caption: Caption of the drawing.
    """
    graph = circuit.source
    report.section(f"The circuit of {graph.title}")
    report.figure(plot(circuit), caption)
    largest = "The units with the largest effects on the metric; those with a positive one help."
    report.table(graph.top(10), largest, folded=True)


def circuit_verdicts(curve: FaithfulnessCurve, tested: pd.DataFrame) -> list[Finding]:
    """Return the findings on one circuit: does it work, does the model need it, and how sure is that?

    Args:
        curve: The faithfulness curve of the circuit. Its first size is the size of the circuit.
        tested: Table of the tests of the circuit, from `judge_circuit`.
    """
    n = int(curve.own.sum())
    others = int((~curve.own).sum())
    measure = "selectivity" if others else "faithfulness"
    question = "Does it work, and is it needed?"
    if reason := curve.reason(measure):
        more = "images of other classes, too"
        if others:
            more = "images that the model recognises"
        return [
            Finding(
                f"{question} {UNKNOWN}: {reason}. Give {more}.",
                f"{n} unseen images of the class.",
                "More images; another class, metric or baseline.",
            )
        ]
    # Tables of earlier versions do not say how many images were seen.
    seen = int(tested["n_seen"].max()) if "n_seen" in tested else 0
    # All images of the test were also used to find the circuit.
    if seen == n:
        same = f"the {n} images that test it have the pixels of those that found it"
        claim = f"{question} {UNKNOWN}: {same}. Give others."
        return [
            Finding(claim, f"{n} images of the class, none of them new.", "New images.")
        ]
    curves = curve.to_pandas(measure)
    kept = _row(curves, "circuit", "kept")
    random = _row(curves, "circuit", "random")
    rest = _row(curves, "circuit", "complement")
    beaten = _row(tested, "test", "sufficiency")
    worse = _row(tested, "test", "necessity")
    certainty = f"Over {n} unseen images of the class"
    if others:
        certainty += f" and {others} of others"
    if seen:
        certainty += f" ({seen} of them have pixels that found the circuit)"
    of_weights = f", {curve.weights[0]:.0%} of the weights" if curve.weights else ""
    units = f"{curve.n_units[0]} units ({curve.sizes[0]:.1%}{of_weights})"
    verdict = verdict_of(curve)
    refutation = "Other images; another baseline; a larger share of the units."
    if verdict == OPEN:
        said = (
            f"{UNKNOWN}: {why_open(curve)}. {units}, kept alone, reach a {measure} of {_percent(kept)}, "
            f"as many random units of {_percent(random)}"
        )
        refutation += " Folders of other classes, and texts of several classes."
    else:
        said = f"It {verdict}. {units}, kept alone: {values_in_words(curve.at(0))}"
    enough = Finding(
        f"Does it work? {said}.{describe_leak(curve)}",
        f"{certainty}; in {measure} the circuit beats {beaten['value']:.0%} of {beaten['n']:.0f} random circuits (p = "
        f"{beaten['p']:.2g}, about {THIS_MODEL}).",
        refutation,
    )
    needed = Finding(
        f"Is it needed? {_needed(rest, worse, n, others)}",
        f"{certainty}; as many random units are missed less in {worse['value']:.0%} of {worse['n']:.0f} draws (p = "
        f"{worse['p']:.2g}).",
        "Units outside of the circuit that replace it only when it is gone.",
    )
    return [enough, needed, _how_sure(n, others, measure)]


def _how_sure(n: int, others: int, measure: str) -> Finding:
    if n < _FEW:
        claim = f"How sure is that? Not very: {n} unseen images of the class are few; give more."
    else:
        claim = f"How sure is that? {n} unseen images of the class and {others} of others were tested."
    certainty = f"Of the tests the measure is {measure}; intervals are 95 % bootstrap intervals over images."
    return Finding(claim, certainty, "More images.")


def _row(table: pd.DataFrame, column: str, value: str) -> _Row:
    # Exactly one row has the value.
    (row,) = table[table[column] == value].to_dict("records")
    return {str(name): value for name, value in row.items()}


def _needed(rest: _Row, worse: _Row, n: int, others: int) -> str:
    """Return the answer to whether the model needs the circuit, and needs it more than as many random units.

    Args:
        rest: Row of the curve's table with the value of the model without the circuit.
        worse: Row of the test "necessity". This test compares the ablation of the circuit with the ablation of random
            units.
        n: Number of images of the class.
        others: Number of images of other classes.
    """
    keeps = _percent(rest)
    random = f"{worse['random_low']:z.0%} to {worse['random_high']:z.0%}"
    # If the share is NaN, this is False.
    lost = rest["value"] <= HARDLY_ANY
    more_than_random = worse["holds"]
    so_without_random = lost and worse["random_high"] <= HARDLY_ANY
    # Removal proves nothing on a single image, or if the removal of random units breaks the model, too.
    if n < 2 or so_without_random or (lost and not more_than_random):
        answer = UNKNOWN
    elif not more_than_random:
        answer = NO
    elif not others:
        answer = f"{UNKNOWN} without images of other classes, which may lose as much"
    else:
        answer = YES if lost else PARTLY
    if so_without_random:
        return (
            f"{answer}: removing these units destroys the answer (keeps {keeps}), but so does removing as many random "
            f"units (keeps {random})."
        )
    return f"{answer}: without these units the model keeps {keeps}, without as many random units {random}."


def _percent(row: _Row) -> str:
    return "an unknown share" if math.isnan(row["value"]) else f"{row['value']:z.0%}"
