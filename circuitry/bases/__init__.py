"""Bases of units: heads and neurons, latents of autoencoders, and the residual stream that joins them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
