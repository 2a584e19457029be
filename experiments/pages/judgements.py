"""Verdicts on claims and numbers with their intervals, in the words of the pages."""

from collections.abc import Iterable, Mapping
from typing import Any

from experiments.pages.rendering import filled
from experiments.pages.tables import Interval
from experiments.study.claims import Claim

import pandas as pd

UNKNOWN = "–"


def in_words(row: "pd.Series[Any]", value: str = "value", spec: str = "+.2f") -> str:
    """Return a number of a row with its interval; an unknown number is a dash."""
    if pd.isna(row[value]):
        return UNKNOWN
    return filled(f"{{:{spec}}}", Interval(row[value], row["low"], row["high"]))


def p_in_words(p: float) -> str:
    """Return a p value with two digits; an unknown one is a dash."""
    return UNKNOWN if pd.isna(p) else f"{p:.2g}"


def in_points(row: "pd.Series[Any]") -> str:
    """Return a value in points with its interval."""
    numbers = Interval(*(100 * row[name] for name in ("value", "low", "high")))
    return filled("{:+.0f} points", numbers)


def quoted(claims: Mapping[str, Claim], names: Iterable[str]) -> str:
    """Return the questions of claims, one after the other.

    Args:
        claims: The claims by name.
        names: The names that are quoted.
    """
    return " ".join(f"*{claims[name].question}*" for name in names) or "none."


def claim_rows(claims: Mapping[str, Claim], verdicts: pd.DataFrame) -> str:
    """Return the rows of a table of claims: what they ask and predict, the value, and how it stands.

    Args:
        claims: The claims by name.
        verdicts: Table of `experiments.study.claims.verdicts`.
    """
    lines = list[str]()
    for _, row in verdicts.iterrows():
        claim = claims[row["claim"]]
        cells = (
            claim.question,
            claim.predicts,
            row["measure"],
            in_words(row),
            p_in_words(row["p_holm"]),
            row["verdict"],
            f"{row['n_same']} of {row['n_ways']}",
            "" if pd.isna(row["other"]) else row["other"],
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
