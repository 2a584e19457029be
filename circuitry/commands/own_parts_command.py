"""Which units are a class's own, and are they the same in another style?

A circuit that is enough for a class holds what every class needs, too. The class's own part is found by contrast: units
whose ablation costs the class much and other classes little. It is tested by lesion, on images that found no part: is
the class lost, are the others spared, in each style? Beside each part stand as many random units at the same sites.

The claim that classes have parts of their own would be refuted by random units that take as much, or by other classes
that are lost, too; that a part is the same in two styles, by one that takes its class in its own style alone.

    circuitry own-parts --model ViT-B-32 --pretrained openai --data pictures --out runs/own
    circuitry own-parts --model efficientnet-lite0 --data RealStyles --domains photo clipart --shares 0.005 0.01 0.02
    circuitry own-parts ... --depth                  # parts up to, and from, some depth
    circuitry cards --circuits runs/own-parts/circuits    # what do the units respond to?
    circuitry explore --run runs/own-parts --open
"""

from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from circuitry import questions, reports
from circuitry.data.shared_options import SmallTables
from circuitry.interventions import OwnPartSettings
from circuitry.models import ModelOptions
from circuitry.runs import Work, WorkSettings, versions

if TYPE_CHECKING:
    from circuitry.questions import OwnParts
    from circuitry.reports import Written


@dataclass(frozen=True, kw_only=True)
class Config(OwnPartSettings, WorkSettings, ModelOptions):
    """Settings of the search and of the test."""

    out: Path = Path("runs/own-parts")
    """Folder of the results: parts, tables and the report."""
    results: SmallTables = None


def main(config: Config) -> "Written | None":
    """Find, test, write; print the answer."""
    # Of several processes one goes on to the report.
    if not config.share_out(partial(find_and_test, config), config.out / "jobs"):
        return None
    run = find_and_test(config, config.work())
    # Everything is finished now, also by other processes, and is read.
    results = run.run(config.work())
    answer = questions.OwnPartsAnswer(results["lesions"], results["overlaps"])
    tables = answer.named_tables
    # All rows of the table have the one share that a report tells of.
    run.save_circuits(float(tables["told"]["share"].iloc[0]))
    print(
        "Right answers of the own class after the lesion, as a share of those before (number of classes):"
    )
    print(answer.matrix().to_string())
    sites = run.sites["everywhere"]
    report = reports.Report(
        f"Which units of {config.model} are a class's own?",
        f"Parts of at most {max(config.shares):.1%} of the units, found by {config.method} on up to {config.n_images} "
        f"images of the class and images of other classes, and ablated on other images. Counted are the units of "
        f"{len(sites)} sites, {sites[0]} to {sites[-1]}.",
    )
    report.summary(answer.findings())
    answer.add_charts(report, run.images.domains)
    records = chain(*run.found_on.values(), *run.unseen.values())
    return reports.write_results(
        report,
        tables,
        config.out,
        config.results,
        run.provenance | versions(),
        listings=reports.listings_of_records(records),
    )


def find_and_test(config: Config, work: Work) -> "OwnParts":
    """Do one process's share."""
    clip = config.clip(work.rank, components=True)
    run = questions.OwnParts(clip, config.images(), config.out, config)
    run.run(work)
    return run
