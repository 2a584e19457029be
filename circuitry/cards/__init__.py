"""Cards of units: the images that activate a unit in every domain, its exact effects, and a tested name."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
