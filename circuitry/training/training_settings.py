"""Settings of trainings. Does not import torch.

`clip_preset` has the settings of the study's trainings, and of small models that train on a laptop:

========================================  ======  ======  =========  =======
preset                                    epochs  lr      warm-up    batch
========================================  ======  ======  =========  =======
``<model>-imagenet-captions``             32      1e-3    500 steps  1024
``<model>-cc3m``, ``<model>-cc12m``       32      5e-4    2000       2048
``rn-tiny`` (64 px)                       20      3e-3    50         128
``vit-tiny`` (64 px)                      40      1e-3    100        64
``vit-tiny-8`` (64 px, patches of 8)      40      2e-3    100        64
``lite0-tuned``, ``lite2-tuned``, 112 px  3       5e-4    8          50
========================================  ======  ======  =========  =======

``<model>`` is ``rn50``, ``vit-s-32`` or ``swin-t``. The study does not name its optimizer, weight decay and
augmentation. So its presets have open_clip's defaults: AdamW, a weight decay of 0.2, and crops of 90 to 100 % of the
area. The presets of the study also have mixed precision, gradient checkpointing, and a checkpoint after every epoch.
Each GPU gets 256 images of a batch; for RN50 these are processed in two halves. ``lite0-tuned`` and ``lite2-tuned``
start from EfficientNets with ImageNet weights; three passes over 1,500 images take ``lite0-tuned`` about two minutes of
a core.
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
    """Settings that all trainings on a table of images have.

    Example:
        >>> circuitry.training.ModelTraining(model="rn-tiny", epochs=2, batch_size=8, lr=1e-3, weight_decay=0.2).seed
        0
    """

    model: str | Path
    """The model: a name of open_clip, the name of a model of this package (such as rn-tiny), or the path of a JSON file
    with the configuration of a model."""
    epochs: Count
    """Number of passes over the images."""
    batch_size: Annotated[int, at_least(2)]
    """Number of images in a step, over all processes together. Images after the last full batch are left out of the
    epoch."""
    lr: Positive
    """The highest learning rate."""
    weight_decay: Amount
    """Weight decay of all weights except norms and biases."""
    crop_scale: Share = 0.9
    """Smallest share of an image's area that a random crop keeps."""
    keep_checkpoints: Natural = 0
    """Interval in epochs between checkpoints that are kept. The untrained model (epoch 0) is then kept, too. With 0,
    only the last checkpoint is kept."""
    decoding: Decoding = "upright"
    seed: SeedOption = 0
    threads: Count = 1
    """Number of PyTorch's CPU threads in each process. Another number rounds sums differently, so weights differ."""


