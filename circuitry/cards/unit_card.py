"""The card of one unit: its images, activations, effects and name, as plain values. Does not import torch."""

import html
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, UInt8

ACTIVATION = "activation"
EFFECT = "effect"
RANKINGS_OF_IMAGES = (ACTIVATION, EFFECT)
"""How images are ranked for a unit: by its activation, and by its effect on the metric of the image's own class."""
FEWEST = 20
"""Smallest number of images in each of the two halves. Names are fitted on one half and tested on the other half."""


class CardImage(NamedTuple):
    """An image that cards show.

    Example:
        >>> from circuitry.cards import CardImage
        >>> image = CardImage("9f86d081884c7d65", "sketch/clock/1.png", "sketch", "clock", found_on=True)
        >>> image.class_name
        'clock'
    """

    id: str
    """Id of 16 hexadecimal digits: a digest of ``relative``."""
    relative: str
    """Path of the image below the root of the data: ``domain/class/file``."""
    domain: str  #: Style of the image.
    class_name: str  #: Class that the image shows.
    found_on: bool
    """Whether the image was used to find the circuit of its class in its domain."""
    item: str = ""
    """Name of the thing that the image shows. The same thing has the same name in all domains."""


@dataclass(frozen=True, eq=False)
class TopImages:
    """The images of a domain in which a unit has its largest activations, or its largest effects.

    Example:
        >>> from circuitry.cards import TopImages
        >>> top = TopImages(ids=("9f86d081884c7d65", "60303ae22b998861"), values=np.array([2.5, 0.5]), heat=None)
        >>> top.ids[0]     # the image in which the unit is strongest
        '9f86d081884c7d65'
    """

    ids: tuple[str, ...]
    """Ids of the images, the strongest image first. Images with a value of zero or less are left out."""
    values: Float[np.ndarray, " images"]
    """The unit's activation or effect in each image, by which the images are ranked."""
    heat: UInt8[np.ndarray, "images height width"] | None
    """Map of the unit's *activation* over each image, also if images are ranked by effect. 255 is the unit's largest
    activation in any image, and 0 is an activation of zero or less. None if the unit has no positions in the image."""

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each image, the strongest first: columns id, value."""
        return pd.DataFrame({"id": self.ids, "value": self.values})


@dataclass(frozen=True)
class UnitName:
    """The name of a unit, and how well the name predicts the unit's activation.

    The name is fitted on one half of the images. All scores are computed on the other half.

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
    """The one to three words of the name. The word whose weighted probability varies most comes first."""
    weights: tuple[float, ...]
    """Weight of each word: the change of the activation, in standard deviations, if the probability of the word changes
    by 1."""
    correlation: float
    """Pearson correlation of the prediction with the activation, over the images of all domains."""
    auprc: float
    """Area under the precision-recall curve of the prediction, for finding the 5 % of the images with the largest
    activations."""
    by_domain: dict[str, tuple[float, float]]
    """Correlation and AUPRC in each domain. Both are NaN if the activation or the prediction does not vary there."""
    runner_up: str | None
    """The best single word among the candidates that are not in the name."""
    runner_up_correlation: float
    """Correlation of the runner-up's probability with the activation, on the same images."""
    chance: float
    """Chance level of the correlation: the 95 % quantile of the correlations of names that are fitted to permuted
    activations. In a permutation, the images of a class in a domain together get the activations of the images of
    another class or domain."""
    style: bool
    """Whether the first word names a domain."""
    references: dict[str, tuple[str, float]]
    """The best class label and the best domain label, with the keys ``class`` and ``domain``. Each value is the label
    and its correlation with the activation on the same images."""

    @property
    def name(self) -> str:
        """The words of the name, joined by " + "."""
        return " + ".join(self.words)

    @property
    def weak(self) -> bool:
        """Whether the correlation of the name is not above chance level."""
        # With "not", a correlation of NaN counts as weak.
        return not self.correlation > self.chance


