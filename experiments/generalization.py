"""How and when does CLIP generalize to unseen domains, and to unseen classes of a domain? Accuracies of many runs.

From a folder of runs (models trained on mixtures, see `training.study`) to one table of accuracies at every checkpoint,
a figure that sets the settings side by side per test domain, and the effective-robustness view. On the toy, the
default, it first draws the images and trains what is missing: photographs alone, two domains (cg-low), all domains
(cg-high), all but the test domain (leave-out), and with nothing held out (upper-high), for two test domains and seeds.

The study finds that diversity helps (cg-high above cg-low and leave-out above natural-only on held-out classes), that
quickdraw is the exception, and that upper bounds are far away. Each is refuted by accuracies in the other order, beyond
the spread of the seeds.

    python experiments/generalization.py                                      # the toy, about half an hour on 2 cores
    torchrun --nproc-per-node 2 experiments/generalization.py                 # the same in two processes
    python experiments/generalization.py --cluster slurm --jobs 20            # the same by an array of jobs
    python experiments/generalization.py --runs runs/study --data DomainNet   # your own runs
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import pandas as pd
import tyro
from filelock import Timeout

from circuitry import DomainFolder
from circuitry.data.mixtures.selection import Setting
from circuitry.reports.figures.bars import settings_bars
from circuitry.reports.figures.scatters import robustness_scatter
from circuitry.reports.figures.style import Mark, domain_marks
from circuitry.reports.page import Report, write_results
from circuitry.runs.command_line import run_script
from circuitry.runs.errors import InputError
from circuitry.runs.provenance import versions
from circuitry.runs.workers import Work, WorkSettings
from circuitry.training.devices import available_device
from circuitry.training.generalization import MEASURE, effective_robustness, settings_table
from circuitry.training.settings import TrainingWork
from circuitry.training.study import EvaluationSet, StudyRun, extract_accuracies, find_runs, imagenet_validation
from circuitry.training.toy_study import toy_images, toy_run


@dataclass(frozen=True)
class Config:
    """Settings of the study of generalization; the defaults are those of the toy."""

    runs: Path | None = None
    """Folder of your own runs (default: those of the toy)."""
    data: Path | None = None
    """Your own test images, <domain>/<class>/<file>, with DomainNet's lists or without; needed with --runs."""
    imagenet: Path | None = None
    """ImageNet's validation images, <wnid>/<file>, to be classified, too."""
    out: Path = Path("runs/generalization")
    """Folder for tables and the report."""
    results: Path | None = None
    """Also write the small tables and their provenance here, where the figures read them."""
    toy: Path = Path("runs/toy-study")
    """Folder of the toy's images and models; what is there is reused."""
    settings: tuple[Setting, ...] = ("natural-only", "leave-out", "cg-low", "cg-high", "upper-high")
    """Settings of the toy's models."""
    test_domains: tuple[str, ...] = ("quickdraw", "sketch")
    """Test domains."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds of the toy's models."""
    natural_domain: str = "real"
    """Domain of photographs."""
    device: str = "cpu"
    """Where models are evaluated; under torchrun cuda is each process's own GPU."""
    work: tyro.conf.OmitArgPrefixes[WorkSettings] = WorkSettings()
    """How the work is shared out."""


def main(config: Config) -> None:
    """Train what is missing, evaluate, write, and print where the report is."""
    if not config.work.share_out(partial(evaluated, config), config.out / "jobs"):
        return
    table = evaluated(config, config.work.work())
    write(config, table, 1 / len(test_images(config).all_classes), domain_marks(everything(config).domains))


def evaluated(config: Config, work: Work) -> pd.DataFrame:
    """Return the accuracies of all runs, after this process's share of training and evaluating; done work is read."""
    device = work.rank.device(available_device(config.device))
    runs = toy_runs(config, work) if config.runs is None else find_runs(config.runs)
    sets = [EvaluationSet.of(test_images(config))]
    if config.imagenet is not None:
        sets.append(imagenet_validation(config.imagenet))
    tables = [extract_accuracies(runs, tests, device=device, work=work) for tests in sets]
    return pd.concat(tables, ignore_index=True)


