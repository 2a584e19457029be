"""Settings of trainings: everything that shapes the weights, checked when it is written down. No torch.

`ClipTraining`, `SupervisedTraining` and `SaeTraining` are what `train_clip`, `train_supervised` and `train_sae` take,
what scripts offer as options, and what a run folder is compared by. `TrainingWork` is how a training is carried out.

`clip_preset` has the study's trainings, and those of models that train on a laptop:

========================================  ======  ======  =========  =======
preset                                    epochs  lr      warm-up    batch
========================================  ======  ======  =========  =======
``<model>-imagenet-captions``             32      1e-3    500 steps  1024
``<model>-cc3m``, ``<model>-cc12m``       32      5e-4    2000       2048
``rn-tiny`` (64 px)                       20      3e-3    50         128
``vit-tiny`` (64 px)                      40      1e-3    100        64
========================================  ======  ======  =========  =======

``<model>`` is ``rn50``, ``vit-s-32`` or ``swin-t``. The study names no weight decay, optimizer or augmentation, so
these are open_clip's own: AdamW, 0.2, crops of 90 to 100 % of the area. With ``study`` a preset also has what the study
set besides: mixed precision, gradient checkpointing, every epoch kept, and its shares of a batch, 256 images for each
GPU (for RN50 in two parts).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from circuitry.data.names import chosen_names
from circuitry.runs.errors import InputError
from circuitry.runs.presets import StudySettings

CLIP_PRECISIONS = ("fp32", "amp", "amp_bf16", "amp_bfloat16", "bf16", "fp16", "pure_bf16", "pure_fp16")
SUPERVISED_PRECISIONS = ("fp32", "amp", "amp_bf16")
INITIALISATIONS = ("transposed", "kaiming")


def _check(settings: object, rules: Mapping[str, tuple[bool, str]]) -> None:
    """Raise an InputError for the first setting that does not hold what it must, with its name and value."""
    for name, (holds, words) in rules.items():
        if not holds:
            value = getattr(settings, name)
            raise InputError(f"The {name} of a training must be {words}, but {value!r} was given.")


@dataclass(frozen=True, kw_only=True)
class _ModelTraining(StudySettings):
    """What trainings of a model on a table of images have in common."""

    model: str | Path
    """open_clip model name, a name shipped here (rn-tiny), or the path of a model-config JSON."""
    epochs: int
    """Passes over the images."""
    batch_size: int
    """Images per step of all processes together; what is left after the last whole batch waits for the next epoch."""
    lr: float
    """Learning rate at its highest."""
    weight_decay: float
    """Weight decay, of all weights but those of norms and biases."""
    crop_scale: float = 0.9
    """Least share of an image's area that a random crop keeps."""
    keep_checkpoints: int = 0
    """Keep the untrained model, epoch 0, and a checkpoint after every so many epochs; 0 keeps only the last."""
    skip_missing: bool = False
    """Train without the images whose files do not exist, instead of refusing the table."""
    seed: int = 0
    """Seed of the weights, the order of the images and the crops."""
    threads: int = 1
    """Threads of PyTorch on the CPU, of each process. They shape the weights: another number rounds sums otherwise."""

    def __post_init__(self) -> None:
        _check(
            self,
            {
                "epochs": (self.epochs >= 1, "at least 1"),
                "batch_size": (self.batch_size >= 2, "at least 2 images, each of which is told from the others"),
                "lr": (self.lr > 0 and math.isfinite(self.lr), "positive and finite"),
                "weight_decay": (0 <= self.weight_decay < math.inf, "at least 0 and finite"),
                "crop_scale": (0 < self.crop_scale <= 1, "a share of an image's area, above 0 and up to 1"),
                "keep_checkpoints": (self.keep_checkpoints >= 0, "a number of epochs, or 0 for none"),
                "seed": (self.seed >= 0, "at least 0"),
                "threads": (self.threads >= 1, "at least 1"),
            },
        )


