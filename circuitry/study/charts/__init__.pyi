from .bars import accuracy_bars as accuracy_bars
from .bars import mixture_bars as mixture_bars
from .bars import settings_bars as settings_bars
from .robustness_lines import robustness_scatter as robustness_scatter
