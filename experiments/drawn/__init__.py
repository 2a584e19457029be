"""The painter of the drawn set: things in six styles. The package has some of its pictures."""

from experiments.drawn.drawing import DRAWN_THINGS as DRAWN_THINGS
from experiments.drawn.drawing import STYLES as STYLES
from experiments.drawn.drawing import TOY_CLASSES as TOY_CLASSES
from experiments.drawn.drawing import DrawingSettings as DrawingSettings
from experiments.drawn.drawing import draw_image as draw_image
from experiments.drawn.drawing import write_toy as write_toy
