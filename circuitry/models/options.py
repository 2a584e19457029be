"""Options of command lines that name a model, its images, and the metric and texts of a class. Does not import torch.

The `Config` of a command inherits from the classes of options that the command needs. So an option has the same name,
default and meaning in all commands. Other options are in `data.shared_options`, `runs.WorkSettings` and
`circuits.AttributionSettings`.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from tyro.conf import arg

import circuitry
from circuitry import encoder, models
from circuitry.data.image_lists import listed_splits
from circuitry.data.shared_options import Decoding, NImages, SeedOption, option
from circuitry.encoder.choices import BASELINE_NAMES, METRIC_NAMES
from circuitry.models.prompts import TEXTS, Template, templates_of
from circuitry.runs.arguments import DISTINCT, Condition, checked
from circuitry.runs.errors import InputError
from circuitry.runs.progress import say_once
from circuitry.runs.workers import ALONE, Rank

if TYPE_CHECKING:
    from circuitry.data.domains import ImageRecord

log = logging.getLogger(__name__)

LEAST_IN_HALF = 2
"""Least number of images of a class that fit a linear probe, and that test it."""


@checked
@dataclass(frozen=True, kw_only=True)
class LoadingOptions:
    """Options that name a model, where it runs, and what its units are.

    Example:
        >>> from circuitry.models.options import LoadingOptions
        >>> LoadingOptions(model="rn-tiny").loaded(components=True).encoder.kinds["layer1.0.act1"].name
        'hidden channel'
    """

    NOT_BOTH: ClassVar = (("checkpoint", "pretrained"),)

    model: str
    """The model. One of: a model of open_clip by its name, by hf-hub:org/model or by the path of a model-config JSON;
    rn-tiny or vit-tiny, whose weights come with this package; a model of transformers by its hub id (org/model) or
    folder; a classifier, by timm:NAME, torchvision:NAME or efficientnet-lite0, 1 or 2 (whose ImageNet weights come with
    the extra real); or FILE.py:FUNCTION, a function of yours that returns a model (circuitry.models.from_encoder). For
    a classifier, the file classes.tsv in the folder of the images says which outputs belong to which class."""
    checkpoint: Path | None = None
    """Local file of the weights. Give this or --pretrained; give neither for a model that brings its weights."""
    pretrained: str | None = None
    """The library's tag of pretrained weights, instead of a checkpoint."""
    decoding: Decoding = "upright"
    device: str = "cpu"
    """Where the model runs: cpu, cuda or mps. If several processes share a machine, each process takes its own GPU."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type in which the image tower computes its products and convolutions. With bfloat16 runs are faster on
    accelerators and on some processors; scores change, and units at the edge of a circuit may change places."""
    units: Literal["channels", "components"] | None = None
    """What circuits are made of. Components are attention heads and MLP neurons of a transformer, and channels inside
    the blocks of a CNN (hidden channels and channels of projection shortcuts). Channels are the outputs of blocks; in a
    transformer these are the dimensions of the residual stream. The default is components if the tower's blocks are
    known, and otherwise channels."""
    sae: tuple[str, ...] = ()
    """Sites whose units are features of a sparse autoencoder, as SITE=PATH, such as layer3.0=runs/sae.safetensors. For
    a released autoencoder write blocks.9.hook_resid_post=org/name. With --units components, a transcoder replaces the
    neurons of an MLP: blocks.9.hook_mlp_out=PATH."""

    def loaded(self, rank: Rank = ALONE, *, components: bool = False) -> "models.Clip":
        """Load the model on the device of this process, with the units and autoencoders that the options name.

        Args:
            rank: Which of the processes of this machine this process is.
            components: Whether heads, neurons and hidden channels are the units if the option ``units`` was not given.
        """
        clip = models.load_clip(
            self.model, self.checkpoint, self.pretrained, rank.device(self.device)
        )
        return self.with_units(clip.with_decoding(self.decoding), components)

    def with_units(self, clip: "models.Clip", components: bool) -> "models.Clip":
        """Return a model with the units, autoencoders and precision that the options name; see `loaded`."""
        # If autoencoders are given without --units, their features encode the outputs of blocks, not components.
        if self.units == "components" or (
            self.units is None and components and not self.sae
        ):
            clip = self._in_components(clip)
        return clip.in_basis(models.parse_saes(self.sae)).in_precision(self.precision)

    def _in_components(self, clip: "models.Clip") -> "models.Clip":
        # If the blocks of the tower are not known, the default falls back to channels.
        try:
            return clip.in_components()
        except InputError as error:
            if self.units is not None:
                raise
            log.warning("Circuits are made of channels. %s", error)
            return clip


