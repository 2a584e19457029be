"""Values by class and pair of domains, and their references: ceiling, chance, interval, test."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
