"""Circuits of EfficientNet-Lite0 as code without a line of this package measured them, beside the package's tables.

The other code ablates by plain hooks and has its own attribution and Fisher scores. At all sites it took the same eight
classes, photographs and split; in the blocks three classes that were not noted.
"""

from functools import partial

from tests.support.committed_tables import Numbers, rows

THREE_CLASSES = "scoreboard/efficientnet_lite0_blocks_three_classes/curves"
ALL_SITES = "scoreboard/efficientnet_lite0_all_sites_global/summary"

BY_SIZE: dict[tuple[str, str, str], tuple[float, ...]] = {
    ("fisher", "global", "kept"): (0.02, 0.08, 0.26, 0.47, 0.80, 0.89),
    ("fisher", "same-share", "kept"): (0.01, 0.01, 0.06, 0.13, 0.50, 0.79),
    ("gradient", "global", "kept"): (0.00, 0.00, 0.04, 0.15, 0.56, 0.84),
    ("fisher", "global", "random"): (0.00, 0.00, 0.00, 0.07, 0.30, 0.60),
}
"""Selectivity of three classes with 40, 50, 66, 75, 85 and 90 % of the units of the blocks, by method and budget."""
SMALLEST = {"site-path": 0.64, "fisher": 0.66, "gradient": 0.69}
"""Smallest share of the units of all sites with selectivity 0.8, in one cut, mean over eight classes."""

NAMES = ("Fisher, one cut", "Fisher, same share", "gradient, one cut", "random, Fisher's counts")


def by_size(method: str, budget: str, circuit: str) -> list[float]:
    named = {"measure": "selectivity", "method": method, "budget": budget, "circuit": circuit}
    return list(rows(THREE_CLASSES, **named).sort_values("size")["value"])


def smallest(method: str) -> float:
    (found,) = rows(ALL_SITES, method=method, what="size for 0.8, kept")["value"]
    return float(found)


def beside(key: tuple[str, str, str]) -> list[float]:
    return [number for pair in zip(by_size(*key), BY_SIZE[key], strict=True) for number in pair]


CLAIMS: dict[str, Numbers] = {
    **{
        f"| {name} | " + " | ".join(["{:.2f} ({:.2f})"] * 6) + " |": partial(beside, key)
        for name, key in zip(NAMES, BY_SIZE, strict=True)
    },
    "site path {:.2f} ({:.2f}), Fisher {:.2f} ({:.2f}), gradient {:.2f} ({:.2f})": lambda: [
        number for method, other in SMALLEST.items() for number in (smallest(method), other)
    ],
}
