"""Find circuits that work, and test them: lesions, faithfulness, tests of circuits."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
