"""The toy: forty drawn things in six styles, and small CLIPs trained on mixtures of them.

A seed holds a quarter of the classes out (`held_out_folds`): a difference over seeds 0 to 3 is one over classes, too;
seeds 0 and 4 hold the same classes out. The models of photographs alone and of the upper bound are the same for all
test domains. A lock lets one process train each model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
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
"""The images: 80 of a class in a style to train on, 20 to test."""
N_FOLDS = 4
EPOCHS = {"rn-tiny": 11, "vit-tiny-8": 20}  # passes over the images by model
CROP_SCALE = 0.9  # larger crops than the presets', for fewer passes
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
"""The steps between: of class interpolation, and of domain interpolation, both of ResNets tested on quickdraw."""


def held_out_folds(classes: Sequence[str], n_folds: int) -> tuple[tuple[str, ...], ...]:
    """Return held-out sets of equal size that have every class once: class i is in fold i mod n."""
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
    epochs: int | None = None  # passes over the images (default: those of the model)

    @cache  # a process checks the files once  # noqa: B019
    def images(self, split: str = "test") -> DomainFolder:
        """Return the images; draw them if they are missing."""
        with file_lock(self.out, "toy"):
            return DomainFolder(write_toy(self.out / "toy", self.drawn), split=split)

    def mixtures(self, model: str, seed: int) -> Iterator[MixtureSettings]:
        """Yield the training distributions of an architecture's models of a seed."""
        held_out = held_out_folds(self.drawn.classes, self.n_folds)[seed % self.n_folds]
        for setting, domain in product(SETTINGS, TESTED[model]):
            if setting not in EVERYWHERE or domain == TESTED[model][0]:
                yield MixtureSettings(setting, domain, held_out)
        if model == "rn-tiny":
            of_quickdraw = MixtureSettings("aligned", "quickdraw", held_out)
            yield of_quickdraw
            yield replace(
                of_quickdraw, setting="class-interpolation", fraction=FRACTION
            )
            yield replace(
                of_quickdraw,
                setting="domain-interpolation",
                other_domains=OTHER_DOMAINS,
            )

    def run(
        self,
        model: str,
        seed: int,
        settings: MixtureSettings,
        *,
        wait: bool = True,
        work: TrainingWork = TrainingWork(workers=1),
    ) -> StudyRun:
        """Return one model; train it if it is missing."""
        held_out = settings.held_out_classes
        without = ["without", *held_out] if settings.setting in HOLDING_OUT else []
        name = "-".join([settings.name, *without])
        folder = self.out / "runs" / model / f"{name}-seed{seed}"
        with file_lock(self.out, f"{model}-{folder.name}", wait=wait):
            records = mixture(self.images("train").records, settings)
            captions = generated_captions(aligned=settings.aligned)
            table = write_mixture(
                records,
                captions,
                self.out / "mixtures" / f"{name}.tsv",
                settings=settings,
            )
            epochs = self.epochs or EPOCHS[model]
            training = replace(
                clip_preset(model), epochs=epochs, crop_scale=CROP_SCALE, seed=seed
            )
            train_clip(table, folder, training, work)
            record_run(folder, table, training)
        run = run_of(folder)
        assert run is not None  # its table is a mixture
        everywhere = settings.setting in EVERYWHERE
        return replace(
            run, held_out=held_out, test_domain=None if everywhere else run.test_domain
        )
