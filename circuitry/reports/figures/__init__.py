"""Charts: plotly figures of tidy tables. There is one module per kind of chart. Names are loaded on first use.

If a table lacks a column, has no rows or has two rows for one point, every chart raises `InputError`. In all charts,
``title`` is the heading and ``marks`` has the looks of the domains (default: `domain_marks` of the domains in the
table).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
