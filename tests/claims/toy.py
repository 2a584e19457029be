"""Claims about the study in small; its page is made of the tables as a whole."""

import pandas as pd

from experiments.study.sharing import LABEL_FREE, SHARED
from experiments.study.toy_claims import CLAIMS as STUDY_CLAIMS
from tests.support.committed_tables import Numbers, table

STUDY = "toy_study"
NAMES = SHARED | LABEL_FREE


def first(claim: str) -> pd.Series:
    """Return the row of a claim over all models."""
    claims = table(f"{STUDY}/claims")
    return claims[(claims["claim"] == claim) & (claims["models"] == "all")].iloc[0]


def points(claim: str) -> list[float]:
    """Return a difference of accuracies with its interval, in points."""
    return [100 * first(claim)[column] for column in ("value", "low", "high")]


def verdicts(verdict: str) -> int:
    return sum(first(one.name)["verdict"] == verdict for one in STUDY_CLAIMS)


def n_models() -> int:
    return int(table(f"{STUDY}/points")["run"].nunique())


def related() -> pd.DataFrame:
    relations = table(f"{STUDY}/relations")
    return relations[relations["p_holm"] < 0.05]


CLAIMS: dict[str, Numbers] = {}
