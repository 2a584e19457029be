"""Every chart refuses a table that it cannot draw, and names what is wrong with it."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from circuitry import Circuit
from circuitry.reports import contact_sheet, figures
from circuitry.runs import InputError
from tests.reports.figures.made import DEPTH, MATRIX, SITES
from tests.reports.figures.test_circuit_graphs import circuit, circuits
from tests.reports.figures.test_lines import CURVES
from tests.reports.figures.test_scatters import UNITS
from tests.reports.sections.test_compared import accuracy

IMAGE = np.zeros((64, 32, 3), np.uint8)
Draw = Callable[[], object]


def pair(first: Circuit, name: str = "real") -> object:
    return figures.circuit_pair(
        first, circuits()[1], SITES, name_a=name, name_b="sketch", title="t"
    )


def twice(table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table, table])


CASES: list[tuple[Draw, str]] = [
    (lambda: figures.overlap_over_depth(DEPTH.drop(columns="high"), SITES), "depth.*high"),
    (lambda: figures.overlap_over_depth(DEPTH, [*SITES, "layer9"]), "site.*'layer9' here"),
    (lambda: figures.overlap_over_depth(twice(DEPTH), SITES), "depth.*sketch, attnpool"),
    (lambda: figures.overlap_over_depth(DEPTH, SITES, marks=figures.domain_marks(["sketch"])), "real.*sketch"),
    (lambda: figures.domain_marks([str(i) for i in range(11)]), "10 domains.*11"),
    (lambda: figures.faithfulness_curves(CURVES.query("circuit == 'random'")), "'kept' here; available: random"),
    (lambda: figures.faithfulness_curves(twice(CURVES)), "photo, kept"),
    (lambda: figures.attribution_against_patching(UNITS, ["a", "c"]), "'c' here; available: a, b"),
    (lambda: figures.attribution_against_patching(UNITS.drop(columns="exact"), ["a"]), "points.*exact"),
    (lambda: figures.similarity_heatmap(MATRIX.iloc[::-1], title="", measure=""), "rows sketch, real and columns"),
    (lambda: figures.accuracy_bars(accuracy().drop(columns="held_out")), "accuracy.*held_out"),
    (lambda: figures.accuracy_bars(twice(accuracy())), "clipart"),
    (lambda: figures.accuracy_bars(accuracy()[:0]), "accuracy.*no rows"),
    (lambda: pair(circuits()[0], "sketch"), '"sketch"'),
    (lambda: pair(circuit({"layer9/0": 1.0}, {})), r'"layer9/0".*act1, layer1\.0, attnpool'),
    (lambda: figures.circuit_drawing(circuit({}, {}), SITES, title="t"), "circuit is empty"),
    (lambda: contact_sheet({}, [], ["c"]), "0 rows"),
    (lambda: contact_sheet({("fish", "oil"): []}, ["fish"], ["real"]), "'fish', 'oil'"),
]  # fmt: skip


@pytest.mark.parametrize(("draw", "named"), CASES, ids=[named for _, named in CASES])
def test_what_cannot_be_drawn_is_refused_by_name(draw: Draw, named: str) -> None:
    with pytest.raises(InputError, match=named):
        draw()
