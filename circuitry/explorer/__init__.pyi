from .export import Exported as Exported
from .export import ExplorerSettings as ExplorerSettings
from .export import export_explorer as export_explorer
from .overview import read_curves as read_curves
