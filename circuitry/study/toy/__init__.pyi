from .drawing import DrawingSettings as DrawingSettings
from .drawing import draw as draw
from .drawing import write_toy as write_toy
