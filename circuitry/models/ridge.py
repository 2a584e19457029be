"""The linear probe: a ridge classifier of standardised features. No torch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

PENALTIES = tuple(10.0**k for k in range(-1, 6))
"""Candidates for the ridge penalty, for standardised features and sums (not means) over images."""


def ridge_probe() -> "Pipeline":
    """Return a classifier that standardises features and fits targets of -1 and 1 by least squares, classes weighted
    equally, with the penalty that leaves the smallest leave-one-out error."""
    from sklearn.linear_model import (
        RidgeClassifierCV,
    )  # here: it takes as long to import as torch
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(
        StandardScaler(), RidgeClassifierCV(PENALTIES, class_weight="balanced")
    )
