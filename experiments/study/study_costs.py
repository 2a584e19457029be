"""What does the study cost? Operations, images that are read, and disk of each command.

Operations are PyTorch's counts of convolutions and matrix products (`OperationCounter`) on one image, times images and
epochs. All else that a GPU does is left out, so the rates of a `Machine` are those that it reaches, and not its best.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from circuitry.runs import Count, Positive
from circuitry import DomainFolder
from circuitry.data import class_key
from circuitry.training import SaeTraining
from experiments.study.base_sets import BaseSet
from experiments.study.mixture_files import STUDY_SEED
from experiments.study.study_set import MixtureSpec, StudyTraining


class Architecture(NamedTuple):
    """What is counted of an architecture."""

    forward: float
    """Operations of a forward run of an image."""
    training: float
    """Operations of forward and backward runs of an image with its caption."""
    weights: int
    """Number of weights of the CLIP."""
    embedding: int
    """Length of an embedding."""


ARCHITECTURES = {
    "rn50": Architecture(12.2e9, 54.5e9, 102_007_137, 1024),
    "vit-s-32": Architecture(2.29e9, 16.9e9, 63_085_825, 384),
    "swin-t": Architecture(8.98e9, 44.8e9, 91_340_667, 512),
}
CIRCUIT_FORWARDS = 970
"""Operations of the study's circuit of one image, in forward runs of RN50: scores of units at ten points, of edges
twice."""
PART_FORWARDS = 300
"""Operations of Fisher's circuit and of the own part of one image with edges and lesions, in forward runs of RN50."""
CIRCUIT_BYTES = 10e6  # scores of a class in a domain
ROW_BYTES = 200  # a row of a table of training images
EPOCHS = 32
SUPERVISED_EPOCHS = 90
IMAGENET_IMAGES = 50_000  # ImageNet's validation images
GIB = 2**30


@dataclass(frozen=True)
class Machine:
    """What a machine has and reaches. The plan prints the workers; the rates only estimate hours."""

    workers: Count = 8
    """Cores that read images for each GPU: trainings get as many processes, and all other commands as many threads."""
    core_rate: Positive = 200.0
    """Images that a core decodes and prepares in a second. Measured were 150 to 190 photographs of 500 x 375, and 235
    to 500 pictures of 225 x 225."""
    half_tflops: Positive = 94.0
    """10^12 operations that a GPU reaches in a second in mixed precision (30 % of what an A100 does at best)."""
    single_tflops: Positive = 7.8
    """The same in single precision (40 % of what an A100 does at best)."""


class Cost(NamedTuple):
    """The cost of a command."""

    half: float = 0.0
    """Operations in mixed precision."""
    single: float = 0.0
    """Operations in single precision."""
    images: float = 0.0
    """Number of times that an image is read."""
    gib: float = 0.0
    """Disk that is filled, in GiB."""

    def computing(self, machine: Machine) -> float:
        """Return the GPU hours of the operations."""
        seconds = self.half / machine.half_tflops + self.single / machine.single_tflops
        return seconds / 1e12 / 3600

    def held(self, machine: Machine) -> float:
        """Return the GPU hours with reading: images are read while the GPUs compute, and the slower of both counts."""
        reading = self.images / (machine.workers * machine.core_rate) / 3600
        return max(self.computing(machine), reading)


FREE = Cost()


