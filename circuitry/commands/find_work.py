"""Find one circuit, test it, and write the report."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from circuitry import (
    AttributionGraph,
    Circuit,
    Clip,
    GraphFolder,
    Task,
    find_circuit,
    judge_circuit,
    midpoint_rule,
)
from circuitry.circuits import MaskSettings
from circuitry.circuits.budgets import GLOBAL
from circuitry.circuits.edge_methods import score_edges
from circuitry.circuits.methods import ITERATIVE, METHODS
from circuitry.circuits.tower_defaults import default_size
from circuitry.commands.find_command import Config
from circuitry.commands.find_subject import Subject
from circuitry.comparison.table import read_named_table, write_named_table
from circuitry.data import image_listing
from circuitry.encoder.sites import INPUT
from circuitry.interventions import (
    AblationSettings,
    FaithfulnessCurve,
    measure_circuits,
)
from circuitry.interventions.curve_reading import CURVE_MEASURES
from circuitry.reports import Finding, Report, contact_sheet, write_results
from circuitry.reports.page import Written
from circuitry.reports.result_tables import listings_of_records
from circuitry.reports.sections.one_circuit import (
    add_circuit,
    circuit_verdicts,
    in_cells,
)
from circuitry.runs import InputError, Job, JobFolder, versions
from circuitry.runs.manifest import NAME

FORMAT = "circuitry found circuit 5"
STEPS = (("circuit",), ("other classes",), ("unseen images",), ("tests",), ("edges",))
"""What is done one after the other; a finished one is read."""
FOREIGN = 2
"""Other classes whose circuits of the same size are measured beside it."""
DRAWN = 12
"""Units of a site that are drawn at most, with the edges between them."""


def main(config: Config) -> Written:
    """Find, test, write; print the answer."""
    subject = Subject(config)
    found, drawn, curve, tested = search(config, subject)
    curves = pd.concat(
        [curve.to_pandas(measure) for measure in CURVE_MEASURES], ignore_index=True
    )
    findings = circuit_verdicts(curve, tested)
    tables = {
        "recovered": in_cells(curves, ["measure"]),
        "tests": tested,
        "curves": curves,
    }
    if len(tables["recovered"]):
        print(tables["recovered"].to_string(index=False))
    if subject.images is not None:
        folder = shlex.quote(str(config.folder / "circuits"))
        print(
            f"To look inside: circuitry cards --circuits {folder} && circuitry explore --circuits {folder} --open"
        )
    return write_report(config, subject, found, drawn, tables, findings)


def search(
    config: Config, subject: Subject
) -> tuple[Circuit, AttributionGraph, FaithfulnessCurve, pd.DataFrame]:
    """Find the circuit, test it, and score its edges; what is finished is read.

    Returns:
        The circuit, its strongest units with edges, what it recovers of unseen images, and what `judge_circuit` says.
    """
    out = config.folder
    circuit, tests, circuits = (
        out / name for name in ("circuit.safetensors", "tests.csv", "circuits")
    )
    key, asked = (subject.class_name, subject.domain), made_with(config, subject)
    curve = (
        out / "faithfulness" / key[0] / f"{key[1]}.absolute.all.safetensors"
    )  # where the explorer looks for it

    def do(job: Job, _: object) -> Sequence[Path]:
        if job == STEPS[0]:
            masks = MaskSettings(steps=config.steps, seed=config.seed)
            size, target = size_wanted(config, subject), config.selectivity
            found = find_circuit(
                subject.found_on,
                method=config.method,
                size=size,
                selectivity=target,
                masks=masks,
            )
            source = replace(
                found.source, class_name=subject.class_name, domain=subject.domain
            )
            replace(found, source=source).save(circuit)
            return [circuit]
        found = Circuit.load(circuit)
        if job == STEPS[1]:
            return list(find_foreign(config, subject, found.size))
        if job == STEPS[2]:
            settings = AblationSettings(random_draws=5, seed=config.seed)
            foreign = [[Circuit.load(path)] for path in folder.files(STEPS[1])]
            measured = measure_circuits(subject.unseen, [found], settings, foreign)
            replace(measured, settings=measured.settings | {"budget": GLOBAL}).save(
                curve
            )
            return [curve]
        if job == STEPS[3]:
            settings = AblationSettings(seed=config.seed)
            write_named_table(
                tests, judge_circuit(subject.unseen, found, settings, minimality=False)
            )
            return [tests]
        drawn = replace(found, source=with_edges(subject.found_on, found))
        looked_at = {key: [*subject.own[0], *subject.others[0]]}
        (circuits / NAME).unlink(
            missing_ok=True
        )  # perhaps a damaged one: all of the folder is written again
        graphs = GraphFolder.write(circuits, {key: drawn}, asked, looked_at)
        return [path for path in sorted(graphs.path.rglob("[!.]*")) if path.is_file()]

    _ = subject.metric  # refuses texts, before the folder is claimed
    if config.selectivity is not None and not subject.others[0]:
        raise InputError(
            f"--selectivity compares {subject.class_name} with images of other classes, but {config.data} has none: "
            "give a folder that has, or --size."
        )
    looked_at = {
        "images": image_listing(subject.records),
        "baseline_images": image_listing(subject.baseline_records),
    }
    folder = JobFolder(out, FORMAT, asked, STEPS, looked_at)
    for step in (
        STEPS
    ):  # each needs those before: another process may be doing one, and is waited for
        folder.run(do, only=[step])
    tested = read_named_table(tests, na_values=[""])
    return (
        Circuit.load(circuit),
        GraphFolder(circuits)[key],
        FaithfulnessCurve.load(curve),
        tested,
    )


def find_foreign(config: Config, subject: Subject, size: float) -> Iterator[Path]:
    """Find circuits of other classes of the domain, as large, on their own images; a ranking in place of masks."""
    method = ITERATIVE if METHODS[config.method].learns_mask else config.method
    for place, other in enumerate(subject.of_other_classes(FOREIGN)):
        found = find_circuit(other.found_on, method=method, size=size)
        path = config.folder / f"other.{place}.safetensors"
        replace(
            found,
            source=replace(
                found.source, class_name=other.class_name, domain=other.domain
            ),
        ).save(path)
        yield path


def size_wanted(config: Config, subject: Subject) -> float | None:
    """Return the share of the units to keep, where no selectivity is to be reached."""
    return (
        None
        if config.selectivity is not None
        else config.size or default_size(subject.clip.encoder)
    )


def made_with(config: Config, subject: Subject) -> dict[str, object]:
    """Return everything except for the images that shapes a number."""
    names = (
        "method",
        "selectivity",
        "n_images",
        "n_others",
        "metric",
        "texts",
        "steps",
        "seed",
    )
    return {
        "model": subject.clip.name,
        **subject.clip.identity,
        "class": subject.class_name,
        "classes": list(subject.classes),
        "domain": subject.domain,
        "size": size_wanted(config, subject),
        "units": "components" if subject.clip.encoder.carried else "channels",
        "baseline": subject.baseline_name,
        **{name: getattr(config, name) for name in names},
    }


def with_edges(task: Task, circuit: Circuit) -> AttributionGraph:
    """Return a graph with the edges between the strongest units of a circuit at every site, for drawings."""
    strongest = {site: units[:DRAWN] for site, units in circuit.units.items()}
    edges = score_edges(task, strongest, rule=midpoint_rule(1))
    return circuit.source.keeping(strongest, edges.scores)


def whole_sites(clip: Clip, found: Circuit) -> str:
    """Say which sites a circuit's size counts, and which stay whole."""
    counted = found.source.inner_sites
    whole = [site for site in clip.encoder.sites if site not in (*counted, INPUT)]
    said = f"Counted are the units of {', '.join(counted)}."
    return (
        f"{said} {', '.join(whole)} only read out or repeat another site: they stay whole."
        if whole
        else said
    )


