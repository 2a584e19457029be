"""The explorer: a page in which circuits, units and comparisons are looked at, from disk.

`export_explorer` writes it, a folder that opens from disk or from any web host.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
