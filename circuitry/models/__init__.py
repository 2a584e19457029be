"""Whole models: load an encoder with class texts or a classifier's outputs, and run image files through it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
