"""Which units are a class's own, and are they the same in another style?

A circuit that is enough to recognise a class also contains units that every class needs. The own part of a class
contains only units that the class needs and other classes do not. It is found by contrast: the ablation of its units
costs the class many right answers, and other classes few. It is then tested by a lesion, which is the ablation of the
whole part, on images that were not used to find any part. The test asks for each style whether the model no longer
recognises the class, and whether it still recognises other classes. If there are many classes, each part is tested on a
sample of the others. For comparison, equally many random units at the same sites are ablated.

Two results would refute that classes have parts of their own: the ablation of random units costs the class as many
right answers, or the ablation of the part also costs other classes their right answers. A third result would refute
that a part is the same in two styles: its ablation costs the class right answers only in the style in which the part
was found.

    circuitry own-parts --model ViT-B-32 --pretrained openai --data pictures --out runs/own
    circuitry own-parts --model efficientnet-lite0 --data RealStyles --domains photo clipart --shares 0.005 0.01 0.02
    circuitry own-parts ... --depth                  # also parts at only the first, or only the last, sites
    circuitry own-parts ... --other-cells 40         # test each part on 40 sets of images of other classes
    circuitry own-parts ... --beside runs/base --across models    # which parts did fine-tuning change?
    circuitry cards --circuits runs/own-parts/circuits    # what do the units respond to?
    circuitry explore --run runs/own-parts --open
"""

from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from circuitry import models, questions, reports
from circuitry.data.shared_options import SmallTables
from circuitry.interventions import OwnPartSettings
from circuitry.models import ModelOptions
from circuitry.runs import Plan, PlanSettings, Work, WorkSettings, versions
from circuitry.runs.command_line import read_line
from circuitry.runs.identity import Across
from circuitry.runs.settings_file import SETTINGS, read_settings, words_of

if TYPE_CHECKING:
    import pandas as pd

    from circuitry.questions import OwnParts
    from circuitry.reports import Written


@dataclass(frozen=True, kw_only=True)
class Config(OwnPartSettings, WorkSettings, PlanSettings, ModelOptions):
    """Settings of the search and of the test."""

    out: Path = Path("runs/own-parts")
    """Folder of the results: own parts, tables and the report."""
    results: SmallTables = None
    beside: Path | None = None
    """Folder of an earlier run of this command, whose parts are compared with the parts of this run, and tested in its
    model, as the parts of that run are tested in this model."""
    across: Across | None = None
    """With --beside: models, if that run is of another model of the same architecture, such as the model before
    fine-tuning."""


def main(config: Config) -> "Written | None":
    """Find and test own parts, print the answer, and write the report.

    The result is None in a process that only does its share of the work.
    """
    # If several processes share the work, only one of them goes on to the report.
    if not config.share_out(partial(find_and_test, config), config.out / "jobs"):
        return None
    run = own_parts(config, config.work())
    # All processes have finished their share, so this only reads the results.
    results = run.run(config.work())
    answer = questions.OwnPartsAnswer(results["lesions"], results["overlaps"])
    tables = answer.named_tables
    # All rows of the table have the same share, which the report is about.
    run.save_circuits(float(tables["told"]["share"].iloc[0]))
    print(
        "Right answers of the own class after the lesion, as a share of those before (number of classes):"
    )
    print(answer.matrix().to_string())
    if config.beside is not None:
        tables = tables | beside(config.beside, run, config)
    sites = run.sites["everywhere"]
    report = reports.Report(
        f"Which units of {config.model} are a class's own?",
        f"Parts of at most {max(config.shares):.1%} of the units, found by {config.method} on up to {config.n_images} "
        f"images of the class and images of other classes, and ablated on other images. Counted are the units of "
        f"{len(sites)} sites, {sites[0]} to {sites[-1]}.",
    )
    report.summary(answer.findings())
    answer.add_charts(report, run.images.domains)
    records = chain(
        *run.found_on.values(), *run.second_half.values(), *run.unseen.values()
    )
    return reports.write_results(
        report,
        tables,
        config.out,
        config.results,
        run.provenance | versions(),
        listings=reports.listings_of_records(records),
    )


def beside(folder: Path, run: "OwnParts", config: Config) -> "dict[str, pd.DataFrame]":
    """Compare the parts of this run with those of an earlier run, print what they share, and return the tables.

    Args:
        folder: Folder of the earlier run.
        run: The own parts of this run.
        config: Settings of this run.
    """
    words = list(words_of(read_settings(folder / SETTINGS)))
    earlier, _ = read_line(Config, words)
    runs = {
        str(folder): own_parts(replace(earlier, out=folder), config.work()),
        str(config.out): run,
    }
    tables = questions.parts_of_models(runs, across=config.across, work=config.work())
    for sentence in questions.sentences_of_models(tables):
        print(sentence)
    return {f"models_{name}": table for name, table in tables.items()}


def plan(config: Config) -> Plan:
    """Return what the search and the tests that are left need."""
    work = config.work()
    run = own_parts(config, work)
    speed = models.tower_speed(run.clip, run.images.records, work)
    return Plan(run.steps(), speed)


def find_and_test(config: Config, work: Work) -> None:
    """Find and test one process's share of the own parts."""
    own_parts(config, work).find_and_test(work)


def own_parts(config: Config, work: Work) -> "OwnParts":
    """Return the own parts of the classes and domains that are asked for."""
    clip = config.clip(work.rank, components=True)
    return questions.OwnParts(clip, config.images(), config.out, config)
