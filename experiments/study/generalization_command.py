"""How and when does CLIP generalize to unseen domains, and to unseen classes of a domain? Accuracies of many runs.

The program reads a folder of runs, which are models trained on mixtures of domains. It writes the accuracies at every
checkpoint, tables and a figure that compare settings and models in each test domain, and effective robustness. Held-out
classes are screened out if even the upper bound, which saw them in the test domain, does not learn them. With --study
all held-out classes count, as in the study, and a second table is without the screened classes. The program toy trains
small models and evaluates them in the same way.

The study finds that diversity helps, that a domain without any training images is sometimes easier than a domain
without images of the held-out classes, and that upper bounds are far away, most of all in quickdraw. Each finding is a
row of differences.csv, with an interval over classes. A difference of the other sign refutes the finding, also if the
model chooses among held-out classes alone.

    python -m experiments.study generalization --study --runs runs/study --data DomainNet --imagenet ImageNet/val
    python -m experiments.study generalization --cluster slurm --jobs 20 ...    # the same by an array of jobs
    python -m experiments.study generalization --no-tables --runs runs/study/a ...    # only classify, one model
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from circuitry.runs import Work, WorkSettings, versions
from circuitry import DomainFolder
from circuitry.data import Decoding, SmallTables
from circuitry.reports import Finding, Report, Written, add_told_apart, write_results
from circuitry.reports.figures import Mark, domain_marks
from circuitry.training import CLASSIFIER, MEASURE, available_device
from experiments.study import run_tables
from experiments.study.checkpoint_accuracy import (
    EvaluationSet,
    extract_accuracies,
    imagenet_validation,
)
from experiments.study.selection import ImagenetNames
from experiments.study.setting_charts import (
    in_test_domain,
    robustness_scatter,
    settings_bars,
)
from experiments.study.study_run import find_runs

import pandas as pd
import tyro


def generalization_findings(tested: pd.DataFrame) -> list[Finding]:
    """Return a finding for every test domain and model: its best setting, among the settings that are no upper bounds.

    Args:
        tested: Accuracies in the test domain: a row for each test domain, model and setting.
    """
    findings = []
    # Upper bounds saw the held-out classes, so they do not generalize.
    below = tested[~tested["setting"].str.startswith("upper")].dropna(subset="held_out")
    below = below.assign(name=run_tables.model_names(tested))
    for (domain, model), rows in below.groupby(["test_domain", "name"], sort=False):
        best = rows.sort_values("held_out").iloc[-1]
        spread = "one seed"
        if best["seeds"] > 1:
            spread = f"standard deviation {best['sd']:.1%} over {best['seeds']} seeds"
        # Models have a name only if the table has several.
        of_model = f" ({model})" if model else ""
        findings.append(
            Finding(
                f"In {domain}{of_model} held-out classes are recognised best with "
                f"{best['setting']}: {best['held_out']:.1%} among all classes (guessing {best['chance']:.1%}), "
                f"{best['alone']:.1%} among themselves (guessing {best['chance_alone']:.1%}).",
                f"{spread}, {best['n_classes']} held-out classes; no test over models.",
                "Another order of the settings among held-out classes alone than among all, or with more seeds.",
            )
        )
    return findings


def add_accuracies(
    report: Report,
    tables: Mapping[str, pd.DataFrame],
    screen: bool,
    marks: Mapping[str, Mark],
) -> None:
    """Add the section on accuracies: by setting, by setting with the other choice of classes, and by class.

    Args:
        report: The report.
        tables: The tables of `tables_of`.
        screen: True if the table ``told_apart`` is without the screened classes.
        marks: Looks of domains.
    """
    report.section("Settings side by side")
    tested = in_test_domain(tables["told_apart"]).drop(columns="domain")
    add_told_apart(
        report, tested, "Accuracy in the test domain, mean over classes and seeds."
    )
    # All rows of test images choose among the same classes, so that they have one chance level.
    chance = tables["told_apart"]["chance"].iloc[0]
    bars = settings_bars(tables["told_apart"], marks)
    report.figure(
        bars,
        f"Accuracy in the test domain by setting. Guessing would reach {chance:.1%}.",
    )
    screened = tables["screened"]
    if screened.empty:
        report.text(
            f"There are no models of the upper bound ({run_tables.UPPER}): no class was screened."
        )
    else:
        out = screened[~screened["kept"]]
        # Names of models over the whole table: of the screened classes alone some models may be absent.
        names = run_tables.model_names(screened)[out.index]
        model = (", " + names).where(names != "", "")
        upper = out["upper"].map(" ({:.0%})".format)
        classes = out["class"] + " in " + out["test_domain"] + model + upper
        above = "these are left out" if screen else "all held-out classes count"
        report.text(
            f"A class is screened out if the upper bound ({run_tables.UPPER}), which saw it in the test domain, comes "
            f"less than {run_tables.SHARE:.0%} of the way from guessing to perfect accuracy on it. It is left out for "
            "models of this kind, and of kinds that have no upper bound and are most like it. Above "
            f"{above}. {len(out)} of {len(screened)} are screened out: {', '.join(classes) or 'none'}."
        )
        if screen:
            other = tables["told_apart_all"]
            caption = "The same with all classes."
        else:
            other = tables["told_apart_screened"]
            caption = "The same without these classes."
        add_told_apart(report, in_test_domain(other).drop(columns="domain"), caption)
    tested = in_test_domain(tables["settings"]).drop(columns=["domain", "values"])
    # A column that all models share says nothing.
    equal = [name for name in run_tables.MODEL if tested[name].nunique() == 1]
    report.table(
        tested.drop(columns=equal).reset_index(drop=True),
        "Accuracy in the test domain, mean and standard deviation over seeds, each held-out set and class apart.",
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the study of generalization."""

    runs: Path
    """Folder of the runs."""
    data: Path
    """Folder of the test images: <domain>/<class>/<file>."""
    imagenet: Path | None = None
    """Folder of ImageNet's validation images, <wnid>/<file>, which are then classified, too."""
    imagenet_names: ImagenetNames = "open_clip"
    """Names of ImageNet's classes: the names of the installed open_clip, or of the version that the study had."""
    out: Path = Path("runs/generalization")
    """Folder of the results: tables and the report."""
    results: SmallTables = None
    screen: bool = True
    """True: figures and told_apart.csv are, for each model, without the held-out classes that its upper bound does not
    learn. A model without an upper bound has the upper bound of the model that is most like it. The other choice of
    classes is written to told_apart_all.csv (True) or to told_apart_screened.csv (False)."""
    epochs_shown: tuple[int, ...] | None = None
    """Epochs of the checkpoints that classify (default: all checkpoints that were kept); 0 is the untrained model."""
    decoding: Decoding = "upright"
    test_domains: tuple[str, ...] = ("quickdraw", "sketch")
    """Test domains, from which classes were held out."""
    natural_domain: str = "real"
    """Domain of photographs."""
    device: str = "cpu"
    """Where the model runs: cpu, cuda, mps. If several processes work on a machine, each takes its own GPU."""
    tables: bool = True
    """False: only classify images, and keep the accuracies in the folders of the runs. So models can be evaluated one
    by one, as soon as each is trained, and the tables of all models come last."""
    work: tyro.conf.OmitArgPrefixes[WorkSettings] = WorkSettings()
    """How several processes share the work."""


