"""Small tables that figures of several kinds are drawn from."""

import numpy as np
import pandas as pd

SITES = ["act1", "layer1.0", "attnpool"]

NONE = float("nan")
ACCURACY = pd.DataFrame(
    {
        "domain": ["sketch", "real"],
        "all": [0.55, 0.875],
        "seen": [0.625, 0.875],
        "held_out": [0.25, NONE],
    }
    | {
        "alone": [0.75, NONE],
        "own_style": [0.5, NONE],
        "centred": [0.375, NONE],
        "predicted_held_out": [0.3, NONE],
    }
    | {
        "harmonic_mean": [0.357, NONE],
        "chance": [0.125, 0.125],
        "chance_alone": [0.5, NONE],
    }
)
"""Of two domains, as `accuracy_kinds` makes it; nothing was held out of the second."""
DEPTH = pd.DataFrame(
    [
        (domain, site, value, value - 0.1, value + 0.1)
        for domain, values in (("sketch", (0.4, 0.5, 0.6)), ("real", (0.6, 0.7, 0.8)))
        for site, value in zip(reversed(SITES), values, strict=True)
    ],
    columns=["domain", "site", "value", "low", "high"],
)
MATRIX = pd.DataFrame(
    [[0.9, 0.3], [0.3, np.nan]], index=["real", "sketch"], columns=["real", "sketch"]
)
