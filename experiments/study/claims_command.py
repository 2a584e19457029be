"""Do the claims of the study hold for my models? Any CLIPs whose training mixtures are known are judged.

The models are folders of runs that were trained on mixtures, or a table with a line for each model: its checkpoint,
model, setting, test_domain, held_out (classes, with commas between them) and seed. The program classifies images with
every model, measures what the domains of a model share, judges the claims of `experiments/study/real_claims.py` in
every way to count, and relates what is shared to accuracy over models: within the models of one held-out set, where
settings differ, and within a setting, where held-out sets differ.

The study's main claim is that models generalize if domains share circuitry. It predicts a positive correlation over
models. The claim is refuted by a correlation that is not above zero.

    python -m experiments.study claims --runs runs/study --data DomainNet --far quickdraw
    python -m experiments.study claims --runs models.csv --data test_pictures --far sketch --natural-domain photo
    torchrun --nproc-per-node 8 -m experiments.study claims --device cuda ...
"""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from circuitry.runs import ALONE, Natural, Work, WorkSettings
from circuitry import DomainFolder
from circuitry.data import Decoding, SmallTables, chosen_names
from circuitry.reports import Written
from experiments.study import claims
from experiments.study.claim_tables import (
    accuracy_table,
    claim_tests,
    judged_accuracies,
)
from experiments.study.claims_report import shared_table, write_claims
from experiments.study.sharing import SharingSettings, named_runs
from experiments.study.study_run import StudyRun, find_runs

import pandas as pd
import tyro


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings."""

    runs: tuple[Path, ...]
    """Folders of runs, each with a run.json, or tables of models (.csv, .tsv)."""
    data: Path
    """Folder of images that no model was trained on: <domain>/<class>/<file>."""
    split: str | None = "test"
    """Which of DomainNet's lists to use, if there are lists."""
    far: str = "quickdraw"
    """The domain that is furthest from all others."""
    n_shared: Natural = 8
    """Number of seeds, from the first on, whose models are asked what their domains share."""
    out: Path = Path("runs/claims")
    """Folder of the measurements, the tables and the report."""
    results: SmallTables = None
    decoding: Decoding = "upright"
    device: str = "cpu"
    """Where models run: cpu, cuda, mps; with torchrun cuda is the GPU of each process."""
    sharing: tyro.conf.OmitArgPrefixes[SharingSettings] = field(
        default_factory=SharingSettings
    )
    """Which domains, classes and images are measured."""
    work: tyro.conf.OmitArgPrefixes[WorkSettings] = WorkSettings()
    """How the work is shared out; a process measures one model at a time."""

    @property
    def images(self) -> DomainFolder:
        """Return the images."""
        images = DomainFolder(self.data, split=self.split)
        chosen_names("far domain", [self.far], images.domains)
        natural = self.sharing.natural_domain
        chosen_names("domain of photographs", [natural], images.domains)
        return images


def main(config: Config) -> Written | None:
    """Measure all models, judge the claims, and print where the report is."""
    if not config.work.share_out(partial(measured, config), config.out / "jobs"):
        return None
    tables = measured(config, config.work.work())
    natural = config.sharing.natural_domain
    return write_claims(tables, natural, config.out / "results", config.results)


def measured(config: Config, work: Work) -> claims.Tables:
    """Return the tables of all claims, after this process has measured its share of the models."""
    runs = list[StudyRun]()
    for folder in config.runs:
        # A supervised model has no texts and no embeddings of texts.
        runs += [run for run in find_runs(folder) if not run.supervised]
    images = config.images
    device = work.rank.device(config.device)
    tests = claim_tests(images)
    evaluated = dict[str, pd.DataFrame]()
    named = named_runs(runs)
    alone = replace(work, rank=ALONE, progress=False)
    # Each process begins with its share. Then it reads the results of other processes, or evaluates what is missing.
    for name in work.rank.order(list(named)):
        table = judged_accuracies(
            named[name], tests, decoding=config.decoding, device=device, work=alone
        )
        evaluated[name] = table.assign(run=name)
    accuracies = accuracy_table(pd.concat(map(evaluated.__getitem__, named)))
    shared = shared_table(
        runs,
        images,
        config.far,
        config.out / "shared",
        config.sharing,
        config.n_shared,
        device=device,
        work=work,
    )
    return claims.Tables(accuracies, shared, config.far)
