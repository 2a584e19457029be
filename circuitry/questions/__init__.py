"""Questions to a model over a folder of images: circuits, own parts, causal checks, the circuit of one class.

Each question is a `FolderWork` with a `Split` of the images and a typed answer. It stores its results in a folder of
jobs, so that an interrupted run can be resumed.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