@dataclass(frozen=True)
class WordCheck:
    """Result of a test whether a model's words work, so that they can name units.

    In this test the model classifies images by the names of classes (zero-shot). The words work if the lower end of the
    accuracy's confidence interval is above chance level.

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
    """Chance level of the accuracy: one over the number of classes."""
    n_images: int  #: Number of classified images.
    works: bool
    """Whether the lower end of the accuracy's 95 % interval (binomial) is above chance."""

    @property
    def sentence(self) -> str:
        """The result of the test as a sentence."""
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
    """The card of one unit: the images that activate the unit in every domain, its effects, and its name.

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

    site: str  #: Site of the unit.
    unit: int  #: Index of the unit at the site.
    kind: str
    """Kind of the unit: channel, feature (of tokens or of the embedding), head, neuron or latent."""
    classes: tuple[str, ...]
    """Names of the classes along the axis "classes"."""
    domains: tuple[str, ...]
    """Names of the domains along the axis "domains"."""
    top: dict[str, dict[str, TopImages]]
    """Top images of the unit: by ranking (`ACTIVATION` and `EFFECT`), then by domain."""
    heat_scale: float
    """The activation that is shown as a heat of 255: the unit's largest activation in any image."""
    bin_edges: Float[np.ndarray, " edges"]
    """Edges of the bins of the histograms. All domains have the same bins."""
    counts: Int[np.ndarray, "domains bins"]
    """Histograms of the unit's activation: the number of images in each bin."""
    effects: Float[np.ndarray, "classes domains"]
    """The attributed effect on the class's metric: the node score in the graph. NaN if there is no graph."""
    kept: Bool[np.ndarray, "classes domains"]
    """Whether the circuit keeps the unit."""
    exact: Mapping[str, Float[np.ndarray, "classes domains"]]
    """The exact effect on the class's metric, by the replacement of the unit. ``zero`` replaces its activation by zero,
    ``mean`` by the mean over the images of all classes and domains, and ``other-domains`` by the mean over the class's
    images in other domains. NaN if the effect was not measured."""
    attributed_like: str
    """Name of the baseline that was used for `effects`."""
    name: UnitName | None
    """The words that predict the unit's activation best. None if no name can be fitted and tested."""
    thumbnail: Callable[[str], bytes] | None = None
    """Function that takes the id of an image and returns its thumbnail, for notebooks. None for a card without a
    folder."""

    @property
    def title(self) -> str:
        """The text ``site/unit``, which is also the name of the unit's node in circuits."""
        return f"{self.site}/{self.unit}"

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each class and domain: columns class, domain, effect, kept, and ``exact_`` with the name of
        each replacement."""
        axes = (self.classes, self.domains)
        cells = pd.MultiIndex.from_product(axes, names=["class", "domain"])
        columns = {"effect": self.effects, "kept": self.kept}
        columns |= {f"exact_{name}": exact for name, exact in self.exact.items()}
        values = {name: numbers.ravel() for name, numbers in columns.items()}
        return pd.DataFrame(values, cells).reset_index()

    def __repr__(self) -> str:
        text = f"UnitCard of {self.kind} {self.title}"
        if self.name is None:
            return text
        weak = " (weak)" if self.name.weak else ""
        return f"{text}, “{self.name.name}”{weak}"

    def _repr_html_(self) -> str:
        """Return HTML for a notebook. It shows the unit's name and the images that activate the unit most."""
        # Images are in the page itself, because a notebook may be read without the folder.
        page = f"<p>{html.escape(repr(self).removeprefix('UnitCard of '))}</p>"
        for domain, top in self.top[ACTIVATION].items():
            page += f"<p>{html.escape(domain)}<br>"
            if self.thumbnail is not None:
                for image_id in top.ids[:6]:
                    image = b64encode(self.thumbnail(image_id)).decode("ascii")
                    page += f'<img alt="" src="data:image/webp;base64,{image}">'
            page += "</p>"
        return page
