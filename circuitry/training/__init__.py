"""Make the models, thinly: trainers, evaluation, runs of a study."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
