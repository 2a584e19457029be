"""The study on real pictures: how and when does a CLIP generalize, and do its domains share circuits where it does?

An image tower that was trained on photographs is tuned as a CLIP on mixtures of domains, and tested on classes that
were held out of a test domain. Each seed holds another pair of classes out. `experiments/study/claims.py` has the
claims, written before the first model was trained, and the rule that says how many seeds are trained: without --seeds,
the program trains three seeds, computes the number, and trains so many.

    python -m experiments.study real --data PACS                           # hours; a second call goes on
    python -m experiments.study real --data PACS --seeds 0 --domains sketch     # half an hour on two cores
    torchrun --nproc-per-node 2 -m experiments.study real --data PACS      # the same in two processes
    python -m experiments.study real --data PACS --cluster slurm --jobs 20 # the same by an array of jobs
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from circuitry.runs import Count, Work, WorkSettings
from circuitry.data import SmallTables, chosen_names
from circuitry.training import ClipTraining, TrainingWork, clip_preset
from experiments.study import claims
from experiments.study.checkpoint_accuracy import EvaluationSet, extract_accuracies
from experiments.study.claim_tables import accuracy_table
from experiments.study.real_models import RealStudy
from experiments.study.selection import SETTINGS, MixtureSettings
from experiments.study.study_run import StudyRun

import pandas as pd
import tyro

KEPT_EPOCHS = 2
"""Checkpoints are kept after each second pass and after the last."""


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
        images = self.study.images("test")
        templates = {
            claims.TRAINED_WORDS: self.study.texts(),
            claims.ALL_TEMPLATES: "pooled",
        }
        return EvaluationSet(images, images.all_classes, templates=templates)


def main(config: Config) -> None:
    """Train and evaluate missing models, judge the claims, and print the verdicts."""
    if config.work.share_out(partial(evaluated, config), config.out / "jobs"):
        write(config, evaluated(config, config.work.work()))


def evaluated(config: Config, work: Work) -> pd.DataFrame:
    """Return the accuracies of all models, after this process has trained and evaluated its share of the models."""
    chosen_names("setting", config.settings, SETTINGS)
    seeds = config.seeds
    if seeds is None:
        pilot = accuracies_of(config, claims.PILOT, work)
        seeds = tuple(range(n_seeds(config, pilot)))
    return accuracies_of(config, seeds, work)


def n_seeds(config: Config, pilot: pd.DataFrame) -> int:
    """Return the number of seeds by the stopping rule, from the accuracies of the pilot."""
    needed = claims.seeds_needed(claim_tables(config, pilot))
    asked = int(needed["seeds"].iloc[-1])
    return max(len(claims.PILOT), min(asked, len(config.study.pairs())))


def accuracies_of(config: Config, seeds: tuple[int, ...], work: Work) -> pd.DataFrame:
    """Return the table of `extract_accuracies` of the models of some seeds, after training and evaluating them."""
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
    loading = TrainingWork(workers=1, progress=work.progress)
    runs = dict[int, StudyRun]()
    for i in work.rank.order(range(len(wanted))):
        training, mixture = wanted[i]
        print(f"[{training.model}, {mixture.name}, seed {training.seed}]", flush=True)
        # A model that another process is training is not waited for before all others are done.
        with suppress(BlockingIOError):
            runs[i] = study.run(training, mixture, wait=False, work=loading)
            extract_accuracies([runs[i]], tests, epochs=epochs_of(training), work=work)
    for i, job in enumerate(wanted):
        if i not in runs:
            runs[i] = study.run(*job, work=loading)
    # In the order of the settings, whatever the order of this process.
    ordered = [runs[i] for i in range(len(wanted))]
    tables = list[pd.DataFrame]()
    for (training, _), run in zip(wanted, ordered, strict=True):
        table = extract_accuracies([run], tests, epochs=epochs_of(training), work=work)
        tables.append(table.assign(run=run.folder.relative_to(config.out).as_posix()))
    return pd.concat(tables, ignore_index=True)


def epochs_of(training: ClipTraining) -> tuple[int, ...]:
    """Return the epochs of the first checkpoint after training began, and of the last."""
    return tuple(sorted({min(KEPT_EPOCHS, training.epochs), training.epochs}))


def claim_tables(config: Config, evaluated: pd.DataFrame) -> claims.Tables:
    """Return the tables that claims are computed from."""
    shared = pd.DataFrame(
        columns=["run", *claims.CASE, "setting", "what", "domain", "value"]
    )
    return claims.Tables(accuracy_table(evaluated), shared, config.far)


def write(config: Config, evaluated: pd.DataFrame) -> None:
    """Write the tables, and print the verdicts."""
    tables = claim_tables(config, evaluated)
    judgements = claims.judged(tables)
    folder = config.out / "results"
    folder.mkdir(parents=True, exist_ok=True)
    written = {
        "accuracies": tables.accuracies,
        "claims": judgements,
        "verdicts": claims.verdicts(judgements),
        "seeds": claims.seeds_needed(tables),
    }
    for name, table in written.items():
        table.to_csv(folder / f"{name}.csv", index=False)
        print(folder / f"{name}.csv")
    print(written["verdicts"].drop(columns="other").to_string())
    print(written["seeds"].to_string())
