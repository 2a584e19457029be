"""Which method finds circuits that work, how small, and at what cost?

Every method proposes circuits of the same sizes from the same images; each circuit is then measured on images that it
was not found on, with everything else ablated, beside its complement, random units, as many at every site, and circuits
of other classes. A method is refuted as a way to circuits of a class if its circuits of every size do no more than
random units, or no more than other classes' circuits.

The protocol, fixed before circuits on unseen images were looked at:

1. Classes: those with the most images in the domain; among equals drawn by the seed, which knows nothing of results.
2. Images of a class are ranked by the seed; circuits are found on the first half (rounded up), at most ``n_images``,
   and measured on the others, at most ``n_images``. The domain's images of other classes are ranked likewise, and every
   second one is for finding, the others for measuring, at most ``n_others`` each.
3. One grid of sizes for all methods: shares of the units that are counted, by default those that compute; readouts and
   sites that repeat another stay whole. Circuits are found with other units at their mean over the images that find
   them. Masks are trained once, from the largest size to the smallest. The size that reaches a target is the smallest
   from which on all sizes of the grid reach it; 1, the whole model, where none does.
4. Measures of several classes are pooled, with intervals over classes and images; sizes are told by their median over
   classes and by how many classes have one; methods are compared class by class.
5. Seconds are those of the processor, all threads, while operations are counted; patching and masks count in full.

    python -m experiments.study scoreboard      # the model and images of the quickstart
    python -m experiments.study scoreboard --model vit-tiny --ablations mean optimal resample ...
    python -m experiments.study scoreboard --model efficientnet-lite0 --data RealStyles --domain photo --n-judged 8
    torchrun --nproc-per-node 8 -m experiments.study scoreboard --device cuda ...
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from circuitry.runs import JobFolder, Work, WorkSettings, versions
from circuitry.circuits import Circuit
from circuitry.comparison import LEVEL
from circuitry.interventions import FaithfulnessCurve
from circuitry.reports import Finding, Report, Written, write_results
from experiments.judging.planted import (
    planted_attention,
    planted_convolution,
    score_methods,
)
from experiments.judging.scoreboard import Judged, scoreboard_tables
from experiments.study.contest import (
    FIND,
    MEASURE,
    Contest,
    ContestSettings,
    curve_file,
    files_of,
)
from experiments.study.measure_charts import QUALITY, cost_against_quality, size_curves

import numpy as np
import pandas as pd

_SIZES = (QUALITY, "size for 0.8 selectivity, kept", "size for 0.8 kl recovered, kept")
_SHOWN = (
    *_SIZES,
    "size for 0.8 selectivity, random",
    "CPR",
    "CMD",
    "rank correlation",
    "seconds",
    "GFLOP",
)
"""Rows of the summary that are columns of the table."""
_BESIDE = {
    "kept": "a circuit",
    "random": "as many random units",
    "foreign": "circuits of other classes",
}


def scoreboard_findings(tables: Mapping[str, pd.DataFrame]) -> list[Finding]:
    """Say how small circuits that work can be, by which method, and whose they are."""
    summary = tables["summary"]
    paired = tables["paired"]
    curves = tables["curves"]
    sizes = summary[summary["what"].isin(_SIZES)].assign(
        search=summary["method"] + " (" + summary["budget"] + ")"
    )
    question = "How small are circuits that work?"
    if sizes.empty:
        return [
            Finding(
                f"{question} Cannot be told: no answers are known.",
                "",
                "Images of other classes.",
            )
        ]
    findings = []
    for (baseline, metric), part in sizes.groupby(["baseline", "metric"], sort=False):
        work = part[part["what"] == _SIZES[0]].sort_values(
            ["value", "most"], kind="stable"
        )
        best = work.iloc[0]
        told = ", ".join(
            f"{row.search} {row.n_reached} of {row.n_classes}, {row.value:.0%}"
            for row in work.itertuples()
        )
        rows = curves[
            (curves["method"] == best["method"]) & (curves["budget"] == best["budget"])
        ]
        rows = rows[(rows["baseline"] == baseline) & (rows["metric"] == metric)]
        at = rows[
            np.isclose(rows["size"], nearest(rows["size"], best["value"]))
        ].set_index(["measure", "circuit"])
        shown = {
            one: at.loc[("right", one), "value"]
            for one in ("kept", "random", "foreign")
            if ("right", one) in at.index
        }
        false = at.loc[("false", "kept"), "value"]
        beside = ", ".join(
            f"{named} {shown[one]:.0%}"
            for one, named in _BESIDE.items()
            if one in shown
        )
        findings.append(
            Finding(
                f"{question} In how many classes circuits of a size of the grid work, and the median size: {told} "
                f"({baseline} ablation, {metric}).",
                f"At {at['size'].iloc[0]:.0%} {best['search']} gives the class to {beside} of its images; to "
                f"{false:.0%} of others.",
                "Other classes, sizes or ablations; another training of the model.",
            )
        )
        pairs = paired[
            (paired["baseline"] == baseline)
            & (paired["metric"] == metric)
            & (paired["what"] == _SIZES[0])
        ]
        clear = pairs[pairs["p"] < LEVEL]
        said = "; ".join(
            f"{row.a} needs {row.median:+.0%} beside {row.b} (p {row.p:.2g})"
            for row in clear.itertuples()
        )
        findings.append(
            Finding(
                f"Does one method need less than another? {'Yes' if len(clear) else 'Cannot be told'}"
                f"{': ' + said if said else ''}.",
                "Paired by class, Wilcoxon's signed-rank test; p values are not corrected for the number of pairs.",
                "More classes; another training of the model.",
            )
        )
    return findings


def nearest(grid: pd.Series, size: float) -> float:
    """Return the size of the grid that is nearest to one."""
    return float(min(grid, key=lambda one: abs(one - size)))


def add_scoreboard(report: Report, tables: Mapping[str, pd.DataFrame]) -> None:
    """Add the sections of a scoreboard, from its tables."""
    summary = with_settings(tables["summary"])
    report.section("What does a circuit cost, and how small can it be?")
    report.figure(
        cost_against_quality(summary),
        "Processor seconds for one circuit, and the smallest share of units that works from that size on, on images "
        "that the circuit was not found on: median over classes, from the least to the most; 100 % where no size of "
        "the grid works. Hollow: as many random units at every site.",
    )
    shown = summary[summary["what"].isin(_SHOWN)]
    reached = (
        " ("
        + shown["n_reached"].astype(str)
        + " of "
        + shown["n_classes"].astype(str)
        + ")"
    )
    cell = shown["value"].map("{:.2f}".format) + reached.where(
        shown["what"].str.startswith("size"), ""
    )
    wide = shown.assign(cell=cell).pivot(
        index=["setting", "method"], columns="what", values="cell"
    )
    report.table(
        wide.reindex(columns=list(_SHOWN)).rename_axis(columns=None).reset_index(),
        "Each method, medians over classes; of sizes in brackets how many classes have one below 100 %. CPR: area "
        "under faithfulness; CMD: area of |1 - faithfulness|. Rank correlation: of the ranking with exact patching.",
    )
    report.table(
        tables["paired"], "How the sizes of two methods differ, class by class."
    )
    report.section("How well do circuits of each size work?")
    curves = with_settings(tables["curves"])
    for measure in ("right", "false", "kl recovered", "selectivity"):
        for setting in dict.fromkeys(curves["setting"]):
            part = curves[
                (curves["measure"] == measure) & (curves["setting"] == setting)
            ]
            if part["value"].notna().any():
                report.figure(
                    size_curves(part, measure, f"{measure}, {setting}"),
                    f"{setting}: {measure} over size.",
                )
    report.section("Do the methods find what was planted?")
    planted = tables["planted"].pivot(
        index="method", columns=["network", "kind", "site"], values="auroc"
    )
    report.table(
        planted.set_axis(planted.columns.map(" ".join), axis=1).reset_index(),
        "Area under the ROC curve of finding the planted units and edges (into the site), site by site; 0.5 is chance.",
    )


def with_settings(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with a column ``setting``: ablation, metric and, where there are several, budget in words.

    Masks have counts of their own, and are in the setting of every budget.
    """
    named = table.assign(setting=table["baseline"] + " ablation, " + table["metric"])
    own = named["budget"] == named["method"]
    budgets = named.loc[~own, "budget"].unique()
    if len(budgets) < 2:
        return named
    parts = {budget: named[own | (named["budget"] == budget)] for budget in budgets}
    parts = {
        budget: part.assign(setting=part["setting"] + f", budget {budget}")
        for budget, part in parts.items()
    }
    several: pd.DataFrame = pd.concat(parts.values())
    return several


