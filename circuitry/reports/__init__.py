"""Turn finished results into figures, report sections and a page. This package computes no results."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
