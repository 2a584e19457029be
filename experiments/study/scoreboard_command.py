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
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from circuitry.runs import JobFolder, Work, WorkSettings, versions
from circuitry.circuits import AttributionGraph
from circuitry.interventions import FaithfulnessCurve
from circuitry.judging import Judged, planted_attention, planted_convolution, score_methods, scoreboard_tables
from circuitry.reports import Report, write_results
from circuitry.reports.page import Written
from circuitry.runs.given import checked
from experiments.study.contest import BASELINE, Contest, ContestSettings, files_of
from experiments.study.scoreboard_pages import add_scoreboard, scoreboard_findings

import pandas as pd

FORMAT = "circuitry scoreboard 3"
TARGETS = (0.5, 0.8)
"""The smallest size that reaches this selectivity is sought."""


@checked
@dataclass(frozen=True)
class Config(ContestSettings, WorkSettings):
    """Where the scoreboard goes."""

    out: Path = Path("runs/scoreboard")
    """Folder of the results: circuits, curves, tables and the report."""
    results: Path | None = None
    """Also write the small tables and their provenance here, where the figures read them."""


def main(config: Config) -> Written | None:
    """Hold the contest, and write the report."""
    if config.share_out(partial(hold, config), config.out / "logs"):
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
    return None


def folder_of(contest: Contest, out: Path) -> JobFolder:
    """Return the folder of all jobs."""
    return JobFolder(out / "jobs", FORMAT, contest.provenance(), contest.jobs, contest.listings())


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
