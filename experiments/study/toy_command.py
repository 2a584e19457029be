"""The study in small: does its line of argument hold on models that anyone can train? Every claim could fail.

Forty drawn things in six styles; small CLIPs (a ResNet and a transformer) on mixtures of styles, each seed with another
quarter of the classes held out of its test domain. Every model is evaluated, and what its domains share is measured by
circuits, own parts, CKA, features and embeddings. Then each claim of the study is judged over models, and whether
sharing explains accuracy on held-out pairs of class and domain.

A claim is refuted if the interval over models lies on the other side of zero; `toy_claims` says for each what that is.

    python -m experiments.study toy                                     # hours on two cores; a second call goes on
    torchrun --nproc-per-node 2 -m experiments.study toy                # the same in two processes
    python -m experiments.study toy --models rn-tiny --seeds 0 1 2 3    # other seeds of one architecture
"""

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
from experiments.study.relations import add_relations, relate_over_models
from experiments.study.setting_charts import (
    in_test_domain,
    robustness_scatter,
    settings_bars,
)
from experiments.study.sharing import (
    LABEL_FREE,
    WHOLE,
    Measured,
    SharingSettings,
    known_names,
    measure_runs,
)
from experiments.study.study_run import StudyRun
from experiments.study.toy_claims import CLAIMS, KINDS, QUICKDRAW, judged
from experiments.study.toy_models import DRAWN, SEEDS, TESTED, Toy

import numpy as np
import pandas as pd
import tyro

SHARING = SharingSettings(domains=("clipart", "real"), n_classes=6, sae_steps=100)
"""Circuits and own parts of the first six held-out classes, in three domains: they take most of the time."""


FAR = ("reach", "distance")
"""Numbers without labels of which the smaller is to pick the better model; of the others it is the larger."""


@dataclass(frozen=True)
class Config:
    """Settings of the study in small."""

    out: Path = Path("runs/toy")
    """Folder of images, models, measurements, tables and the report; what is there is reused."""
    results: SmallTables = None
    models: tuple[str, ...] = tuple(TESTED)
    """Architectures."""
    seeds: tuple[int, ...] | None = None
    """Seeds of the trainings: 0 to 3 each hold another quarter of the classes out, 4 the same as 0 (default: those of
    the architecture)."""
    n_train: int = DRAWN.n_train
    """Drawn training images of a class in a style."""
    epochs: int | None = None
    """Passes over the images (default: those of the architecture)."""
    work: tyro.conf.OmitArgPrefixes[WorkSettings] = WorkSettings()
    """How the work is shared out."""

    @property
    def toy(self) -> Toy:
        """Images and models."""
        return Toy(self.out, replace(DRAWN, n_train=self.n_train), epochs=self.epochs)


def main(config: Config) -> Written | None:
    """Train what is missing, measure, judge, write, and print where the report is."""
    if not config.work.share_out(partial(measured, config), config.out / "jobs"):
        return None
    return write(config, measured(config, config.work.work()))


def measured(config: Config, work: Work) -> Measured:
    """Return what was measured of all models, after this process's share of training and measuring."""
    runs, images = trained(config, work), config.toy.images()
    return measure_runs(
        runs,
        images,
        lambda run: TESTED[str(run.model)],
        config.out / "measured",
        SHARING,
        work=work,
    )


def trained(config: Config, work: Work) -> list[StudyRun]:
    """Return all models; train this process's share first, then what is left."""
    toy = config.toy
    wanted = [
        (model, seed, one)
        for model in config.models
        for seed in (SEEDS[model] if config.seeds is None else config.seeds)
        for one in toy.mixtures(model, seed)
    ]
    training = TrainingWork(workers=1, progress=work.progress)
    runs = dict[int, StudyRun]()
    for i in work.rank.order(range(len(wanted))):
        model, seed, mixture = wanted[i]
        try:
            print(f"[{model}, {mixture.name}, seed {seed}]", flush=True)
            runs[i] = toy.run(model, seed, mixture, wait=False, work=training)
        except BlockingIOError:  # another process has it
            continue
    return [
        runs[i] if i in runs else toy.run(*job, work=training)
        for i, job in enumerate(wanted)
    ]


