"""Arrows over an image: from where to where, the strongest ones, and from tokens that are nowhere in it."""

import numpy as np

from circuitry.encoder import TokenGrid
from circuitry.reports.figures import position_moves, style
from circuitry.reports.figures.pictures import THINNEST, WIDEST

GRID = TokenGrid(("class token",), 2, 2)
IMAGE = np.zeros((32, 64, 3), np.uint8)


def test_arrows_go_from_patch_to_patch() -> None:
    moves = np.zeros((5, 5))
    moves[4, 1] = -2.0  # from the upper left patch to the lower right one
    moves[0, 3] = 1.0  # from the lower left patch to the class token
    moves[2, 2] = 0.5  # stays at the upper right
    moves[3, 3] = 0.1
    figure = position_moves(moves, IMAGE, GRID, title="cat", measure="effect")
    drawn = [trace for trace in figure.data if trace.hovertemplate]
    _, ring, arrow, strongest = drawn
    assert (list(strongest.x), list(strongest.y)) == ([15.5, 47.5], [7.5, 23.5])
    assert (list(arrow.x), list(arrow.y)) == ([15.5, -32], [23.5, 15.5])
    assert (list(ring.x), list(ring.y), ring.mode) == ([47.5], [7.5], "markers")
    assert (strongest.line.width, strongest.line.color) == (WIDEST, style.NEGATIVE)
    assert (arrow.line.width, arrow.line.color) == ((WIDEST + THINNEST) / 2, style.POSITIVE)
    assert "-2.0000" in strongest.hovertemplate
    (token,) = [trace for trace in figure.data if trace.text]
    assert (token.text, list(token.x), list(token.y)) == ("class token", [-32], [15.5])
    assert figure.layout.xaxis.range[0] < -32
