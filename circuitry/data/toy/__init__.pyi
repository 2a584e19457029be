from .write import DrawingSettings as DrawingSettings
from .write import draw as draw
from .write import write_toy as write_toy