def relations_of(found: Measured, seed: int = 0) -> pd.DataFrame:
    """Relate what is shared to accuracy over models, also after each seed and each held-out set is left out.

    Ranks are taken within models of one architecture in one test domain.

    Returns:
        The columns of `relate_over_models`, the range over left-out seeds (``least_seed``, ``most_seed``), and the
        jackknife interval over held-out sets (``low_set``, ``high_set``).
    """
    points = in_strata(found.points)
    names = list(known_names(points))
    table = relate_over_models(points, names, list(KINDS), "in_domain", seed=seed)
    by_seed, by_set = (
        _rho_after_leaving_out(points, names, column)
        for column in ("seed", "held_out_classes")
    )
    intervals = [
        jackknife_interval(rho, each)
        for rho, each in zip(table["rho"], by_set, strict=True)
    ]
    low, high = np.array(intervals).T
    return table.assign(
        least_seed=by_seed.min(axis=1),
        most_seed=by_seed.max(axis=1),
        low_set=np.maximum(low, -1.0),
        high_set=np.minimum(high, 1.0),
    )


def _rho_after_leaving_out(
    points: pd.DataFrame, names: list[str], column: str
) -> np.ndarray:
    """Return the correlations of `relate_over_models` (rows) after the models of each value (columns) are left out."""
    values = sorted(set(points[column]))
    left = [
        relate_over_models(points[points[column] != one], names, list(KINDS))
        for one in values
    ]
    return np.array([table["rho"].to_numpy(dtype=float) for table in left]).T


def in_strata(points: pd.DataFrame) -> pd.DataFrame:
    """Return the points with each architecture's test domains apart."""
    return points.assign(test_domain=points["model"] + " in " + points["test_domain"])


def ranking(found: Measured) -> pd.DataFrame:
    """Return how often a number that needs no label picks the better of two models, of one architecture and domain.

    Returns:
        Columns what, right (share of pairs of models), n_pairs, chance.
    """
    rows = []
    for what in (name for name in known_names(found.points) if name in LABEL_FREE):
        right, far = list[float](), what in FAR
        for _, part in found.points.groupby(["model", "test_domain"]):
            x, y = (
                part[what].to_numpy() * (-1 if far else 1),
                part["held_out"].to_numpy(),
            )
            i, j = np.triu_indices(len(part), 1)
            told = (y[i] != y[j]) & ~np.isnan(x[i] - x[j])
            right += (np.sign(x[i] - x[j]) == np.sign(y[i] - y[j]))[told].tolist()
        name = f"{LABEL_FREE[what]}, the {'smaller' if far else 'larger'}"
        rows.append((name, float(np.mean(right)) if right else np.nan, len(right), 0.5))
    return pd.DataFrame(rows, columns=["what", "right", "n_pairs", "chance"])


def over_depth(found: Measured) -> pd.DataFrame:
    """Return what quickdraw and the other domains share at each site, mean over models that saw all domains.

    Returns:
        Columns model, site, what, quickdraw, others, n_models.
    """
    runs = found.points[
        (found.points["setting"] == "cg-high")
        & (found.points["test_domain"] == QUICKDRAW)
    ]
    at = found.shared[
        found.shared["what"].isin(["cka", "overlap"]) & (found.shared["site"] != WHOLE)
    ]
    at = at[at["test_domain"] == QUICKDRAW].merge(runs[["run", "model"]])
    side = np.where(at["domain"] == QUICKDRAW, QUICKDRAW, "others")
    keys = ["model", "site", "what"]
    wide = at.assign(side=side).pivot_table(
        index=keys, columns="side", values="value", sort=False
    )
    return wide.assign(n_models=at.groupby(keys)["run"].nunique()).reset_index()


