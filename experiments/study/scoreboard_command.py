"""Which method finds circuits that work, how small, and at what cost?

Every method proposes circuits of the same sizes from the same images. Each circuit is then measured on images that were
not used to find it, with all other units ablated. It is compared with its complement, with as many random units at
every site, and with circuits of other classes. The claim that a method finds circuits of a class is refuted if its
circuits of every size do no more than random units, or no more than circuits of other classes.

The protocol was fixed before circuits were looked at on unseen images:

1. Classes: the classes with the most images in the domain. Among classes with equally many images the seed draws, which
   knows nothing of results.
2. Images of a class are ranked by the seed. The first half (rounded up), at most ``n_images``, is used to find
   circuits. The second half, at most ``n_images``, is used to measure them. The domain's images of other classes are
   ranked in the same way and used to find and to measure by turns, at most ``n_others`` each.
3. All methods have one grid of sizes. A size is a share of the units that are counted, by default the units that
   compute. Readouts, and sites that repeat another site, stay whole. While a circuit is sought, all other units are at
   their mean over the images used to find it. Masks are trained once, from the largest size to the smallest. The size
   that reaches a target is the smallest size of the grid from which on all sizes reach it. It is 1, the whole model, if
   no size reaches the target.
4. Measures of several classes are pooled, with intervals over classes and images. Sizes are reported by their median
   over classes and by the number of classes in which a size reaches the target. Methods are compared class by class.
5. Seconds are processor seconds of all threads, measured while operations are counted. Patching and the training of
   masks count in full.

    python -m experiments.study scoreboard      # the model and images of the quickstart
    python -m experiments.study scoreboard --model vit-tiny --ablations mean optimal resample ...
    python -m experiments.study scoreboard --model efficientnet-lite0 --data RealStyles --domain photo --n-judged 8
    torchrun --nproc-per-node 8 -m experiments.study scoreboard --device cuda ...
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
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
_CIRCUITS = {
    "kept": "a circuit",
    "random": "as many random units",
    "foreign": "circuits of other classes",
}
"""Kinds of circuits that are compared, in words."""


def scoreboard_findings(tables: Mapping[str, pd.DataFrame]) -> list[Finding]:
    """Say how small circuits that work can be, which method needs fewer units, and whether random units do as well.

    Args:
        tables: The tables ``summary``, ``paired`` and ``curves`` of `scoreboard_tables`.
    """
    question = "How small are circuits that work?"
    summary = tables["summary"]
    sizes = summary[summary["what"].isin(_SIZES)]
    if sizes.empty:
        unknown = f"{question} Cannot be told: no answers are known."
        return [Finding(unknown, "", "Images of other classes.")]
    findings = []
    for (baseline, metric), rows in sizes.groupby(["baseline", "metric"], sort=False):
        # Of methods with one median the better one has the smaller size in its worst class.
        work = rows[rows["what"] == QUALITY].sort_values(
            ["value", "most"], kind="stable"
        )
        best = work.iloc[0]
        told = ", ".join(
            f"{row.method} ({row.budget}) {row.n_reached} of {row.n_classes}, {row.value:.0%}"
            for row in work.itertuples()
        )
        search = ["method", "budget", "baseline", "metric"]
        curves = tables["curves"].merge(best[search].to_frame().T, on=search)
        # A median over classes may lie between two sizes of the grid.
        size = nearest(curves["size"], best["value"])
        at = curves[np.isclose(curves["size"], size)]
        values = at.set_index(["measure", "circuit"])["value"]
        beside = ", ".join(
            f"{words} {values['right', circuit]:.0%}"
            for circuit, words in _CIRCUITS.items()
            if ("right", circuit) in values
        )
        findings.append(
            Finding(
                f"{question} In how many classes circuits of a size of the grid work, and the median size: {told} "
                f"({baseline} ablation, {metric}).",
                f"At {at['size'].iloc[0]:.0%} {best['method']} ({best['budget']}) gives the class to {beside} of its "
                f"images; to {values['false', 'kept']:.0%} of others.",
                "Other classes, sizes or ablations; another training of the model.",
            )
        )
        pairs = tables["paired"].query("baseline == @baseline and metric == @metric")
        clear = pairs[(pairs["what"] == QUALITY) & (pairs["p"] < LEVEL)]
        said = "; ".join(
            f"{row.a} needs {row.median:+.0%} beside {row.b} (p {row.p:.2g})"
            for row in clear.itertuples()
        )
        answer = f"Yes: {said}" if said else "Cannot be told"
        findings.append(
            Finding(
                f"Does one method need less than another? {answer}.",
                "Paired by class, Wilcoxon's signed-rank test; p values are not corrected for the number of pairs.",
                "More classes; another training of the model.",
            )
        )
    return findings


def nearest(grid: pd.Series, size: float) -> float:
    """Return the size of a grid that is nearest to a size; of two equally near sizes, the first."""
    return float(min(grid, key=lambda candidate: abs(candidate - size)))


def add_scoreboard(report: Report, tables: Mapping[str, pd.DataFrame]) -> None:
    """Add the sections of a scoreboard, from the tables of `read_tables`."""
    summary = with_settings(tables["summary"])
    report.section("What does a circuit cost, and how small can it be?")
    report.figure(
        cost_against_quality(summary),
        "Processor seconds for one circuit, and the smallest share of units that works from that size on, on images "
        "that the circuit was not found on: median over classes, from the least to the most; 100 % where no size of "
        "the grid works. Hollow: as many random units at every site.",
    )
    shown = summary[summary["what"].isin(_SHOWN)]
    counts = shown["n_reached"].astype(str) + " of " + shown["n_classes"].astype(str)
    # Counts matter for sizes alone: in a class without a size that reaches the target the size is 1.
    reached = (" (" + counts + ")").where(shown["what"].str.startswith("size"), "")
    cells = shown.assign(cell=shown["value"].map("{:.2f}".format) + reached)
    wide = cells.pivot(index=["setting", "method"], columns="what", values="cell")
    report.table(
        wide.reindex(columns=_SHOWN).rename_axis(columns=None).reset_index(),
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
            rows = curves[
                (curves["measure"] == measure) & (curves["setting"] == setting)
            ]
            # A measure may be unknown at all sizes, such as every share of answers without images of other classes.
            if rows["value"].notna().any():
                report.figure(
                    size_curves(rows, measure, f"{measure}, {setting}"),
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
    """Return a table with the column ``setting``: the ablation, the metric and, if there are several, the budget.

    Masks have their own numbers of units at each site, without a budget. Their rows are repeated for every budget.
    """
    named = table.assign(setting=table["baseline"] + " ablation, " + table["metric"])
    # A method without a budget has its own name in this column.
    without = named["budget"] == named["method"]
    budgets = named.loc[~without, "budget"].unique()
    if len(budgets) < 2:
        return named
    tables = list[pd.DataFrame]()
    for budget in budgets:
        rows = named[without | (named["budget"] == budget)]
        tables.append(rows.assign(setting=rows["setting"] + f", budget {budget}"))
    return pd.concat(tables)


FORMAT = "circuitry scoreboard 4"
TARGETS = (
    0.5,
    0.8,
)
"""Targets of selectivity and of the share of KL recovered; the smallest size that reaches each target is sought."""


@dataclass(frozen=True)
class Config(ContestSettings, WorkSettings):
    """Settings of the scoreboard: its contest, how the work is shared out, and where results are written."""

    out: Path = Path("runs/scoreboard")
    """Folder of the results: circuits, curves, tables and the report."""
    results: Path | None = None
    """Folder into which the small tables and their provenance are also written, where the figures read them."""


def main(config: Config) -> Written | None:
    """Find and measure all circuits, and write the report; print where it is."""
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
    """Return the folder of all jobs: two for each class, one to find its circuits and one to measure circuits."""
    jobs = [(step, name) for step in (FIND, MEASURE) for name in contest.classes]
    return JobFolder(
        out / "jobs", FORMAT, contest.provenance(), jobs, contest.listings()
    )


def hold(config: Config, work: Work) -> None:
    """Do one process's share of the jobs."""
    contest = Contest(config, work.rank)
    folder = folder_of(contest, config.out)
    # Circuits of all classes are measured on the images of each class, so all must be found first.
    for step in (FIND, MEASURE):
        folder.run(
            lambda job, images: contest.do(job, images, folder.path, work),
            prepare=lambda job: contest.read(job[1]),
            rank=work.rank,
            only=[job for job in folder.jobs if job[0] == step],
            progress=work.bar("scoreboard"),
        )