@checked
@dataclass(frozen=True, kw_only=True)
class ModelOptions(LoadingOptions):
    """Options that name a model, what its units are, and the images.

    Example:
        >>> from circuitry.models import ModelOptions
        >>> options = ModelOptions(model="rn-tiny", data=Path("DomainNet"), classes=("clock",))
        >>> options.images().classes
        ('clock',)
    """

    NOT_BOTH: ClassVar = (("probe", "texts"),)

    probe: str | None = None
    """Images to which a linear probe is fitted, whose rows replace class texts: a folder <domain>/<class>/<file> or
    <class>/<file>, or the name of lists of --data, such as train for <domain>_train.txt. Half of the images of each
    class in each domain of a folder fit the probe; its accuracy on the other half is printed. A model that reads no
    text needs a probe. Images that fit the probe of a folder are left out of the images that are analysed."""
    data: Path
    """Folder of the images, which lie in <domain>/<class>/<file>."""
    split: str | None = "test"
    """The split whose images are used, such as test for the lists <domain>_test.txt. It is ignored if the folder has no
    lists."""
    classes: Annotated[tuple[str, ...] | None, DISTINCT] = None
    """Classes to look at (default: all classes)."""
    domains: Annotated[tuple[str, ...] | None, DISTINCT] = None
    """Domains to look at (default: all domains)."""

    def clip(self, rank: Rank = ALONE, *, components: bool = False) -> "models.Clip":
        """Return the model as `loaded`, with the probe or the classes of the folder of images."""
        clip = models.load_clip(
            self.model, self.checkpoint, self.pretrained, rank.device(self.device)
        ).with_decoding(self.decoding)
        # A classifier has outputs in place of texts. The table says which outputs belong to which class.
        table = self.data / "classes.tsv"
        if self.probe is not None:
            fitted, tested = self._probe_images
            if not tested:
                self._refuse_shared(fitted)
            clip = models.linear_probe(clip, fitted)
            if tested and rank.worker == 0:
                self._tell_accuracy(clip, fitted, tested)
        elif isinstance(clip, models.Classifier) and (
            table.is_file() or not clip.classes
        ):
            clip = clip.with_classes(models.read_outputs(table))
        return self.with_units(clip, components)

    @cached_property
    def _probe_images(self) -> "tuple[Sequence[ImageRecord], Sequence[ImageRecord]]":
        """Images that fit the probe, and images that test it: the halves of a folder; a list has no second half."""
        assert self.probe is not None
        folder = Path(self.probe)
        lists: Sequence[str] = ()
        if self.data.is_dir():
            lists = listed_splits(self.data)
        if self.probe in lists:
            return self._folder(self.probe).records, ()
        if not folder.is_dir():
            raise InputError(
                f"A linear probe is fitted to a folder of images by class, or to lists of --data, but there is no "
                f"folder {self.probe}, and {self.data} has "
                f"{'lists of ' + ', '.join(lists) if lists else 'no lists'}: check the path."
            )
        try:
            images = circuitry.DomainFolder(folder, split=None)
        except InputError:
            raise InputError(
                f"A linear probe is fitted to images {folder}/<domain>/<class>/<file> or {folder}/<class>/<file>, but "
                "there are none: check the path of --probe."
            ) from None
        halves = circuitry.data.in_halves(images.records)
        for name in images.classes:
            counts = [[r.class_name for r in half].count(name) for half in halves]
            if min(counts) < LEAST_IN_HALF:
                raise InputError(
                    f"A linear probe is fitted to half of the images of each class and tested on the other half, with "
                    f"at least {LEAST_IN_HALF} in each, but {folder} has {counts[0]} and {counts[1]} of {name} (images "
                    "of one name are in one half): add images, or remove the class."
                )
        return halves

    def _refuse_shared(self, fitted: "Sequence[ImageRecord]") -> None:
        # A probe recognises an image that it was fitted on, whatever the model.
        if shared := len({*fitted} & {*self.images().records}):
            raise InputError(
                f"A linear probe is fitted on other images than those that it explains, but --probe {self.probe} and "
                f"--split {self.split} share {shared} images of {self.data}: give two lists <domain>_<list>.txt of "
                "different images."
            )

    def _tell_accuracy(
        self,
        probe: "models.Classifier",
        fitted: "Sequence[ImageRecord]",
        tested: "Sequence[ImageRecord]",
    ) -> None:
        """Log how a probe was fitted, and how many images of each domain that were not used for it it recognises."""
        lines = [
            f"The linear probe is fitted to {len(fitted)} images of {self.probe}: half of each class in each style. "
            f"These images are not analysed. Right answers on the other {len(tested)} images, and by its rows without "
            f"its constants, as circuits are asked (chance {1 / len(probe.classes):.0%}):"
        ]
        table = models.probe_accuracy(probe, tested)
        for domain, images, own, rows in table.itertuples():
            lines.append(f"  {domain}: {own:.0%} of {images}, by its rows {rows:.0%}")
        say_once(log, "\n".join(lines))

    @property
    def fitted_on(self) -> frozenset[Path]:
        """Paths of the images that fit the probe of a folder; no other question may use them."""
        if self.probe is None:
            return frozenset()
        # Images of a list are not left out: a list that shares images with the split is refused.
        fitted, tested = self._probe_images
        if not tested:
            return frozenset()
        return frozenset(record.path for record in fitted)

    def images(self) -> "circuitry.DomainFolder":
        """Return the images of the option ``split``, of the classes and domains that the options name."""
        return self.images_of(self.split)

    def images_of(self, split: str | None) -> "circuitry.DomainFolder":
        """Return the images of a split, of the classes and domains that the options name.

        Args:
            split: The split, such as "test" for the lists ``<domain>_test.txt``. If it is None, or if the folder has no
                lists, all images of the folder are returned.
        """
        return self._folder(split, self.fitted_on)

    def _folder(
        self, split: str | None, leave_out: frozenset[Path] = frozenset()
    ) -> "circuitry.DomainFolder":
        return circuitry.DomainFolder(
            self.data,
            split=split,
            domains=self.domains,
            classes=self.classes,
            leave_out=leave_out,
        )


def _texts(*words: str) -> str | tuple[str, ...]:
    """Return the value of `FolderSettings.texts` for the words of a command line.

    A single word without braces is the name of class texts. Other words are templates.
    """
    # A single word with braces is a template, not a name of class texts.
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
    """Settings of an analysis that treats every class and domain of a folder of images.

    They are the number of images, the seed, the metric, the class texts and the baseline.

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
