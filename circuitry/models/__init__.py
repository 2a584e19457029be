"""Whole models: an encoder with texts or outputs, how it is loaded, and image files passed through it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
