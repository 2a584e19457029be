"""Circuits of EfficientNet-Lite0 as a program of plain hooks found and measured them, and units as one of us read them.

The program hooks timm's modules, has Fisher scores and rounds of its own, and draws other random directions; it took
the same classes and photographs.
"""

from functools import partial

from tests.claims.scoreboard import LITE0, ROUNDS, SIZES, values
from tests.support.committed_tables import Numbers, made_with

BY_SIZE = {
    "kl recovered": (-0.075, 0.062, 0.317, 0.638, 0.820, 0.870, 0.910, 0.941),
    "selectivity": (0.046, 0.145, 0.252, 0.478, 0.750, 0.847, 0.901, 0.967),
}
"""Measures of circuits with the shares `SIZES` of the hidden channels, by Fisher in rounds."""


def by_size(measure: str) -> list[float]:
    return values(LITE0, ROUNDS, measure, "kept", list(SIZES))


def beside(measure: str) -> list[float]:
    return [number for pair in zip(by_size(measure), BY_SIZE[measure], strict=True) for number in pair]


READ = {"importance": (20, 8, 6, 6, 2), "effects": (10, 6, 4, 0, 4), "outputs": (10, 5, 2, 3, 0)}
"""Units whose pictures one of us read, by how they were chosen: read, named, partly, not named, of the class."""

CLAIMS: dict[str, Numbers] = {
    "circuits of the other program recover {:.2f} of the answers, those of the package {:.2f}": lambda: [
        BY_SIZE["kl recovered"][SIZES.index(0.35)],
        by_size("kl recovered")[SIZES.index(0.35)],
    ],
    "with {} % of the hidden channels of EfficientNet-Lite0 circuits of the other": lambda: [35],
    "We could name {} of the {} units that rank first by importance, and {} of {} late units with the strongest "
    "effects.": lambda: [READ["importance"][i] for i in (1, 0)] + [READ["effects"][i] for i in (1, 0)],
    "with {} % of the hidden channels of EfficientNet-Lite0, found on two photographs": lambda: [35],
    "the class is among the three of {}": lambda: [len(made_with("own_parts/lite0_photo")["classes"])],
    **{
        f"{ending} | {{}} | {{}} | {{}} | {{}} | {{}} |": partial(tuple, READ[of])
        for ending, of in {
            "two late": "importance",
            "two late ones of each class": "effects",
            "one middle, one late": "outputs",
        }.items()
    },
    **{
        f"| {name.replace('kl', 'KL')} by two programs | "
        + " | ".join(["{:.2f} ({:.2f})"] * len(SIZES))
        + " |": partial(beside, name)
        for name in BY_SIZE
    },
}