FORMAT = "circuitry scoreboard 4"
TARGETS = (
    0.5,
    0.8,
)
"""The smallest size that reaches this selectivity, or share of KL recovered, is sought."""


@dataclass(frozen=True)
class Config(ContestSettings, WorkSettings):
    """Where the scoreboard goes."""

    out: Path = Path("runs/scoreboard")
    """Folder of the results: circuits, curves, tables and the report."""
    results: Path | None = None
    """Also write the small tables and their provenance here, where the figures read them."""


def main(config: Config) -> Written | None:
    """Hold the contest, and write the report."""
    if not config.share_out(partial(hold, config), config.out / "logs"):
        return None
    contest = Contest(config)
    tables = read_tables(contest, config)
    report = Report(
        f"Which circuits of {contest.clip.name} recover the answer?",
        f"{len(contest.classes)} classes in {config.domain}: {', '.join(contest.classes)}. Sizes are shares of "
        f"{tables['curves']['counted'].iloc[0]}; all other sites stay whole.",
    )
    report.summary(scoreboard_findings(tables))
    add_scoreboard(report, tables)
    return write_results(
        report, tables, config.out, config.results, contest.provenance() | versions()
    )


def folder_of(contest: Contest, out: Path) -> JobFolder:
    """Return the folder of all jobs: to find the circuits of each class, and to measure them."""
    jobs = [(step, name) for step in (FIND, MEASURE) for name in contest.classes]
    return JobFolder(
        out / "jobs", FORMAT, contest.provenance(), jobs, contest.listings()
    )


