"""Options of command lines that name a model, its images, and the metric and texts of a class. No torch.

A command's `Config` inherits from the classes of options that it needs, so that an option has the same name, default
and meaning everywhere; see also `data.shared_options`, `runs.WorkSettings` and `circuits.AttributionSettings`.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from tyro.conf import arg

import circuitry
from circuitry import encoder, models
from circuitry.data.shared_options import Decoding, NImages, SeedOption, option
from circuitry.encoder.choices import BASELINE_NAMES, METRIC_NAMES
from circuitry.models.prompts import TEXTS, Template, templates_of
from circuitry.runs.arguments import DISTINCT, Condition, checked
from circuitry.runs.errors import InputError
from circuitry.runs.workers import ALONE, Rank

log = logging.getLogger(__name__)


@checked
@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """A model in a basis of units, and images.

    Example:
        >>> from circuitry.models import ModelOptions
        >>> options = ModelOptions(model="rn-tiny", data=Path("DomainNet"), classes=("clock",))
        >>> options.images().classes
        ('clock',)
    """

    NOT_BOTH: ClassVar = (("checkpoint", "pretrained"),)

    model: str
    """The model: open_clip name, hf-hub:org/model or the path of a model-config JSON; rn-tiny or vit-tiny, whose
    weights come with this package; a hub id (org/model) or folder of transformers; or a classifier, for data with a
    classes.tsv of its outputs by class: timm:NAME, torchvision:NAME, efficientnet-lite0, 1 or 2 (ImageNet weights by
    the extra real); or FILE.py:FUNCTION of yours, which makes a model (circuitry.models.from_encoder)."""
    checkpoint: Path | None = None
    """Local checkpoint; this or --pretrained, or neither for a model that brings its weights."""
    pretrained: str | None = None
    """The library's tag of pretrained weights, instead of a checkpoint."""
    probe: str | None = None
    """Which of DomainNet's lists a linear probe is fitted on, such as train; it replaces class texts where there are
    none."""
    data: Path
    """Folder of the images: <domain>/<class>/<file>."""
    split: str | None = "test"
    """Which of DomainNet's lists to use, where there are lists."""
    classes: Annotated[tuple[str, ...] | None, DISTINCT] = None
    """Classes to look at (default: all)."""
    domains: Annotated[tuple[str, ...] | None, DISTINCT] = None
    """Domains to look at (default: all)."""
    decoding: Decoding = "upright"
    device: str = "cpu"
    """Where the model runs: cpu, cuda, mps; of several processes on a machine each takes its own GPU."""
    units: Literal["channels", "components"] | None = None
    """What circuits are made of: components, which lie inside blocks (of a transformer attention heads and MLP
    neurons, of a CNN hidden channels and those of projection shortcuts); or channels, which are outputs of blocks (of
    a transformer dimensions of its stream) (default: components where the tower's blocks are known)."""
    sae: tuple[str, ...] = ()
    """Sites whose units are features of a sparse autoencoder, as SITE=PATH, e.g. layer3.0=runs/sae.safetensors; of a
    released one as blocks.9.hook_resid_post=org/name, and with --units components a transcoder's MLP as
    blocks.9.hook_mlp_out=PATH."""

    def clip(self, rank: Rank = ALONE, *, components: bool = False) -> "models.Clip":
        """Load the model on the device of this process, with the units that were asked for.

        Args:
            components: Whether units are components where nothing was asked for.
        """
        device = rank.device(self.device)
        clip = models.load_clip(
            self.model, self.checkpoint, self.pretrained, device
        ).with_decoding(self.decoding)
        # A classifier has outputs in place of texts; the data says which output is which class.
        table = self.data / "classes.tsv"
        if self.probe is not None:
            clip = models.linear_probe(clip, self._seen_by_the_probe())
        elif isinstance(clip, models.Classifier) and (
            table.is_file() or not clip.classes
        ):
            clip = clip.with_classes(models.read_outputs(table))
        # With autoencoders and no word on units, features of the blocks' outputs are meant, not components.
        if self.units == "components" or (
            self.units is None and components and not self.sae
        ):
            clip = self._in_components(clip)
        return clip.in_basis(models.parse_saes(self.sae))

    def _in_components(self, clip: "models.Clip") -> "models.Clip":
        # Components are the default where they are known; a tower without them has channels.
        try:
            return clip.in_components()
        except InputError as error:
            if self.units is not None:
                raise
            log.warning("Circuits are made of channels. %s", error)
            return clip

    def _seen_by_the_probe(self) -> "tuple[circuitry.data.ImageRecord, ...]":
        fitted = self.images_of(self.probe).records
        # A probe that has seen an image would recognise it in any model.
        if shared := len({*fitted} & {*self.images().records}):
            raise InputError(
                f"A linear probe is fitted on other images than those that it explains, but --probe {self.probe} and "
                f"--split {self.split} share {shared} images of {self.data}: give two lists <domain>_<list>.txt of "
                "different images."
            )
        return fitted

    def images(self) -> "circuitry.DomainFolder":
        """Return the images."""
        return self.images_of(self.split)

    def images_of(self, split: str | None) -> "circuitry.DomainFolder":
        """Return the images of another list."""
        return circuitry.DomainFolder(
            self.data, split=split, domains=self.domains, classes=self.classes
        )


def _texts(*words: str) -> str | tuple[str, ...]:
    """Return class texts as Python takes them: a name, or templates."""
    # A single word with braces is a template, not a name.
    return words[0] if len(words) == 1 and "{}" not in words[0] else words


def _no_texts(value: object) -> str | None:
    if isinstance(value, str) and value not in TEXTS:
        templates_of(value, "")
    return None


def _no_baseline(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        encoder.as_baseline(value)
    return None


MetricChoice = Annotated[
    str | Callable[..., Any] | None,
    option(str, "METRIC", choices=METRIC_NAMES),
    arg(
        help="What a class is recognised by: logit, its cosine logit; margin, its lead over the mean logit of the "
        "other classes. In Python also a function of text weights and label that returns a metric."
    ),
]
TextsChoice = Annotated[
    str | Sequence[Template] | None,
    Condition("class texts", _no_texts, "give 'pooled', 'own-style' or templates"),
    option(_texts, "TEXT", "*"),
    arg(
        help="Texts of a class: pooled (all default templates averaged), own-style (the prompts of the images' own "
        'domain), or templates such as "a photo of a {}.".'
    ),
]
BaselineChoice = Annotated[
    Any,
    Condition("a baseline", _no_baseline, "give its name"),
    option(str, "BASELINE", choices=BASELINE_NAMES),
    arg(
        help="What replaces ablated activations: zero; mean-position, mean-unit (means over the images of all classes "
        "and domains); other-domains (the class's mean in the other domains); counterfactual (images of other classes "
        "in the domain). Without one: mean-position. In Python also a Baseline or counterfactual images."
    ),
]


@checked
@dataclass(frozen=True, kw_only=True)
class FolderSettings:
    """The questions to a model about every class and domain.

    Example:
        >>> from circuitry.models import FolderSettings
        >>> FolderSettings(n_images=8, metric="margin").texts
        'pooled'
    """

    n_images: NImages = 50
    seed: SeedOption = 0
    metric: MetricChoice = "logit"
    texts: TextsChoice = "pooled"
    baseline: BaselineChoice = None