def everything(config: Config) -> DomainFolder:
    """Return the test images of all domains.

    Raises:
        InputError: For runs of one's own without test images of one's own.
    """
    if config.runs is None:
        return toy_images(config.toy)
    if config.data is None:
        raise InputError("Your own runs need your own test images, but --data was not given: add --data ROOT.")
    return DomainFolder(config.data)


def test_images(config: Config) -> DomainFolder:
    """Return the test images of the domains that are tested on, and of photographs."""
    domains = tuple(dict.fromkeys([config.natural_domain, *config.test_domains]))
    return DomainFolder(everything(config).root, domains=domains)


def toy_runs(config: Config, work: Work) -> list[StudyRun]:
    """Return the toy's models, this process's share trained first, then what others have left; equal ones once."""
    wanted = list(product(config.settings, config.test_domains, config.seeds))
    training = TrainingWork(progress=work.progress)
    for setting, domain, seed in work.rank.order(wanted):
        try:
            print(f"[{setting}, {domain}, seed {seed}]", flush=True)
            toy_run(config.toy, setting, domain, seed, wait=False, work=training)
        except Timeout:  # another process has it
            continue
    runs = (toy_run(config.toy, *job, work=training) for job in wanted)
    return list({run.folder: run for run in runs}.values())


def write(config: Config, evaluated: pd.DataFrame, chance: float, marks: Mapping[str, Mark]) -> None:
    """Write tables, figures and the report, and say where they are."""
    classifier = evaluated["classifier"].iloc[0]
    table = settings_table(evaluated, classifier)
    points = effective_robustness(evaluated, classifier, natural=config.natural_domain)
    report = Report(
        "Does CLIP generalize to unseen domains and unseen classes of a domain?",
        f"{evaluated['run'].nunique()} models were trained on mixtures of domains that differ in what was held out, "
        "all of the same size (photographs alone: smaller), and classify test images without having seen their classes "
        "in that domain (held-out), or having seen them (other classes).",
    )
    report.section("Settings side by side")
    report.figure(settings_bars(table, chance, marks=marks), in_words(table, chance))
    tested = table[table["domain"] == table["test_domain"]].drop(columns=["domain", "values"])
    parts = tested["part"].isin(["all", "seen", "held-out"])
    report.table(
        tested[parts].reset_index(drop=True),
        f"Accuracy in the test domain ({MEASURE}, {classifier}), mean and standard deviation over seeds.",
    )
    if not parts.all():
        classes = tested[~parts].pivot_table(
            index=["test_domain", "setting"], columns="part", values="mean", sort=False
        )
        report.table(classes.reset_index(), "The held-out classes one by one, mean over seeds.")
    report.section("Effective robustness")
    report.figure(
        robustness_scatter(points, config.natural_domain),
        f"Held-out classes: accuracy in the test domain against accuracy on {config.natural_domain}, every checkpoint "
        "a point, both axes in logits. A model above the line of those trained on photographs alone is more robust "
        "than its accuracy on photographs explains.",
    )
    tables = {"evaluation": evaluated, "settings": table, "robustness": points}
    provenance = {"runs": sorted(set(evaluated["run"])), "classifier": classifier, "measure": MEASURE, **versions()}
    print(write_results(report, tables, config.out, config.results, provenance, ("settings", "robustness")))


def in_words(table: pd.DataFrame, chance: float) -> str:
    """Say what the bars show: held-out classes, setting by setting."""
    words = [f"Guessing would reach {chance:.1%}."]
    held = table[(table["domain"] == table["test_domain"]) & (table["part"] == "held-out")]
    for domain, rows in held.groupby("test_domain"):
        values = ", ".join(f"{row.setting} {row.mean:.1%}" for row in rows.itertuples(index=False))
        words.append(f"Held-out classes in {domain}: {values}.")
    return " ".join(words)


if __name__ == "__main__":
    run_script(Config, main, __doc__)
