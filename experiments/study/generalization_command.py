"""How and when does CLIP generalize to unseen domains, and to unseen classes of a domain? Accuracies of many runs.

Reads a folder of runs (models trained on mixtures) and writes a table of accuracies at every checkpoint, tables and a
figure that compare settings and models for each test domain, and effective robustness. On the toy, the default, it
first draws the images and trains missing models: photographs alone, two domains (cg-low), all domains (cg-high), all
except the test domain (leave-out), and nothing held out (upper-high), for two test domains and seeds. The held-out
classes of the toy rotate, so that each is held out once; classes that even the upper bound does not learn are left out.
With --study all held-out classes count, as in the study, and the table without such classes stands beside.

The study finds that diversity helps, that an entirely unseen domain is sometimes easier than one that lacks the
classes, and that upper bounds are far away, most of all in quickdraw. Each is a row of differences.csv (`differences`),
with an interval over classes: a difference of the other sign refutes it, also among held-out classes alone, where a
model's readiness to predict a held-out class does not matter.

    python -m experiments.study generalization                                      # the toy: 42 models, over an hour
    torchrun --nproc-per-node 2 -m experiments.study generalization              # the same in two processes
    python -m experiments.study generalization --cluster slurm --jobs 20            # the same by an array of jobs
    python -m experiments.study generalization --toy runs/miniature --n-toy-classes 4 --held-out-sets 2 \\
        --n-train 8 --n-test 8 --epochs 2 --seeds 0       # a trial of minutes
    python -m experiments.study generalization --runs runs/study --data DomainNet   # your own runs
    python -m experiments.study generalization --study --runs runs/study --data DomainNet --imagenet ImageNet/val
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import product
from pathlib import Path
from typing import ClassVar, Literal

from circuitry.runs import Count, InputError, Work, WorkSettings, versions
from circuitry import DomainFolder
from circuitry.data import Decoding
from circuitry.reports import Report, Written, write_results
from circuitry.reports.figures import Mark, domain_marks
from circuitry.training import MEASURE, TrainingWork, available_device
from experiments.study.checkpoint_accuracy import EvaluationSet, extract_accuracies, imagenet_validation
from experiments.study.differences import add_differences, difference_findings, paired_differences
from experiments.study.effective_robustness import effective_robustness
from experiments.study.generalization_pages import add_kinds, add_screened, add_settings, generalization_findings
from experiments.study.imagenet_prompts import ImagenetNames
from experiments.study.robustness_lines import robustness_scatter
from experiments.study.run_tables import kinds_of_runs, measures_table, screened_classes, settings_table
from experiments.study.selection import Setting
from experiments.study.study_run import StudyRun, find_runs
from experiments.study.toy_study import STANDARD, ToySettings, held_out_folds, toy_images, toy_run

import pandas as pd
import tyro
from filelock import Timeout

ALL_CLASSES = len(STANDARD.classes)
"""How many classes the toy has."""


@dataclass(frozen=True)
class Config:
    """Settings of the study of generalization; the defaults are those of the toy."""

    NEEDS: ClassVar = (("runs", "data"),)

    runs: Path | None = None
    """Folder of your own runs (default: those of the toy)."""
    data: Path | None = None
    """Folder of the images: your own test images, <domain>/<class>/<file>; needed with --runs."""
    imagenet: Path | None = None
    """Folder of ImageNet's validation images, <wnid>/<file>, to be classified, too."""
    imagenet_names: ImagenetNames = "open_clip"
    """Names of ImageNet's classes: those of the installed open_clip, or of the study's version of it."""
    out: Path = Path("runs/generalization")
    """Folder of the results: tables and the report."""
    results: Path | None = None
    """Also write the small tables and their provenance here, where the figures read them."""
    classifier: Literal["all templates", "style words", "own style"] = "all templates"
    """Class texts of the figures and the main tables; all are measured."""
    screen: bool = True
    """Leave held-out classes that even the upper bound does not learn out of figures and told_apart.csv, for all models
    of the test domain. The other choice stands beside, in told_apart_all.csv or told_apart_screened.csv."""
    measure: str = MEASURE
    """Measure of the table over settings and of robustness: top-1, balanced top-5, macro F1, ...; all are stored."""
    epochs_shown: tuple[int, ...] | None = None
    """Checkpoints to classify with (default: all that were kept); 0 is the untrained model."""
    decoding: Decoding = "upright"
    """How image files are decoded: upright, over white; as-stored: as in the study, see `load_image`."""
    toy: Path = Path("runs/toy-study")
    """Folder of the toy's images and models; what is there is reused."""
    settings: tuple[Setting, ...] = ("natural-only", "leave-out", "cg-low", "cg-high", "upper-high")
    """Settings of the toy's models."""
    test_domains: tuple[str, ...] = ("quickdraw", "sketch")
    """Test domains: classes are held out of them."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds of the trainings."""
    held_out_sets: Count = 4
    """Sets of held-out classes on the toy; together they are all of its classes."""
    n_toy_classes: Count = ALL_CLASSES
    """How many classes the toy has, the first by name."""
    n_train: Count = STANDARD.n_train
    """Drawn training images per class and style."""
    n_test: Count = STANDARD.n_test
    """Test images per class and style."""
    epochs: Count = STANDARD.training.epochs
    """Passes over the images."""
    natural_domain: str = "real"
    """Domain of photographs."""
    device: str = "cpu"
    """Where the model runs: cpu, cuda, mps; of several processes on a machine each takes its own GPU."""
    work: tyro.conf.OmitArgPrefixes[WorkSettings] = WorkSettings()
    """How the work is shared out."""

    def toy_settings(self) -> list[ToySettings]:
        """Return the settings of the toy's models for each held-out set; a smaller toy scales the warm-up."""
        classes, whole = STANDARD.classes[: self.n_toy_classes], STANDARD.training
        images, epochs = self.n_train * len(classes), self.epochs
        share = Fraction(images * epochs, STANDARD.n_train * len(STANDARD.classes) * whole.epochs)
        training = replace(
            whole,
            epochs=epochs,
            batch_size=min(whole.batch_size, images),
            warmup=math.floor(whole.warmup * min(share, Fraction(1))),
            keep_checkpoints=min(whole.keep_checkpoints, epochs),
        )
        common = replace(STANDARD, n_train=self.n_train, n_test=self.n_test, classes=classes, training=training)
        return [replace(common, held_out=fold) for fold in held_out_folds(classes, self.held_out_sets)]


