"""Finer units than channels: heads and neurons, latents of autoencoders, and the residual stream as a graph of them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
