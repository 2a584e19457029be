"""The pictures and models of the study on real pictures: small CLIPs that start from photographs, tuned on mixtures.

Pictures of each class in each domain are put in order by the SHA-256 of ``domain/class/file``, and the first of them
are used. A fifth, by the same number, tests; all others train. If the folder has lists of a train and a test split,
these are used.

Each seed holds another pair of classes out of the test domains. Pairs are in a random order that is always the same.
One model of photographs alone, and one model of the upper bound, serve all test domains. Interpolations, the lower
upper bound and aligned captions are trained for the far domain alone. A lock makes sure that only one process trains a
model.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import combinations
from pathlib import Path

from circuitry.runs import InputError, file_lock
from circuitry.data import (
    DomainFolder,
    ImageList,
    ImageRecord,
    ListedImage,
    readable,
)
from circuitry.training import (
    ClipTraining,
    TrainingWork,
    generated_captions,
    record_run,
    train_clip,
)
from experiments.pacs import place_of
from experiments.study.mixture_files import write_mixture
from experiments.study.selection import MixtureSettings, mixture
from experiments.study.study_run import StudyRun, run_of

TESTED_SHARE = 5
"""One of so many pictures tests."""
N_HELD_OUT = 2
EVERYWHERE = ("natural-only", "upper-high")
"""Settings whose mixture is the same for all test domains: one model is tested in each."""
MAIN_SETTINGS = ("leave-out", "cg-low", "cg-high")
"""Settings of every test domain."""
FRACTION = 0.2
"""The share of class interpolation."""


@dataclass(frozen=True)
class RealStudy:
    """Pictures and models, under one folder."""

    data: Path
    """Folder of pictures, ``<domain>/<class>/<file>``."""
    out: Path
    natural: str
    """The domain of photographs."""
    far: str
    """The domain with all settings as test domain."""
    per_cell: int | None = None
    """Largest number of pictures of a class in a domain."""

    # Cached, so that a process reads the folder once.
    @cache  # noqa: B019
    def images(self, split: str) -> DomainFolder:
        """Return the pictures that train, or the pictures that test.

        Raises:
            InputError: if there are fewer than two domains or four classes, or if a class has no pictures to train or
                to test in a domain.
        """
        if any(self.data.glob(f"*_{split}.txt")):
            return DomainFolder(self.data, split)
        folder = DomainFolder(self.data, None)
        self._check(folder)
        chosen: dict[str, list[ListedImage]] = {name: [] for name in folder.domains}
        for domain in folder.domains:
            for name in folder.classes:
                ordered = sorted(folder.select(name, domain), key=place_of)
                used = ordered[: self.per_cell]
                kept = [
                    record for record in used if _tests(record) == (split == "test")
                ]
                if not kept:
                    raise InputError(
                        f"Each class needs pictures to train and to test in each domain, but {name} in {domain} has "
                        f"{len(used)} pictures, none of them to {split}: add pictures, or remove the class."
                    )
                chosen[domain] += [
                    ListedImage(record.relative, name) for record in kept
                ]
        return DomainFolder(ImageList(folder.root, chosen, folder.all_classes))

    def _check(self, folder: DomainFolder) -> None:
        wanted = {self.natural, self.far}
        if len(folder.domains) < 2 or not wanted <= set(folder.domains):
            raise InputError(
                f"Mixtures need the domain of photographs {self.natural!r} and the test domain {self.far!r}, but "
                f"{self.data} has {', '.join(folder.domains)}: name domains that it has by --natural-domain and --far."
            )
        if len(folder.classes) < N_HELD_OUT + 2:
            raise InputError(
                f"{N_HELD_OUT} classes are held out, so that at least {N_HELD_OUT + 2} are needed, but {self.data} has "
                f"{len(folder.classes)}: add classes."
            )

    def pairs(self) -> list[tuple[str, ...]]:
        """Return the pairs of classes in the order of the seeds that hold them out."""
        pairs = list(combinations(self.images("train").classes, N_HELD_OUT))
        random.Random(0).shuffle(pairs)
        return pairs

    def mixtures(
        self, seed: int, test_domains: Sequence[str], settings: Sequence[str] | None
    ) -> Iterator[MixtureSettings]:
        """Yield the training distributions of a seed.

        Args:
            settings: The settings (default: all settings).
        """
        pairs = self.pairs()
        if seed >= len(pairs):
            raise InputError(
                f"Each seed holds another pair of classes out, and there are {len(pairs)} pairs: give seeds from 0 to "
                f"{len(pairs) - 1}, not {seed}."
            )
        for mixture_settings in self._all_mixtures(pairs[seed], seed, test_domains):
            if settings is None or mixture_settings.setting in settings:
                yield mixture_settings

    def _all_mixtures(
        self, held_out: tuple[str, ...], seed: int, test_domains: Sequence[str]
    ) -> Iterator[MixtureSettings]:
        of = partial(
            MixtureSettings, held_out_classes=held_out, natural_domain=self.natural
        )

        for setting in EVERYWHERE:
            yield of(setting, test_domains[0])
        for domain in test_domains:
            for setting in MAIN_SETTINGS:
                yield of(setting, domain)
        if self.far not in test_domains:
            return
        yield of("upper-low", self.far)
        yield of("aligned", self.far)
        yield of("class-interpolation", self.far, fraction=FRACTION)
        others = [
            name
            for name in self.images("train").domains
            if name not in (self.natural, self.far)
        ]
        if len(others) > 1:
            # Over seeds each other domain takes its turn.
            further = (others[seed % len(others)],)
            yield of("domain-interpolation", self.far, other_domains=further)

    def run(
        self,
        training: ClipTraining,
        settings: MixtureSettings,
        *,
        wait: bool = True,
        work: TrainingWork = TrainingWork(workers=1),
    ) -> StudyRun:
        """Return one model, after training it if it is missing.

        Args:
            training: Settings of the training, with the seed.
            wait: False raises `BlockingIOError` if another process is training the model.
        """
        held_out = settings.held_out_classes
        name = "-".join([settings.name, "without", *map(readable, held_out)])
        model = Path(training.model).stem
        folder = self.out / "runs" / model / f"{name}-seed{training.seed}"
        with file_lock(self.out, f"{model}-{folder.name}", wait=wait):
            table = self.out / "mixtures" / f"{name}.tsv"
            self._train(training, settings, table, folder, work)
        run = run_of(folder)
        assert run is not None  # its table is a mixture
        # Every model is evaluated on the classes of its seed, also if the mixture holds no class out.
        run = replace(run, held_out=held_out)
        if settings.setting in EVERYWHERE:
            run = replace(run, test_domain=None)
        return run

    # Cached, since a process that trained a model asks for it again when it writes the tables.
    @cache  # noqa: B019
    def _train(
        self,
        training: ClipTraining,
        settings: MixtureSettings,
        table: Path,
        folder: Path,
        work: TrainingWork,
    ) -> None:
        """Write the table of a mixture, and train a model on it, unless they are there."""
        images = self.images("train")
        records = mixture(images.records, settings, images.classes)
        captions = generated_captions(aligned=settings.aligned)
        write_mixture(records, captions, table, settings=settings)
        train_clip(table, folder, training, work)
        record_run(folder, table, training)


def _tests(record: ImageRecord) -> bool:
    return int(place_of(record), 16) % TESTED_SHARE == 0
