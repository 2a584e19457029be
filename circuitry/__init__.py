"""Find, check and compare circuits in CLIP image encoders across visual domains.

Public names are loaded on first use, so that studying stored circuits needs neither torch nor a model.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.2.0"