def main(config: Config) -> Written | None:
    """Train what is missing, evaluate, write, and print where the report is."""
    if not config.work.share_out(partial(evaluated, config), config.out / "jobs"):
        return None
    return write(config, evaluated(config, config.work.work()), domain_marks(everything(config).domains))


def evaluated(config: Config, work: Work) -> pd.DataFrame:
    """Return the accuracies of all runs, after this process's share of training and evaluating; done work is read."""
    device = work.rank.device(available_device(config.device))
    runs = toy_runs(config, work) if config.runs is None else find_runs(config.runs)
    sets = [EvaluationSet.of(test_images(config))]
    if config.imagenet is not None:
        sets.append(imagenet_validation(config.imagenet, config.imagenet_names))
    tables = [
        extract_accuracies(runs, tests, epochs=config.epochs_shown, decoding=config.decoding, device=device, work=work)
        for tests in sets
    ]
    return pd.concat(tables, ignore_index=True)


def everything(config: Config) -> DomainFolder:
    """Return the test images of all domains.

    Raises:
        InputError: For your own runs without your own test images.
    """
    if config.runs is None:
        return toy_images(config.toy, config.toy_settings()[0])
    if config.data is None:
        raise InputError("Your own runs need your own test images, but there is no --data: add --data ROOT.")
    return DomainFolder(config.data)


def test_images(config: Config) -> DomainFolder:
    """Return the test images of the domains that are tested on, and of photographs."""
    domains = tuple(dict.fromkeys([config.natural_domain, *config.test_domains]))
    return DomainFolder(everything(config).root, domains=domains)


def toy_runs(config: Config, work: Work) -> list[StudyRun]:
    """Return the toy's models, each once; train this process's share first, then the rest."""
    wanted = list(product(config.settings, config.test_domains, config.seeds, config.toy_settings()))
    training = TrainingWork(progress=work.progress)
    for setting, domain, seed, settings in work.rank.order(wanted):
        try:
            print(f"[{setting}, {domain}, seed {seed}, without {', '.join(settings.held_out)}]", flush=True)
            toy_run(config.toy, setting, domain, seed, settings, wait=False, work=training)
        except Timeout:  # another process has it
            continue
    runs = (toy_run(config.toy, *job, work=training) for job in wanted)
    return list({(run.folder, run.held_out): run for run in runs}.values())


def tables_of(config: Config, evaluated: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the tables of all runs by name; the other choice of classes stands beside if there is an upper bound."""
    classifier = config.classifier
    screened = screened_classes(evaluated, classifier)
    every, learned = kinds_of_runs(evaluated, classifier), kinds_of_runs(evaluated, classifier, screened)
    beside = {"told_apart_all": every} if config.screen else {"told_apart_screened": learned}
    return {
        "evaluation": evaluated,
        "told_apart": learned if config.screen else every,
        **({} if screened.empty else beside),
        "screened": screened,
        "settings": settings_table(evaluated, classifier, config.measure),
        "differences": paired_differences(evaluated, classifier, screened if config.screen else None),
        "measures": measures_table(evaluated),
        "robustness": effective_robustness(
            evaluated, classifier, measure=config.measure, natural=config.natural_domain
        ),
    }


def write(config: Config, evaluated: pd.DataFrame, marks: Mapping[str, Mark]) -> Written:
    """Write tables, figures and the report, and say where they are."""
    classifier, natural, tables = config.classifier, config.natural_domain, tables_of(config, evaluated)
    kinds = tables["told_apart"]
    report = Report(
        "Does CLIP generalize to unseen domains and unseen classes of a domain?",
        f"{evaluated['run'].nunique()} models were trained on mixtures of domains of one size (photographs alone: "
        "smaller) that differ in the held-out images. They classify test images of classes that they did not see in "
        "that domain (held-out), and of classes that they saw (other classes). A row averages only seeds.",
    )
    best = generalization_findings(kinds[kinds["domain"] == kinds["test_domain"]])
    report.summary([*difference_findings(tables["differences"]), *best])
    add_kinds(report, kinds, marks)
    add_screened(report, tables, config.screen)
    add_settings(report, tables["settings"], f"{config.measure}, {classifier}")
    add_differences(report, tables["differences"])
    report.section("Effective robustness")
    report.figure(
        robustness_scatter(tables["robustness"], natural),
        f"Held-out classes: accuracy in the test domain against accuracy on {natural}, every checkpoint a point, both "
        "axes in logits. The line fits models trained on photographs alone; a model above it is more robust than its "
        "accuracy on photographs predicts. If those models do not exceed guessing, there is no line.",
    )
    provenance = {
        "runs": sorted(set(evaluated["run"])),
        "classifier": classifier,
        "measure": config.measure,
        **versions(),
    }
    small = tuple(name for name in tables if name != "evaluation")
    return write_results(report, tables, config.out, config.results, provenance, small)
