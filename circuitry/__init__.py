"""Find, check and compare circuits in CLIP image encoders across visual domains.

Public names are loaded on first use, so that studying stored circuits needs neither torch nor a model.
"""

import sys
from importlib.util import find_spec

import lazy_loader

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.2.0"
_ELSEWHERE = {
    "from_pretrained": "circuitry.load_clip(NAME)",
    "list_models": "circuitry.load_clip(NAME), with a name of open_clip.list_models()",
}
"""Names that users know from other libraries -> what to call in circuitry instead."""


def __getattr__(name: str) -> object:
    """Load a public name on its first use.

    For an unknown name, raise an error whose message suggests similar names. The error is an ImportError if an import
    statement names the unknown name, otherwise an AttributeError.
    """
    if name in __all__ or name.startswith("_"):
        return _load(name)
    from circuitry.runs.errors import unknown_name  # only now: it loads numpy

    written = {name: _ELSEWHERE[name]} if name in _ELSEWHERE else {}
    for room in __all__:
        if find_spec(f"circuitry.{room}") and name in dir(_load(room)):
            written[name] = f"circuitry.{room}.{name}"
    sentence = str(
        unknown_name("attribute of circuitry", name, [*__all__, *written], written)
    )
    if sys._getframe(1).f_code.co_name == "_handle_fromlist":
        raise ImportError(
            sentence, name=name
        )  # "from circuitry import" would not show the message of an AttributeError
    raise AttributeError(sentence, name=name)
