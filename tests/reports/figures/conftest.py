"""Small tables that figures of several kinds are drawn from."""

import numpy as np
import pandas as pd
import pytest

SITES = ["act1", "layer1.0", "attnpool"]


@pytest.fixture
def accuracy() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "domain": ["sketch", "sketch", "real"],
            "part": ["held-out", "seen", "seen"],
            "accuracy": [0.25, 0.625, 0.875],
            "balanced_accuracy": [0.2, 0.6, 0.8],
            "n_images": [40, 1200, 900],
            "n_classes": [2, 6, 8],
        }
    )


@pytest.fixture
def depth() -> pd.DataFrame:
    rows = [
        {"domain": domain, "site": site, "value": value, "low": value - 0.1, "high": value + 0.1}
        for domain, start in (("sketch", 0.4), ("real", 0.6))
        for site, value in zip(reversed(SITES), (start, start + 0.1, start + 0.2), strict=True)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def matrix() -> pd.DataFrame:
    names = ["real", "sketch"]
    return pd.DataFrame([[0.9, 0.3], [0.3, np.nan]], index=names, columns=names)
