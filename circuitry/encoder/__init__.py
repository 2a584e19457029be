"""`Encoder`, an image tower as a chain of stages with named sites; also adapters, baselines, metrics and `Task`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
