"""Hyper-parameters of CLIP trainings: the study's, and of models that train on a laptop. No torch.

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
from dataclasses import dataclass
from types import MappingProxyType

from circuitry.runs.errors import InputError


@dataclass(frozen=True)
class ClipPreset:
    """Settings of `train_clip` under the names of its arguments, so ``dataclasses.asdict`` is what it takes."""

    model: str
    """open_clip model name, or one shipped here."""
    epochs: int
    """Passes over the table."""
    batch_size: int
    """Images per step, of all processes together."""
    lr: float
    """Peak learning rate."""
    warmup: int
    """Steps until the peak learning rate."""
    weight_decay: float = 0.2
    """Of AdamW, for weights that are no norms or biases."""
    extra: tuple[str, ...] = ()
    """More arguments of open_clip's trainer."""


def crop_arguments(least: float) -> tuple[str, str]:
    """Return open_clip's arguments for random crops of at least this share of an image's area."""
    if not 0 < least <= 1:
        raise InputError(f"a crop keeps a share of the image's area, above 0 and up to 1; given {least}")
    return ("--aug-cfg", f"scale=({least},1.0)")


_STUDY_MODELS = {"rn50": "RN50", "vit-s-32": "ViT-S-32", "swin-t": "swin-t"}


def _presets() -> dict[str, ClipPreset]:
    found = {}
    for short, model in _STUDY_MODELS.items():
        found[f"{short}-imagenet-captions"] = ClipPreset(model, 32, 1024, 1e-3, 500)
        for base in ("cc3m", "cc12m"):
            found[f"{short}-{base}"] = ClipPreset(model, 32, 2048, 5e-4, 2000)
    for model in ("rn-tiny", "vit-tiny"):
        found[model] = ClipPreset(model, 20, 128, 3e-3, 50, extra=crop_arguments(0.6))
    return found


CLIP_PRESETS: Mapping[str, ClipPreset] = MappingProxyType(_presets())
"""All presets by name."""


def clip_preset(name: str) -> ClipPreset:
    """Return a preset by name.

    Raises:
        InputError: for an unknown name; the message lists all.

    Example:
        >>> settings = dataclasses.replace(clip_preset("rn50-cc3m"), epochs=16)
        >>> train_clip(Path("train.tsv"), Path("runs/x"), **dataclasses.asdict(settings))
    """
    if name not in CLIP_PRESETS:
        near = difflib.get_close_matches(name, CLIP_PRESETS, n=1)
        hint = f", did you mean {near[0]}" if near else ""
        raise InputError(f"there is no preset {name!r}{hint}; there are {', '.join(CLIP_PRESETS)}")
    return CLIP_PRESETS[name]