def read_tables(contest: Contest, config: Config) -> dict[str, pd.DataFrame]:
    """Return `scoreboard_tables` of the files of all jobs, and the table ``planted``.

    The latter says how well the methods find planted circuits, whose units and edges are known.
    """
    folder = folder_of(contest, config.out)
    judged = dict[tuple[str, ...], Judged]()
    for name, contestant in product(contest.classes, contest.contestants):
        # All circuits of a contestant come from one graph, so the first one gives it.
        first, *_, cost = files_of(folder.path, name, contestant, len(config.sizes))
        graph = Circuit.load(first).source
        paid = json.loads(cost.read_text())
        for ablation in config.ablations:
            path = curve_file(folder.path, name, contestant, ablation)
            key = (name, *contestant, ablation, config.metric)
            judged[key] = Judged(FaithfulnessCurve.load(path), graph, **paid)
    # Every graph has the same sites and units.
    scores = next(iter(judged.values())).graph.node_scores
    counted = f"{sum(map(len, scores.values()))} units at {len(scores)} sites"
    planted = pd.concat(
        [score_methods(planted_convolution()), score_methods(planted_attention())],
        ignore_index=True,
    )
    return {
        **scoreboard_tables(judged, config.sizes, TARGETS, counted),
        "planted": planted,
    }
