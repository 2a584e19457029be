"""Charts of the study's tables; see `circuitry.reports.figures` for the rules that every chart follows."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
