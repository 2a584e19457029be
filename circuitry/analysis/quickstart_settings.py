"""Settings of the quickstart, and of commands whose default model and images are the quickstart's.

Does not import torch.
"""

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
"""Default folder of the quickstart's results."""
QUICKSTART_MODEL = "rn-tiny"
TEST_DOMAIN = "quickdraw"
"""The domain in which the shipped models were trained without some of the classes."""
HELD_OUT = DRAWN_CLASSES[1::4]
"""Classes that were left out of this domain in training: butterfly, fish, key, star."""


@dataclass(frozen=True)
class QuickstartSettings:
    """Settings of the quickstart.

    Example:
        >>> from circuitry.analysis import QuickstartSettings
        >>> QuickstartSettings(model="vit-tiny").folder.name
        'quickstart-vit-tiny'
    """

    out: Path | None = None
    """Folder of the results. A second run reuses the results in it (default: runs/quickstart, or
    runs/quickstart-vit-tiny)."""
    results: SmallTables = None
    classes: Annotated[tuple[str, ...], DISTINCT] = DRAWN_CLASSES[:12]
    """Classes to look at. The model was trained on sixteen classes, but it chooses only among these."""
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
    """Number of processes that find and test the circuits, with one thread each (default: one for each core, at most
    8)."""
    seed: SeedOption = 0

    def __post_init__(self) -> None:
        # Wrong names are refused before any process starts.
        chosen_names("class", self.classes, DRAWN_CLASSES)
        chosen_names("domain", self.domains, DRAWN_STYLES)

    @property
    def folder(self) -> Path:
        """Folder of the results."""
        if self.out is not None:
            return self.out
        if self.model == QUICKSTART_MODEL:
            return QUICKSTART
        return QUICKSTART.with_name(f"{QUICKSTART.name}-{self.model}")


@checked
@dataclass(frozen=True, kw_only=True)
class QuickstartModel(ModelOptions):
    """A model and images. By default they are a model and images that come with the package.

    Example:
        >>> from circuitry.analysis import QuickstartModel
        >>> QuickstartModel(classes=("clock", "cup")).images().classes
        ('clock', 'cup')
    """

    model: str = QUICKSTART_MODEL
    """A shipped model, or any model that `load_clip` takes."""
    data: Path = DRAWN_IMAGES
    """Images by domain and class (default: the drawn pictures of the package)."""

    @property
    def known_words(self) -> tuple[str, ...] | None:
        """Words of the captions that lie beside the images, or None if there are no captions.

        A small model that was trained on these captions knows no other words.
        """
        # Large models know all words, and their data has no such file.
        if not (self.data / "captions.tsv").is_file():
            return None
        return circuitry.training.caption_words(self.data)


def say(text: str) -> None:
    """Print a line in brackets about the work that begins."""
    # The line must not wait in a buffer, because several processes write to one terminal.
    print(f"[{text}]", flush=True)
