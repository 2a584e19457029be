from .analysis import Analysis as Analysis
from .analysis_answers import AccuracyAnswer as AccuracyAnswer
from .quickstart_settings import QUICKSTART as QUICKSTART
from .quickstart_settings import QuickstartModel as QuickstartModel
from .quickstart_settings import QuickstartSettings as QuickstartSettings
from .run_explorer import explore_run as explore_run
from .run_layout import drawn_circuits as drawn_circuits
