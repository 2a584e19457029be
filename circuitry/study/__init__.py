"""The study "When and How Does CLIP Enable Domain and Compositional Generalization?" (ICML 2025).

Its training mixtures, the drawn set, the plan of its trainings, generalization over settings, and the charts and
sections of its reports. Nothing below this room knows the paper, except for the values of ``--study``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