@dataclass(frozen=True, kw_only=True)
class ClipTraining(_ModelTraining):
    """What a CLIP model is trained with by `train_clip`; `clip_preset` has the study's.

    Example:
        >>> settings = ClipTraining(model="rn-tiny", epochs=15, batch_size=128, lr=1e-3, warmup=50)
        >>> dataclasses.replace(settings, seed=1)
    """

    STUDY: ClassVar = {"precision": "amp", "grad_checkpointing": True, "keep_checkpoints": 1}
    warmup: int
    """Steps until the learning rate is at its highest; from there it falls to zero along a cosine."""
    weight_decay: float = 0.2
    precision: str = "fp32"
    """Precision, as open_clip names it: fp32, amp (float16 mixed), amp_bf16, bf16, fp16, pure_bf16, pure_fp16."""
    grad_checkpointing: bool = False
    """Keep no activations for the backward pass but make them again: less memory, a third more time."""
    accumulation: int = 1
    """Parts that a process takes its share of a batch in, where memory is small; batch norms see one part."""
    processes: int = 1
    """How many train together, each on a GPU of its own or on threads of its own; batch norms see one's share."""
    extra: tuple[str, ...] = ()
    """More arguments of open_clip's trainer; an --aug-cfg here takes the place of the crop scale."""

    def __post_init__(self) -> None:
        super().__post_init__()
        shares = max(1, self.processes) * max(1, self.accumulation)
        _check(
            self,
            {
                "warmup": (self.warmup >= 0, "at least 0 steps"),
                "precision": (self.precision in CLIP_PRECISIONS, f"one of {', '.join(CLIP_PRECISIONS)}"),
                "processes": (self.processes >= 1, "at least 1"),
                "accumulation": (self.accumulation >= 1, "at least 1"),
                "batch_size": (
                    not self.batch_size % shares,
                    f"that of all processes together, a multiple of their number times accumulation, {shares}",
                ),
            },
        )


