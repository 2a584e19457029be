"""Charts of the study draw the numbers of their tables."""

from itertools import product

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from circuitry.reports.figures import domain_marks
from experiments.study.measure_charts import (
    cost_against_quality,
    measure_panels,
    size_curves,
    size_panels,
)
from experiments.study.separation_charts import embedding_maps, separation_panels
from experiments.study.setting_charts import (
    in_panels,
    interpolation_lines,
    mixture_bars,
)


def drawn(figure: go.Figure) -> list[go.Scatter]:
    """Return the traces with points, which the entries of the legend have not."""
    return [trace for trace in figure.data if trace.x[0] is not None]


def test_a_point_for_each_method_and_its_random_units_in_a_panel_for_each_setting() -> (
    None
):
    values = {
        "seconds": (2.0, 30.0),
        "size to work, kept": (0.9, 0.4),
        "size to work, random": (1.0, 0.95),
    }
    rows = [
        (setting, method, what, of[i], of[i] - 0.1, of[i] + 0.1)
        for setting, (what, of), (i, method) in product(
            "ab", values.items(), enumerate(("gradient", "learned"))
        )
    ]
    figure = cost_against_quality(
        pd.DataFrame(
            rows, columns=["setting", "method", "what", "value", "low", "high"]
        )
    )
    points = {
        (t.xaxis, x, y): t.error_y.array
        for t in drawn(figure)
        for x, y in zip(t.x, t.y, strict=True)
    }
    costs = {
        (x, y)
        for what in list(values)[1:]
        for x, y in zip(values["seconds"], values[what], strict=True)
    }
    assert points.keys() == {(axis, *cost) for axis in ("x", "x2") for cost in costs}
    assert {y for (_, _, y), bars in points.items() if bars is None} == {1.0, 0.95}
    np.testing.assert_allclose(points["x", 2.0, 0.9], 0.1)
    assert {trace.name for trace in figure.data if trace.showlegend} == {
        "gradient",
        "learned",
        "random units",
    }


def test_a_method_looks_the_same_in_every_figure_of_the_scoreboard() -> None:
    methods = (
        "conductance",
        "fisher",
        "gradient",
        "iterative-fisher",
        "learned",
        "of-mine",
        "patching",
    )
    rows = [("one", method, "seconds", 1.0, 1.0, 1.0) for method in methods]
    rows += [("one", method, "size to work, kept", 0.5, 0.4, 0.6) for method in methods]
    costs = cost_against_quality(
        pd.DataFrame(
            rows, columns=["setting", "method", "what", "value", "low", "high"]
        )
    )
    curve = ("kept", 0.1, 0.5, 0.4, 0.6)
    columns = ["panel", "method", "circuit", "size", "value", "low", "high"]
    few = pd.DataFrame(
        [("one", method, *curve) for method in ("gradient", "learned")], columns=columns
    )
    more = pd.concat([few, few.assign(method=["fisher", "of-mine"])])

    def looks(figure: go.Figure) -> dict[str, tuple[str, str]]:
        shown = [
            trace
            for trace in figure.data
            if trace.showlegend and "random" not in trace.name
        ]
        return {
            trace.name: (trace.marker.color, trace.marker.symbol) for trace in shown
        }

    found = looks(costs)
    assert set(found) == set(methods)
    assert len(set(found.values())) == len(methods)
    for figure in (size_curves(few, "kl", ""), size_panels(more, "kl", "")):
        assert looks(figure).items() <= found.items()
    assert {"of-mine", "fisher"} <= looks(size_panels(more, "kl", "")).keys()


def test_a_panel_for_each_case_and_a_point_for_each_measure() -> None:
    rows = [
        (m, c, "s", 0.25 * i, 0.5, 4)
        for i, (m, c) in enumerate(product("ab", ("one", "two")))
    ]
    table = pd.DataFrame(
        rows, columns=["measure", "case", "statistic", "value", "guessing", "n"]
    )
    figure = measure_panels(table, title="Measures")
    assert [list(trace.x) for trace in figure.data] == [[0.5, 0.0], [0.75, 0.25]]
    assert [list(trace.y) for trace in figure.data] == [["b", "a"]] * 2
    assert {note.text for note in figure.layout.annotations} >= {"one", "two"}


@pytest.mark.parametrize(
    ("domains", "models", "columns"),
    [
        (2, 4, 2),  # models are rows
        (5, 1, 3),  # one model: test domains fill the rows
        (5, 2, 2),  # more test domains than fit: they are rows
    ],
)
def test_every_model_and_test_domain_has_a_panel(
    domains: int, models: int, columns: int
) -> None:
    rows = [(f"d{d}", f"m{m}") for m, d in product(range(models), range(domains))]
    table, panels, wide = in_panels(
        pd.DataFrame(rows, columns=["test_domain", "model"]), "in "
    )
    assert set(table["panel"]) == panels.keys()
    assert (len(panels), wide) == (domains * models, columns)
    title = table["panel"][1]
    assert title.startswith("in d1")
    assert panels[title] == "d1"
    assert ("m0" in title) == (models > 1)


