"""The linear probe: a ridge classifier of standardised features. Does not import torch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

PENALTIES = tuple(10.0**k for k in range(-1, 6))
"""Candidates for the ridge penalty. They suit standardised features and a loss that is a sum (not a mean) over images.
"""


def ridge_probe() -> "Pipeline":
    """Return an unfitted pipeline that standardises features and then fits a ridge classifier.

    The classifier fits targets of -1 and 1 by least squares, and weights all classes equally. It chooses the penalty
    with the smallest leave-one-out error.
    """
    # Imported here, because scikit-learn takes as long to import as torch.
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(
        StandardScaler(), RidgeClassifierCV(PENALTIES, class_weight="balanced")
    )