def write_report(
    config: Config,
    subject: Subject,
    found: Circuit,
    drawn: AttributionGraph,
    tables: dict[str, pd.DataFrame],
    findings: Sequence[Finding],
) -> Written:
    """Write the report, the tables and the circuit."""
    what = found.source.title
    kept, units = (
        sum(map(len, values.values()))
        for values in (found.units, found.source.node_scores)
    )
    report = Report(
        f"Which units of {config.model} recognise {what}?",
        f"The circuit keeps {kept} of {units} units (method: {config.method}). {found.made_with.get('note', '')}\n\n"
        f"Images of the class that it was found on: {len(subject.own[0])}; that it was tested on: "
        f"{len(subject.own[1])}. "
        f"{whole_sites(subject.clip, found)}",
    )
    report.summary(findings)
    report.section("What the circuit recovers")
    ranked = (
        f"; those of other classes were found by {ITERATIVE}"
        if METHODS[config.method].learns_mask
        else ""
    )
    report.table(
        tables["recovered"],
        "On unseen images, with 95 % intervals: right and false are shares of images of the class, and of others, that "
        f"get the class; of the other measures it is the share of the whole model's{ranked}.",
    )
    reasons = (
        tables["curves"]
        .query("reason != ''")
        .drop_duplicates("measure")
        .set_index("measure")["reason"]
    )
    report.text(
        " ".join(
            f"There is no number for {measure}: {reason}."
            for measure, reason in reasons.items()
        )
    )
    caption = f"Edges were scored between the {DRAWN} strongest units of each site; at most 3 into a unit are drawn."
    add_circuit(report, drawn.circuit(), caption)
    cells = {
        (row, column): [record.path for record in records[:8]]
        for row, halves_of in (("class", subject.own), ("others", subject.others))
        for column, records in zip(("found on", "tested on"), halves_of, strict=True)
    }
    sheet = contact_sheet(
        cells, ["class", "others"], ["found on", "tested on"], per_cell=8
    )
    report.image(
        sheet,
        "Images of the class, and of others.",
        alt=f"Images of {what} and of other classes",
    )
    provenance = {"model": config.model, **found.source.settings, **versions()}
    return write_results(
        report,
        tables,
        config.folder,
        None,
        provenance,
        None,
        listings_of_records(subject.records),
    )