def test_mixtures_hold_the_table() -> None:
    rows = [
        *(
            ("low", "real", "seen", 5),
            ("low", "real", "held-out", 2),
            ("low", "sketch", "seen", 4),
        ),
        *(
            ("low", "cc3m", "base", 3_000_000),
            ("high", "real", "seen", 3),
            ("high", "clipart", "held-out", 8),
        ),
    ]
    figure = mixture_bars(
        pd.DataFrame(rows, columns=["mixture", "domain", "group", "images"])
    )
    found = {
        (mixture, bar.name, "held-out" if bar.marker.pattern.shape else "seen", images)
        for bar in figure.data
        if len(bar.x) and bar.x[0] is not None
        for mixture, images in zip(bar.y, bar.x, strict=True)
    }
    assert found == {row for row in rows if row[2] != "base"}
    ticks = dict(
        zip(figure.layout.yaxis.tickvals, figure.layout.yaxis.ticktext, strict=True)
    )
    assert "3,000,000 of cc3m" in ticks["low"]
    assert ticks["high"] == "high"


def test_interpolations_have_a_panel_for_each_test_domain() -> None:
    rows = [
        (panel, line, x, 0.1 + x / 10, 0.3 + x / 10, 0.0625, 0.25)
        for panel, line, x in product(
            ("clipart", "sketch"), ("CG low", "CG high"), (0.0, 1.0)
        )
    ]
    dots = pd.DataFrame(
        rows,
        columns=["panel", "line", "x", "held_out", "alone", "chance", "chance_alone"],
    )
    figure = interpolation_lines(dots, axis="share", title="title")
    points = drawn(figure)
    assert (
        len(points) == 2 * 2 * 2
    )  # panels, lines, among all and among held-out classes alone
    assert list(points[0].y) == pytest.approx([10, 20])
    assert list(points[1].y) == pytest.approx([30, 40])
    assert [note.text for note in figure.layout.annotations] == ["clipart", "sketch"]
    assert len(figure.layout.shapes) == 2 * 2  # guessing, in each panel


MARKS = domain_marks(["ink", "photo", "sketch"])


def test_maps_hold_every_point_once_per_model() -> None:
    rows = [
        (model, domain, "axe", x + shift, -x, "UMAP with density")
        for model, shift in (("standard", 0), ("aligned", 10))
        for domain, x in (("ink", 1), ("ink", 2), ("photo", 3))
    ]
    columns = ["model", "domain", "class", "x", "y", "method"]
    figure = embedding_maps(pd.DataFrame(rows, columns=columns), marks=MARKS)
    points = [(trace.name, trace.xaxis, list(trace.x)) for trace in drawn(figure)]
    assert points[:2] == [("ink", "x", [1, 2]), ("photo", "x", [3])]
    assert points[2:] == [("ink", "x2", [11, 12]), ("photo", "x2", [13])]
    assert {trace.marker.color for trace in figure.data if trace.name == "ink"} == {
        MARKS["ink"].colour
    }
    assert "standard<br>" in figure.layout.annotations[0].text
    assert "UMAP with density" in figure.layout.annotations[0].text


def test_panels_hold_values_intervals_seeds_and_references() -> None:
    rows = [
        (measure, model, domain, value + shift, low, high)
        for measure, low, high in (
            ("distance", 0.1, 0.9),
            ("domain probe", np.nan, np.nan),
        )
        for model, shift in (("standard", 0.2), ("aligned", 0))
        for domain, value in (("ink", 0.5), ("photo", 0.4))
    ]
    summary = pd.DataFrame(
        rows, columns=["measure", "model", "domain", "value", "low", "high"]
    )
    seeds = pd.DataFrame(
        {
            "measure": "distance",
            "model": "aligned",
            "domain": "ink",
            "seed": [0, 1],
            "value": [0.45, 0.55],
        }
    )
    figure = separation_panels(
        summary, ["distance", "domain probe"], seeds, {"domain probe": 0.5}, marks=MARKS
    )
    points = {(trace.xaxis, trace.name): trace for trace in drawn(figure)}
    first, second = (points["x", name] for name in ("standard", "aligned"))
    assert [list(first.x), list(second.x)] == [pytest.approx([0.7, 0.6]), [0.5, 0.4]]
    assert list(second.error_x.array) == pytest.approx([0.4, 0.5])
    assert list(second.error_x.arrayminus) == pytest.approx([0.4, 0.3])
    assert list(first.marker.color) == [MARKS["ink"].colour, MARKS["photo"].colour]
    strokes = points["x", "aligned, seeds"]
    assert (list(strokes.x), list(strokes.y)) == ([0.45, 0.55], [second.y[0]] * 2)
    assert {key for key in points if key[1] == "guessing"} == {("x2", "guessing")}
    assert list(points["x2", "guessing"].x) == [0.5, 0.5]
