"""Settings of trainings. No torch.

`clip_preset` has the study's trainings, and three for models that train on a laptop:

========================================  ======  ======  =========  =======
preset                                    epochs  lr      warm-up    batch
========================================  ======  ======  =========  =======
``<model>-imagenet-captions``             32      1e-3    500 steps  1024
``<model>-cc3m``, ``<model>-cc12m``       32      5e-4    2000       2048
``rn-tiny`` (64 px)                       20      3e-3    50         128
``vit-tiny`` (64 px)                      40      1e-3    100        64
``vit-tiny-8`` (64 px, patches of 8)      40      2e-3    100        64
========================================  ======  ======  =========  =======

``<model>`` is ``rn50``, ``vit-s-32`` or ``swin-t``. The study names no weight decay, optimizer or augmentation, so the
presets take open_clip's: AdamW, 0.2, crops of 90 to 100 % of the area. They have mixed precision, gradient
checkpointing, a checkpoint of every epoch, and 256 images of a batch for each GPU (for RN50 in two parts).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from circuitry.data.shared_options import Decoding, SeedOption, option
from circuitry.runs.arguments import (
    Amount,
    Count,
    Natural,
    Positive,
    Share,
    at_least,
    checked,
    one_of,
)
from circuitry.runs.errors import InputError
from circuitry.runs.settings_file import PACKAGE, STUDY, preset

CLIP_PRECISIONS = (
    "fp32",
    "amp",
    "amp_bf16",
    "amp_bfloat16",
    "bf16",
    "fp16",
    "pure_bf16",
    "pure_fp16",
)
INITIALISATIONS = ("transposed", "kaiming")


@checked
@dataclass(frozen=True, kw_only=True)
class ModelTraining:
    """Settings of any training on a table of images.

    Example:
        >>> circuitry.training.ModelTraining(model="rn-tiny", epochs=2, batch_size=8, lr=1e-3, weight_decay=0.2).seed
        0
    """

    model: str | Path
    """The model: open_clip name, a name shipped here (rn-tiny), or the path of a model-config JSON."""
    epochs: Count
    """Passes over the images."""
    batch_size: Annotated[int, at_least(2)]
    """Images of a step: all processes together; images after the last whole batch are left out of the epoch."""
    lr: Positive
    """Learning rate: the highest."""
    weight_decay: Amount
    """Weight decay of all weights except norms and biases."""
    crop_scale: Share = 0.9
    """Smallest share of an image's area that a random crop keeps."""
    keep_checkpoints: Natural = 0
    """Keep a checkpoint after every so many epochs, and the untrained model (epoch 0); 0 keeps only the last."""
    decoding: Decoding = "upright"
    seed: SeedOption = 0
    threads: Count = 1
    """PyTorch's CPU threads: in each process; another number rounds sums differently and so gives other weights."""


@checked
@dataclass(frozen=True, kw_only=True)
class ClipTraining(ModelTraining):
    """Settings of `train_clip`; `clip_preset` has the study's.

    Example:
        >>> settings = circuitry.training.ClipTraining(model="rn-tiny", epochs=2, batch_size=8, lr=1e-3, warmup=1)
        >>> settings.precision
        'fp32'
    """

    warmup: Natural
    """Steps until the highest learning rate, which then falls to zero along a cosine."""
    weight_decay: Amount = 0.2  #: Of all weights except norms and biases.
    precision: Annotated[
        str, one_of(*CLIP_PRECISIONS), option(choices=CLIP_PRECISIONS)
    ] = "fp32"
    """Precision: as open_clip names it, fp32, amp (float16 mixed), amp_bf16, bf16, fp16, pure_bf16, pure_fp16."""
    grad_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, a third more time."""
    accumulation: Count = 1
    """Parts into which a process cuts its share of a batch to save memory; batch norms see one part."""
    processes: Count = 1
    """Processes that train together, each on its own GPU or threads; batch norms see the share of one process."""

    def __post_init__(self) -> None:
        shares = self.processes * self.accumulation
        if self.batch_size % shares:
            raise InputError(
                "The batch_size of a training is that of all processes together, a multiple of their number times "
                f"accumulation, {shares}, but {self.batch_size} was given."
            )


@checked
@dataclass(frozen=True, kw_only=True)
class SaeTraining:
    """Settings of `train_sae`; the defaults of expansion, penalty, rate and batch are the study's.

    ``circuitry train-sae --study`` also has the study's 200 passes over the data (about a million steps on DomainNet
    and CC12M), its initialisation, and no resampling: the study's code requests it, but it never takes effect.

    Example:
        >>> circuitry.training.SaeTraining(expansion=8, steps=20_000).batch_size
        2048
    """

    expansion: Count = 4
    """Features per unit."""
    l1: Amount = 1e-4
    """Weight of the sum of the features; the squared error is a mean over units."""
    lr: Positive = 1e-4
    """Learning rate: of Adam, constant."""
    batch_size: Count = 2048
    """Samples of a step, at most."""
    steps: Count | None = 5000
    """Steps of the optimizer over shuffled passes; None for as many whole passes as epochs says."""
    epochs: Count = 200
    """Passes over the images: their samples, if steps is None."""
    drop_last: bool = True
    """Leave out the samples after a piece's last whole batch; otherwise they are a smaller batch."""
    resample_every: Natural = 1000
    """Steps between two checks for dead features, which are then resampled; 0 for never."""
    initialisation: Annotated[
        str, one_of(*INITIALISATIONS), option(choices=INITIALISATIONS)
    ] = "transposed"
    """How weights start: transposed, the encoder starts as the decoder's transpose, the decoder's bias at the samples'
    mean; kaiming, the encoder and its bias start at random, the decoder's bias at zero."""
    piece: Count = 302_080
    """Images whose samples are in memory at a time; more images are drawn into random pieces on disk."""
    seed: SeedOption = 0
    threads: Count = 1
    """PyTorch's CPU threads: another number rounds sums differently and so gives other weights."""


@checked
@dataclass(frozen=True)
class TrainingWork:
    """Device, reading processes and progress of a training; they change numbers only by rounding.

    Example:
        >>> work = circuitry.training.TrainingWork(device="cpu", workers=0, progress=False)
    """

    device: str | None = None
    """Where the model runs: cpu, cuda, cuda:1 or mps (default: a GPU if there is one; several take one
    each)."""
    workers: Natural = 2
    """Processes that read images: for each training process."""
    progress: bool = True
    """Show progress bars."""


CLIP_PRESETS = tuple(
    sorted(
        path.parent.name
        for path in PACKAGE.glob("presets/*/train.toml")
        if path.parent.name != STUDY
    )
)
"""Names of all presets."""


def clip_preset(name: str, *, study: bool = False) -> ClipTraining:
    """Return a training by the name of its preset; with ``study`` a tiny model's also has what the study's share.

    Example:
        >>> from dataclasses import replace
        >>> settings = replace(circuitry.training.clip_preset("rn50-cc3m"), epochs=16)
        >>> settings.processes  # GPUs
        8
    """
    shared = preset(STUDY, "train") if study else {}
    return ClipTraining(**{**shared, **preset(name, "train")})
