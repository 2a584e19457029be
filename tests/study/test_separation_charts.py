"""Charts of separation hold the numbers that they are given."""

import pandas as pd
import pytest

from circuitry.reports.figures import domain_marks
from experiments.study.separation_charts import embedding_maps, separation_panels

MARKS = domain_marks(["ink", "photo", "sketch"])


POINTS = pd.DataFrame(
    [
        (model, kind, domain, "axe", x + shift, -x, "UMAP with density")
        for model, shift in (("standard", 0), ("aligned", 10))
        for kind, domain, x in (
            ("image", "ink", 1),
            ("image", "ink", 2),
            ("image", "photo", 3),
        )
    ],
    columns=["model", "kind", "domain", "class", "x", "y", "method"],
)


SUMMARY = pd.DataFrame(
    [
        (measure, model, domain, value + shift, low, high)
        for measure, low, high in (("distance", 0.1, 0.9), ("domain probe", float("nan"), float("nan")))
        for model, shift in (("standard", 0.2), ("aligned", 0))
        for domain, value in (("ink", 0.5), ("photo", 0.4))
    ],
    columns=["measure", "model", "domain", "value", "low", "high"],
)


def test_maps_hold_every_point_once_per_model() -> None:
    figure = embedding_maps(POINTS, marks=MARKS)
    drawn = [trace for trace in figure.data if trace.x[0] is not None]
    keys = [trace for trace in figure.data if trace.x[0] is None]
    assert [trace.name for trace in keys] == ["ink", "photo"]
    assert [trace.name for trace in drawn] == ["ink", "photo"] * 2
    assert [list(trace.x) for trace in drawn] == [[1, 2], [3], [11, 12], [13]]
    assert [trace.xaxis for trace in drawn] == ["x"] * 2 + ["x2"] * 2
    assert all(trace.marker.color == MARKS["ink"].colour for trace in drawn if trace.name.endswith("ink"))
    assert "standard<br>" in figure.layout.annotations[0].text
    assert "UMAP with density" in figure.layout.annotations[0].text


def test_panels_hold_values_intervals_seeds_and_references() -> None:
    seeds = pd.DataFrame(
        [("distance", "aligned", "ink", 0, 0.45), ("distance", "aligned", "ink", 1, 0.55)],
        columns=["measure", "model", "domain", "seed", "value"],
    )
    figure = separation_panels(SUMMARY, ["distance", "domain probe"], seeds, {"domain probe": 0.5}, marks=MARKS)
    keys = [t for t in figure.data if list(t.x) == [None]]
    by_panel = {axis: [t for t in figure.data if t.xaxis == axis and t not in keys] for axis in ("x", "x2")}
    models = [t for t in by_panel["x"] if t.name in ("standard", "aligned")]
    assert [list(t.x) for t in models] == [pytest.approx([0.7, 0.6]), [0.5, 0.4]]
    assert list(models[1].error_x.array) == pytest.approx([0.4, 0.5])
    assert list(models[1].error_x.arrayminus) == pytest.approx([0.4, 0.3])
    assert models[0].y[0] < models[1].y[0] < models[0].y[1] < models[1].y[1]  # domain by domain, the first model on top
    assert [t.marker.symbol for t in models] == ["circle", "circle-open"]
    assert list(models[0].marker.color) == [MARKS["ink"].colour, MARKS["photo"].colour]
    strokes = [t for t in by_panel["x"] if t.name == "seeds" and len(t.x)]
    assert [list(t.x) for t in strokes] == [[0.45, 0.55]]
    assert list(strokes[0].y) == [models[1].y[0]] * 2
    assert [list(t.x) for t in by_panel["x2"] if t.name == "reference"] == [[0.5, 0.5]]
    assert not [t for t in by_panel["x"] if t.name == "reference"]
    assert "ink" in figure.layout.yaxis.ticktext[0]
    assert [t.name for t in keys] == ["standard", "aligned", "95 % interval", "one seed", "guessing"]
