"""The card of one unit: its images, activations, effects and name, as plain values. No torch."""

import html
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

ACTIVATION = "activation"
EFFECT = "effect"
RANKINGS_OF_IMAGES = (ACTIVATION, EFFECT)
"""How a unit ranks images: by its activation, and by its effect on the image's own class."""
FEWEST = 20
"""Fewest images in each half, one to fit names on and one to test them on."""


class CardImage(NamedTuple):
    """An image that cards show.

    Example:
        >>> from circuitry.cards import CardImage
        >>> image = CardImage("9f86d081884c7d65", "sketch/clock/1.png", "sketch", "clock", found_on=True)
        >>> image.class_name
        'clock'
    """

    id: str
    """16 hexadecimal digits: a digest of its path below the root."""
    relative: str
    """``domain/class/file``."""
    domain: str  #: Style of the image.
    class_name: str  #: What it shows.
    found_on: bool
    """Whether the class's circuit in the domain was found on it."""
    item: str = ""
    """The thing that it shows, with one name in all domains."""


@dataclass(frozen=True, eq=False)
class TopImages:
    """The images of a domain in which a unit is strongest.

    Example:
        >>> from circuitry.cards import TopImages
        >>> top = TopImages(ids=("9f86d081884c7d65", "60303ae22b998861"), values=np.array([2.5, 0.5]), heat=None)
        >>> top.ids[0]     # the image in which the unit is strongest
        '9f86d081884c7d65'
    """

    ids: tuple[str, ...]
    """Strongest first; only images with a value above zero."""
    values: Float[np.ndarray, " images"]
    """The unit's activation or effect in each image."""
    heat: UInt8[np.ndarray, "images height width"] | None
    """The unit's *activation* over each image, 255 for its largest in any image, 0 for zero or less; None for units
    without a place in the image."""


@dataclass(frozen=True)
class UnitName:
    """A name, and how well it predicts the unit's activation on images that it was not fitted on.

    Example:
        >>> from circuitry.cards import WordedImages, name_units
        >>> probabilities = np.random.default_rng(0).random((100, 2))
        >>> tested = np.arange(100) % 2 == 1
        >>> worded = WordedImages(["stripes", "grass"], probabilities, ["zebra"] * 100, ["real"] * 100, tested)
        >>> name = name_units(probabilities[:, :1], worded)[0]     # a unit that responds to stripes
        >>> name.name, name.runner_up
        ('stripes', 'grass')
    """

    words: tuple[str, ...]
    """One to three, heaviest first."""
    weights: tuple[float, ...]
    """Slope of each word: standard deviations of the activation per standard deviation of the word's probability."""
    correlation: float
    """Pearson correlation with the activation, over the images of all domains."""
    auprc: float
    """Area under the precision-recall curve for the images with the 5 % largest activations."""
    by_domain: dict[str, tuple[float, float]]
    """Correlation and AUPRC in each domain; NaN where the activation does not vary."""
    runner_up: str | None
    """The best other candidate."""
    runner_up_correlation: float  #: Its correlation on the same images.
    chance: float
    """The 95 % quantile of the correlations that names reach when whole cells of class and domain are permuted."""
    style: bool
    """Whether the heaviest word names a domain."""
    references: dict[str, tuple[str, float]]
    """``class``, ``domain``: the label that fits best, with its correlation on the same images."""

    @property
    def name(self) -> str:
        """The words in one line."""
        return " + ".join(self.words)

    @property
    def weak(self) -> bool:
        """Whether the name is no better than names of permuted cells."""
        # Written with "not", so that a correlation that is not a number counts as weak.
        return not self.correlation > self.chance