class StudyCosts:
    """The costs of the commands of a study, counted on its lists and tables of images."""

    def __init__(
        self,
        data: Path,
        bases: Mapping[str, BaseSet],
        *,
        imagenet: bool = False,
        keep_checkpoints: int | None = None,
    ) -> None:
        train = DomainFolder(data, split="train", missing_files="unchecked")
        test = DomainFolder(data, split="test", missing_files="unchecked")
        self.cells = Counter(
            (record.domain, record.class_name) for record in train.records
        )
        """Training images by domain and class."""
        self.tested = len(test)
        self.classified = self.tested + (IMAGENET_IMAGES if imagenet else 0)
        self.of_base: dict[str | None, int] = {None: 0}
        """Number of training images of each base set."""
        for name, base in bases.items():
            self.of_base[name] = sum(1 for _ in base.images_for("train", STUDY_SEED))
        self.keep_checkpoints = keep_checkpoints

    def size(self, mixture: MixtureSpec) -> int:
        """Return the number of images of a mixture: of its base set, photographs, and seen images of its test domain.

        Mixtures with more domains are subsampled to this number.
        """
        settings = mixture.settings
        total = self.of_base[mixture.base]
        for (domain, name), number in self.cells.items():
            tested = domain == settings.test_domain
            seen = tested and name not in settings.held_out_classes
            if settings.setting == "natural-only":
                seen = False
            if seen or domain == settings.natural_domain:
                total += number
        return total

    def tables(self, mixtures: Collection[MixtureSpec]) -> Cost:
        """Return the cost of the tables of mixtures."""
        return Cost(gib=sum(map(self.size, mixtures)) * ROW_BYTES / GIB)

    def training(self, training: StudyTraining) -> Cost:
        """Return the cost of a training."""
        counted = ARCHITECTURES[training.model]
        # Checkpointing of gradients runs the tower forward a second time.
        operations = counted.training + counted.forward
        epochs = EPOCHS
        bytes_a_weight = 12  # open_clip also stores two moments of its optimizer
        if training.supervised:
            operations = 3 * counted.forward
            epochs = SUPERVISED_EPOCHS
            bytes_a_weight = 4
        images = epochs * self.size(training.mixture)
        disk = bytes_a_weight * counted.weights * self.checkpoints(training)
        return Cost(half=operations * images, images=images, gib=disk / GIB)

    def checkpoints(self, training: StudyTraining) -> int:
        """Return how many checkpoints a training keeps, with the untrained model."""
        epochs = EPOCHS
        every = 1
        if training.supervised:
            epochs = SUPERVISED_EPOCHS
            every = 5
        if self.keep_checkpoints is not None:
            every = self.keep_checkpoints
        # With 0 the last checkpoint alone is kept.
        return 1 + epochs // every if every else 1

    def evaluation(self, training: StudyTraining) -> Cost:
        """Return the cost of classifying all test images with every checkpoint of a model."""
        images = self.classified * self.checkpoints(training)
        return Cost(
            single=ARCHITECTURES[training.model].forward * images, images=images
        )

    def embedded(self, models: Collection[StudyTraining]) -> Cost:
        """Return the cost of one run of all test images through each model."""
        forward = sum(ARCHITECTURES[model.model].forward for model in models)
        return Cost(single=forward * self.tested, images=len(models) * self.tested)

    def autoencoder(self, training: StudyTraining) -> Cost:
        """Return the cost of an autoencoder of a model, which is trained on the base set and on all of DomainNet."""
        counted = ARCHITECTURES[training.model]
        settings = SaeTraining()
        images = self.of_base[training.mixture.base] + self.cells.total()
        # Two matrix products forward, and twice as many operations backward.
        passes = 12 * settings.expansion * counted.embedding**2 * settings.epochs
        disk = 4 * counted.embedding * images / GIB
        return Cost(single=(counted.forward + passes) * images, images=images, gib=disk)

    def circuits(self, model: StudyTraining, n_images: int) -> Cost:
        """Return the cost of the study's circuits of a model, of all classes in all domains."""
        n_cells = len(self.cells)
        forward = ARCHITECTURES[model.model].forward
        operations = CIRCUIT_FORWARDS * forward * n_images * n_cells
        return Cost(single=operations, gib=CIRCUIT_BYTES * n_cells / GIB)

    def claims(
        self,
        models: Sequence[StudyTraining],
        shared: Sequence[StudyTraining],
        n_images: int,
    ) -> Cost:
        """Return the cost of the claims: accuracies of all models, and what domains share in some of them.

        What domains share is measured by circuits and own parts of the held-out classes.
        """
        settings = models[0].mixture.settings
        # Names of classes may be spelt otherwise than in the lists.
        held_out = set(map(class_key, settings.held_out_classes))
        n_cells = sum(class_key(name) in held_out for _, name in self.cells)
        runs = (CIRCUIT_FORWARDS + PART_FORWARDS) * n_images * n_cells
        # Test images are embedded, train an autoencoder, and are described by it.
        described = 3 * self.tested
        disk = 2 * CIRCUIT_BYTES * n_cells * len(shared) / GIB
        forward = sum(ARCHITECTURES[model.model].forward for model in shared)
        # Two checkpoints of each model classify the test images.
        classified = self.embedded([*models, *models])
        return Cost(
            single=classified.single + forward * (runs + described),
            images=classified.images + len(shared) * described,
            gib=disk,
        )
