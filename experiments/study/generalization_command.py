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

from circuitry.runs import Count, Work, WorkSettings, versions
from circuitry import DomainFolder
from circuitry.data import Decoding
from circuitry.reports import Finding, Report, Written, add_told_apart, write_results
from circuitry.reports.figures import Mark, domain_marks
from circuitry.training import MEASURE, TrainingWork, available_device
from experiments.study.checkpoint_accuracy import EvaluationSet, extract_accuracies, imagenet_validation
from experiments.study.run_tables import (
    MODEL,
    SHARE,
    UPPER,
    add_differences,
    difference_findings,
    effective_robustness,
    kinds_of_runs,
    measures_table,
    model_names,
    paired_differences,
    screened_classes,
    settings_table,
)
from experiments.study.selection import ImagenetNames, Setting
from experiments.study.setting_charts import robustness_scatter, settings_bars
from experiments.study.study_run import STANDARD, StudyRun, ToySettings, find_runs, held_out_folds, toy_images, toy_run

import pandas as pd
import tyro
from filelock import Timeout


def generalization_findings(tested: pd.DataFrame) -> list[Finding]:
    """Answer the title for every test domain and model by the best setting below the upper bounds."""
    found = []
    for (domain, model), rows in tested.assign(model=model_names(tested)).groupby(["test_domain", "model"], sort=False):
        short = rows[~rows["setting"].str.startswith("upper")].dropna(subset="held_out")
        if short.empty:
            continue
        best = short.sort_values("held_out").iloc[-1]
        bound = rows.loc[rows["setting"] == UPPER, "held_out"]
        above = f"; the upper bound reaches {bound.iloc[0]:.1%}" if len(bound) else ""
        spread = f"standard deviation {best['sd']:.1%} over {best['seeds']} seeds" if best["seeds"] > 1 else "one seed"
        found.append(
            Finding(
                f"In {domain}{f' ({model})' if model else ''} held-out classes are recognised best with "
                f"{best['setting']}: {best['held_out']:.1%} among all classes (guessing {best['chance']:.1%}), "
                f"{best['alone']:.1%} among themselves (guessing {best['chance_alone']:.1%}){above}.",
                f"{spread}, {best['n_classes']} held-out classes; no test over models.",
                "Another order of the settings among held-out classes alone than among all, or with more seeds.",
            )
        )
    return found


def add_kinds(report: Report, kinds: pd.DataFrame, marks: Mapping[str, Mark]) -> None:
    """Add the section on the kinds of accuracy."""
    report.section("Settings side by side")
    tested = kinds[kinds["domain"] == kinds["test_domain"]]
    add_told_apart(report, tested.drop(columns="domain"), "Accuracy in the test domain, mean over classes and seeds.")
    report.figure(settings_bars(kinds, marks=marks), _in_words(tested))


def add_screened(report: Report, tables: Mapping[str, pd.DataFrame], screen: bool) -> None:
    """Say which classes the upper bound learns, and add the accuracies over the other choice of classes."""
    screened = tables["screened"]
    if screened.empty:
        report.text(f"There are no models of the upper bound ({UPPER}): no class was screened.")
        return
    out = screened[~screened["kept"]]
    classes = [f"{row['class']} in {row['test_domain']} ({row['upper']:.0%})" for _, row in out.iterrows()]
    report.text(
        f"A class is screened out if the upper bound ({UPPER}), which saw it in the test domain, comes less than "
        f"{SHARE:.0%} of the way from guessing to perfect accuracy on it; such a class is near zero in every setting. "
        f"Above {'they are left out' if screen else 'all held-out classes count'}. {len(out)} of {len(screened)} are "
        f"screened out: {', '.join(classes) or 'none'}."
    )
    beside = tables["told_apart_all" if screen else "told_apart_screened"]
    tested = beside[beside["domain"] == beside["test_domain"]].drop(columns="domain")
    add_told_apart(report, tested, f"The same {'with all' if screen else 'without these'} classes.")


def add_settings(report: Report, table: pd.DataFrame, what: str) -> None:
    """Add the tables over settings, each held-out set apart, and the held-out classes one by one."""
    tested = table[table["domain"] == table["test_domain"]].drop(columns=["domain", "values"])
    tested = tested.drop(columns=[name for name in MODEL if tested[name].nunique() == 1])
    parts = tested["part"].isin(["all", "seen", "held-out"])
    report.table(
        tested[parts].reset_index(drop=True),
        f"Accuracy in the test domain ({what}), mean and standard deviation over seeds, each held-out set apart.",
    )
    if not parts.all():
        by = [name for name in ("test_domain", *MODEL, "setting") if name in tested]
        classes = tested[~parts].set_index([*by, "part"])["mean"].unstack(sort=False)
        report.table(classes.reset_index(), "The held-out classes one by one, mean over seeds.")


def _in_words(tested: pd.DataFrame) -> str:
    """Say what the bars show: held-out classes, setting by setting."""
    words = [f"Guessing would reach {tested['chance'].iloc[0]:.1%}."]
    for (domain, model), rows in tested.assign(model=model_names(tested)).groupby(["test_domain", "model"], sort=False):
        among = ", ".join(
            f"{row.setting} {row.held_out:.1%} (alone {row.alone:.1%})" for row in rows.itertuples(index=False)
        )
        words.append(f"Held-out classes in {domain}{f' ({model})' if model else ''}: {among}.")
    return " ".join(words)


ALL_CLASSES = len(STANDARD.classes)  # how many classes the toy has


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
    images = test_images(config)
    sets = [EvaluationSet(images, images.all_classes)]
    if config.imagenet is not None:
        sets.append(imagenet_validation(config.imagenet, config.imagenet_names))
    tables = [
        extract_accuracies(runs, tests, epochs=config.epochs_shown, decoding=config.decoding, device=device, work=work)
        for tests in sets
    ]
    return pd.concat(tables, ignore_index=True)


def everything(config: Config) -> DomainFolder:
    """Return the test images of all domains."""
    if config.runs is None:
        return toy_images(config.toy, config.toy_settings()[0])
    assert config.data is not None  # it is needed with --runs
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
