"""Find own parts, test them, and write the report."""

from functools import partial

from circuitry.commands.own_parts_command import Config
from circuitry.interventions import OwnParts
from circuitry.reports import Report, write_results
from circuitry.reports.page import Written
from circuitry.reports.result_tables import listings_of_records
from circuitry.reports.sections.own_parts import (
    add_own_parts,
    matrix_with_counts,
    own_part_findings,
    own_part_tables,
)
from circuitry.runs import Work, versions


def main(config: Config) -> Written | None:
    """Find, test, write; print the answer."""
    if not config.share_out(partial(find_and_test, config), config.out / "jobs"):
        return None
    run = find_and_test(config, config.work())
    found = run.run(config.work())
    tables = own_part_tables(found["lesions"], found["overlaps"])
    run.save_circuits(float(tables["told"]["share"].iloc[0]))
    print(
        "Right answers of the own class after the lesion, as a share of those before (number of classes):"
    )
    print(matrix_with_counts(tables["told"]).to_string())
    sites = run.sites["everywhere"]
    report = Report(
        f"Which units of {config.model} are a class's own?",
        f"Parts of at most {max(config.shares):.1%} of the units, found by {config.method} on up to {config.n_images} "
        f"images of the class and images of other classes, and ablated on other images. Counted are the units of "
        f"{len(sites)} sites, {sites[0]} to {sites[-1]}.",
    )
    report.summary(own_part_findings(tables))
    add_own_parts(report, tables, config.images().domains)
    records = (
        record
        for side in (run.found_on, run.unseen)
        for of_cell in side.values()
        for record in of_cell
    )
    provenance = run.provenance | versions()
    return write_results(
        report,
        tables,
        config.out,
        config.results,
        provenance,
        listings=listings_of_records(records),
    )


def find_and_test(config: Config, work: Work) -> OwnParts:
    """Do one process's share."""
    run = OwnParts(
        config.clip(work.rank, parts=True), config.images(), config.out, config
    )
    run.run(work)
    return run
