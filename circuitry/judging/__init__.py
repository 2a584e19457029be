"""Judge methods that find circuits: by the tables of a scoreboard, and by networks whose circuit is planted."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
