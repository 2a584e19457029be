"""Charts: plotly figures of tidy tables. There is one module per kind of chart. Names are imported on first use.

If a table lacks a column, has no rows or has two rows for one point, every chart raises `InputError`. In all charts,
``title`` is the heading. ``marks`` is a dictionary from the name of a domain to the colour and symbol of the domain
(default: `domain_marks` of the domains in the table).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
