"""Circuits of EfficientNet-Lite0 as a program of plain hooks found and measured them, beside the package's tables.

The program hooks timm's modules, has Fisher scores and rounds of its own, and draws other random directions; it took
the same classes and photographs.
"""

from functools import partial

from tests.claims.scoreboard import LITE0, ROUNDS, SIZES, values
from tests.support.committed_tables import Numbers

BY_SIZE = {
    "kl recovered": (-0.075, 0.062, 0.317, 0.638, 0.820, 0.870, 0.910, 0.941),
    "selectivity": (0.046, 0.145, 0.252, 0.478, 0.750, 0.847, 0.901, 0.967),
}
"""Measures of circuits with the shares `SIZES` of the hidden channels, by Fisher in rounds."""


def by_size(measure: str) -> list[float]:
    return values(LITE0, ROUNDS, measure, "kept", list(SIZES))


def beside(measure: str) -> list[float]:
    return [number for pair in zip(by_size(measure), BY_SIZE[measure], strict=True) for number in pair]


CLAIMS: dict[str, Numbers] = {
    f"| {name} by both programs | " + " | ".join(["{:.2f} ({:.2f})"] * len(SIZES)) + " |": partial(beside, name)
    for name in BY_SIZE
}
