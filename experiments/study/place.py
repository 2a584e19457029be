"""What the plan of the study is made of: its material, its scale, folders and costs.

A cost is a number of counted operations (`count_model`; those of circuits are given) over a stated rate, and the disk
that checkpoints and stored features fill. It leaves out the time to read images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from circuitry.circuits import OperationCounter
from circuitry.encoder import Encoder
from circuitry.models import register_model
from circuitry.training import CLIP_PRESETS, ClipTraining, NoCaption, clip_preset
from experiments.study.__main__ import PROGRAMS
from experiments.study.base_sets import BaseSet
from experiments.study.plan import Cost, Step
from experiments.study.study_set import MixtureSpec, StudyTraining
from experiments.study.supervised import SupervisedTraining

import open_clip
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


class ModelOperations(NamedTuple):
    """Floating-point operations of a CLIP model on one image with its caption, and its size."""

    image: float  # the forward pass of the image
    training_step: float  # forward and backward passes of the image and of the caption
    parameters: int  # weights
    embedding: int  # numbers of an image's embedding


@cache
def count_model(name: str) -> ModelOperations:
    """Count the operations of a model of open_clip's, or of one shipped here, by PyTorch's formulas."""
    model = open_clip.create_model(
        register_model(name), pretrained_text=False, require_pretrained=False
    )
    images = torch.zeros(
        2, 3, *Encoder.from_tower(model.visual).image_size
    )  # two: batch norms need a variance
    texts = torch.zeros(2, model.context_length, dtype=torch.long)
    # PyTorch has a formula for matrix products, but not for fused attention on every device
    with sdpa_kernel(SDPBackend.MATH), OperationCounter() as counter:
        embedded = model.encode_image(images)
        image = counter.total
        (embedded.sum() + model.encode_text(texts).sum()).backward()
    weights = sum(weight.numel() for weight in model.parameters())
    return ModelOperations(image / 2, counter.total / 2, weights, embedded.shape[1])


GIB = 2**30
_NO_COST = Cost()


@dataclass(frozen=True)
class Scale:
    """How the study and its miniature differ, apart from their material."""

    models: tuple[str, ...]  # architectures; the first one takes part everywhere
    sae_base: str  # base set whose models get autoencoders
    epochs: int
    supervised_epochs: int
    batch_size: int | None = None  # images in a step of CLIP (default: the preset's)
    supervised_batch_size: int = SupervisedTraining.batch_size
    gpus: int = 0  # most GPUs of a step; 0 for none
    device: str = "cuda"
    options: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # command -> its further options

    def preset(self, one: StudyTraining) -> str:
        """Return the preset of a training; that of ImageNet-Captions without a base set."""
        return (
            one.model
            if one.model in CLIP_PRESETS
            else f"{one.model}-{one.mixture.base or 'imagenet-captions'}"
        )

    def settings(self, one: StudyTraining) -> ClipTraining:
        """Return the study's settings of a CLIP training, before ``options`` change them."""
        return clip_preset(self.preset(one), study=True)


def program(name: str) -> tuple[str, ...]:
    """Return how Python is told to run a program of the study, or else a command of the package."""
    return ("-m", "experiments.study" if name in PROGRAMS else "circuitry", name)


@dataclass(frozen=True, eq=False)
class Material:
    """Images and tables of the study."""

    domainnet: Path
    held_out: tuple[str, ...]
    counts: Mapping[tuple[str, str], int]  # (domain, class) -> training images
    n_test: int  # test images
    bases: Mapping[str, BaseSet]
    base_sizes: Mapping[str, int]  # base set -> its training images
    validation: Mapping[
        str, str
    ]  # base set -> its validation images, as the program mixtures takes them
    main_base: str | None = None
    imagenet_sketch: Path | None = None
    imagenet: Path | None = None
    no_caption: NoCaption = "skip"  # what happens to images without a caption that the trainer reads as text

    def size(self, mixture: MixtureSpec) -> int:
        """Return how many images a mixture has: its base set, photographs, and seen images of the test domain."""
        settings = mixture.settings
        total = self.base_sizes[mixture.base] if mixture.base else 0
        for (domain, name), count in self.counts.items():
            tested = (
                domain == settings.test_domain and name not in settings.held_out_classes
            )
            if domain == settings.natural_domain or (
                tested and settings.setting != "natural-only"
            ):
                total += count
        return total


