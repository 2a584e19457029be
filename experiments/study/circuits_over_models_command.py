"""Do domains differ in how much their circuits share, whatever network is looked at? The network is the unit.

Reads the --out folders of circuitry compare, one for each network, with the same classes and domains. For
each measure and two domains it tests over networks whether the circuits of one are more similar to those of the other
domains, and it lists how similar each two domains are in each network, as a share of the ceiling.

If drawings were photographs to a network, each pair would reach its ceiling, a ratio of 1; if photographs had circuits
of their own, photo would share the least with the others in every network. One network that says the opposite refutes
either. Three networks can give no p below 0.25, and say nothing of others when they are of one family.

    for n in 0 1 2; do circuitry compare --model efficientnet-lite$n --data RealStyles \
        --classes bear cup dog mailbox mushroom pig sheep tiger --domains photo clipart noto sketch \
        --n-images 2 --rule midpoint-4 --edge-rule midpoint-1 --out runs/lite$n; done
    python -m experiments.study circuits-over-models --runs runs/lite0 runs/lite1 runs/lite2
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from circuitry.runs import InputError, versions
from circuitry import Comparison, GraphFolder
from circuitry.comparison import compare_models
from circuitry.reports import Report, write_results
from experiments.study.relations import models_agree

import pandas as pd

MEASURES = ("node_overlap", "edge_jaccard")


@dataclass(frozen=True)
class Config:
    """Settings of the tables."""

    runs: tuple[Path, ...] = ()
    """--out folders of circuitry compare, one for each network."""
    out: Path = Path("runs/circuits_over_models")
    """Folder for the tables and the page."""
    results: Path | None = None
    """Also write the tables and their provenance here."""


def main(config: Config) -> None:
    """Gather, test, write, and print where the page is."""
    if len(config.runs) < 2:
        raise InputError(f"Networks are compared from two on, but {len(config.runs)} --runs were given.")
    runs = dict(zip(names_of(config.runs), config.runs, strict=True))
    tests, pairs, domains = [], [], []
    for measure in MEASURES:
        found = {name: Comparison.load(folder / "comparisons" / measure) for name, folder in runs.items()}
        tests.append(compare_models(list(found.values())).assign(measure=measure))
        domains += [one.summary().assign(measure=measure, model=name) for name, one in found.items()]
        pairs += [ratios(one).assign(measure=measure, model=name) for name, one in found.items()]
    tables = {
        "over_models": pd.concat(tests, ignore_index=True),
        "domains_by_model": pd.concat(domains, ignore_index=True),
        "pairs_by_model": pd.concat(pairs, ignore_index=True),
        "agreement": agreement(pd.concat(pairs, ignore_index=True)),
        "accuracy": pd.concat([accuracy(folder, name) for name, folder in runs.items()]),
    }
    report = Report("Do circuits of domains agree over networks?", f"{', '.join(runs)}; each network counts once.")
    report.summary([models_agree(tables["over_models"])])
    for title, text in TEXTS.items():
        report.section(title.replace("_", " "))
        report.table(tables[title], text)
    print(tables["over_models"].to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    print(write_results(report, tables, config.out, config.results, {"models": list(runs), **versions()}))


TEXTS = {
    "over_models": "Mean similarity of domain a to the other domains minus that of domain b, over networks.",
    "domains_by_model": "Mean similarity of each domain to the others in each network, with intervals over classes.",
    "pairs_by_model": "Similarity of each two domains, and the same as a share of the ceiling (value), by network.",
    "agreement": "Rank correlation over pairs of domains of these shares, for each two networks.",
    "accuracy": "Share of pictures that each network recognises among the classes of the data.",
}  # what each table is


def names_of(runs: Sequence[Path]) -> list[str]:
    """Return the names of the networks that runs are of, with the folder where two networks have one name."""
    configs = [GraphFolder(folder / "circuits").manifest["config"] for folder in runs]
    for (one, mine), (other, theirs) in combinations(zip(runs, configs, strict=True), 2):
        if mine["weights"] == theirs["weights"]:
            raise InputError(f"Each network counts once, but {one} and {other} are of the same one: give one of them.")
    models = [str(config["model"]) for config in configs]
    pairs = zip(models, runs, strict=True)
    return [f"{model} in {folder}" if models.count(model) > 1 else model for model, folder in pairs]


def ratios(comparison: Comparison) -> pd.DataFrame:
    """Return the ratios of the whole circuits, or their means over sites."""
    table = comparison.ratios().astype({"value": float})
    return table.groupby(["domain_a", "domain_b"], as_index=False)[["value", "similarity"]].mean()


def agreement(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return Spearman's correlation of two networks' ratios over pairs of domains, by measure."""
    rows = []
    for measure, mine in pairs.groupby("measure", sort=False):
        wide = mine.pivot_table(index=["domain_a", "domain_b"], columns="model", values="value").dropna()
        for a, b in combinations(wide, 2):
            rows.append((measure, a, b, float(wide[a].corr(wide[b], method="spearman")), len(wide)))
    return pd.DataFrame(rows, columns=["measure", "model_a", "model_b", "correlation", "n_pairs"])


def accuracy(folder: Path, name: str) -> pd.DataFrame:
    """Return a network's accuracies by domain."""
    table = pd.read_csv(folder / "tables" / "accuracy.csv")
    return table[["domain", "all"]].rename(columns={"all": "accuracy"}).assign(model=name)