@checked
@dataclass(frozen=True, kw_only=True)
class ClipTraining(ModelTraining):
    """Settings of `train_clip`. `clip_preset` returns the settings of the study.

    Example:
        >>> settings = circuitry.training.ClipTraining(model="rn-tiny", epochs=2, batch_size=8, lr=1e-3, warmup=1)
        >>> settings.precision
        'fp32'
    """

    warmup: Natural
    """Number of steps in which the learning rate rises to its highest value. After these it falls to zero along a
    cosine."""
    weight_decay: Amount = 0.2  #: Weight decay of all weights except norms and biases.
    start: str | Path | None = None
    """Weights that the training starts from (default: random weights). One of:

    - a checkpoint of the same model, or the name of a model of this package: all its weights are trained further;
    - an image tower: the file of a checkpoint, or ``NAME:TAG`` of released weights (``RN50:openai``,
      ``timm:resnet50:a1_in1k``, ``torchvision:resnet50:IMAGENET1K_V2``), or ``efficientnet-lite0``, ``1`` or ``2``,
      whose ImageNet weights are in Python packages. The projection and the text tower are new."""
    freeze_norms: bool = False
    """Batch norms of the image tower keep the statistics that they start with. Their weights are trained."""
    precision: Annotated[
        str, one_of(*CLIP_PRECISIONS), option(choices=CLIP_PRECISIONS)
    ] = "fp32"
    """Precision of the training, by its name in open_clip: for example fp32, amp (mixed with float16) or amp_bf16
    (mixed with bfloat16)."""
    grad_checkpointing: bool = False
    """Compute activations again in the backward pass instead of storing them. This saves memory and takes a third more
    time."""
    accumulation: Count = 1
    """Number of chunks into which a process divides its share of a batch to save memory. Batch norms compute their
    statistics from a single chunk."""
    processes: Count = 1
    """Number of processes that train together, each on its own GPU or its own threads. Batch norms compute their
    statistics from the share of a single process."""

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
    """Settings of `train_sae`. The defaults of ``expansion``, ``l1``, ``lr`` and ``batch_size`` are the study's.

    ``circuitry train-sae --study`` also takes other settings from the study, such as 200 passes over the data (about a
    million steps on DomainNet and CC12M), the initialisation ``kaiming``, and no resampling. The study's code requests
    resampling, but resampling never takes effect there.

    Example:
        >>> circuitry.training.SaeTraining(expansion=8, steps=20_000).batch_size
        2048
    """

    expansion: Count = 4
    """Number of features divided by the number of units of the site."""
    l1: Amount = 1e-4
    """Weight of the sum of the features in the loss. The squared error in the loss is a mean over units."""
    lr: Positive = 1e-4
    """Learning rate of Adam, which is constant."""
    batch_size: Count = 2048
    """Largest number of samples in a step."""
    steps: Count | None = 5000
    """Number of steps of the optimizer. Samples are shuffled again in each pass. With None, the training takes as many
    passes as epochs says."""
    epochs: Count = 200
    """Number of passes over the samples of all images. It is ignored unless steps is None."""
    drop_last: bool = True
    """Leave out the samples after the last full batch of a piece (samples that are in memory together). Otherwise they
    are a smaller batch."""
    resample_every: Natural = 1000
    """Number of steps between two checks for dead features, which are then resampled. With 0, they are never
    resampled."""
    initialisation: Annotated[
        str, one_of(*INITIALISATIONS), option(choices=INITIALISATIONS)
    ] = "transposed"
    """Initial weights. With transposed, the encoder is the transpose of the decoder, and the bias of the decoder is the
    mean of the samples. With kaiming, the encoder and its bias are random, and the bias of the decoder is zero."""
    piece: Count = 302_080
    """Number of images whose samples are in memory together. If there are more images, they are divided at random into
    pieces of this size, which are stored on disk."""
    seed: SeedOption = 0
    threads: Count = 1
    """Number of PyTorch's CPU threads. Another number rounds sums differently, so the weights differ."""


@checked
@dataclass(frozen=True)
class TrainingWork:
    """How a training is carried out: device, processes that read images, and progress bar.

    These settings change results only by rounding.

    Example:
        >>> work = circuitry.training.TrainingWork(device="cpu", workers=0, progress=False)
    """

    device: str | None = None
    """Device of the model: cpu, cuda, cuda:1 or mps (default: cuda if there is a GPU, otherwise cpu). With several
    training processes on cuda, each takes a GPU."""
    workers: Natural = 2
    """Number of processes that read images for each training process."""
    progress: bool = True
    """Show progress bars."""


CLIP_PRESETS = tuple(
    sorted(
        path.parent.name
        for path in PACKAGE.glob("presets/*/train.toml")
        if path.parent.name != STUDY
    )
)
"""Names of all presets of CLIP trainings."""


def clip_preset(name: str, *, study: bool = False) -> ClipTraining:
    """Return the settings of a training by the name of its preset.

    Args:
        name: One of `CLIP_PRESETS`.
        study: If True, a setting that the preset does not contain gets the value that all trainings of the study have,
            instead of its default. This changes only the presets of tiny models.

    Example:
        >>> from dataclasses import replace
        >>> settings = replace(circuitry.training.clip_preset("rn50-cc3m"), epochs=16)
        >>> settings.processes  # GPUs
        8
    """
    shared = preset(STUDY, "train") if study else {}
    return ClipTraining(**{**shared, **preset(name, "train")})