def tables_of(found: Measured) -> dict[str, pd.DataFrame]:
    """Return all tables by name."""
    screened = run_tables.screened_classes(found.evaluated)
    seeds = found.points.groupby(["model", "setting", "test_domain"])[list(KINDS)].agg(
        ["mean", "std", "min", "max"]
    )
    seeds.columns = [" ".join(names) for names in seeds.columns]
    return {
        "claims": judged(found),
        "points": found.points,
        "shared": found.shared,
        "relations": relations_of(found),
        "ranking": ranking(found),
        "told_apart": run_tables.kinds_of_runs(found.evaluated),
        "told_apart_screened": run_tables.kinds_of_runs(
            found.evaluated, screened=screened
        ),
        "screened": screened,
        "seeds": seeds.reset_index(),
        "depth": over_depth(found),
        "robustness": run_tables.effective_robustness(found.evaluated),
    }


def write(config: Config, found: Measured) -> Written:
    """Write tables, figures and the report, and say where they are."""
    tables = tables_of(found)
    marks = domain_marks(config.toy.drawn.styles)
    report = Report(
        "Does the study's line of argument hold on small models?",
        f"{found.points['run'].nunique()} models ({', '.join(config.models)}) of {len(DRAWN.classes)} drawn things.",
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
    for model in tables["told_apart"]["model"].unique():
        told, robustness = (
            tables[name][tables[name]["model"] == model]
            for name in ("told_apart", "robustness")
        )
        said = f"Accuracy of {model} in the test domain"
        report.figure(
            settings_bars(told, marks),
            f"{said} by setting, of all held-out classes; mean.",
        )
        line = "The line fits models of photographs alone."
        report.figure(
            robustness_scatter(robustness, "real"),
            f"{said} against photographs, held-out classes. {line}",
        )
    names = known_names(found.points)
    points = in_strata(found.points)
    add_relations(
        report,
        points,
        tables["relations"],
        names,
        list(KINDS),
        domain_marks(set(points["test_domain"])),
    )
    report.table(
        tables["depth"],
        "What is shared at each site: quickdraw and the mean of the other domains.",
    )
    report.table(
        tables["ranking"],
        "How often a number without labels picks the better of two models.",
    )
    provenance = {"runs": sorted(set(found.points["run"])), **versions()}
    small = tuple(name for name in tables if name != "shared")
    return write_results(
        report, tables, config.out / "results", config.results, provenance, small
    )


def claim_findings(table: pd.DataFrame) -> list[Finding]:
    """Say of each claim whether it is borne out over all models, what was measured, and what would refute it."""
    rows = table[table["models"] == "all"].drop_duplicates("claim").set_index("claim")
    said = dict(zip(rows.index, with_intervals(rows, "+.2f"), strict=True))
    of = {
        str(name): {str(column): str(value) for column, value in row.items()}
        for name, row in rows.iterrows()
    }
    return [
        Finding(
            f"{one.question} {of[one.name]['verdict'].capitalize()}.",
            f"{of[one.name]['measure']}: {said[one.name]} over {of[one.name]['n_models']} models "
            f"({of[one.name]['n_independent']} of another seed or architecture). Predicted: {one.predicts}",
            f"Refuted by: {one.refuted_by}",
        )
        for one in CLAIMS
    ]


def add_claims(report: Report, table: pd.DataFrame) -> None:
    """Add the table of all measures of all claims."""
    report.section("Claims")
    shown = table.assign(value=with_intervals(table, "+.3f")).drop(
        columns=["low", "high"]
    )
    report.table(
        shown,
        "Mean over models with Student's 95 % interval over architectures and seeds, and over held-out sets; sign: "
        "what the claim predicts.",
        formats={"p": ".2g", "p_holm": ".2g"},
    )
