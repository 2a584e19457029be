"""One circuit in a report: is it enough, is it needed, how sure is that, and what does it look like? No torch."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from circuitry.circuits.graph import Circuit
from circuitry.comparison.domain_tests import THIS_MODEL
from circuitry.comparison.significance import LEVEL
from circuitry.interventions.curves import HARDLY_ANY
from circuitry.reports.page import Finding, Report
from circuitry.reports.plots import plot
from circuitry.reports.sections.compared import with_intervals
from circuitry.reports.sections.findings import NO, PARTLY, UNKNOWN, WORKS_FROM, YES

_FEW = 6
"""Images of the class below which a test says little."""
_MEANING = {
    "selectivity": "what separates the class from other classes",
    "faithfulness": "what the model's answer gains over the baseline",
}
_NO_OTHERS = (
    "there are no pictures of other classes, and a circuit that gives every picture the same answer would do as well. "
    "Add folders of other classes."
)
KINDS_OF_CIRCUITS = {"kept": "circuit", "random": "as many random units", "complement": "all except the circuit"}
"""Circuits of a curve, and what the table calls them."""
_Row = Mapping[str, Any]


def circuit_table(curves: pd.DataFrame) -> pd.DataFrame:
    """Return what the circuit, random units and the complement recover: a row per measure, percent with intervals."""
    named = curves.assign(circuit=curves["circuit"].map(KINDS_OF_CIRCUITS), cell=with_intervals(curves, "z.0%"))
    wide = named.pivot(index="measure", columns="circuit", values="cell")
    return wide.loc[list(_MEANING), list(KINDS_OF_CIRCUITS.values())].rename_axis(columns=None).reset_index()


def add_circuit(report: Report, circuit: Circuit, caption: str) -> None:
    """Add the section that draws one circuit, with its strongest units as a table."""
    graph = circuit.source
    report.section(f"The circuit of {graph.title}")
    report.figure(plot(circuit), caption)
    largest = "The units with the largest effects on the metric; those with a positive one help."
    report.table(graph.top(10), largest, folded=True)


def circuit_verdicts(
    what: str, share: float, curves: pd.DataFrame, tested: pd.DataFrame, n_images: tuple[int, int]
) -> list[Finding]:
    """Say whether a circuit is enough and needed, in plain words with the numbers after them.

    Args:
        what: Class and domain.
        share: Share of the units that the circuit keeps.
        curves: Tables of `FaithfulnessCurve` on unseen images, by both measures, for the circuit's size.
        tested: The table of `judge_circuit` on the same images.
        n_images: Unseen images of the class and of others.
    """
    n, others = n_images
    measure = "selectivity" if others else "faithfulness"
    kept, random, rest = (_row(curves, measure, circuit) for circuit in KINDS_OF_CIRCUITS)
    alone, beaten, worse = (_test(tested, name) for name in ("circuit", "sufficiency", "necessity"))
    if reason := kept["reason"]:
        claim = f"Is it enough, and is it needed? {UNKNOWN}: {reason}."
        return [Finding(claim, f"{n} unseen images of the class.", "More images; another class, metric or baseline.")]
    certainty = f"Over {n} unseen images of the class" + (f" and {others} of others" if others else "")
    why = "" if others else f"{_NO_OTHERS} "
    enough = Finding(
        f"Is it enough? {_enough(kept, alone, beaten, n) if others else UNKNOWN}: {why}{share:.1%} of the units, kept "
        f"alone, recover {_percent(kept)} of {_MEANING[measure]} ({what}); as many random units recover "
        f"{_percent(random)}.",
        f"{certainty}; the circuit beats {beaten['value']:.0%} of {beaten['n']:.0f} random circuits (p = "
        f"{beaten['p']:.2g}, about {THIS_MODEL}).",
        "Other images; another baseline; a larger share of the units.",
    )
    needed = Finding(
        f"Is it needed? {_needed(rest, worse, n)}",
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
    certainty = f"The measure is {measure}; intervals are 95 % bootstrap intervals over images."
    return Finding(claim, certainty, "More images.")


def _row(curves: pd.DataFrame, measure: str, circuit: str) -> _Row:
    (row,) = curves[(curves["measure"] == measure) & (curves["circuit"] == circuit)].to_dict("records")
    return {str(name): value for name, value in row.items()}


def _test(tested: pd.DataFrame, name: str) -> _Row:
    (row,) = tested[tested["test"] == name].to_dict("records")
    return {str(column): value for column, value in row.items()}


def _enough(kept: _Row, alone: _Row, beaten: _Row, n: int) -> str:
    if n < 2:
        return UNKNOWN
    if beaten["p"] >= LEVEL or kept["value"] < HARDLY_ANY:
        return NO
    if not alone["holds"]:  # its interval reaches down to random circuits, or to hardly any
        return UNKNOWN
    return YES if kept["value"] >= WORKS_FROM else PARTLY


def _needed(rest: _Row, worse: _Row, n: int) -> str:
    """Answer whether the model misses the circuit, and more than as many random units."""
    keeps, random = _percent(rest), f"{worse['random_low']:z.0%} to {worse['random_high']:z.0%}"
    lost, more = rest["value"] <= HARDLY_ANY, worse["holds"]
    so_without_random = lost and worse["random_high"] <= HARDLY_ANY
    unknown = n < 2 or so_without_random or (lost and not more)
    told = UNKNOWN if unknown else NO if not more else YES if lost else PARTLY
    if so_without_random:
        return (
            f"{told}: removing these units destroys the answer (keeps {keeps}), but so does removing as many random "
            f"units (keeps {random})."
        )
    return f"{told}: without these units the model keeps {keeps}, without as many random units {random}."


def _percent(row: _Row) -> str:
    return "an unknown share" if math.isnan(row["value"]) else f"{row['value']:z.0%}"
