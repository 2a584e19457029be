"""The drawn image set: everyday things in six styles, painted by code. The package ships some of its pictures."""

from experiments.drawn.drawing import (
    DRAWN_THINGS,
    TOY_CLASSES,
    DrawingSettings,
    draw_image,
    write_toy,
)

__all__ = [
    "DRAWN_THINGS",
    "TOY_CLASSES",
    "DrawingSettings",
    "draw_image",
    "write_toy",
]
