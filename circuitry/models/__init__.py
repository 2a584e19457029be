"""A tower as a chain of stages with sites; weights, prompts, metrics, baselines, autoencoders as bases."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
