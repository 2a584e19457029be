"""Settings of the quickstart, and of commands that start from its model and images without options. No torch."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import circuitry
from circuitry.data.drawn.drawing import STYLES, TOY_CLASSES, DrawingSettings
from circuitry.data.names import chosen_names
from circuitry.data.shared_options import (
    NImages,
    NOthers,
    NUnseen,
    SeedOption,
    SmallTables,
)
from circuitry.models.options import ModelOptions
from circuitry.runs.errors import InputError
from circuitry.runs.given import DISTINCT, checked

QUICKSTART = Path("runs/quickstart")
"""The quickstart's folder."""
DRAWN_IMAGES = "toy"
"""Folder of the images that the quickstart draws, within its own."""
QUICKSTART_MODEL = "rn-tiny"
OF_TRAINING = ("test_domain", "held_out", "n_train", "epochs")
"""Settings that only a training can take."""


@dataclass(frozen=True)
class QuickstartSettings:
    """Settings of the quickstart."""

    out: Path | None = None
    """Folder of the results: all that is made; a second run reuses it (default: runs/quickstart, with -vit-tiny and
    -trained after it where these are asked for)."""
    train: bool = False
    """Train the model, in place of the weights that come with the package: it takes two minutes more, and another
    processor gives other numbers."""
    results: SmallTables = None
    classes: Annotated[tuple[str, ...], DISTINCT] = TOY_CLASSES[:12]
    """Classes to look at; the model was trained on sixteen, and answers with one of these."""
    domains: Annotated[tuple[str, ...], DISTINCT] = ("clipart", "quickdraw", "real")
    """Domains to look at; the model was trained on all."""
    test_domain: str = "quickdraw"
    """Test domain: classes are held out of it in training."""
    held_out: tuple[str, ...] = TOY_CLASSES[1::4]
    """Held-out classes: of the test domain."""
    n_train: int = 30
    """Drawn training images per class and style; all of the mixture is used, nothing is subsampled."""
    n_test: int = 20
    """Test images per class and style."""
    n_images: NImages = 6
    n_unseen: NUnseen = 4
    n_others: NOthers = 4
    model: Literal["rn-tiny", "vit-tiny"] = "rn-tiny"
    """The model: a ResNet or a transformer."""
    units: Literal["channels", "components"] | None = None
    """What circuits are made of (default: components, which are hidden channels of the ResNet, and attention heads and
    MLP neurons of the transformer)."""
    epochs: int | None = None
    """Passes over the images (default: 16, of the transformer 40)."""
    processes: int | None = None
    """Processes that find and test the circuits, with one thread each (default: one a core, at most 8)."""
    seed: SeedOption = 0

    def __post_init__(self) -> None:
        chosen_names("class", (*self.held_out, *self.classes), TOY_CLASSES)
        chosen_names("domain", (self.test_domain, *self.domains), STYLES)
        standard = {field.name: field.default for field in fields(self)}
        changed = [
            f"--{name.replace('_', '-')}"
            for name in OF_TRAINING
            if getattr(self, name) != standard[name]
        ]
        if changed and not self.train:
            raise InputError(
                f"The weights of {self.model} that come with this package were trained by the defaults, but "
                f"{' and '.join(changed)} was given: add --train."
            )

    @property
    def folder(self) -> Path:
        """Folder of everything that is made."""
        if self.out is not None:
            return self.out
        name = QUICKSTART.name
        if self.model != QUICKSTART_MODEL:
            name += f"-{self.model}"
        if self.train:
            name += "-trained"
        return QUICKSTART.with_name(name)

    @property
    def drawing(self) -> DrawingSettings:
        """What is drawn: the images of the training only where there is one; the test images are the same."""
        if self.train:
            return DrawingSettings(self.n_train, self.n_test, seed=self.seed, first=0)
        return DrawingSettings(0, self.n_test, seed=self.seed, first=self.n_train)


@checked
@dataclass(frozen=True, kw_only=True)
class QuickstartModel(ModelOptions):
    """A model and images; the defaults are the quickstart's."""

    model: str = QUICKSTART_MODEL  #: A shipped model, or any that `load_clip` takes.
    data: Path = QUICKSTART / DRAWN_IMAGES  #: Images by domain and class.

    @property
    def known_words(self) -> tuple[str, ...] | None:
        """Words of the captions beside the images, if there are any: a small model knows no others."""
        if not (self.data / "captions.tsv").is_file():
            return None
        return circuitry.training.caption_words(self.data)


def say(text: str) -> None:
    """Say what happens now."""
    print(f"[{text}]", flush=True)
