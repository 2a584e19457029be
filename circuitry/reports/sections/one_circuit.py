"""One circuit in a report: is it enough, is it needed, how sure is that, and what does it look like? No torch."""

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
"""Images of the class below which a test says little."""
KINDS_OF_CIRCUITS = {
    "kept": "circuit",
    "foreign": "circuits of other classes",
    "random": "as many random units",
    "complement": "all except the circuit",
    "empty": "nothing kept",
    "full": "whole model",
}
"""Circuits of a curve, and what tables call them."""
_SAID = {
    "right": "right answers",
    "false": "false answers",
    "kl recovered": "KL of the answers recovered",
}
_Row = Mapping[str, Any]


def in_cells(curves: pd.DataFrame, index: list[str]) -> pd.DataFrame:
    """Return what is known of curves at one size as percent with intervals: a column for each kind of circuit."""
    known = curves[curves["reason"] == ""]
    wide = known.assign(cell=with_intervals(known, "z.0%")).pivot_table(
        "cell", index, "circuit", aggfunc="first", sort=False
    )
    wide = wide.reindex(
        columns=[name for name in KINDS_OF_CIRCUITS if name in wide]
    ).rename(columns=KINDS_OF_CIRCUITS)
    return wide.fillna("").rename_axis(columns=None).reset_index()


def said_of(values: Mapping[str, Mapping[str, float]]) -> str:
    """Say what circuits, and those beside them, answer and recover; see `FaithfulnessCurve.at`."""
    parts = []
    for measure, words in _SAID.items():
        said = {one: f"{value:z.0%}" for one, value in values[measure].items()}
        beside = [
            f"{KINDS_OF_CIRCUITS[one]} {said[one]}"
            for one in ("full", "empty", "random", "foreign")
            if one in said
        ]
        parts.append(f"{words} {said['kept']} ({', '.join(beside)})")
    return "; ".join(parts)


def weights_said(curve: FaithfulnessCurve, place: int) -> str:
    """Say which share of the weights circuits of one size touch, where it is known."""
    return f", {curve.weights[place]:.0%} of the weights" if curve.weights else ""


def add_circuit(report: Report, circuit: Circuit, caption: str) -> None:
    """Add the section that draws one circuit, with its strongest units as a table."""
    graph = circuit.source
    report.section(f"The circuit of {graph.title}")
    report.figure(plot(circuit), caption)
    largest = "The units with the largest effects on the metric; those with a positive one help."
    report.table(graph.top(10), largest, folded=True)


def circuit_verdicts(curve: FaithfulnessCurve, tested: pd.DataFrame) -> list[Finding]:
    """Say whether a circuit works and is needed, in plain words with the numbers after them."""
    n, others = int(curve.own.sum()), int((~curve.own).sum())
    measure = "selectivity" if others else "faithfulness"
    curves = curve.to_pandas(measure)
    if reason := curve.reason(measure):
        more = (
            "images that the model recognises"
            if others
            else "images of other classes, too"
        )
        claim = f"Does it work, and is it needed? {UNKNOWN}: {reason}. Give {more}."
        return [
            Finding(
                claim,
                f"{n} unseen images of the class.",
                "More images; another class, metric or baseline.",
            )
        ]
    seen = (
        int(tested["n_seen"].max()) if "n_seen" in tested else 0
    )  # tables of earlier versions do not say
    if seen == n:
        claim = f"Does it work, and is it needed? {UNKNOWN}: the {n} images that test it have the pixels of those that "
        claim += "found it. Give others."
        return [
            Finding(claim, f"{n} images of the class, none of them new.", "New images.")
        ]
    kept, random, rest = (
        _row(curves, "circuit", circuit) for circuit in ("kept", "random", "complement")
    )
    beaten, worse = (
        _row(tested, "test", name) for name in ("sufficiency", "necessity")
    )
    certainty = f"Over {n} unseen images of the class" + (
        f" and {others} of others" if others else ""
    )
    certainty += f" ({seen} of them have pixels that found the circuit)" if seen else ""
    units = f"{curve.n_units[0]} units ({curve.sizes[0]:.1%}{weights_said(curve, 0)})"
    told = verdict_of(curve)
    if told == OPEN:
        said = f"{UNKNOWN}: {why_open(curve)}. {units}, kept alone, reach a {measure} of {_percent(kept)}, "
        said += f"as many random units of {_percent(random)}"
    else:
        said = f"It {told}. {units}, kept alone: {said_of(curve.at(0))}"
    enough = Finding(
        f"Does it work? {said}.{describe_leak(curve)}",
        f"{certainty}; in {measure} the circuit beats {beaten['value']:.0%} of {beaten['n']:.0f} random circuits (p = "
        f"{beaten['p']:.2g}, about {THIS_MODEL}).",
        "Other images; another baseline; a larger share of the units."
        + " Folders of other classes, and texts of several classes." * (told == OPEN),
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
    (row,) = table[table[column] == value].to_dict("records")
    return {str(name): value for name, value in row.items()}


def _needed(rest: _Row, worse: _Row, n: int, others: int) -> str:
    """Answer whether the model misses the circuit, and more than as many random units."""
    keeps, random = (
        _percent(rest),
        f"{worse['random_low']:z.0%} to {worse['random_high']:z.0%}",
    )
    lost, more = rest["value"] <= HARDLY_ANY, worse["holds"]
    so_without_random = lost and worse["random_high"] <= HARDLY_ANY
    unknown = n < 2 or so_without_random or (lost and not more)
    told = UNKNOWN if unknown else NO if not more else YES if lost else PARTLY
    if told in (YES, PARTLY) and not others:
        told = f"{UNKNOWN} without images of other classes, which may lose as much"
    if so_without_random:
        return (
            f"{told}: removing these units destroys the answer (keeps {keeps}), but so does removing as many random "
            f"units (keeps {random})."
        )
    return f"{told}: without these units the model keeps {keeps}, without as many random units {random}."


def _percent(row: _Row) -> str:
    return "an unknown share" if math.isnan(row["value"]) else f"{row['value']:z.0%}"
