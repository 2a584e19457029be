"""Do the verdicts of the study in small hold when all held-out classes count? From its committed tables alone.

The study in small screened classes: if the upper bound of one architecture had not learnt a class, the class was left
out for all models of a test domain. So the accuracies of 27 of 49 models were of one class with twenty images.
``robustness.csv`` of the same run has the accuracy on all ten held-out classes, as the study counts them. This program
replaces the screened accuracy by that accuracy, and judges claims, correlations and the ranking of models again. A
verdict that changes was a verdict on the screen.

Numbers that need the models stay as they are, and the column ``counted`` says so. Accuracy among held-out classes alone
is counted on the old screen, and no committed table has what the domains of a model share.

    python experiments/recount_toy.py --results experiments/results/toy_recounted
"""

from dataclasses import dataclass
from pathlib import Path

from circuitry.runs import run_script
from circuitry.comparison import holm
from circuitry.training.accuracy import harmonic_mean
from experiments.kept_tables import KeepSettings
from experiments.study.run_tables import MODEL
from experiments.study.sharing import Measured
from experiments.study.toy_claims import ALL_MODELS, CLAIMS, KINDS, judged
from experiments.study.toy_command import ranking, relations_of

import numpy as np
import pandas as pd

# How a row of claims is counted.
AGAIN = "all held-out classes"
OLD_SCREEN = "old screen"
PUBLISHED = "as published"
NEED_THE_MODELS = [
    "alone",
    "own_style",
    "centred",
    "predicted_held_out",
    "chance_alone",
]
"""Accuracies that cannot be counted again without the models."""


@dataclass(frozen=True)
class Config(KeepSettings):
    """Settings of the recount."""

    published: Path = Path("experiments/results/toy_study")
    """Folder of the tables of the study in small."""


def main(config: Config) -> None:
    """Count again, print and write the tables."""
    names = ("points", "claims", "told_apart", "robustness")
    published = {name: pd.read_csv(config.published / f"{name}.csv") for name in names}
    points = recounted_points(published["points"], published["robustness"])
    measured = Measured(points, _nothing_shared(), pd.DataFrame())
    tables = {
        "points": points,
        "claims": recounted_claims(judged(measured), published["claims"]),
        "relations": relations_of(measured),
        "ranking": ranking(measured),
        "told_apart": recounted_settings(
            published["told_apart"], published["robustness"]
        ),
    }
    config.keep(tables, ["claims", "relations", "ranking"])


def recounted_points(points: pd.DataFrame, robustness: pd.DataFrame) -> pd.DataFrame:
    """Return the points with the accuracy on all held-out classes, and the names of these classes."""
    # Runs are folders in one table, and names of files in the other.
    of_all = robustness.assign(run=robustness["run"].str.replace("/", "-"))
    of_all = of_all[["run", "test_domain", "test", "held_out_classes"]]
    both = points.merge(of_all, on=["run", "test_domain"], validate="one_to_one")
    if len(both) != len(points):
        raise ValueError(
            "Each model and test domain has an accuracy on all held-out classes."
        )
    both = both.rename(columns={"held_out": "held_out_screened", "test": "held_out"})
    both["harmonic_mean"] = harmonic_mean(both["seen"], both["held_out"])
    return both.drop(columns=["own_style", "centred"])


def recounted_claims(again: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of claims: counted again if the points tell them, else as published."""
    alone = again["measure"].str.endswith(KINDS["alone"])
    again = again.assign(counted=np.where(alone, OLD_SCREEN, AGAIN))
    again = again[again["n_models"] > 0]
    kept = published[~published["measure"].isin(again["measure"])].assign(
        counted=PUBLISHED
    )
    both = pd.concat([again, kept])
    order = [measure.name for claim in CLAIMS for measure in claim.measures]
    both = both.sort_values(
        "measure",
        key=lambda names: names.map(order.index),
        kind="stable",
        ignore_index=True,
    )
    # Only the first measure of a claim, over all models, is a test of the claim.
    first = both["measure"].isin([claim.measures[0].name for claim in CLAIMS]) & (
        both["models"] == ALL_MODELS
    )
    return both.assign(p_holm=holm(both["p"].where(first)))


def recounted_settings(
    told_apart: pd.DataFrame, robustness: pd.DataFrame
) -> pd.DataFrame:
    """Return the accuracies on all held-out classes by setting in the test domain, beside the published accuracies."""
    keys = ["test_domain", *MODEL, "setting"]
    groups = robustness.groupby(keys)
    # Models of one setting may have different sets: the table names the classes of any of them.
    classes = groups["held_out_classes"].agg(
        lambda joined: ", ".join(sorted(set(", ".join(joined).split(", "))))
    )
    again = (
        groups["test"].agg(held_out="mean", sd="std").assign(held_out_classes=classes)
    )
    again["n_classes"] = again["held_out_classes"].str.split(", ").map(len)
    tested = told_apart[told_apart["domain"] == told_apart["test_domain"]]
    beside = {"held_out": "held_out_screened", "n_classes": "n_classes_screened"}
    before = tested.rename(columns=beside).drop(columns=["sd", "held_out_classes"])
    both = before.merge(again.reset_index(), on=keys, validate="one_to_one")
    withdrawn = dict.fromkeys(NEED_THE_MODELS, np.nan)
    return both.assign(
        harmonic_mean=harmonic_mean(both["seen"], both["held_out"]), **withdrawn
    )


def _nothing_shared() -> pd.DataFrame:
    """Return an empty table of what domains share."""
    return pd.DataFrame(
        columns=["run", "test_domain", "what", "site", "domain", "value"]
    )


if __name__ == "__main__":
    run_script(Config, main, __doc__)
