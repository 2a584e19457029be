"""Keep, gate or replace units and edges, and measure: patching, faithfulness, transfer, learned masks, tests."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
