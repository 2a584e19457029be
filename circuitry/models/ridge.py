"""The linear probe: a ridge classifier of standardised features. No torch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

PENALTIES = tuple(10.0**k for k in range(-1, 6))
"""Candidates for the ridge penalty, for standardised features and sums (not means) over images."""


def ridge_probe() -> "Pipeline":
    """Return a ridge classifier of standardised features, whose penalty has the smallest leave-one-out error.

    It fits targets of -1 and 1 by least squares, with all classes weighted equally.
    """
    # Imported here: scikit-learn takes as long to import as torch.
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(
        StandardScaler(), RidgeClassifierCV(PENALTIES, class_weight="balanced")
    )
