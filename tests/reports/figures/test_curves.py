"""Curves hold the numbers of their table."""

import pandas as pd
import pytest

from circuitry.reports.figures.curves import faithfulness_curves
from circuitry.reports.figures.style import domain_marks
from circuitry.runs.errors import InputError

CURVES = pd.DataFrame(
    [
        (domain, circuit, fraction, value, value - 0.1, value + 0.1)
        for domain in ("photo", "sketch")
        for circuit, fraction, value in (
            ("kept", 1.0, 1.0),
            ("kept", 0.1, 0.6),
            ("random", 0.1, 0.2),
            ("random", 1.0, 1.0),
        )
    ],
    columns=["domain", "circuit", "fraction", "value", "low", "high"],
)


def test_faithfulness_curves() -> None:
    figure = faithfulness_curves(CURVES)
    by_name = {trace.name: trace for trace in figure.data}
    assert (list(by_name["photo"].x), list(by_name["photo"].y)) == ([10, 100], [0.6, 1])
    assert list(by_name["sketch, random units"].y) == [0.2, 1]
    assert by_name["sketch, random units"].line.dash == "dot"
    assert by_name["photo"].line.color == domain_marks(["photo", "sketch"])["photo"].colour
    assert list(by_name["photo"].error_y.array) == pytest.approx([0.1, 0.1])
    assert list(by_name["photo"].error_y.arrayminus) == pytest.approx([0.1, 0.1])
    assert [trace.name for trace in figure.data if trace.showlegend is not False] == ["photo", "sketch", "random units"]
    with pytest.raises(InputError, match="no row for the circuit complement; it has kept, random"):
        faithfulness_curves(CURVES, circuit="complement")
    with pytest.raises(InputError, match="more than one row for photo, kept"):
        faithfulness_curves(pd.concat([CURVES, CURVES]))
