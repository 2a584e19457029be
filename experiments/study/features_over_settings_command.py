"""Does a model share more features between domains, the more diverse its training was? One table over many models.

Reads --results folders of the program features, one for each model, and compares the models: for each
setting and test domain, how many features the test domain shares with the other domains, on the held-out classes. With
two or more models of a test domain it also tests each pair of domains over these models: the model is the unit, so the
result is about the training and not about one checkpoint. Setting and test domain are those of the run that a
checkpoint belongs to; for other models they are given by name.

The study claims that domains share few features where generalization fails. A setting refutes this if its test domain
shares no less than the others do and generalization still fails.

    python -m experiments.study features-over-settings --features results/cg-low-sketch-0 results/cg-high-sketch-0
    python -m experiments.study features-over-settings --features openai=results/openai --test-domain quickdraw
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from circuitry.runs import InputError, versions
from circuitry.comparison import Comparison
from circuitry.reports import Report, Written, write_results
from experiments.over_models import compare_models
from experiments.study.relations import models_agree

import pandas as pd

MODEL = [
    "model",
    "setting",
    "test_domain",
]
"""Columns that identify a row of the table over seeds."""
COMPARISON = "feature_sharing"  # folder below the results of features that holds its `Comparison`


@dataclass(frozen=True)
class Config:
    """Settings of the table."""

    features: tuple[str, ...]
    """Folders of features, --results of the program features: name=folder for a model that is no run of a study."""
    group: Literal["held-out", "all"] = "held-out"
    """Classes that are scored: held-out, as in the study, or all."""
    test_domain: str | None = None
    """Test domain: of models that are no runs of a study."""
    out: Path = Path("runs/sharing_over_settings")
    """Folder of the results: tables and the page."""


def main(config: Config) -> Written:
    """Gather, average over seeds, write, and print where the page is."""
    if not config.features:
        raise InputError(
            "Expected --results folders of the program features, given none: add --features FOLDER."
        )
    runs = pd.DataFrame([score(config, entry) for entry in config.features])
    table = over_seeds(runs)
    tests = over_models(config, runs["test_domain"])
    report = Report(
        "Which settings make domains share features?",
        f"Feature sharing of the test domain with the other domains in {len(runs)} models, {config.group} classes.",
    )
    report.summary([models_agree(tests)] if len(tests) else [])
    report.section("Feature sharing by setting and test domain")
    report.table(
        table.fillna({"test_domain": "–"}),
        "Mean over the seeds of a setting, their standard deviation and number; lowest: in how many of them the test "
        "domain shares the fewest features of all domains; others: the mean of the other domains with the others.",
    )
    report.table(runs, "Every model, with its 95 % interval over classes.")
    if len(tests):
        report.section("Do two domains differ over models?")
        report.table(
            tests,
            "Feature sharing of domain a with the others minus that of b; each model counts once.",
        )
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    tables = {
        "sharing_over_settings": table,
        "sharing_of_runs": runs,
        "sharing_tests": tests,
    }
    about = {"results": config.features, "group": config.group, **versions()}
    return write_results(report, tables, config.out, None, about)


def score(config: Config, entry: str) -> dict[str, object]:
    """Return one model's score of its test domain, and its training."""
    name, _, place = entry.rpartition("=")
    folder = Path(place)
    table = folder / "feature_sharing_summary.csv"
    about = folder / "provenance.json"
    if not (table.is_file() and about.is_file()):
        raise InputError(
            f"{folder} holds no results of the program features: give the folder of its --results."
        )
    provenance = json.loads(about.read_text(encoding="utf-8"))
    run = provenance.get("trained_on") or {}
    setting = name or run.get("setting")
    domain = run.get("test_domain") or config.test_domain
    if setting is None or domain is None:
        raise InputError(
            f"The setting and test domain of the model in {folder} are unknown: give it as name={folder} with "
            "--test-domain."
        )
    summary = pd.read_csv(table, keep_default_na=False, na_values=[""])
    rows = summary[summary["group"] == config.group].set_index("domain")
    if domain not in rows.index:
        raise InputError(
            f"{table} has no score of {domain!r} for the group {config.group!r}: choose among the domains "
            f"{', '.join(sorted(set(summary['domain'])))} and the groups {', '.join(sorted(set(summary['group'])))}."
        )
    own = rows.loc[domain]
    others = rows["value"].drop(domain)
    identity = {
        "model": run.get("model", provenance["model"]),
        "setting": setting,
        "test_domain": domain,
    }
    values = {
        "score": own["value"],
        "low": own["low"],
        "high": own["high"],
        "others": float(others.mean()),
    }
    lowest = own["value"] < others.min()
    return {
        **identity,
        "seed": run.get("seed"),
        **values,
        "lowest": lowest,
        "n_classes": own["n_classes"],
    }


def over_models(config: Config, test_domains: "pd.Series[str]") -> pd.DataFrame:
    """Return the tests of `compare_models` for each test domain that has two or more models."""
    folders = pd.Series([Path(entry.rpartition("=")[2]) for entry in config.features])
    tests = [
        compare_models(
            [Comparison.load(folder / COMPARISON) for folder in own], config.group
        ).assign(test_domain=name)
        for name, own in folders.groupby(test_domains, sort=False)
        if len(own) > 1
    ]
    return pd.concat(tests, ignore_index=True) if tests else pd.DataFrame()


def over_seeds(runs: pd.DataFrame) -> pd.DataFrame:
    """Average the models of a setting, architecture and test domain: score, its deviation, and the number of models."""
    columns = {
        "score": "mean",
        "deviation": "std",
        "others": "mean",
        "lowest": "sum",
        "models": "size",
    }
    of = {"deviation": "score", "models": "score"}
    groups = runs.groupby(MODEL, sort=False)
    return groups.agg(
        **{name: (of.get(name, name), how) for name, how in columns.items()}
    ).reset_index()
