"""Why does a model give its answer to one picture: which units gave it, where do they look, and does it hold?

The model answers a picture among texts. This command measures which units raise the log-odds of the answer, exactly,
and writes a page: the picture, where each of these units is active in it, the graph of the units, and tests: the answer
after removing these units, after removing random units, and while the picture is deleted cell by cell, beside
integrated gradients.

    circuitry explain cat.jpg --model ViT-B-32 --pretrained openai --texts "a photo of a cat" "a photo of a dog"
    circuitry explain dog.jpg --model efficientnet-lite0           # a classifier's own classes
    circuitry explain apple.jpg marked.jpg --model ... --texts ... --text "an apple"   # two pictures, side by side
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional

from circuitry import cards, circuits, interventions, reports
from circuitry.models.options import LoadingOptions
from circuitry.runs.arguments import SOME, Count
from circuitry.runs.errors import UnknownNameError

if TYPE_CHECKING:
    from circuitry.circuits import Circuit
    from circuitry.interventions import Explanation
    from circuitry.reports import ExplainedPage, Strip

TOP_IMAGES = 3
"""Number of images of a unit's card that the page shows."""


@dataclass(frozen=True, kw_only=True)
class Config(LoadingOptions):
    """Settings of the explanation."""

    pictures: Positional[Annotated[tuple[Path, ...], SOME]]
    """One or more image files."""
    texts: tuple[str, ...] = ()
    """Two or more texts that the model answers among. A classifier has its classes without this option."""
    text: str | None = None
    """The text that is explained (default: the answer to each picture)."""
    against: str = "all"
    """What this text is compared with: all, runner-up, or one of the texts."""
    baseline: Path | None = None
    """A picture that replaces removed units and cells, such as the same one before something was written into it
    (default: the mean colour)."""
    n_units: Count = 10
    """Number of units that are shown."""
    parts: Path | None = None
    """Folder of own parts of this model, in which units are looked up, such as runs/mine/own-parts/circuits."""
    cards: Path | None = None
    """Folder of cards of this model, whose images and names are shown."""
    out: Path = Path("explanation.html")
    """The page."""


def main(config: Config) -> "ExplainedPage":
    """Explain each picture, and write the page."""
    clip = config.loaded(components=True)
    parts: dict[str, Circuit] = {}
    if config.parts is not None:
        folder = circuits.GraphFolder(config.parts)
        for (class_name, domain), graph in folder.items():
            parts[f"{class_name} in {domain}"] = graph.circuit(None)
    explanations = [
        interventions.explain(
            clip,
            picture,
            config.texts or None,
            text=config.text,
            against=config.against,
            n_units=config.n_units,
            baseline=config.baseline,
            parts=parts,
        )
        for picture in config.pictures
    ]
    strips = {} if config.cards is None else strips_of(config.cards, explanations)
    return reports.write_explanations(explanations, config.out, strips)


def strips_of(
    folder: Path, explanations: "list[Explanation]"
) -> "dict[tuple[str, int], Strip]":
    """Return what the cards of a folder show of the units of explanations. Units without a card are left out."""
    opened = cards.CardFolder(folder)
    strips: dict[tuple[str, int], Strip] = {}
    for explanation in explanations:
        table = explanation.units
        for site, unit in zip(table["site"], table["unit"], strict=True):
            try:
                card = opened.card(site, unit)
            except UnknownNameError:
                continue
            # One image of each domain after the other, the strongest first.
            tops = [list(top.ids) for top in card.top["activation"].values()]
            tops.sort(key=len, reverse=True)
            ids = [images[0] for images in tops if images][:TOP_IMAGES]
            name = card.name
            called = "" if name is None or name.weak else name.name
            thumbnails = [opened.thumbnail(image_id) for image_id in ids]
            strips[site, unit] = reports.Strip(called, thumbnails)
    return strips
