"""Which method finds circuits that recover the answer, how small, and at what cost?

Every method proposes circuits of the same sizes from the same images, by each budget (how a size is shared out over the
sites); each circuit is then measured on images that it was not found on, with everything else ablated, beside its
complement and random units, as many at every site. A method is refuted as a way to circuits that tell a class from
others if its circuits of every size reach no more selectivity than random units, however faithful they are.

The protocol, fixed before selectivity on unseen images was looked at:

1. Classes: those with the most images in the domain; among equals drawn by the seed, which knows nothing of results.
2. Images of a class are ranked by the seed; circuits are found on the first half (rounded up), at most ``n_images``,
   and measured on the others, at most ``n_images``. The domain's images of other classes are ranked likewise, and every
   second one is for finding, the others for measuring, at most ``n_others`` each.
3. One grid of sizes for all methods: shares of the units that are counted, by default those that compute; readouts and
   sites that repeat another stay whole. Other units are at their mean over the images that circuits are found on. Masks
   are trained once, from the largest size to the smallest. The size that reaches a target is the smallest from which on
   all sizes of the grid reach it; 1, the whole model, where none does or the model has no selectivity on those images.
4. All numbers are made class by class; tables have means over classes with Student's 95 % intervals.
5. Seconds are those of the processor, all threads, while operations are counted; patching and masks count in full.

    python -m experiments.study scoreboard      # the model and images of the quickstart
    python -m experiments.study scoreboard --units components --model vit-tiny --checkpoint runs/vit/epoch_40.pt ...
    python -m experiments.study scoreboard --model efficientnet-lite0 --data RealStyles --domain photo --n-judged 8
    torchrun --nproc-per-node 8 -m experiments.study scoreboard --device cuda ...
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from circuitry.runs import JobFolder, Work, WorkSettings, versions
from circuitry.circuits import AttributionGraph
from circuitry.interventions import FaithfulnessCurve
from circuitry.judging import Judged, planted_attention, planted_convolution, score_methods, scoreboard_tables
from circuitry.reports import Finding, Report, Written, with_intervals, write_results
from experiments.study.contest import BASELINE, Contest, ContestSettings, files_of
from experiments.study.measure_charts import QUALITY, cost_against_quality, size_curves

import pandas as pd

_SHOWN = ("size for 0.5, kept", QUALITY, "size for 0.8, random", "CPR", "CMD", "rank correlation", "seconds", "GFLOP")
"""Rows of the summary that are columns of the table."""


def scoreboard_findings(summary: pd.DataFrame) -> list[Finding]:
    """Say whether the smallest circuits that tell their class from others are small, and if one method finds them."""
    named = summary["method"] + (" (" + summary["budget"] + ")").where(summary["budget"] != summary["method"], "")
    summary = summary.assign(said=with_intervals(summary, ".0%"), named=named)
    kept = summary[summary["what"] == QUALITY].dropna(subset="value").sort_values("value", kind="stable")
    question = "Are there small circuits that tell their class from others?"
    if kept.empty:
        return [Finding(f"{question} Cannot be told: no selectivity is known.", "", "Images of other classes.")]
    best, setting = kept.iloc[0], ["baseline", "metric"]
    random = summary[summary["what"] == QUALITY.replace("kept", "random")]
    random = random.merge(kept.iloc[:1][[*setting, "method", "budget"]])
    beside = f", as many random units at every site with {random['said'].iloc[0]}" if len(random) else ""
    told = "No" if best["value"] >= 1 else "Yes" if (random["low"] > best["high"]).any() else "Cannot be told"
    alike = kept.merge(kept.iloc[:1][setting]).drop_duplicates("method")
    others = alike[alike["method"] != best["method"]]
    first = "Yes" if len(others) and best["high"] < others["low"].min() else "Cannot be told"
    measured = f"{best['baseline']} baseline, {best['metric']}"
    return [
        Finding(
            f"{question} {told}: the circuits of {best['named']} reach a selectivity of 0.8 with {best['said']} of the "
            f"units{beside} ({measured}).",
            f"Means over {best['n_classes']} classes with Student's 95 % intervals, on images that the circuits were "
            "not found on. 100 %: no smaller circuit reaches it.",
            "Other classes, sizes or baselines; another training of the model.",
        ),
        Finding(
            f"Does one method find the smallest? {first}: share of the units that each needs, "
            f"{', '.join(alike['named'] + ' ' + alike['said'])} ({measured}).",
            "A method is first where its interval lies below those of all others; each has its best budget.",
            "More classes; another training of the model.",
        ),
    ]


def add_scoreboard(report: Report, tables: Mapping[str, pd.DataFrame]) -> None:
    """Add the sections of a scoreboard, from its tables ``summary``, ``curves`` and ``planted``."""
    summary = with_settings(tables["summary"])
    report.section("What does a circuit cost, and how small can it be?")
    report.figure(
        cost_against_quality(summary),
        "Processor seconds for one circuit, and the smallest share of units with selectivity 0.8 from that size on, on "
        "images that the circuit was not found on; 1 if no size on the grid reaches it. Hollow: as many random units "
        "at every site. Means over classes.",
    )
    shown = summary[summary["what"].isin(_SHOWN)]
    wide = shown.assign(cell=with_intervals(shown)).pivot(index=["setting", "method"], columns="what", values="cell")
    report.table(
        wide.reindex(columns=list(_SHOWN)).rename_axis(columns=None).reset_index(),
        "Each method, means over classes with Student's 95 % intervals. CPR: area under faithfulness; CMD: area of "
        "|1 - faithfulness|; both over MIB's sizes where the grid has them, else over the grid. Rank correlation: of "
        "unit scores with exact patching.",
    )
    report.section("How selective and how faithful are the circuits?")
    curves = with_settings(tables["curves"])
    for measure in ("selectivity", "faithfulness"):
        for setting in dict.fromkeys(curves["setting"]):
            part = curves[(curves["measure"] == measure) & (curves["setting"] == setting)]
            if part["value"].notna().any():
                report.figure(size_curves(part, measure, f"{measure}, {setting}"), f"{setting}: {measure} over size.")
    report.section("Do the methods find what was planted?")
    planted = tables["planted"].pivot(index="method", columns=["network", "kind", "site"], values="auroc")
    report.table(
        planted.set_axis(planted.columns.map(" ".join), axis=1).reset_index(),
        "Area under the ROC curve of finding the planted units and edges (into the site), site by site; 0.5 is chance.",
    )


def with_settings(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with a column ``setting``: baseline, metric and, where there are several, budget in words.

    Masks have counts of their own, and are in the setting of every budget.
    """
    named = table.assign(setting=table["baseline"] + " baseline, " + table["metric"])
    own = named["budget"] == named["method"]
    budgets = named.loc[~own, "budget"].unique()
    if len(budgets) < 2:
        return named
    parts = {budget: named[own | (named["budget"] == budget)] for budget in budgets}
    parts = {budget: part.assign(setting=part["setting"] + f", budget {budget}") for budget, part in parts.items()}
    several: pd.DataFrame = pd.concat(parts.values())
    return several


