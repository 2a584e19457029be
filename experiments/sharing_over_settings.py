"""Does a model share more features between domains, the more diverse its training was? One table over many models.

Reads what experiments/shared_features.py left in the folders of its --results, one for each model, and sets the models
side by side: for each setting and test domain, how many features the test domain shares with the other domains, on the
held-out classes. The setting and the test domain are those of the run that a checkpoint belongs to; for other models
they are given by name.

The study's claim, that sharing is low where generalization fails, is refuted by a setting in which the test domain
shares no less than the others do and generalization still fails.

    python experiments/sharing_over_settings.py --results results/cg-low-sketch-0 results/cg-high-sketch-0
    python experiments/sharing_over_settings.py --results openai=results/openai --test-domain quickdraw
"""

import json
from dataclasses import dataclass
from pathlib import Path

from circuitry.runs import InputError, run_script, versions
from circuitry.reports import Report, write_results

import numpy as np
import pandas as pd

MODEL = ["model", "setting", "test_domain"]
"""What tells the rows of the table over seeds apart."""


@dataclass(frozen=True)
class Config:
    """Settings of the table."""

    results: tuple[str, ...] = ()
    """Folders that shared_features.py wrote as its --results; of a model that is no run of a study as name=folder."""
    group: str = "held-out"
    """Classes that are scored: held-out, as in the study, or all."""
    test_domain: str | None = None
    """Test domain of the models that are no runs of a study."""
    out: Path = Path("runs/sharing_over_settings")
    """Folder for the tables and the page."""


def main(config: Config) -> None:
    """Gather, average over seeds, write, and print where the page is."""
    if not config.results:
        raise InputError("Expected folders of results of shared_features.py, but none was given: add --results FOLDER.")
    runs = pd.DataFrame([score(config, entry) for entry in config.results])
    table = over_seeds(runs)
    report = Report(
        "Which settings make domains share features?",
        f"Feature sharing of the test domain with the other domains in {len(runs)} models, {config.group} classes.",
    )
    report.section("Feature sharing by setting and test domain")
    report.table(
        table.fillna({"test_domain": "–"}),
        "Mean over the seeds of a setting, their standard deviation and number; lowest: in how many of them the test "
        "domain shares the fewest features of all domains; others: the mean of the other domains with the others.",
    )
    report.table(runs, "Every model, with its 95 % interval over classes.")
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    tables = {"sharing_over_settings": table, "sharing_of_runs": runs}
    about = {"results": config.results, "group": config.group, **versions()}
    print(write_results(report, tables, config.out, None, about))


def score(config: Config, entry: str) -> dict[str, object]:
    """Return one model's score of its test domain, and what the model was trained on.

    Raises:
        InputError: for a folder without results, a model of which neither a run nor a name and test domain are known,
            or a group or domain that its table lacks.
    """
    name, is_named, place = entry.rpartition("=")
    folder = Path(place)
    table, about = folder / "feature_sharing_summary.csv", folder / "provenance.json"
    if not (table.is_file() and about.is_file()):
        raise InputError(f"{folder} holds no results of shared_features.py: give the folder of its --results.")
    provenance = json.loads(about.read_text(encoding="utf-8"))
    run = provenance.get("trained_on") or {}
    setting = name if is_named else run.get("setting")
    domain = run.get("test_domain") or config.test_domain
    if setting is None or domain is None:
        raise InputError(
            f"{folder} does not say which setting and test domain its model was trained for: give it as name={folder} "
            "with --test-domain."
        )
    summary = pd.read_csv(table, keep_default_na=False, na_values=[""])
    rows = {row["domain"]: row for row in summary[summary["group"] == config.group].to_dict("records")}
    if domain not in rows:
        raise InputError(
            f"{table} has no score of {domain!r} for the group {config.group!r}; it has the domains "
            f"{', '.join(sorted(set(summary['domain'])))} and the groups {', '.join(sorted(set(summary['group'])))}."
        )
    own, others = rows[domain], [row["value"] for name, row in rows.items() if name != domain]
    return {
        "model": run.get("model", provenance["model"]),
        "setting": setting,
        "test_domain": domain,
        "seed": run.get("seed"),
        "score": own["value"],
        "low": own["low"],
        "high": own["high"],
        "others": float(np.mean(others)),
        "lowest": own["value"] < min(others),
        "n_classes": own["n_classes"],
    }


def over_seeds(runs: pd.DataFrame) -> pd.DataFrame:
    """Average the models of a setting, architecture and test domain: score, its deviation, and the number of models."""
    groups = runs.groupby(MODEL, sort=False)
    return groups.agg(
        score=("score", "mean"),
        deviation=("score", "std"),
        others=("others", "mean"),
        lowest=("lowest", "sum"),
        models=("score", "size"),
    ).reset_index()


if __name__ == "__main__":
    run_script(Config, main, __doc__)