@dataclass(frozen=True, kw_only=True)
class SupervisedTraining(_ModelTraining):
    """What a classifier is trained with by `train_supervised`; rates, batch and epochs are the study's."""

    STUDY: ClassVar = {"precision": "amp", "keep_checkpoints": 5}
    epochs: int = 90
    batch_size: int = 256
    lr: float = 0.01
    milestones: tuple[int, ...] = (30, 50, 70)
    """Epochs, counted from 0, from which on the learning rate is a tenth of what it was."""
    weight_decay: float = 1e-4
    precision: str = "fp32"
    """fp32; amp_bf16: forward passes in bfloat16 where PyTorch finds it safe; amp: in float16 with a scaled loss, on
    the CPU as amp_bf16."""

    def __post_init__(self) -> None:
        super().__post_init__()
        rising = list(self.milestones) == sorted(set(self.milestones)) and min(self.milestones, default=1) >= 1
        _check(
            self,
            {
                "milestones": (rising, "epochs above 0 in rising order"),
                "precision": (self.precision in SUPERVISED_PRECISIONS, " or ".join(SUPERVISED_PRECISIONS)),
            },
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SaeTraining(StudySettings):
    """What a sparse autoencoder is trained with by `train_sae`; expansion, penalty, rate and batch are the study's.

    ``SaeTraining.study()`` has the rest: 200 passes over the data (about a million steps on DomainNet and CC12M), no
    resampling, which was asked for but never took effect there, and its initialisation.
    """

    STUDY: ClassVar = {
        "steps": None,
        "resample_every": 0,
        "initialisation": "kaiming",
        "drop_last": False,
        "seed": 49,
    }
    expansion: int = 4
    """Features per unit."""
    l1: float = 1e-4
    """Weight of the sum of the features against the squared error, a mean over units."""
    lr: float = 1e-4
    """Learning rate of Adam."""
    batch_size: int = 2048
    """Samples per step; all where there are fewer."""
    steps: int | None = 5000
    """Steps of the optimizer; samples come in shuffled passes. None for whole passes, as many as epochs says."""
    epochs: int = 200
    """Passes over the samples, where steps is None."""
    drop_last: bool = True
    """Leave out what a pass over a piece leaves after its last whole batch, instead of a smaller batch."""
    resample_every: int = 1000
    """Steps between two checks for dead features, none after the last whole interval; 0 to resample none."""
    initialisation: str = "transposed"
    """transposed: the encoder begins as the decoder's transpose, the decoder's bias at the samples' mean; kaiming: an
    encoder of its own and biases at random, the decoder's bias at zero."""
    piece: int = 302_080
    """Images whose samples are in memory at a time; more come from disk in pieces, drawn at random beforehand."""
    seed: int = 0
    """Seed of positions, pieces, weights, batches and resampling."""
    threads: int = 1
    """Threads of PyTorch on the CPU. They shape the weights: another number rounds sums otherwise."""

    def __post_init__(self) -> None:
        positive = ("expansion", "lr", "batch_size", "epochs", "piece", "threads")
        rules = {name: (0 < getattr(self, name) < math.inf, "positive and finite") for name in positive}
        _check(
            self,
            {
                **rules,
                "steps": (self.steps is None or self.steps > 0, "positive and finite"),
                "resample_every": (self.resample_every >= 0, "a number of steps, or 0 for never"),
                "l1": (0 <= self.l1 < math.inf, "at least 0 and finite"),
                "initialisation": (self.initialisation in INITIALISATIONS, " or ".join(INITIALISATIONS)),
            },
        )


@dataclass(frozen=True)
class TrainingWork:
    """How a training is carried out; nothing of it changes a number but for rounding."""

    device: str | None = None
    """cpu, cuda, cuda:1 or mps (default: a GPU where there is one, for several processes one for each)."""
    workers: int = 2
    """Processes that read images, for each that trains."""
    progress: bool = True
    """Show progress bars."""
    nodes: int = 1
    """Machines that share the processes of a training; each runs the same command, see `devices.node_rank`."""

    def __post_init__(self) -> None:
        _check(self, {"workers": (self.workers >= 0, "at least 0"), "nodes": (self.nodes >= 1, "at least 1")})


_IMAGES_PER_GPU = 256
_STUDY_MODELS = {"rn50": "RN50", "vit-s-32": "ViT-S-32", "swin-t": "swin-t"}


def _presets() -> dict[str, ClipTraining]:
    found = {}
    for short, model in _STUDY_MODELS.items():
        found[f"{short}-imagenet-captions"] = ClipTraining(model=model, epochs=32, batch_size=1024, lr=1e-3, warmup=500)
        for base in ("cc3m", "cc12m"):
            found[f"{short}-{base}"] = ClipTraining(model=model, epochs=32, batch_size=2048, lr=5e-4, warmup=2000)
    found["rn-tiny"] = ClipTraining(model="rn-tiny", epochs=20, batch_size=128, lr=3e-3, warmup=50, crop_scale=0.6)
    found["vit-tiny"] = ClipTraining(model="vit-tiny", epochs=40, batch_size=64, lr=1e-3, warmup=100, crop_scale=0.6)
    return found


CLIP_PRESETS: Mapping[str, ClipTraining] = MappingProxyType(_presets())
"""All presets by name."""


def clip_preset(name: str, *, study: bool = False) -> ClipTraining:
    """Return a preset by name, on one device in full precision, or as the study trained it.

    Raises:
        InputError: For an unknown name; the message shows those that come close, or all.

    Example:
        >>> settings = dataclasses.replace(clip_preset("rn50-cc3m"), epochs=16)
        >>> train_clip(Path("train.tsv"), Path("runs/x"), settings)
        >>> clip_preset("rn50-cc12m", study=True).processes  # GPUs
        8
    """
    chosen_names("preset", (name,), tuple(CLIP_PRESETS))
    found = CLIP_PRESETS[name]
    if not study:
        return found
    parts = 2 if found.model == "RN50" else 1  # a GPU held 128 images of RN50
    processes = max(1, found.batch_size // _IMAGES_PER_GPU)
    return replace(found, **ClipTraining.study_values(), processes=processes, accumulation=parts)