FORMAT = "circuitry scoreboard 3"
TARGETS = (0.5, 0.8)  # the smallest size that reaches this selectivity is sought


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
    report.summary(scoreboard_findings(tables["summary"]))
    add_scoreboard(report, tables)
    return write_results(report, tables, config.out, config.results, contest.provenance() | versions())


def folder_of(contest: Contest, out: Path) -> JobFolder:
    """Return the folder of all jobs, one for each class."""
    jobs = [(name,) for name in contest.classes]
    return JobFolder(out / "jobs", FORMAT, contest.provenance(), jobs, contest.listings())


def hold(config: Config, work: Work) -> None:
    """Do one process's share of the jobs."""
    contest = Contest(config, work.rank)
    folder = folder_of(contest, config.out)
    folder.run(
        lambda job, images: contest.do(job, images, folder.path, work),
        prepare=lambda job: contest.read(job[0]),
        rank=work.rank,
        progress=work.bar("scoreboard"),
    )


def read_tables(contest: Contest, config: Config) -> dict[str, pd.DataFrame]:
    """Return the tables of what all jobs left, and how well methods find what was planted."""
    folder, judged = folder_of(contest, config.out), dict[tuple[str, ...], Judged]()
    for name in ((*job, *contestant) for job in folder.jobs for contestant in contest.contestants):
        curve, graph, cost = files_of(folder.path, name)
        read = FaithfulnessCurve.load(curve), AttributionGraph.load(graph)
        judged[(*name, BASELINE, config.metric)] = Judged(*read, **json.loads(cost.read_text()))
    units = {site: len(scores) for site, scores in next(iter(judged.values())).graph.node_scores.items()}
    counted = f"{sum(units.values())} units at {len(units)} sites"
    planted = pd.concat([score_methods(planted_convolution()), score_methods(planted_attention())], ignore_index=True)
    return {**scoreboard_tables(judged, config.sizes, TARGETS, counted), "planted": planted}
