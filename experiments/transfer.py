"""Does one domain's circuit work in another? The causal sense of shared circuitry, beside the structural one.

For every class, only the circuit of domain A is kept while images of domain B run through the encoder: all sites at
once, and one site at a time. And the activations of A's circuit, from images of A, are put into runs on images of B.
Both on images that the circuits were not found on.

Circuits are shared if off the diagonal faithfulness and selectivity stay as high as on it; what circuits share by
structure is meaningful if it predicts how they transfer. It is refuted by a rank correlation near 0 over the pairs of
domains. Where circuits are kept at all sites at once, look at selectivity before faithfulness.

    python experiments/transfer.py      # the circuits of the quickstart
    python experiments/transfer.py --model RN50 --checkpoint epoch_32.pt --data DomainNet \
        --circuits runs/domainnet/circuits --out runs/domainnet/transfer
    torchrun --nproc-per-node 8 experiments/transfer.py --device cuda ...    # the tables on eight GPUs
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from circuitry.runs import InputError, Work, run_script
from circuitry import compare_domains
from circuitry.interventions import CausalStudy, StudyOptions, transfer_matrix, transfer_over_depth
from circuitry.interventions.circuit_sets import choose_sites
from circuitry.interventions.transfer_tables import transfer_correlations
from circuitry.reports import Report, write_results
from circuitry.reports.figures import domain_marks
from circuitry.reports.listings import listings_of_records
from circuitry.study.sections.causal_checks import (
    add_causal_guide,
    add_interchange,
    add_transfer,
    transfer_findings,
)

import pandas as pd


@dataclass(frozen=True)
class Config(StudyOptions):
    """Settings of the check; the defaults are the quickstart's model, images and circuits."""

    out: Path = Path("runs/transfer")
    """Folder for tables and the report."""
    results: Path | None = None
    """Also write the small tables and their provenance here, where the figures read them."""
    one_site: bool = True
    """Also keep circuits at one site at a time."""
    seed: int = 0
    """Seed of the pairs of images that are interchanged."""


def main(config: Config) -> None:
    """Measure, write, and say where the report is."""
    if config.share_out(partial(measure_share, config), config.out / "jobs"):
        write_report(config, config.study())


def measure_share(config: Config, work: Work) -> None:
    """Measure one process's share of the tables."""
    measure(config, config.study(work.rank), work)


def measure(config: Config, study: CausalStudy, work: Work) -> dict[str, pd.DataFrame]:
    """Return the tables of transfer and interchange; what is there is read.

    Raises:
        InputError: for circuits of a single domain.
    """
    domains = list(dict.fromkeys(domain for _, domain in study.keys))
    if len(domains) < 2:
        raise InputError(
            f"Transfer is between domains, but the circuits in {config.circuits} that are looked at are of "
            f"{domains[0]} alone: give more with --domains, or extract more."
        )
    return study.extract_transfer(config.out, one_site=config.one_site, seed=config.seed, work=work)


def write_report(config: Config, study: CausalStudy) -> None:
    """Set transfer beside structural similarity, and write the report with its tables."""
    found = measure(config, study, config.work())
    transfer, exchanged = found["transfer"], found["interchange"]
    chosen = {key: study.graphs[key] for key in study.keys}
    similarity = compare_domains(chosen, measures=["edge_jaccard"])["edge_jaccard"].matrix()
    tables = {
        "matrices": matrices(transfer),
        "edge_jaccard_matrix": similarity.rename_axis(index="domain").reset_index(),
        "correlations": transfer_correlations(transfer, similarity),
        "transfer": transfer,
        "interchange": exchanged,
    }
    if config.one_site:
        tables["selectivity_over_depth"] = transfer_over_depth(transfer)
    small = [name for name in tables if name != "transfer"]
    marks = domain_marks(study.images.domains)
    report = Report(
        f"Do the circuits of {study.clip.name} work in other domains?",
        f"{len(study.keys)} circuits, each kept on images of every domain of its class, on {study.tested_on}.",
    )
    report.summary(transfer_findings(transfer, similarity))
    add_causal_guide(report, next(iter(chosen.values())).settings, study.tested_on)
    add_transfer(report, transfer, similarity, marks, choose_sites(next(iter(chosen.values()))))
    add_interchange(report, exchanged, marks)
    looked_at = listings_of_records(record for key in study.keys for record in study.own_records(key))
    provenance = study.provenance() | {"seed": config.seed}
    print(write_results(report, tables, config.out, config.results, provenance, small, looked_at))


def matrices(transfer: pd.DataFrame) -> pd.DataFrame:
    """Return every transfer matrix, means over classes, in long form."""
    values = [value for value in ("faithfulness", "selectivity", "accuracy", "other_accuracy") if has(transfer, value)]
    parts = []
    for sites, part in transfer.groupby("sites", sort=False):
        long = pd.DataFrame({value: transfer_matrix(part, value).stack() for value in values}).reset_index()
        parts.append(long.assign(sites=sites))
    return pd.concat(parts, ignore_index=True)


def has(transfer: pd.DataFrame, value: str) -> bool:
    """Whether a transfer table holds a value; those of other classes are there only where such images were."""
    return "other_metric" in transfer or value in ("faithfulness", "accuracy")


if __name__ == "__main__":
    run_script(Config, main, __doc__)
