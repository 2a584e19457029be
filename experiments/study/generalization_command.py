"""How and when does CLIP generalize to unseen domains, and to unseen classes of a domain? Accuracies of many runs.

Reads a folder of runs (models trained on mixtures) and writes accuracies at every checkpoint, tables and a figure that
compare settings and models for each test domain, and effective robustness. Classes that even the upper bound does not
learn are left out. With --study all held-out classes count, as in the study, and the table without such classes stands
beside. The program toy trains small models and reads them so.

The study finds that diversity helps, that an entirely unseen domain is sometimes easier than one that lacks the
classes, and that upper bounds are far away, most of all in quickdraw. Each is a row of differences.csv, with an
interval over classes: a difference of the other sign refutes it, also among held-out classes alone.

    python -m experiments.study generalization --study --runs runs/study --data DomainNet --imagenet ImageNet/val
    python -m experiments.study generalization --cluster slurm --jobs 20 ...    # the same by an array of jobs
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
    """Answer the title for every test domain and model by the best setting below the upper bounds."""
    found = []
    below = tested[~tested["setting"].str.startswith("upper")].dropna(subset="held_out")
    below = below.assign(name=run_tables.model_names(tested))
    for (domain, model), rows in below.groupby(["test_domain", "name"], sort=False):
        best = rows.sort_values("held_out").iloc[-1]
        spread = (
            f"standard deviation {best['sd']:.1%} over {best['seeds']} seeds"
            if best["seeds"] > 1
            else "one seed"
        )
        found.append(
            Finding(
                f"In {domain}{f' ({model})' if model else ''} held-out classes are recognised best with "
                f"{best['setting']}: {best['held_out']:.1%} among all classes (guessing {best['chance']:.1%}), "
                f"{best['alone']:.1%} among themselves (guessing {best['chance_alone']:.1%}).",
                f"{spread}, {best['n_classes']} held-out classes; no test over models.",
                "Another order of the settings among held-out classes alone than among all, or with more seeds.",
            )
        )
    return found


def add_accuracies(
    report: Report,
    tables: Mapping[str, pd.DataFrame],
    screen: bool,
    marks: Mapping[str, Mark],
) -> None:
    """Add the section on the kinds of accuracy, also over the other choice of classes, and on single classes."""
    report.section("Settings side by side")
    tested = in_test_domain(tables["told_apart"]).drop(columns="domain")
    add_told_apart(
        report, tested, "Accuracy in the test domain, mean over classes and seeds."
    )
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
        names = run_tables.model_names(screened)[out.index]
        model = (", " + names).where(names != "", "")
        classes = (
            out["class"]
            + " in "
            + out["test_domain"]
            + model
            + out["upper"].map(" ({:.0%})".format)
        ).tolist()
        report.text(
            f"A class is screened out if the upper bound ({run_tables.UPPER}), which saw it in the test domain, comes "
            f"less than {run_tables.SHARE:.0%} of the way from guessing to perfect accuracy on it. It is left out for "
            "models of this kind, and of kinds that have no upper bound and are most like it. Above "
            f"{'these are left out' if screen else 'all held-out classes count'}. {len(out)} of {len(screened)} are "
            f"screened out: {', '.join(classes) or 'none'}."
        )
        beside = in_test_domain(
            tables["told_apart_all" if screen else "told_apart_screened"]
        )
        add_told_apart(
            report,
            beside.drop(columns="domain"),
            f"The same {'with all' if screen else 'without these'} classes.",
        )
    tested = in_test_domain(tables["settings"]).drop(columns=["domain", "values"])
    report.table(
        tested.drop(
            columns=[name for name in run_tables.MODEL if tested[name].nunique() == 1]
        ).reset_index(drop=True),
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
    """Folder of ImageNet's validation images, <wnid>/<file>, to be classified, too."""
    imagenet_names: ImagenetNames = "open_clip"
    """Names of ImageNet's classes: those of the installed open_clip, or of the study's version of it."""
    out: Path = Path("runs/generalization")
    """Folder of the results: tables and the report."""
    results: SmallTables = None
    screen: bool = True
    """Leave out of figures and told_apart.csv, for each model, the held-out classes that its own upper bound does not
    learn; a model without one takes that of the model most like it. The other choice stands beside, in
    told_apart_all.csv or told_apart_screened.csv."""
    epochs_shown: tuple[int, ...] | None = None
    """Checkpoints to classify with (default: all that were kept); 0 is the untrained model."""
    decoding: Decoding = "upright"
    test_domains: tuple[str, ...] = ("quickdraw", "sketch")
    """Test domains: classes are held out of them."""
    natural_domain: str = "real"
    """Domain of photographs."""
    device: str = "cpu"
    """Where the model runs: cpu, cuda, mps; of several processes on a machine each takes its own GPU."""
    work: tyro.conf.OmitArgPrefixes[WorkSettings] = WorkSettings()
    """How the work is shared out."""


def main(config: Config) -> Written | None:
    """Evaluate, write, and print where the report is."""
    if not config.work.share_out(partial(evaluated, config), config.out / "jobs"):
        return None
    return write(
        config,
        evaluated(config, config.work.work()),
        domain_marks(DomainFolder(config.data).domains),
    )


def evaluated(config: Config, work: Work) -> pd.DataFrame:
    """Return the accuracies of all runs, after this process's share of evaluating; done work is read."""
    device = work.rank.device(available_device(config.device))
    runs, images = find_runs(config.runs), test_images(config)
    sets = [EvaluationSet(images, images.all_classes)]
    if config.imagenet is not None:
        sets.append(imagenet_validation(config.imagenet, config.imagenet_names))
    tables = [
        extract_accuracies(
            runs,
            tests,
            epochs=config.epochs_shown,
            decoding=config.decoding,
            device=device,
            work=work,
        )
        for tests in sets
    ]
    return pd.concat(tables, ignore_index=True)


def test_images(config: Config) -> DomainFolder:
    """Return the test images of the domains that are tested on, and of photographs."""
    domains = tuple(dict.fromkeys([config.natural_domain, *config.test_domains]))
    return DomainFolder(config.data, domains=domains)


def tables_of(config: Config, evaluated: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the tables of all runs by name; the other choice of classes stands beside if there is an upper bound."""
    screened = run_tables.screened_classes(evaluated)
    every, learned = (
        run_tables.kinds_of_runs(evaluated),
        run_tables.kinds_of_runs(evaluated, screened=screened),
    )
    beside = (
        {"told_apart_all": every} if config.screen else {"told_apart_screened": learned}
    )
    return {
        "evaluation": evaluated,
        "told_apart": learned if config.screen else every,
        **({} if screened.empty else beside),
        "screened": screened,
        "settings": run_tables.settings_table(evaluated),
        "differences": run_tables.paired_differences(
            evaluated, screened=screened if config.screen else None
        ),
        "measures": run_tables.measures_table(evaluated),
        "robustness": run_tables.effective_robustness(
            evaluated, natural=config.natural_domain
        ),
    }


def write(
    config: Config, evaluated: pd.DataFrame, marks: Mapping[str, Mark]
) -> Written:
    """Write tables, figures and the report, and say where they are."""
    tables = tables_of(config, evaluated)
    natural, kinds = config.natural_domain, tables["told_apart"]
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
        robustness_scatter(tables["robustness"], natural),
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
    small = tuple(name for name in tables if name != "evaluation")
    return write_results(report, tables, config.out, config.results, provenance, small)
