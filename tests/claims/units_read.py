"""Units of circuits as one of us read them."""

from functools import partial

from tests.support.committed_tables import Numbers, made_with

READ = {
    "importance": (20, 8, 6, 6, 2),
    "effects": (10, 6, 4, 0, 4),
    "outputs": (10, 5, 2, 3, 0),
}
"""Units whose pictures one of us read, by how they were chosen: read, named, partly, not named, of the class."""

CLAIMS: dict[str, Numbers] = {
    "We could name {} of the {} units that rank first by importance, and {} of {} late units with the strongest "
    "effects.": lambda: (
        [READ["importance"][i] for i in (1, 0)] + [READ["effects"][i] for i in (1, 0)]
    ),
    "with {} % of the hidden channels of EfficientNet-Lite0, found on two photographs": lambda: [
        35
    ],
    "the class is among the three of {}": lambda: [
        len(made_with("own_parts/lite0_photo")["classes"])
    ],
    **{
        f"{ending} | {{}} | {{}} | {{}} | {{}} | {{}} |": partial(tuple, READ[of])
        for ending, of in {
            "two late": "importance",
            "two late ones of each class": "effects",
            "one middle, one late": "outputs",
        }.items()
    },
}
