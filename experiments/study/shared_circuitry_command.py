"""Does sharing explain generalization? The sharing of domains in many models, against their generalization.

This program reads a folder of runs, which are models that were trained on mixtures. For each model it measures the
accuracy on classes that were held out of its test domain, and how similar this domain is to all other domains.
Circuits, their transfer, own parts, CKA, and features of an autoencoder are compared. Some of the numbers need no
accuracy; two of these numbers follow arXiv 2604.08192.

The study's main claim is that models generalize if domains share circuitry. It predicts a positive correlation over
models, also given the accuracy on all other domains. The claim is refuted by a correlation that is not above zero. The
claim is also refuted if the correlation vanishes after one model is left out, or given the accuracy on all other
domains. A handful of models can neither support nor refute it.

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
from experiments.study.study_run import StudyRun, find_runs

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
    """Test domains of models whose mixture has no test domain (default: the test domains of all other runs)."""
    out: Path = Path("runs/shared_circuitry")
    """Folder of the results of each model, the tables and the report."""
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
        return DomainFolder(self.data, split=self.split)


def main(config: Config) -> None:
    """Measure every model, relate the numbers over models, write them, and print where the report is."""
    if config.work.share_out(partial(measured, config), config.out / "jobs"):
        write(config, measured(config, config.work.work()))


def measured(config: Config, work: Work) -> Measured:
    """Return the measurements of all models, after this process has measured its share of them."""
    runs = list[StudyRun]()
    for folder in config.runs:
        # All measures need a CLIP model: a supervised model has no embeddings of texts.
        runs += [run for run in find_runs(folder) if not run.supervised]
    test_domains = config.test_domains or tuple(
        sorted({run.test_domain for run in runs if run.test_domain})
    )
    if not test_domains:
        raise InputError(
            "None of the runs was trained for a test domain: give some that were, or --test-domains."
        )
    return measure_runs(
        runs,
        config.images,
        lambda _: test_domains,
        config.out / "models",
        config.sharing,
        decoding=config.decoding,
        device=work.rank.device(config.device),
        work=work,
    )


def write(config: Config, measurements: Measured) -> None:
    """Relate what is shared to accuracy over models, and write the tables and the report."""
    points = measurements.points
    images = config.images
    names = known_names(points)
    seed = config.sharing.seed
    # A kind of accuracy that no model has, such as ``own_style``, can correlate with nothing.
    accuracies = [kind for kind in ACCURACIES if points[kind].notna().any()]
    relations = relate_over_models(
        points, list(names), accuracies, "in_domain", seed=seed
    )
    report = Report(
        "Does what domains share explain how models generalize?",
        f"{points['run'].nunique()} models, in {', '.join(sorted(set(points['test_domain'])))}: accuracy on classes "
        "that were held out of the test domain, against what this domain shares with the others.",
    )
    shared = [name for name in SHARED if name in names]
    label_free = [name for name in LABEL_FREE if name in names]
    # Accuracy among held-out classes alone does not depend on how readily a model predicts them.
    accuracy = next(iter(accuracies), ACCURACIES[0])
    if "alone" in accuracies:
        accuracy = "alone"
    findings = relation_findings(relations, names, accuracy, [shared, label_free])
    report.summary(findings)
    marks = domain_marks(images.domains)
    add_relations(report, points, relations, names, accuracies, marks)
    provenance = {"runs": sorted(set(points["run"])), **versions()}
    tables = {"points": points, "relations": relations}
    looked_at = listings_of(images, config.sharing.n_images, seed)
    print(
        write_results(
            report, tables, config.out, config.results, provenance, listings=looked_at
        )
    )
