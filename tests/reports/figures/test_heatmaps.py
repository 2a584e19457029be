"""Heatmaps hold the numbers that they are given, and say what does not fit."""

import numpy as np

from circuitry.circuits.component_effects import DirectEffects
from circuitry.reports.figures import (
    component_heatmap,
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