@dataclass(frozen=True)
class WordCheck:
    """Whether a model's words work on some images: zero-shot classification by the names of their classes.

    Example:
        >>> from circuitry.cards import WordCheck
        >>> check = WordCheck("rn-tiny", 0.62, {"real": 0.62}, chance=0.25, n_images=100, works=True)
        >>> check.sentence
        'The words of rn-tiny work on these images: 62% of 100 are classified right, 25% by chance; ...'
    """

    model: str  #: Name of the model.
    accuracy: float  #: Share of right answers, over all images.
    by_domain: dict[str, float]  #: Accuracy in each domain.
    chance: float
    """One over the number of classes."""
    n_images: int  #: Images that are classified.
    works: bool
    """Whether the lower end of the accuracy's 95 % interval (binomial) is above chance."""

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        verdict = "do not work"
        names = "do not believe names of units"
        if self.works:
            verdict = "work"
            names = f"names of units can be tested where each half has {FEWEST} images"
        return (
            f"The words of {self.model} {verdict} on these images: {self.accuracy:.0%} of {self.n_images} are "
            f"classified right, {self.chance:.0%} by chance; {names}."
        )


@dataclass(frozen=True, eq=False, repr=False)
class UnitCard:
    """One unit: the images that activate it in every domain, its effects, and its name.

    Example:
        >>> from circuitry.cards import unit_cards
        >>> cards = unit_cards(clip, folder, graphs, "runs/x/cards", n_images=4, exact_units=0)
        >>> card = cards.card(*cards.units()[0])
        >>> card.title
        '.../...'
        >>> card.effects.shape      # [classes, domains]
        (2, 2)
        >>> card.top["activation"]["sketch"].ids
        (...)
    """

    site: str  #: Where the unit is.
    unit: int  #: Its number there.
    kind: str
    """channel, feature (of tokens or of the embedding), head, neuron or latent."""
    classes: tuple[str, ...]
    """The axis "classes"."""
    domains: tuple[str, ...]
    """The axis "domains"."""
    top: dict[str, dict[str, TopImages]]
    """The top images by `ACTIVATION` and by `EFFECT`, then by domain."""
    heat_scale: float
    """The activation that heat 255 means: the unit's largest in any image."""
    bin_edges: Float[np.ndarray, " edges"]
    """Edges of the histograms' bins, the same for all domains."""
    counts: Int[np.ndarray, "domains bins"]
    """Images by their activation."""
    effects: Float[np.ndarray, "classes domains"]
    """The attributed effect on the class's metric, the node score of the graph; NaN where there is no graph."""
    kept: Bool[np.ndarray, "classes domains"]
    """Whether the circuit holds the unit."""
    exact: Mapping[str, Float[np.ndarray, "classes domains"]]
    """The exact effect on the class's metric by replacement of the unit: ``zero``, ``mean`` (over the images of all
    classes and domains), ``other-domains`` (the class's mean there); NaN where it was not measured."""
    attributed_like: str
    """The baseline of `effects`."""
    name: UnitName | None
    """The words that predict its activation best; None where no name can be fitted and tested."""
    thumbnail: Callable[[str], bytes] | None = None
    """Reads the thumbnail of an image, for notebooks; None for a card without a folder."""

    @property
    def title(self) -> str:
        """Site and unit, as nodes of circuits are called."""
        return f"{self.site}/{self.unit}"

    def __repr__(self) -> str:
        text = f"UnitCard of {self.kind} {self.title}"
        if self.name is None:
            return text
        weak = " (weak)" if self.name.weak else ""
        return f"{text}, “{self.name.name}”{weak}"

    def _repr_html_(self) -> str:
        """Show the unit's name, and the images that activate it most, in a notebook."""
        # Images are in the page itself, since a notebook may be read without the folder.
        page = f"<p>{html.escape(repr(self).removeprefix('UnitCard of '))}</p>"
        for domain, top in self.top[ACTIVATION].items():
            page += f"<p>{html.escape(domain)}<br>"
            if self.thumbnail is not None:
                for image_id in top.ids[:6]:
                    image = b64encode(self.thumbnail(image_id)).decode("ascii")
                    page += f'<img alt="" src="data:image/webp;base64,{image}">'
            page += "</p>"
        return page
