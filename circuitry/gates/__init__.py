"""Run a task with units or edges kept, gated or replaced: gates, patches, and how much answers depend on them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
