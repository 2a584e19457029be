"""The study in small: does its line of argument hold on models that anyone can train? Every claim could fail.

The images are forty drawn things in six styles. Small CLIPs (a ResNet and a transformer) are trained on mixtures of
styles. Each seed holds another quarter of the classes out of its test domain. Every model is evaluated, and its domains
are compared by circuits, own parts, CKA, features and embeddings. Then each claim of the study is judged over models,
and sharing is related to accuracy on held-out pairs of a class and a domain.

A claim is refuted if the interval over models lies on the side of zero that it does not predict; `toy_claims` has the
predictions.

    python -m experiments.study toy                                     # hours on two cores; a second call goes on
    torchrun --nproc-per-node 2 -m experiments.study toy                # the same in two processes
    python -m experiments.study toy --models rn-tiny --seeds 0 1 2 3    # other seeds of one architecture
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from circuitry.runs import Work, WorkSettings, versions
from circuitry.comparison import jackknife_interval
from circuitry.data import SmallTables
from circuitry.reports import (
    Finding,
    Report,
    Written,
    add_told_apart,
    with_intervals,
    write_results,
)
from circuitry.reports.figures import domain_marks
from circuitry.training import TrainingWork
from experiments.study import run_tables
from experiments.study.claims import WHOLE
from experiments.study.relations import add_relations, relate_over_models
from experiments.study.selection import MixtureSettings
from experiments.study.setting_charts import (
    in_test_domain,
    robustness_scatter,
    settings_bars,
)
from experiments.study.sharing import (
    LABEL_FREE,
    Measured,
    SharingSettings,
    known_names,
    measure_runs,
)
from experiments.study.study_run import StudyRun
from experiments.study.toy_claims import ALL_MODELS, CLAIMS, KINDS, QUICKDRAW, judged
from experiments.study.toy_models import DRAWN, SEEDS, TESTED, Toy

import numpy as np
import pandas as pd
import tyro

SHARING = SharingSettings(domains=("clipart", "real"), n_classes=6, sae_steps=100)
"""Few classes and domains for circuits and own parts, because these take most of the time: the first six held-out
classes, in the test domain and two other domains."""


FAR = ("reach", "distance")
"""Numbers without labels whose smaller value is to pick the better model; of all other numbers the larger value is."""


@dataclass(frozen=True)
class Config:
    """Settings of the study in small."""

    out: Path = Path("runs/toy")
    """Folder of images, models, measurements, tables and the report; finished models and measurements are reused."""
    results: SmallTables = None
    models: tuple[str, ...] = tuple(TESTED)
    """Architectures."""
    seeds: tuple[int, ...] | None = None
    """Seeds of the trainings: 0 to 3 each hold another quarter of the classes out, and 4 holds out the same classes as
    0 (default: the seeds that the toy has for the architecture)."""
    n_train: int = DRAWN.n_train
    """Drawn training images of a class in a style."""
    epochs: int | None = None
    """Passes over the images (default: the number that the toy has for the architecture)."""
    work: tyro.conf.OmitArgPrefixes[WorkSettings] = WorkSettings()
    """How the work is shared out."""

    @property
    def toy(self) -> Toy:
        """Return the images and models of these settings."""
        return Toy(self.out, replace(DRAWN, n_train=self.n_train), epochs=self.epochs)


def main(config: Config) -> Written | None:
    """Train missing models, measure all models, judge the claims, and print where the report is."""
    if not config.work.share_out(partial(measured, config), config.out / "jobs"):
        return None
    return write(config, measured(config, config.work.work()))


def measured(config: Config, work: Work) -> Measured:
    """Return the measurements of all models, after this process has trained and measured its share of the models."""
    runs = trained(config, work)
    images = config.toy.images()
    return measure_runs(
        runs,
        images,
        lambda run: TESTED[str(run.model)],
        config.out / "measured",
        SHARING,
        work=work,
    )


def trained(config: Config, work: Work) -> list[StudyRun]:
    """Return all models, after training the models that are missing; this process begins with its share."""
    toy = config.toy
    wanted = list[tuple[str, int, MixtureSettings]]()
    for model in config.models:
        seeds = SEEDS[model] if config.seeds is None else config.seeds
        for seed in seeds:
            wanted += [(model, seed, mixture) for mixture in toy.mixtures(model, seed)]
    training = TrainingWork(workers=1, progress=work.progress)
    runs = dict[int, StudyRun]()
    for i in work.rank.order(range(len(wanted))):
        model, seed, mixture = wanted[i]
        print(f"[{model}, {mixture.name}, seed {seed}]", flush=True)
        # A model that another process is training is not waited for before all others are done.
        with suppress(BlockingIOError):
            runs[i] = toy.run(model, seed, mixture, wait=False, work=training)
    for i, job in enumerate(wanted):
        if i not in runs:
            runs[i] = toy.run(*job, work=training)
    # In the order of the settings, whatever the order of this process.
    return [runs[i] for i in range(len(wanted))]


def relations_of(measurements: Measured, seed: int = 0) -> pd.DataFrame:
    """Relate what is shared to accuracy over models, also after each seed and each held-out set is left out.

    Models are ranked among the models of one architecture in one test domain.

    Returns:
        The columns of `relate_over_models`, the range of the correlation after one seed is left out (``least_seed``,
        ``most_seed``), and the jackknife interval over held-out sets (``low_set``, ``high_set``).
    """
    points = in_strata(measurements.points)
    names = list(known_names(points))
    table = relate_over_models(points, names, list(KINDS), "in_domain", seed=seed)
    # [correlations, left-out values]
    by_seed = _rho_after_leaving_out(points, names, "seed")
    by_set = _rho_after_leaving_out(points, names, "held_out_classes")
    intervals = np.array(list(map(jackknife_interval, table["rho"], by_set)))
    # The jackknife's interval is symmetric, and may pass the ends of the range of a correlation.
    return table.assign(
        least_seed=by_seed.min(axis=1),
        most_seed=by_seed.max(axis=1),
        low_set=np.maximum(intervals[:, 0], -1.0),
        high_set=np.minimum(intervals[:, 1], 1.0),
    )


def _rho_after_leaving_out(
    points: pd.DataFrame, names: list[str], column: str
) -> np.ndarray:
    """Return the correlations of `relate_over_models` after the models with one value of a column are left out.

    Returns:
        Correlations [rows of `relate_over_models`, values of the column].
    """
    rhos = list[np.ndarray]()
    for value in sorted(set(points[column])):
        others = points[points[column] != value]
        table = relate_over_models(others, names, list(KINDS))
        rhos.append(table["rho"].to_numpy(dtype=float))
    return np.array(rhos).T


def in_strata(points: pd.DataFrame) -> pd.DataFrame:
    """Return the points with the architecture in front of the test domain.

    Ranks are taken within test domains, so that models of different architectures are not ranked among each other.
    """
    return points.assign(test_domain=points["model"] + " in " + points["test_domain"])


def ranking(measurements: Measured) -> pd.DataFrame:
    """Return how often a number that needs no label picks the better of two models.

    Both models are of one architecture and test domain. The better model is more accurate on held-out classes.

    Returns:
        Columns what, right (share of pairs of models), n_pairs, chance.
    """
    points = measurements.points
    rows = list[tuple[object, ...]]()
    for what in known_names(points):
        if what not in LABEL_FREE:
            continue
        sign = 1
        name = f"{LABEL_FREE[what]}, the larger"
        if what in FAR:
            sign = -1
            name = f"{LABEL_FREE[what]}, the smaller"
        right = list[bool]()
        for _, models in points.groupby(["model", "test_domain"]):
            x = sign * models[what].to_numpy()
            y = models["held_out"].to_numpy()
            # All pairs of models: differences of the number and of the accuracy.
            i, j = np.triu_indices(len(models), 1)
            dx = x[i] - x[j]
            dy = y[i] - y[j]
            # Of two equally accurate models neither is better.
            comparable = (dy != 0) & ~np.isnan(dx)
            right += (np.sign(dx) == np.sign(dy))[comparable].tolist()
        share = float(np.mean(right)) if right else np.nan
        rows.append((name, share, len(right), 0.5))
    return pd.DataFrame(rows, columns=["what", "right", "n_pairs", "chance"])


def over_depth(measurements: Measured) -> pd.DataFrame:
    """Return how much quickdraw and the other domains share at each site, mean over models that saw all domains.

    Returns:
        Columns model, site, what, quickdraw, others, n_models.
    """
    points = measurements.points
    runs = points[
        (points["setting"] == "cg-high") & (points["test_domain"] == QUICKDRAW)
    ]
    rows = measurements.shared
    rows = rows[rows["what"].isin(["cka", "overlap"]) & (rows["site"] != WHOLE)]
    rows = rows[rows["test_domain"] == QUICKDRAW].merge(runs[["run", "model"]])
    side = rows["domain"].where(rows["domain"] == QUICKDRAW, "others")
    keys = ["model", "site", "what"]
    # Unsorted, so that sites stay in the order of depth.
    wide = rows.assign(side=side).pivot_table("value", keys, "side", sort=False)
    return wide.assign(n_models=rows.groupby(keys)["run"].nunique()).reset_index()


def tables_of(measurements: Measured) -> dict[str, pd.DataFrame]:
    """Return all tables by name."""
    points = measurements.points
    evaluated = measurements.evaluated
    screened = run_tables.screened_classes(evaluated)
    by = ["model", "setting", "test_domain"]
    seeds = points.groupby(by)[list(KINDS)].agg(["mean", "std", "min", "max"])
    seeds.columns = seeds.columns.map(" ".join)
    return {
        "claims": judged(measurements),
        "points": points,
        "shared": measurements.shared,
        "relations": relations_of(measurements),
        "ranking": ranking(measurements),
        "told_apart": run_tables.kinds_of_runs(evaluated),
        "told_apart_screened": run_tables.kinds_of_runs(evaluated, screened),
        "screened": screened,
        "seeds": seeds.reset_index(),
        "depth": over_depth(measurements),
        "robustness": run_tables.effective_robustness(evaluated),
    }


def write(config: Config, measurements: Measured) -> Written:
    """Write the tables, the figures and the report, and say where they are."""
    tables = tables_of(measurements)
    marks = domain_marks(config.toy.drawn.styles)
    points = in_strata(measurements.points)
    report = Report(
        "Does the study's line of argument hold on small models?",
        f"{points['run'].nunique()} models ({', '.join(config.models)}) of {len(DRAWN.classes)} drawn things.",
    )
    report.summary(claim_findings(tables["claims"]))
    add_claims(report, tables["claims"])
    report.section("What must a model have seen?")
    add_told_apart(
        report,
        in_test_domain(tables["told_apart"]).drop(columns="domain"),
        "Accuracy in the test domain by setting.",
    )
    report.table(
        tables["seeds"],
        "Spread of models that differ in the seed and the held-out classes.",
    )
    # Each architecture has its own figures: it was tested in other domains, with another upper bound.
    for model, accuracies in tables["told_apart"].groupby("model", sort=False):
        robustness = tables["robustness"]
        robustness = robustness[robustness["model"] == model]
        said = f"Accuracy of {model} in the test domain"
        report.figure(
            settings_bars(accuracies, marks),
            f"{said} by setting, of all held-out classes; mean.",
        )
        line = "The line fits models of photographs alone."
        report.figure(
            robustness_scatter(robustness, "real"),
            f"{said} against photographs, held-out classes. {line}",
        )
    # Strata are no domains of the package, so they get marks of their own.
    strata = domain_marks(set(points["test_domain"]))
    names = known_names(points)
    add_relations(report, points, tables["relations"], names, list(KINDS), strata)
    report.table(
        tables["depth"],
        "What is shared at each site: quickdraw and the mean of the other domains.",
    )
    report.table(
        tables["ranking"],
        "How often a number without labels picks the better of two models.",
    )
    provenance = {"runs": sorted(set(points["run"])), **versions()}
    # The table of all domains and sites is large.
    small = tuple(name for name in tables if name != "shared")
    return write_results(
        report, tables, config.out / "results", config.results, provenance, small
    )


def claim_findings(table: pd.DataFrame) -> list[Finding]:
    """Say of each claim whether it is borne out over all models, by which numbers, and what would refute it."""
    rows = table[table["models"] == ALL_MODELS]
    # The first measure of a claim judges it.
    rows = rows.assign(said=with_intervals(rows, "+.2f")).drop_duplicates("claim")
    by_name = rows.set_index("claim")
    findings = list[Finding]()
    for claim in CLAIMS:
        row = by_name.loc[claim.name]
        findings.append(
            Finding(
                f"{claim.question} {row['verdict'].capitalize()}.",
                f"{row['measure']}: {row['said']} over {row['n_models']} models ({row['n_independent']} of another "
                f"seed or architecture). Predicted: {claim.predicts}",
                f"Refuted by: {claim.refuted_by}",
            )
        )
    return findings


def add_claims(report: Report, table: pd.DataFrame) -> None:
    """Add the section with the table of `judged`: all measures of all claims."""
    report.section("Claims")
    shown = table.assign(value=with_intervals(table, "+.3f"))
    report.table(
        shown.drop(columns=["low", "high"]),
        "Mean over models with Student's 95 % interval over architectures and seeds, and over held-out sets; sign: "
        "what the claim predicts.",
        formats={"p": ".2g", "p_holm": ".2g"},
    )
