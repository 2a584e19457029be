"""Train CLIP models and sparse autoencoders with little code, and measure accuracies."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
