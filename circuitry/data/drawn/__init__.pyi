from .drawing import DrawingSettings as DrawingSettings
from .drawing import draw_image as draw_image
from .drawing import write_toy as write_toy
