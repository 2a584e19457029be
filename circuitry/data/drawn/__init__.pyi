from .drawing import DRAWN_THINGS as DRAWN_THINGS
from .drawing import STYLES as STYLES
from .drawing import TOY_CLASSES as TOY_CLASSES
from .drawing import DrawingSettings as DrawingSettings
from .drawing import draw_image as draw_image
from .drawing import write_toy as write_toy
