"""Small tables that figures of several kinds are drawn from."""

import numpy as np
import pandas as pd
import pytest

SITES = ["act1", "layer1.0", "attnpool"]


@pytest.fixture
def accuracy() -> pd.DataFrame:
    """Of two domains, as `accuracy_kinds` makes it; nothing was held out of the second."""
    none = float("nan")
    return pd.DataFrame(
        {
            "domain": ["sketch", "real"],
            "all": [0.55, 0.875],
            "seen": [0.625, 0.875],
            "held_out": [0.25, none],
            "alone": [0.75, none],
            "own_style": [0.5, none],
            "centred": [0.375, none],
            "predicted_held_out": [0.3, none],
            "harmonic_mean": [0.357, none],
            "chance": [0.125, 0.125],
            "chance_alone": [0.5, none],
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
