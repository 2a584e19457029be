"""Presets of CLIP trainings: the study's, and those of models that train on a laptop. No torch.

========================================  ======  ======  =========  =======
preset                                    epochs  lr      warm-up    batch
========================================  ======  ======  =========  =======
``<model>-imagenet-captions``             32      1e-3    500 steps  1024
``<model>-cc3m``, ``<model>-cc12m``       32      5e-4    2000       2048
``rn-tiny``, ``vit-tiny`` (64 px)         20      3e-3    50         128
========================================  ======  ======  =========  =======

``<model>`` is ``rn50``, ``vit-s-32`` or ``swin-t``. The study names no weight decay, optimizer or augmentation, so
these are open_clip's own: AdamW, 0.2, crops of 90 to 100 % of the area.
"""

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from circuitry.runs.errors import InputError
from circuitry.training.settings import ClipTraining

_STUDY_MODELS = {"rn50": "RN50", "vit-s-32": "ViT-S-32", "swin-t": "swin-t"}


def _presets() -> dict[str, ClipTraining]:
    found = {}
    for short, model in _STUDY_MODELS.items():
        found[f"{short}-imagenet-captions"] = ClipTraining(model=model, epochs=32, batch_size=1024, lr=1e-3, warmup=500)
        for base in ("cc3m", "cc12m"):
            found[f"{short}-{base}"] = ClipTraining(model=model, epochs=32, batch_size=2048, lr=5e-4, warmup=2000)
    for model in ("rn-tiny", "vit-tiny"):
        found[model] = ClipTraining(model=model, epochs=20, batch_size=128, lr=3e-3, warmup=50, crop_scale=0.6)
    return found


CLIP_PRESETS: Mapping[str, ClipTraining] = MappingProxyType(_presets())
"""All presets by name."""


def clip_preset(name: str) -> ClipTraining:
    """Return a preset by name.

    Raises:
        InputError: For an unknown name; the message lists all.

    Example:
        >>> settings = dataclasses.replace(clip_preset("rn50-cc3m"), epochs=16)
        >>> train_clip(Path("train.tsv"), Path("runs/x"), settings)
    """
    if name not in CLIP_PRESETS:
        near = difflib.get_close_matches(name, CLIP_PRESETS, n=1)
        hint = f", did you mean {near[0]}?" if near else "."
        raise InputError(f"There is no preset {name!r}{hint} There are {', '.join(CLIP_PRESETS)}.")
    return CLIP_PRESETS[name]
