"""One analysis of a model from images to report; the quickstart is one of a drawn set."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