@dataclass(frozen=True, eq=False)
class StudyPlace:
    """The study in a folder: what all of its steps share."""

    out: Path
    scale: Scale
    material: Material
    trainings: Sequence[StudyTraining]
    half_rate: float  # operations per second of a GPU in mixed precision: trainings
    single_rate: (
        float  # operations per second of a GPU in single precision: everything else
    )
    # Operations of the scores of one image, with those of its part.
    circuit_operations: float = 0.0
    # Epochs between two checkpoints; None for the study's.
    keep_checkpoints: int | None = None

    def step(
        self, name: str, kind: str, command: str, options: Sequence[object], outputs: Sequence[Path],
        needs: Sequence[str] = (), cost: Cost = _NO_COST,
    ) -> Step:  # fmt: skip
        """Return the step that calls a command in the study's settings, once a GPU where it can."""
        one_process = (
            cost.gpus < 2 or command == "train"
        )  # which starts its own processes
        start = (
            ("python",)
            if one_process
            else ("torchrun", "--nproc-per-node", f"{cost.gpus}")
        )
        given = [*options, *self.scale.options.get(command, ())]
        below = tuple(path.relative_to(self.out).as_posix() for path in outputs)
        return Step(
            name,
            kind,
            (*start, *program(command), *map(str, given)),
            below,
            tuple(needs),
            cost,
        )

    def cost(
        self,
        operations: float,
        gpus: int,
        disk_bytes: float = 0.0,
        rate: float | None = None,
    ) -> Cost:
        """Return a cost, in single precision unless a rate is given, on at most so many GPUs."""
        hours = operations / (rate or self.single_rate) / 3600
        return Cost(operations, hours, min(gpus, self.scale.gpus), disk_bytes / GIB)

    def counted(self, one: StudyTraining) -> ModelOperations:
        """Return the operations of a training's model on one image."""
        return count_model(str(self.scale.settings(one).model))

    def epochs(self, one: StudyTraining) -> int:
        """Return the epochs of a training."""
        return self.scale.supervised_epochs if one.supervised else self.scale.epochs

    def training_steps(self, one: StudyTraining) -> int:
        """Return the steps of a training: its whole batches, in all epochs."""
        scale = self.scale
        batch = (
            scale.supervised_batch_size
            if one.supervised
            else scale.batch_size or scale.settings(one).batch_size
        )
        return self.epochs(one) * (self.material.size(one.mixture) // batch)

    def n_checkpoints(self, one: StudyTraining) -> int:
        """Return how many checkpoints a training keeps, including the untrained model."""
        every = self.keep_checkpoints or (5 if one.supervised else 1)
        return 1 + self.epochs(one) // every

    def tables(self, mixture: MixtureSpec) -> Path:
        """Return the folder of a mixture's table."""
        return self.out / "mixtures" / (mixture.base or "domainnet")

    def making(self, mixture: MixtureSpec) -> str:
        """Return the name of the step that makes a mixture; one step makes all of the main base set."""
        one = (
            "all" if mixture.base == self.material.main_base else mixture.settings.name
        )
        return f"mixtures-{mixture.base or 'domainnet'}-{one}"

    def folder(self, one: StudyTraining) -> Path:
        """Return the folder of a training."""
        return self.out / "runs" / one.name

    def checkpoint(self, one: StudyTraining) -> Path:
        """Return the last checkpoint of a CLIP training."""
        return (
            self.folder(one) / "clip" / "checkpoints" / f"epoch_{self.scale.epochs}.pt"
        )
