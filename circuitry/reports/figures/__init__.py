"""Charts: tidy tables become plotly figures, one module per kind of chart. The names below are loaded on first use.

Every chart refuses, with an `InputError`, a table that lacks a column, has no rows or holds two rows for one mark.
``title`` is its heading, ``marks`` the looks of the domains (default: `domain_marks` of those in the table).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
