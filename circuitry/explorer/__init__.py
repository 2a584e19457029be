"""The explorer: a page in which circuits, units and comparisons are looked at, from disk or any web host."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