def main(config: Config) -> Written | None:
    """Evaluate all runs, write the results, and print where the report is.

    Returns:
        What was written, or None without tables, and in a process that only shares the work.
    """
    first = config.work.share_out(partial(evaluated, config), config.out / "jobs")
    if not (first and config.tables):
        return None
    # Marks of all domains of the data, so that a domain looks the same in figures of other test domains.
    marks = domain_marks(DomainFolder(config.data).domains)
    return write(config, evaluated(config, config.work.work()), marks)


def evaluated(config: Config, work: Work) -> pd.DataFrame:
    """Return the accuracies of all runs.

    The process does its share of the evaluations. Finished work is read from files.
    """
    device = work.rank.device(available_device(config.device))
    runs = find_runs(config.runs)
    images = test_images(config)
    sets = [EvaluationSet(images, images.all_classes)]
    if config.imagenet is not None:
        sets.append(imagenet_validation(config.imagenet, config.imagenet_names))
    tables = []
    for tests in sets:
        accuracies = extract_accuracies(
            runs,
            tests,
            epochs=config.epochs_shown,
            decoding=config.decoding,
            device=device,
            work=work,
        )
        tables.append(accuracies)
    return pd.concat(tables, ignore_index=True)


def test_images(config: Config) -> DomainFolder:
    """Return the images of the test domains and of the domain of photographs."""
    # Photographs may be a test domain, too: each domain is named once.
    domains = tuple(dict.fromkeys([config.natural_domain, *config.test_domains]))
    return DomainFolder(config.data, domains=domains)


def tables_of(config: Config, evaluated: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return a dictionary from the name of each table to the table, computed from the accuracies of all runs."""
    screened = run_tables.screened_classes(evaluated)
    every = run_tables.kinds_of_runs(evaluated)
    learned = run_tables.kinds_of_runs(evaluated, screened=screened)
    removed = screened if config.screen else None
    kinds = {"told_apart": learned if config.screen else every}
    # Without an upper bound no class is screened out, and both choices are the same.
    if not screened.empty and config.screen:
        kinds["told_apart_all"] = every
    elif not screened.empty:
        kinds["told_apart_screened"] = learned
    natural = config.natural_domain
    return {
        "evaluation": evaluated,
        **kinds,
        "screened": screened,
        "settings": run_tables.settings_table(evaluated),
        "differences": run_tables.paired_differences(evaluated, screened=removed),
        "measures": run_tables.measures_table(evaluated),
        "robustness": run_tables.effective_robustness(evaluated, natural=natural),
    }


def write(
    config: Config, evaluated: pd.DataFrame, marks: Mapping[str, Mark]
) -> Written:
    """Write the tables, figures and the report of the accuracies, and return where they are."""
    tables = tables_of(config, evaluated)
    natural = config.natural_domain
    kinds = tables["told_apart"]
    report = Report(
        "Does CLIP generalize to unseen domains and unseen classes of a domain?",
        f"{evaluated['run'].nunique()} models were trained on mixtures of domains of one size (photographs alone: "
        "smaller) that differ in the held-out images. They classify test images of classes that they did not see in "
        "that domain (held-out), and of classes that they saw (other classes). A row averages only seeds.",
    )
    best = generalization_findings(in_test_domain(kinds))
    report.summary([*run_tables.difference_findings(tables["differences"]), *best])
    add_accuracies(report, tables, config.screen, marks)
    run_tables.add_differences(report, tables["differences"])
    report.section("Effective robustness")
    report.figure(
        robustness_scatter(tables["robustness"]),
        f"Held-out classes: accuracy in the test domain against accuracy on {natural}, every checkpoint a point, both "
        "axes in logits. The line fits models trained on photographs alone; a model above it is more robust than its "
        "accuracy on photographs predicts. If those models do not exceed guessing, there is no line.",
    )
    provenance = {
        "runs": sorted(set(evaluated["run"])),
        "classifier": CLASSIFIER,
        "measure": MEASURE,
        **versions(),
    }
    # The accuracies of every checkpoint are too many to be committed.
    small = tuple(name for name in tables if name != "evaluation")
    return write_results(report, tables, config.out, config.results, provenance, small)
