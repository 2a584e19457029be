"""The images and models of the toy: forty drawn things in six styles, and small CLIPs trained on mixtures of them.

Each seed holds a quarter of the classes out (`held_out_folds`), so the spread over seeds 0 to 3 is over classes, too.
Seeds 0 and 4 hold the same classes out. One model of photographs alone, and one model of the upper bound, serve all
test domains. A lock makes sure that only one process trains a model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product
from pathlib import Path

from circuitry.runs import InputError, file_lock
from circuitry.data import DomainFolder
from circuitry.training import (
    TrainingWork,
    clip_preset,
    generated_captions,
    record_run,
    train_clip,
)
from experiments.drawn import DRAWN_THINGS, DrawingSettings, write_toy
from experiments.study.mixture_files import write_mixture
from experiments.study.selection import HOLDING_OUT, MixtureSettings, mixture
from experiments.study.study_run import StudyRun, run_of

DRAWN = DrawingSettings(80, 20, classes=DRAWN_THINGS, version=2)
"""The images: of each class in each style 80 are used to train and 20 to test."""
N_FOLDS = 4  # number of held-out sets of classes
EPOCHS = {"rn-tiny": 11, "vit-tiny-8": 20}  # passes over the images, by model
CROP_SCALE = 0.9  # crops are larger than the crops of the presets, so that fewer passes are enough
TESTED = {
    "rn-tiny": ("quickdraw", "sketch"),
    "vit-tiny-8": ("quickdraw",),
}
"""Test domains by model."""
SEEDS = {"rn-tiny": (0, 1, 2, 4), "vit-tiny-8": (0,)}  # by model
SETTINGS = ("natural-only", "leave-out", "cg-low", "cg-high", "upper-high")
"""Settings of every model in every test domain."""
EVERYWHERE = ("natural-only", "upper-high")
"""Settings whose mixture is the same for all test domains: one model is tested in each."""
FRACTION = 0.25
OTHER_DOMAINS = ("clipart", "infograph")
"""The share of class interpolation and the other domains of domain interpolation. Both settings are trained only with
ResNets that are tested in quickdraw."""


def held_out_folds(classes: Sequence[str], n_folds: int) -> tuple[tuple[str, ...], ...]:
    """Divide the classes into held-out sets of equal size: class i is in fold i mod n."""
    # Folds of unequal size would be tasks of unequal difficulty.
    if n_folds < 2 or len(classes) % n_folds:
        raise InputError(
            f"The {len(classes)} classes need at least 2 folds of equal size, but {n_folds} folds were given: choose a "
            "divisor."
        )
    return tuple(tuple(classes[first::n_folds]) for first in range(n_folds))


@dataclass(frozen=True)
class Toy:
    """Images and models of the toy, under one folder."""

    out: Path
    drawn: DrawingSettings = DRAWN
    n_folds: int = N_FOLDS
    epochs: int | None = None  # passes over the images (default: `EPOCHS` of the model)

    # Cached, so that a process checks the files once.
    @cache  # noqa: B019
    def images(self, split: str = "test") -> DomainFolder:
        """Return the images of a split, after drawing all images if they are missing."""
        with file_lock(self.out, "toy"):
            return DomainFolder(write_toy(self.out / "toy", self.drawn), split=split)

    def mixtures(self, model: str, seed: int) -> Iterator[MixtureSettings]:
        """Yield the training distributions of the models of an architecture and a seed."""
        held_out = held_out_folds(self.drawn.classes, self.n_folds)[seed % self.n_folds]
        for setting, domain in product(SETTINGS, TESTED[model]):
            # A model that serves all test domains is trained once, under the name of the first domain.
            if setting not in EVERYWHERE or domain == TESTED[model][0]:
                yield MixtureSettings(setting, domain, held_out)
        if model == "rn-tiny":
            of = partial(
                MixtureSettings, test_domain="quickdraw", held_out_classes=held_out
            )
            yield of("aligned")
            yield of("class-interpolation", fraction=FRACTION)
            yield of("domain-interpolation", other_domains=OTHER_DOMAINS)

    def run(
        self,
        model: str,
        seed: int,
        settings: MixtureSettings,
        *,
        wait: bool = True,
        work: TrainingWork = TrainingWork(workers=1),
    ) -> StudyRun:
        """Return one model, after training it if it is missing.

        Args:
            wait: False raises `BlockingIOError` if another process is training the model.
        """
        held_out = settings.held_out_classes
        name = settings.name
        # Seeds with the same held-out classes share a mixture, so its name has the classes in place of the seed.
        if settings.setting in HOLDING_OUT:
            name = "-".join([name, "without", *held_out])
        folder = self.out / "runs" / model / f"{name}-seed{seed}"
        with file_lock(self.out, f"{model}-{folder.name}", wait=wait):
            records = mixture(self.images("train").records, settings)
            captions = generated_captions(aligned=settings.aligned)
            path = self.out / "mixtures" / f"{name}.tsv"
            table = write_mixture(records, captions, path, settings=settings)
            epochs = self.epochs or EPOCHS[model]
            training = replace(
                clip_preset(model), epochs=epochs, crop_scale=CROP_SCALE, seed=seed
            )
            train_clip(table, folder, training, work)
            record_run(folder, table, training)
        run = run_of(folder)
        assert run is not None  # its table is a mixture
        # Every model is evaluated on the classes of its seed, also if the mixture holds no class out.
        run = replace(run, held_out=held_out)
        if settings.setting in EVERYWHERE:
            run = replace(run, test_domain=None)
        return run
