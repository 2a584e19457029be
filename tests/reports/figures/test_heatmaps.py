"""Heatmaps hold the numbers that they are given, and say what does not fit."""

import numpy as np

from circuitry.circuits.component_effects import DirectEffects
from circuitry.reports.figures import (
    component_heatmap,
    pixel_maps,
    similarity_heatmap,
)
from tests.reports.figures.made import MATRIX


def test_heatmap_shows_the_matrix_and_marks_the_ceilings() -> None:
    matrix = MATRIX.rename_axis(index="circuit of", columns="images of")
    figure = similarity_heatmap(matrix, title="Edges", measure="Jaccard")
    (cells,) = figure.data
    np.testing.assert_array_equal(cells.z, matrix.to_numpy())
    assert list(cells.x) == list(cells.y) == ["real", "sketch"]
    assert (cells.zmin, cells.zmax) == (0, 0.9)
    assert [(shape.x0 + shape.x1) / 2 for shape in figure.layout.shapes] == [0]
    assert (figure.layout.yaxis.title.text, figure.layout.xaxis.title.text) == (
        "circuit of",
        "images of",
    )


def test_component_heatmap_has_a_row_for_each_head_and_a_column_for_each_layer() -> (
    None
):
    writers = (
        "embed",
        "blocks.0.attn.0",
        "blocks.0.attn.10",
        "blocks.0.attn.2",
        "blocks.0.mlp",
        "blocks.1.attn.0",
    )
    effects = np.array([[9.0, 0.5, 0.1, -0.2, 1.0, 0.3]])
    figure = component_heatmap(
        DirectEffects(writers, effects, np.zeros(1), np.zeros(1))
    )
    (cells,) = figure.data
    assert list(cells.y) == ["head 0", "head 2", "head 10", "mlp"]
    assert list(cells.x) == ["layer 0", "layer 1"]
    np.testing.assert_array_equal(
        cells.z, [[0.5, 0.3], [-0.2, np.nan], [0.1, np.nan], [1.0, np.nan]]
    )
    assert (cells.zmin, cells.zmax) == (-1, 1)


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
