"""The explorer: a page that shows circuits, units and comparisons. It opens from disk or from any web host."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
