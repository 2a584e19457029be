"""The six styles by DomainNet's names: style -> how it renders a drawing. No torch."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image

from circuitry.data.toy.geometry import Part
from circuitry.data.toy.styles_flat import clipart, infograph
from circuitry.data.toy.styles_light import painting, real
from circuitry.data.toy.styles_line import quickdraw, sketch

RENDERERS: Mapping[str, Callable[[Sequence[Part], np.random.Generator, int], Image.Image]] = {
    "clipart": clipart,
    "infograph": infograph,
    "painting": painting,
    "quickdraw": quickdraw,
    "real": real,
    "sketch": sketch,
}
"""parts, back to front; generator; side in pixels -> RGB image."""
