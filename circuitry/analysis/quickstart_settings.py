"""Settings of the quickstart, and of commands that start from its model and images without options. No torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import circuitry
from circuitry.data.drawn_names import DRAWN_CLASSES, DRAWN_IMAGES, DRAWN_STYLES
from circuitry.data.names import chosen_names
from circuitry.data.shared_options import (
    NImages,
    NOthers,
    NUnseen,
    SeedOption,
    SmallTables,
)
from circuitry.models.options import ModelOptions
from circuitry.runs.arguments import DISTINCT, checked

QUICKSTART = Path("runs/quickstart")
"""The quickstart's folder."""
QUICKSTART_MODEL = "rn-tiny"
TEST_DOMAIN = "quickdraw"
"""Domain that the shipped models were trained on without some classes."""
HELD_OUT = DRAWN_CLASSES[1::4]
"""Classes that were left out of it: butterfly, fish, key, star."""


@dataclass(frozen=True)
class QuickstartSettings:
    """Settings of the quickstart.

    Example:
        >>> from circuitry.analysis import QuickstartSettings
        >>> QuickstartSettings(model="vit-tiny").folder.name
        'quickstart-vit-tiny'
    """

    out: Path | None = None
    """Folder of the results: all that is made; a second run reuses it (default: runs/quickstart, or
    runs/quickstart-vit-tiny)."""
    results: SmallTables = None
    classes: Annotated[tuple[str, ...], DISTINCT] = DRAWN_CLASSES[:12]
    """Classes to look at; the model was trained on sixteen, and answers with one of these."""
    domains: Annotated[tuple[str, ...], DISTINCT] = DRAWN_STYLES
    """Domains to look at."""
    n_images: NImages = 6
    n_unseen: NUnseen = 4
    n_others: NOthers = 4
    model: Literal["rn-tiny", "vit-tiny"] = "rn-tiny"
    """The model: a ResNet or a transformer."""
    units: Literal["channels", "components"] | None = None
    """What circuits are made of (default: components, which are hidden channels of the ResNet, and attention heads and
    MLP neurons of the transformer)."""
    processes: int | None = None
    """Processes that find and test the circuits, with one thread each (default: one a core, at most 8)."""
    seed: SeedOption = 0

    def __post_init__(self) -> None:
        # Wrong names are refused before any process starts.
        chosen_names("class", self.classes, DRAWN_CLASSES)
        chosen_names("domain", self.domains, DRAWN_STYLES)

    @property
    def folder(self) -> Path:
        """Folder of everything that is made."""
        if self.out is not None:
            return self.out
        if self.model == QUICKSTART_MODEL:
            return QUICKSTART
        return QUICKSTART.with_name(f"{QUICKSTART.name}-{self.model}")


@checked
@dataclass(frozen=True, kw_only=True)
class QuickstartModel(ModelOptions):
    """A model and images; the defaults come with the package.

    Example:
        >>> from circuitry.analysis import QuickstartModel
        >>> QuickstartModel(classes=("clock", "cup")).images().classes
        ('clock', 'cup')
    """

    model: str = QUICKSTART_MODEL  #: A shipped model, or any that `load_clip` takes.
    data: Path = DRAWN_IMAGES
    """Images by domain and class (default: the drawn pictures of the package)."""

    @property
    def known_words(self) -> tuple[str, ...] | None:
        """Words of the captions beside the images, if there are any: a small model knows no others."""
        # Large models know all words, and their data has no such file.
        if not (self.data / "captions.tsv").is_file():
            return None
        return circuitry.training.caption_words(self.data)


def say(text: str) -> None:
    """Print a line in brackets on the work that begins."""
    # Several processes write to one terminal: the line must not wait in a buffer.
    print(f"[{text}]", flush=True)
