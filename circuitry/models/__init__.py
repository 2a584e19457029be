"""Load models with an image encoder and a weight for each class, and run image files through them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
