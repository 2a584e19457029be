"""The whole analysis of a model, from images to a report. The quickstart is such an analysis of drawn images."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
