"""Questions to a model over a folder of images: circuits, own parts, causal checks, the circuit of one class.

Each is a `FolderWork` with a `Split` of the images, leaves a folder of jobs that resumes, and has a typed answer.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
