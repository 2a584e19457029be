"""What the steps of the study are made of: the material, the scale, the rates of the machine, and where things lie.

Costs are counted operations (`count_model`; those of circuits are given) over a rate that is stated, and the disk that
checkpoints and stored features fill. Reading images is not in them: where that is slower than the GPU, it takes longer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from circuitry.study.mixtures.base_sets import BaseSet
from circuitry.study.mixtures.study_set import MixtureSpec
from circuitry.study.plan import Cost, Step
from circuitry.study.training_cost import ModelOperations, count_model
from circuitry.study.trainings import StudyTraining
from circuitry.training.settings import CLIP_PRESETS, ClipTraining, clip_preset

GIB = 2**30
NOTHING = Cost()


@dataclass(frozen=True)
class Scale:
    """What the study and its miniature differ in, beside their material."""

    models: tuple[str, ...]
    """Architectures; the first one takes part everywhere."""
    sae_base: str
    """Base set on whose models autoencoders are trained."""
    epochs: int
    supervised_epochs: int
    gpus: int = 0
    """Most GPUs of a step; 0 for none."""
    device: str = "cuda"
    training: tuple[str, ...] = ()
    """More arguments of train_clip.py; so the next ones of the other scripts."""
    supervised: tuple[str, ...] = ()
    evaluation: tuple[str, ...] = ()
    sae: tuple[str, ...] = ()
    separation: tuple[str, ...] = ()
    circuits: tuple[str, ...] = ()

    def preset(self, one: StudyTraining) -> str:
        """Return the preset of a training; that of ImageNet-Captions where there is no base set."""
        return one.model if one.model in CLIP_PRESETS else f"{one.model}-{one.mixture.base or 'imagenet-captions'}"

    def settings(self, one: StudyTraining) -> ClipTraining:
        """Return the settings of a CLIP training before ``training`` changes them."""
        return clip_preset(self.preset(one), study=True)


@dataclass(frozen=True, eq=False)
class Material:
    """What there is."""

    domainnet: Path
    held_out: tuple[str, ...]
    counts: Mapping[tuple[str, str], int]
    """(domain, class) -> training images."""
    n_test: int
    """Test images."""
    bases: Mapping[str, BaseSet]
    base_sizes: Mapping[str, int]
    validation: Mapping[str, str]
    """Base set -> its validation images, as make_mixtures.py takes them."""
    main_base: str | None = None
    imagenet_sketch: Path | None = None
    imagenet: Path | None = None

    def size(self, mixture: MixtureSpec) -> int:
        """Return how many images a mixture has with its base set: without it CG low's, but for photographs alone."""
        settings = mixture.settings
        total = self.base_sizes[mixture.base] if mixture.base else 0
        for (domain, name), count in self.counts.items():
            tested = domain == settings.test_domain and name not in settings.held_out_classes
            if domain == settings.natural_domain or (tested and settings.setting != "natural-only"):
                total += count
        return total


class Rates(NamedTuple):
    """Operations per second that a GPU reaches."""

    half: float
    """In mixed precision: trainings."""
    single: float
    """In single precision: everything else."""


@dataclass(frozen=True, eq=False)
class StudyPlace:
    """The study in a folder, with all that its steps have in common."""

    out: Path
    scale: Scale
    material: Material
    trainings: Sequence[StudyTraining]
    rates: Rates
    circuit_operations: float = 0.0
    """Of the scores of one image, with those of its part."""
    keep_checkpoints: int | None = None
    """Epochs between two checkpoints; None for the study's."""

    def script(
        self, name: str, kind: str, script: str, options: Sequence[object], outputs: Sequence[Path],
        needs: Sequence[str] = (), cost: Cost = NOTHING, *, shared: bool = False,
    ) -> Step:  # fmt: skip
        """Return the step of a script of experiments/ in the study's settings, shared by its GPUs if it can be."""
        many = ("torchrun", "--nproc-per-node", f"{cost.gpus}") if shared and cost.gpus > 1 else ("python",)
        command = (*many, f"experiments/{script}.py", *(f"{option}" for option in options))
        below = tuple(path.relative_to(self.out).as_posix() for path in outputs)
        return Step(name, kind, command, below, tuple(needs), cost)

    def model(self, one: StudyTraining) -> list[object]:
        """Return the options of a trained model, and of the images that it is asked about."""
        name, checkpoint = self.scale.settings(one).model, self.checkpoint(one)
        data = ["--data", self.material.domainnet, "--device", self.scale.device]
        return ["--study", "--model", name, "--checkpoint", checkpoint, *data]

    def cost(self, operations: float, gpus: int, disk_bytes: float = 0.0, rate: float | None = None) -> Cost:
        """Return a cost, in single precision unless a rate is given, on at most so many GPUs."""
        hours = operations / (rate or self.rates.single) / 3600
        return Cost(operations, hours, min(gpus, self.scale.gpus), disk_bytes / GIB)

    def counted(self, one: StudyTraining) -> ModelOperations:
        """Return the operations of a training's model on one image."""
        return count_model(str(self.scale.settings(one).model))

    def n_checkpoints(self, one: StudyTraining) -> int:
        """Return how many checkpoints a training keeps, the untrained one among them."""
        every = self.keep_checkpoints or (5 if one.supervised else 1)
        return 1 + self.epochs(one) // every

    def epochs(self, one: StudyTraining) -> int:
        """Return the epochs of a training."""
        return self.scale.supervised_epochs if one.supervised else self.scale.epochs

    def tables(self, mixture: MixtureSpec) -> Path:
        """Return the folder of a mixture's table."""
        return self.out / "mixtures" / (mixture.base or "domainnet")

    def making(self, mixture: MixtureSpec) -> str:
        """Return the name of the step that makes a mixture: all of the main base set are made at once."""
        one = "all" if mixture.base == self.material.main_base else mixture.settings.name
        return f"mixtures-{mixture.base or 'domainnet'}-{one}"

    def run(self, one: StudyTraining) -> Path:
        """Return the folder of a training."""
        return self.out / "runs" / one.name

    def checkpoint(self, one: StudyTraining) -> Path:
        """Return the last checkpoint of a CLIP training."""
        return self.run(one) / "clip" / "checkpoints" / f"epoch_{self.scale.epochs}.pt"
