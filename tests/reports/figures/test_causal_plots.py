"""Figures of causal checks hold the numbers they are given, and say what is missing."""

import numpy as np
import pandas as pd
import pytest

from circuitry.reports.figures.causal_plots import (
    attribution_against_patching,
    effects_over_depth,
    faithfulness_curves,
    pixel_maps,
    position_heatmap,
    transfer_beside_similarity,
)
from circuitry.reports.figures.style import domain_marks
from circuitry.runs.errors import InputError

EFFECTS = pd.DataFrame({"site": ["a", "a", "b"], "index": [0, 1, 0], "value": [-1.0, 0.5, 2.0]})
POINTS = pd.DataFrame(
    {"site": ["a", "a", "b"], "unit": [3, 1, 0], "top": [True, False, True]}
    | {"attributed": [-1.0, 0.5, 2.0], "exact": [-2.0, 0.25, 1.0]}
)
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


def test_effects_over_depth() -> None:
    figure = effects_over_depth(EFFECTS, ["a", "b"], measure="effect on the logit")
    first, second = figure.data
    assert list(first.y) == [-1, 0.5]
    assert list(second.y) == [2]
    assert all(-0.5 < x < 0.5 for x in first.x)  # in the order of the units, around the tick of their site
    assert list(second.x) == [1]
    assert first.x[0] < first.x[1]
    assert list(figure.layout.xaxis.ticktext) == ["a", "b"]
    assert figure.layout.yaxis.title.text == "effect on the logit"


def test_position_heatmap_lies_over_the_image() -> None:
    effects, image = np.array([[1.0, -3], [0, 2]]), np.zeros((64, 32, 3), np.uint8)
    figure = position_heatmap(effects, image, title="cat", measure="effect")
    heat = figure.data[-1]
    assert np.array_equal(heat.z, effects)
    assert (heat.zmin, heat.zmax) == (-3, 3)
    # Two columns over 32 pixels, whose centres lie at -0.5 + 8 and -0.5 + 24.
    assert (heat.x0, heat.dx, heat.y0, heat.dy) == (7.5, 16, 15.5, 32)
    assert sum(trace.type == "image" for trace in figure.data) == 2
    with pytest.raises(InputError, match=r"a grid \[height, width\], but have shape \[5\]: drop the class token"):
        position_heatmap(np.zeros(5), image, title="", measure="")
    with pytest.raises(InputError, match=r"bytes \[height, width, 3\], but float64 \[64, 32, 3\]"):
        position_heatmap(effects, image.astype(float), title="", measure="")


def test_attribution_against_patching() -> None:
    correlations = pd.DataFrame(
        {"site": ["a", "a"], "sample": ["random", "top"], "pearson": [0.5, 1.0], "spearman": [0.25, 1.0]}
    )
    figure = attribution_against_patching(POINTS, ["a", "b"], correlations)
    line, points = figure.data[:2]
    assert (list(points.x), list(points.y)) == ([-1, 0.5], [-2, 0.25])
    assert list(points.marker.symbol) == ["circle", "circle-open"]
    assert list(line.x) == list(line.y) == [-2, 0.5]
    titles = [a.text for a in figure.layout.annotations]
    assert titles[0].startswith("a<br>")
    assert "r 0.50, ρ 0.25" in titles[0]
    assert titles[1] == "b<br>"
    with pytest.raises(InputError, match="points table has no row for the site c; it has a, b"):
        attribution_against_patching(POINTS, ["a", "c"])
    with pytest.raises(InputError, match="points table lacks the column exact"):
        attribution_against_patching(POINTS.drop(columns="exact"), ["a"])


def test_faithfulness_curves() -> None:
    figure = faithfulness_curves(CURVES)
    by_name = {trace.name: trace for trace in figure.data}
    assert (list(by_name["photo"].x), list(by_name["photo"].y)) == ([10, 100], [0.6, 1])
    assert list(by_name["sketch, random units"].y) == [0.2, 1]
    assert by_name["sketch, random units"].line.dash == "dot"
    assert by_name["photo"].line.color == domain_marks(["photo", "sketch"])["photo"].colour
    band = figure.data[0]
    assert list(band.y) == pytest.approx([0.7, 1.1, 0.9, 0.5])
    with pytest.raises(InputError, match="no rows of 'complement'; it has kept, random"):
        faithfulness_curves(CURVES, circuit="complement")
    with pytest.raises(InputError, match="more than one row for photo, kept"):
        faithfulness_curves(pd.concat([CURVES, CURVES]))


def test_transfer_lies_beside_similarity() -> None:
    names = ["photo", "sketch"]
    matrix = pd.DataFrame([[1, 0.2], [0.4, 0.9]], index=names, columns=names)
    similarity = pd.DataFrame([[0.5, 0.3], [0.3, float("nan")]], index=names, columns=names).iloc[::-1, ::-1]
    figure = transfer_beside_similarity(matrix.rename_axis(index="circuit of", columns="images of"), similarity)
    left, right = figure.data
    assert left.z.tolist() == [[1, 0.2], [0.4, 0.9]]
    assert right.z.tolist()[0] == [0.5, 0.3]  # in the order of the transfer matrix
    assert (left.xaxis, right.xaxis) == ("x", "x2")
    assert figure.layout.yaxis.title.text == "circuit of"
    assert figure.layout.xaxis.title.text == "images of"
    assert [shape.xref for shape in figure.layout.shapes] == ["x", "x", "x2"]
    assert [a.text for a in figure.layout.annotations] == ["faithfulness", "edge Jaccard index"]


def test_pixel_maps_stand_beside_their_images() -> None:
    images = np.zeros((2, 224, 100, 3), np.uint8)
    images[0, :2, :2] = 200
    values = np.zeros((2, 224, 100))
    values[1, 7:14, 0:7] = -3
    figure = pixel_maps(images, {"logit": values}, names=["a", "b"])
    kinds = [trace.type for trace in figure.data]
    assert kinds == ["image", "heatmap", "image", "heatmap"]
    assert np.shape(figure.data[0].z) == (112, 50, 3)
    assert figure.data[0].z[0][0].tolist() == [200, 200, 200]
    assert figure.data[3].z[1][0] == -3
    assert {a.text for a in figure.layout.annotations} == {"image", "logit", "a", "b"}
    with pytest.raises(
        InputError, match=r"images uint8 \[2, 224, 100, 3\], 1 names and maps \[2, 224, 100\] were given"
    ):
        pixel_maps(images, {"logit": values}, names=["a"])
