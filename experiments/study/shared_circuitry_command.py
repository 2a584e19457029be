"""Does sharing explain generalization? The sharing of domains in many models, against their generalization.

Reads a folder of runs (models trained on mixtures). For each model it measures the accuracy on classes that were held
out of its test domain, and the similarity of that domain to the others: circuits, their transfer, own parts, CKA,
features of an autoencoder. Some numbers need no accuracy, two of them after arXiv 2604.08192.

The study's main claim, that models generalize if domains share circuitry, predicts a positive correlation over models,
also given accuracy on the other domains. A correlation that is not above zero refutes it, or one that vanishes without
one model or given the accuracy on the other domains. A handful of models can show neither.

    python -m experiments.study shared-circuitry --runs runs/study --data DomainNet --test-domains quickdraw sketch
    torchrun --nproc-per-node 8 -m experiments.study shared-circuitry --device cuda ...
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from circuitry.runs import InputError, Work, WorkSettings, versions
from circuitry import DomainFolder
from circuitry.data import Decoding, SmallTables
from circuitry.reports import Report, listings_of, write_results
from circuitry.reports.figures import domain_marks
from experiments.study.relations import (
    add_relations,
    relate_over_models,
    relation_findings,
)
from experiments.study.sharing import (
    ACCURACIES,
    LABEL_FREE,
    SHARED,
    Measured,
    SharingSettings,
    known_names,
    measure_runs,
)
from experiments.study.study_run import find_runs

import tyro


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings."""

    runs: tuple[Path, ...]
    """Folders of runs, each with a run.json."""
    data: Path
    """Folder of the images: <domain>/<class>/<file>."""
    split: str | None = "test"
    """Which of DomainNet's lists to use, if there are lists."""
    test_domains: tuple[str, ...] | None = None
    """Test domains of models without their own (default: the test domains of the other runs)."""
    out: Path = Path("runs/shared_circuitry")
    """Folder for the results of each model, tables and the report."""
    results: SmallTables = None
    decoding: Decoding = "upright"
    device: str = "cpu"
    """Where models run; under torchrun cuda is each process's own GPU."""
    sharing: tyro.conf.OmitArgPrefixes[SharingSettings] = field(
        default_factory=SharingSettings
    )
    """How much is looked at."""
    work: tyro.conf.OmitArgPrefixes[WorkSettings] = WorkSettings()
    """Sharing of the work: one model at a time."""

    @property
    def images(self) -> DomainFolder:
        """Return the images."""
        return DomainFolder(self.data, split=self.split)


def main(config: Config) -> None:
    """Measure every model, relate, write; print where the report is."""
    if config.work.share_out(partial(measured, config), config.out / "jobs"):
        write(config, measured(config, config.work.work()))


def measured(config: Config, work: Work) -> Measured:
    """Return what all models share, after this process's share of measuring them."""
    runs = [
        run for folder in config.runs for run in find_runs(folder) if not run.supervised
    ]
    given = config.test_domains or tuple(
        sorted({run.test_domain for run in runs if run.test_domain})
    )
    if not given:
        raise InputError(
            "None of the runs was trained for a test domain: give some that were, or --test-domains."
        )
    return measure_runs(
        *(runs, config.images, lambda _: given, config.out / "models", config.sharing),
        decoding=config.decoding,
        device=work.rank.device(config.device),
        work=work,
    )


def write(config: Config, found: Measured) -> None:
    """Relate, and write tables and report."""
    points, images = found.points, config.images
    names = known_names(points)
    told = [kind for kind in ACCURACIES if points[kind].notna().any()]
    relations = relate_over_models(
        points, list(names), told, "in_domain", seed=config.sharing.seed
    )
    report = Report(
        "Does what domains share explain how models generalize?",
        f"{points['run'].nunique()} models, in {', '.join(sorted(set(points['test_domain'])))}: accuracy on classes "
        "that were held out of the test domain, against what this domain shares with the others.",
    )
    groups = [
        [name for name in group if name in names] for group in (SHARED, LABEL_FREE)
    ]
    accuracy = "alone" if "alone" in told else told[0] if told else ACCURACIES[0]
    report.summary(relation_findings(relations, names, accuracy, groups))
    add_relations(report, points, relations, names, told, domain_marks(images.domains))
    provenance = {"runs": sorted(set(points["run"])), **versions()}
    tables = {"points": points, "relations": relations}
    looked_at = listings_of(images, config.sharing.n_images, config.sharing.seed)
    print(
        write_results(
            report, tables, config.out, config.results, provenance, listings=looked_at
        )
    )
