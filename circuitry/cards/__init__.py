"""Cards of units: the images that activate a unit most in each domain, the unit's effects, and its name.

The exact effect of a unit is the change of the metric if the unit is replaced.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
