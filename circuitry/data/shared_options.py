"""Options of command lines that many commands share, and the conversion of words to values. Does not import torch.

Each shared option is a type annotation, which includes the option's help text. So the option has the same type and the
same help text in all commands.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import arg
from tyro.constructors import PrimitiveConstructorSpec

from circuitry import data
from circuitry.runs.arguments import Count, Natural, Seed, at_least


def option(
    parse: Callable[..., Any] = str,
    metavar: str = "",
    nargs: int | Literal["*"] = 1,
    choices: Sequence[str] | None = None,
) -> Any:
    """Return an annotation for the type of a setting: how the setting is read from the words of a command line.

    In Python any object may be passed as the setting.

    Args:
        parse: Function of ``nargs`` words that returns the value.
        metavar: Name of the value in the help text.
        nargs: Number of words, or "*" for any number of words. The single word None always means None.
        choices: The words that are allowed (default: all words).

    Example:
        >>> rule: Annotated[QuadratureRule | None, option(parse_rule, "{left,midpoint}-N")] = None
    """

    def value(words: list[str]) -> Any:
        if words == ["None"]:
            return None
        if nargs not in ("*", len(words)):
            raise ValueError(
                f"expected {nargs} values, {metavar}, but {' '.join(words) or 'none'} was given"
            )
        return parse(*words)

    return PrimitiveConstructorSpec(
        nargs=1 if nargs == 1 else "*",  # None is one word, even if nargs is 2
        metavar=metavar if choices is None else f"{{{','.join(choices)}}}",
        instance_from_str=value,
        is_instance=lambda value: True,
        str_from_instance=lambda value: [str(getattr(value, "name", value))],
        choices=None if choices is None else (*choices, "None"),
    )


def word_or_column(*known: str) -> Any:
    """Return an annotation for a setting that is one known word, or a listing of images and a column of it.

    Args:
        known: The words.

    Example:
        >>> groups: Annotated[Sequence[str], word_or_column("class")] = ("class",)
    """

    def parse(*words: str) -> Sequence[str]:
        if len(words) not in (0, 2) and words not in [(word,) for word in known]:
            raise ValueError(
                f"expected {' or '.join(known)}, or a listing and its column, but {' '.join(words)} was given"
            )
        return words

    return option(parse, f"{','.join(known)} | LISTING COLUMN", "*")


Decoding = Annotated[
    Literal["upright", "as-stored"],
    arg(
        help="How image files are decoded: upright, over white; as-stored: as in the study, see load_image."
    ),
]
DEFAULT_FOLDS = 4
Folds = Annotated[
    int,
    at_least(2),
    arg(
        help="Folds of the images of a class in a domain, cut by item: the similarity of folds is the ceiling."
    ),
]
Items = Annotated[
    Callable[..., Any] | Mapping[str, str] | None,
    option(
        lambda listing, column: data.item_column(listing, column), "LISTING COLUMN", 2
    ),
    arg(
        help="A listing of the images and its column that names what an image shows (default: the name of the file)."
    ),
]
NImages = Annotated[
    Count,
    arg(
        help="Images of a class in a domain, at random by --seed, or fewer where there are few: at most half of a "
        "class's images are used to find circuits."
    ),
]
NOthers = Annotated[
    Natural,
    arg(
        help="Images of other classes, which a circuit should not take for its own; 0 for none."
    ),
]
NUnseen = Annotated[
    Natural,
    arg(
        help="Unseen images of a class in a domain: its circuit was not found on them; 0 for none."
    ),
]
SeedOption = Annotated[Seed, arg(help="Seed of all random choices.")]
SmallTables = Annotated[
    Path | None,
    arg(
        help="Also write the small tables and their provenance here, where the figures read them."
    ),
]
HeldOut = Annotated[
    tuple[str, ...],
    arg(help="Held-out classes: reported apart, e.g. those held out in training."),
]
EdgesPerNode = Annotated[Count, arg(help="Most edges into a unit.")]