def hold(config: Config, work: Work) -> None:
    """Do one process's share of the jobs."""
    contest = Contest(config, work.rank)
    folder = folder_of(contest, config.out)
    for step in (
        FIND,
        MEASURE,
    ):  # circuits of all classes are measured on each class's images
        folder.run(
            lambda job, images: contest.do(job, images, folder.path, work),
            prepare=lambda job: contest.read(job[1]),
            rank=work.rank,
            only=[job for job in folder.jobs if job[0] == step],
            progress=work.bar("scoreboard"),
        )


def read_tables(contest: Contest, config: Config) -> dict[str, pd.DataFrame]:
    """Return the tables of what all jobs left, and how well methods find what was planted."""
    folder = folder_of(contest, config.out)
    judged = dict[tuple[str, ...], Judged]()
    for name in contest.classes:
        for contestant in contest.contestants:
            first, *_, cost = files_of(folder.path, name, contestant, len(config.sizes))
            graph = Circuit.load(first).source
            paid = json.loads(cost.read_text())
            for ablation in config.ablations:
                curve = FaithfulnessCurve.load(
                    curve_file(folder.path, name, contestant, ablation)
                )
                judged[(name, *contestant, ablation, config.metric)] = Judged(
                    curve, graph, **paid
                )
    units = {
        site: len(scores)
        for site, scores in next(iter(judged.values())).graph.node_scores.items()
    }
    counted = f"{sum(units.values())} units at {len(units)} sites"
    planted = pd.concat(
        [score_methods(planted_convolution()), score_methods(planted_attention())],
        ignore_index=True,
    )
    return {
        **scoreboard_tables(judged, config.sizes, TARGETS, counted),
        "planted": planted,
    }
