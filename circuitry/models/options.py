"""Options of command lines: which model and which images, and options whose value is made from text.

A script's `Config` inherits from the classes of options that it needs, so that an option has the same name, default and
meaning everywhere; see also `runs.WorkSettings`, `models.FolderSettings` and `circuits.AttributionSettings`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from tyro.constructors import PrimitiveConstructorSpec

from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.data.images import Decoding
from circuitry.models.classifier import Classifier, read_outputs
from circuitry.models.clip import Clip
from circuitry.models.linear_probe import linear_probe
from circuitry.models.loading import load_clip
from circuitry.models.sae_readers import parse_saes
from circuitry.runs.errors import InputError
from circuitry.runs.given import DISTINCT, checked
from circuitry.runs.workers import ALONE, Rank

UnitKind = Literal["channels", "components"]


@checked
@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """A model in a basis of units, and images."""

    STUDY: ClassVar[Mapping[str, Any]] = {"decoding": "as-stored"}
    NOT_BOTH: ClassVar = (("checkpoint", "pretrained"),)

    model: str
    """The model: open_clip name, hf-hub:org/model or the path of a model-config JSON; rn-tiny or vit-tiny, whose
    weights come with this package; a hub id (org/model) or folder of transformers; or a classifier, for data with a
    classes.tsv of its outputs by class: timm:NAME, torchvision:NAME, efficientnet-lite0, 1 or 2 (ImageNet weights by
    the extra real)."""
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
    """How image files are decoded: upright, over white; as-stored: as in the study, see `load_image`."""
    device: str = "cpu"
    """Where the model runs: cpu, cuda, mps; of several processes on a machine each takes its own GPU."""
    units: UnitKind = "channels"
    """What circuits are made of: channels (of a transformer's stream, its dimensions); components: of a transformer its
    attention heads and MLP neurons, with edges between any two of them."""
    sae: tuple[str, ...] = ()
    """Sites whose units are features of a sparse autoencoder, as SITE=PATH, e.g. layer3.0=runs/sae.safetensors; of a
    released one as blocks.9.hook_resid_post=org/name, and with --units components a transcoder's MLP as
    blocks.9.hook_mlp_out=PATH."""

    @checked
    def clip(self, rank: Rank = ALONE) -> Clip:
        """Load the model on the device of this process, with the units that were asked for."""
        device = rank.device(self.device)
        clip = load_clip(self.model, self.checkpoint, self.pretrained, device).with_decoding(self.decoding)
        if self.probe is not None:
            clip = linear_probe(clip, self._seen_by_the_probe())
        elif isinstance(clip, Classifier) and ((table := self.data / "classes.tsv").is_file() or not clip.classes):
            clip = clip.with_classes(read_outputs(table))
        clip = clip.in_components() if self.units == "components" else clip
        return clip.in_basis(parse_saes(self.sae))

    def _seen_by_the_probe(self) -> tuple[ImageRecord, ...]:
        fitted, explained = self.images_of(self.probe).records, self.images().records
        if shared := len(set(fitted) & set(explained)):
            raise InputError(
                f"A linear probe is fitted on other images than those that it explains, but --probe {self.probe} and "
                f"--split {self.split} share {shared} images of {self.data}: give two lists <domain>_<list>.txt of "
                "different images."
            )
        return fitted

    def images(self) -> DomainFolder:
        """Return the images."""
        return self.images_of(self.split)

    @checked
    def images_of(self, split: str | None) -> DomainFolder:
        """Return the images of another list."""
        return DomainFolder(self.data, split=split, domains=self.domains, classes=self.classes)


def option(
    parse: Callable[..., Any],
    metavar: str,
    nargs: int | Literal["*"] = 1,
    choices: Sequence[str] | None = None,
) -> Any:
    """Return the annotation of a setting that a command line reads as text, and Python may give as an object.

    Args:
        parse: Makes the value from the words of the command line.
        metavar: What the help shows for the words.
        nargs: How many words.
        choices: Words that are known (default: any).

    Example:
        >>> rule: Annotated[QuadratureRule | None, option(parse_rule, "{left,midpoint}-N")] = None
    """
    return PrimitiveConstructorSpec(
        nargs=nargs,
        metavar=metavar if choices is None else f"{{{','.join(choices)}}}",
        instance_from_str=lambda words: parse(*words),
        is_instance=lambda value: True,
        str_from_instance=lambda value: [str(getattr(value, "name", value))],
        choices=None if choices is None else tuple(choices),
    )
