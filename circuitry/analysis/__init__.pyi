from .analysis import Analysis as Analysis
from .quickstart_settings import QuickstartModel as QuickstartModel
