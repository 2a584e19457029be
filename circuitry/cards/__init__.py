"""Look at units: the images that activate them in every domain, exact effects, and names that were tested."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
