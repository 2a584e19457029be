"""`plot` draws every kind of result."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from circuitry import InputError, plot
from circuitry.circuits import DirectEffects
from circuitry.gates import PatchEffects
from circuitry.interventions import AttributionCheck, FaithfulnessCurve
from tests.circuits.test_graph import small_graph
from tests.comparison.test_comparison import comparison
from tests.reports.sections.test_interventions import curve, only_own

CURVE = curve("real", 0.75, 0.0)


def effects() -> DirectEffects:
    writers = (
        "embed",
        "blocks.0.attn.0",
        "blocks.0.attn.1",
        "blocks.0.mlp",
        "blocks.1.attn.0",
        "blocks.1.mlp",
    )
    numbers = np.array([[9.0, 1, 2, 3, 4, 5], [9.0, 3, 4, 5, 6, 7]])
    return DirectEffects(writers, numbers, np.zeros(2), numbers.sum(1))


def drawn(result: Any, trace: int = -1) -> Any:
    return plot(result).data[trace]


def test_circuits_are_drawn_with_their_units() -> None:
    graph = small_graph()
    for result in (graph, graph.circuit(), graph.circuit(None)):
        figure = plot(result)
        assert "alarm clock in sketch" in figure.layout.title.text
        assert (
            sum(
                len(trace.x)
                for trace in figure.data
                if trace.mode == "markers" and trace.x[0] is not None
            )
            == 5
        )


@pytest.mark.parametrize(
    ("drawn", "measure"), [(only_own(CURVE), "faithfulness"), (CURVE, "selectivity")]
)
def test_curves_are_drawn_by_what_is_known(
    drawn: FaithfulnessCurve, measure: str
) -> None:
    figure = plot(drawn)
    assert figure.layout.yaxis.title.text == measure
    kept = next(trace for trace in figure.data if trace.name == "cat in real")
    assert (list(kept.x), list(kept.y)) == ([10, 100], [0.75, 1])


def test_direct_effects_are_drawn_by_layer() -> None:
    heat = drawn(effects())
    assert list(heat.x) == ["layer 0", "layer 1"]
    assert list(heat.y) == ["head 0", "head 1", "mlp"]
    np.testing.assert_array_equal(heat.z, [[2, 5], [3, np.nan], [4, 6]])


def patches(scores: dict[str, Any], by: str) -> PatchEffects:
    arrays = {site: np.array(of_site) for site, of_site in scores.items()}
    at_baseline = dict.fromkeys(scores, 0.0)
    return PatchEffects(tuple(scores), arrays, by, "denoise", 1.0, at_baseline, 2)


def test_patches_are_drawn_site_by_position() -> None:
    """Sites in the order of the encoder, not of their names, and positions of a feature map row by row."""
    effects = patches({"stem": [[0.5, -1.0], [2.0, 0.0]], "pool": [[3.0]]}, "position")
    heat = drawn(effects)
    assert list(heat.y) == ["stem", "pool"]
    assert list(heat.x) == [f"position {i}" for i in range(4)]
    np.testing.assert_array_equal(
        heat.z, [[0.5, -1, 2, 0], [3, np.nan, np.nan, np.nan]]
    )
    assert (heat.zmin, heat.zmax) == (-3, 3)
    for row in effects.to_pandas().itertuples():
        assert heat.z[list(heat.y).index(row.site)][row.index] == row.value


def test_patches_are_drawn_head_by_site() -> None:
    heat = drawn(
        patches({"9.attn": [1.0, np.nan, 2.0], "10.attn": [3.0, 4, 5]}, "unit")
    )
    assert list(heat.y) == ["9.attn", "10.attn"]
    assert list(heat.x) == ["unit 0", "unit 1", "unit 2"]
    np.testing.assert_array_equal(heat.z, [[1, np.nan, 2], [3, 4, 5]])


def test_a_site_as_a_whole_is_one_cell_and_nothing_is_refused() -> None:
    assert drawn(patches({"a": 1.0, "b": -2.0}, "site")).z.tolist() == [[1], [-2]]
    with pytest.raises(InputError, match="no unit was patched"):
        plot(patches({"a": [np.nan]}, "unit"))


def test_comparisons_and_checks_are_drawn() -> None:
    found = comparison()
    np.testing.assert_array_equal(drawn(found).z, found.matrix())
    points = {"site": "conv", "unit": [0, 1, 2], "top": True, "random": True}
    points |= {"attributed": [1.0, 2, 3], "exact": [1.0, 2, 4]}
    traces = plot(AttributionCheck(pd.DataFrame(points))).data
    assert any(list(trace.y) == [1, 2, 4] for trace in traces if trace.y is not None)


def test_other_things_are_refused() -> None:
    with pytest.raises(InputError, match=r"Circuit.* 3 "):
        plot(3)  # type: ignore[arg-type]
