"""Does a model share more features between domains if its training was more diverse?

The program reads the --results folders of the program features, a folder for each model. For each setting and test
domain it says how many features the test domain shares with the other domains, on the held-out classes. If a test
domain has two or more models, each pair of domains is tested over these models. A model is then the unit of the test,
so that the result is about the training and not about a single checkpoint. The setting and the test domain of a model
are read from the run that its checkpoint belongs to. A model that belongs to no run gets them from the command line.

The study claims that domains share few features where generalization fails. A setting refutes the claim if its test
domain shares no fewer features than the other domains do, and generalization still fails.

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

COMPARISON = (
    "feature_sharing"  # in the results of features, the folder of its `Comparison`
)


@dataclass(frozen=True)
class Config:
    """Settings of the table."""

    features: tuple[str, ...]
    """The --results folders of the program features. A model that is no run of a study is given as name=folder."""
    group: Literal["held-out", "all"] = "held-out"
    """Classes that are scored: the held-out classes, as in the study, or all classes."""
    test_domain: str | None = None
    """Test domain of the models that are no runs of a study."""
    out: Path = Path("runs/sharing_over_settings")
    """Folder of the results: tables and the page."""


def main(config: Config) -> Written:
    """Read the scores of all models, average them over seeds, write the results, and print where the page is."""
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
    """Return a row about a model: how much its test domain shares with the other domains, and how it was trained.

    Args:
        config: The settings.
        entry: A text of `Config.features`: a folder, or name=folder.

    Raises:
        InputError: If the folder has no results, if the setting or the test domain is unknown, or if the test domain
            has no score.
    """
    name, _, place = entry.rpartition("=")
    folder = Path(place)
    table = folder / "feature_sharing_summary.csv"
    about = folder / "provenance.json"
    if not (table.is_file() and about.is_file()):
        raise InputError(
            f"{folder} holds no results of the program features: give the folder of its --results."
        )
    # The name that the command line gives comes before the setting of the run.
    provenance = json.loads(about.read_text(encoding="utf-8"))
    run = provenance.get("trained_on") or {}
    setting = name or run.get("setting")
    domain = run.get("test_domain") or config.test_domain
    if setting is None or domain is None:
        raise InputError(
            f"The setting and test domain of the model in {folder} are unknown: give it as name={folder} with "
            "--test-domain."
        )
    # Only empty cells are missing: a domain may be called "none".
    summary = pd.read_csv(table, keep_default_na=False, na_values=[""])
    rows = summary[summary["group"] == config.group].set_index("domain")
    if domain not in rows.index:
        raise InputError(
            f"{table} has no score of {domain!r} for the group {config.group!r}: choose among the domains "
            f"{', '.join(sorted(set(summary['domain'])))} and the groups {', '.join(sorted(set(summary['group'])))}."
        )
    own = rows.loc[domain]
    others = rows["value"].drop(domain)
    return {
        "model": run.get("model", provenance["model"]),
        "setting": setting,
        "test_domain": domain,
        "seed": run.get("seed"),
        "score": own["value"],
        "low": own["low"],
        "high": own["high"],
        "others": float(others.mean()),
        # The study's claim is that this is true.
        "lowest": own["value"] < others.min(),
        "n_classes": own["n_classes"],
    }


def over_models(config: Config, test_domains: "pd.Series[str]") -> pd.DataFrame:
    """Return the tests of `compare_models` for each test domain that has two or more models.

    Args:
        config: The settings.
        test_domains: The test domain of each folder of ``config.features``.
    """
    folders = pd.Series([Path(entry.rpartition("=")[2]) for entry in config.features])
    tests = []
    for domain, of_domain in folders.groupby(test_domains, sort=False):
        # A test over models needs two of them.
        if len(of_domain) > 1:
            models = [Comparison.load(folder / COMPARISON) for folder in of_domain]
            table = compare_models(models, config.group)
            tests.append(table.assign(test_domain=domain))
    return pd.concat(tests, ignore_index=True) if tests else pd.DataFrame()


def over_seeds(runs: pd.DataFrame) -> pd.DataFrame:
    """Average the models of each setting, architecture and test domain, which differ in their seeds.

    Returns:
        The columns ``model``, ``setting`` and ``test_domain``; the mean ``score`` and its standard ``deviation``; the
        mean score of the other domains, ``others``; the number of models whose test domain has the ``lowest`` score;
        and the number of ``models``.
    """
    groups = runs.groupby(["model", "setting", "test_domain"], sort=False)
    return groups.agg(
        score=("score", "mean"),
        deviation=("score", "std"),
        others=("others", "mean"),
        lowest=("lowest", "sum"),
        models=("score", "size"),
    ).reset_index()
