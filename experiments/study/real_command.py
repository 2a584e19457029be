"""The study on real pictures: how and when does a CLIP generalize, and do its domains share circuits where it does?

An image tower that was trained on photographs is tuned as a CLIP on mixtures of domains, and tested on classes that
were held out of a test domain. Each seed holds another pair of classes out. `experiments/study/real_claims.py` has
the claims, written before the first model was trained, and the rule that says how many seeds are trained: without
--seeds, the program trains three seeds, computes the number, and trains so many.

    python -m experiments.study real --data PACS                           # hours; a second call goes on
    python -m experiments.study real --data PACS --seeds 0 --domains sketch     # one pair in one test domain
    torchrun --nproc-per-node 2 -m experiments.study real --data PACS      # the same in two processes
    python -m experiments.study real --data PACS --cluster slurm --jobs 20 # the same by an array of jobs
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from circuitry.runs import ALONE, Count, Natural, Work, WorkSettings
from circuitry.data import SmallTables, chosen_names
from circuitry.reports import Written
from circuitry.training import ClipTraining, TrainingWork, clip_preset
from experiments.study import claims, real_claims
from experiments.study.checkpoint_accuracy import EvaluationSet
from experiments.study.claim_tables import (
    accuracy_table,
    claim_tests,
    judged_accuracies,
)
from experiments.study.claims_report import NOTHING, shared_table, write_claims
from experiments.study.real_models import RealStudy
from experiments.study.selection import SETTINGS, MixtureSettings
from experiments.study.sharing import SharingSettings
from experiments.study.study_run import StudyRun

import pandas as pd
import tyro

SHARING = SharingSettings(
    n_images=6,
    n_tested=6,
    size=0.1,
    sae_steps=100,
    study_circuits=True,
    all_classes_in=("aligned",),
    natural_domain="photo",
)
"""How sharing is measured: on six pictures of each held-out class in each domain, and circuits of a tenth of units."""
KEPT_EPOCHS = 2
"""Checkpoints are kept after each second pass and after the last."""


class Models(NamedTuple):
    """Trained models with their accuracies."""

    runs: list[StudyRun]
    evaluated: pd.DataFrame
    """The table of `extract_accuracies`."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the study on real pictures."""

    data: Path
    """Folder of the pictures, <domain>/<class>/<file>, such as PACS."""
    out: Path = Path("runs/real")
    """Folder of models, measurements, tables and the report; what is finished is used again."""
    results: SmallTables = None
    natural_domain: str = "photo"
    """The domain of photographs."""
    far: str = "sketch"
    """The domain that is furthest from all others; it is the test domain of all settings."""
    domains: tuple[str, ...] | None = None
    """Test domains (default: all domains except the domain of photographs)."""
    settings: tuple[str, ...] | None = None
    """Settings of mixtures (default: all)."""
    models: tuple[str, ...] = ("lite0-tuned",)
    """Presets of trainings."""
    seeds: tuple[int, ...] | None = None
    """Seeds, each of which holds another pair of classes out (default: as many as the stopping rule gives)."""
    n_shared: Natural = 8
    """Number of seeds, from the first on, whose models are asked what their domains share."""
    per_cell: Count | None = 160
    """Largest number of pictures of a class in a domain."""
    work: tyro.conf.OmitArgPrefixes[WorkSettings] = WorkSettings()
    """How the work is shared out."""

    @property
    def study(self) -> RealStudy:
        """Return the pictures and models of these settings."""
        return RealStudy(
            self.data, self.out, self.natural_domain, self.far, self.per_cell
        )

    @property
    def test_domains(self) -> tuple[str, ...]:
        """Return the test domains, the far domain first."""
        images = self.study.images("train")
        others = [name for name in images.domains if name != self.natural_domain]
        chosen = chosen_names("test domain", self.domains, others)
        return tuple(sorted(chosen, key=lambda name: name != self.far))

    @property
    def tests(self) -> EvaluationSet:
        """Return the pictures that are classified, and the texts."""
        return claim_tests(self.study.images("test"))


def main(config: Config) -> Written | None:
    """Train and measure missing models, judge the claims, and print where the report is."""
    if not config.work.share_out(partial(measured, config), config.out / "jobs"):
        return None
    tables = measured(config, config.work.work())
    return write_claims(
        tables, config.natural_domain, config.out / "results", config.results
    )


def measured(config: Config, work: Work) -> claims.Tables:
    """Return the tables of all claims, after this process has trained and measured its share of the models."""
    chosen_names("setting", config.settings, SETTINGS)
    seeds = config.seeds
    if seeds is None:
        pilot = models_of(config, real_claims.PILOT, work)
        seeds = tuple(range(n_seeds(config, pilot)))
    models = models_of(config, seeds, work)
    shared = shared_table(
        models.runs,
        config.study.images("test"),
        config.far,
        config.out / "shared",
        replace(SHARING, natural_domain=config.natural_domain),
        config.n_shared,
        work=work,
    )
    return claims.Tables(accuracy_table(models.evaluated), shared, config.far)


def n_seeds(config: Config, pilot: Models) -> int:
    """Return the number of seeds by the stopping rule, from the accuracies of the pilot."""
    accuracies = accuracy_table(pilot.evaluated)
    needed = real_claims.seeds_needed(claims.Tables(accuracies, NOTHING, config.far))
    # Few settings may have no contrast.
    asked = 0 if needed.empty else int(needed["seeds"].iloc[-1])
    return max(len(real_claims.PILOT), min(asked, len(config.study.pairs())))


def models_of(config: Config, seeds: Sequence[int], work: Work) -> Models:
    """Return the models of some seeds with their accuracies, after training and evaluating them."""
    study = config.study
    tests = config.tests
    wanted = list[tuple[ClipTraining, MixtureSettings]]()
    for seed in seeds:
        mixtures = list(study.mixtures(seed, config.test_domains, config.settings))
        for model in config.models:
            training = replace(
                clip_preset(model), seed=seed, keep_checkpoints=KEPT_EPOCHS
            )
            wanted += [(training, mixture) for mixture in mixtures]
    reading = TrainingWork(workers=1, progress=work.progress)
    # Models are shared out between processes, and each process evaluates its models alone.
    alone = replace(work, rank=ALONE, progress=False)

    runs = dict[int, StudyRun]()
    for i in work.rank.order(range(len(wanted))):
        training, mixture = wanted[i]
        print(f"[{training.model}, {mixture.name}, seed {training.seed}]", flush=True)
        # A model that another process is training is not waited for before all others are done.
        with suppress(BlockingIOError):
            runs[i] = study.run(training, mixture, wait=False, work=reading)
            judged_accuracies(runs[i], tests, work=alone)
    tables = list[pd.DataFrame]()
    # In the order of the settings, whatever the order of this process.
    for i, (training, mixture) in enumerate(wanted):
        if i not in runs:
            runs[i] = study.run(training, mixture, work=reading)
        name = runs[i].folder.relative_to(config.out).as_posix()
        table = judged_accuracies(runs[i], tests, work=alone)
        tables.append(table.assign(run=name))
    ordered = [runs[i] for i in range(len(wanted))]
    return Models(ordered, pd.concat(tables, ignore_index=True))
