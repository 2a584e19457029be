"""What the command lines of scripts have in common: which model, which images, what is measured.

Each class holds a few options and what is made of them. A script's own settings inherit from those that it needs, so
that an option has the same name, default and meaning everywhere; see also `runs.workers.WorkSettings` and
`circuits.settings.CircuitSettings`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from circuitry.data.domains import DomainFolder
from circuitry.models.baselines import BaselineName
from circuitry.models.classifier import EFFICIENTNET_LITE0, load_classifier, read_outputs
from circuitry.models.clip import Clip, load_clip
from circuitry.models.feature_basis import parse_saes
from circuitry.models.metrics import MetricName
from circuitry.runs.workers import ALONE, Rank

UnitKind = Literal["channels", "components"]

QUICKSTART_MODEL = "rn-tiny"
QUICKSTART_CHECKPOINT = Path("runs/quickstart/clip/checkpoints/epoch_16.pt")
"""What the quickstart leaves behind."""


@dataclass(frozen=True)
class ModelSettings:
    """A model and images; the defaults are those that the quickstart leaves behind."""

    model: str = QUICKSTART_MODEL
    """open_clip model name, a name shipped here (rn-tiny), hf-hub:org/model, the path of a model-config JSON, or
    efficientnet-lite0: an ImageNet classifier (extra: real), for data with a classes.tsv of its outputs by class."""
    checkpoint: Path | None = QUICKSTART_CHECKPOINT
    """Local checkpoint; the default goes with the default model alone."""
    pretrained: str | None = None
    """open_clip's tag of pretrained weights, instead of a checkpoint."""
    data: Path = Path("runs/quickstart/toy")
    """Folder of the images: <domain>/<class>/<file>."""
    split: str | None = "test"
    """Which of DomainNet's lists to use, where there are lists."""
    classes: tuple[str, ...] | None = None
    """Classes to look at (default: all)."""
    domains: tuple[str, ...] | None = None
    """Domains to look at (default: all)."""
    device: str = "cpu"
    """Where the model runs: cpu, cuda, mps; of several processes on a machine each takes its own GPU."""

    @property
    def weights_file(self) -> Path | None:
        """The checkpoint, if any: the quickstart's is of its own model only."""
        other = self.pretrained is not None or self.model != QUICKSTART_MODEL
        return None if other and self.checkpoint == QUICKSTART_CHECKPOINT else self.checkpoint

    def clip(self, rank: Rank = ALONE) -> Clip:
        """Load the model, on the device of this process."""
        if self.model == EFFICIENTNET_LITE0:
            outputs = read_outputs(self.data / "classes.tsv")
            return load_classifier(self.model, self.weights_file, classes=outputs, device=rank.device(self.device))
        return load_clip(self.model, self.weights_file, self.pretrained, rank.device(self.device))

    def images(self) -> DomainFolder:
        """Return the images."""
        return self.images_of(self.split)

    def images_of(self, split: str | None) -> DomainFolder:
        """Return the images of another list."""
        return DomainFolder(self.data, split=split, domains=self.domains, classes=self.classes)


@dataclass(frozen=True)
class BasisSettings(ModelSettings):
    """A model whose units may be features of sparse autoencoders, or heads and neurons, and images."""

    units: UnitKind = "channels"
    """What circuits are made of: channels (of a transformer's stream, its dimensions); components: of a transformer its
    attention heads and MLP neurons, with edges between any two of them."""
    sae: tuple[str, ...] = ()
    """Sites whose units are features of a sparse autoencoder, as SITE=PATH, e.g. layer3.0=runs/sae.safetensors."""

    def clip(self, rank: Rank = ALONE) -> Clip:
        """Load the model, in the basis of the autoencoders, if any, or in heads and neurons."""
        clip = super().clip(rank).in_basis(parse_saes(self.sae))
        return clip.in_components() if self.units == "components" else clip


@dataclass(frozen=True)
class MetricSettings:
    """What a class is recognised by, and what stands for a unit that says nothing."""

    metric: MetricName = "logit"
    """logit: the study's cosine logit; margin: its lead over the mean logit of the other classes."""
    texts: tuple[str, ...] = ("pooled",)
    """Texts of a class: pooled (all default templates averaged), own-style (the prompts of the images' own domain), or
    templates such as "a photo of a {}."."""
    baseline: BaselineName = "zero"
    """What units are put to: zero; mean-position, mean-unit (means over the images of all classes and domains);
    other-domains (the class's mean in the other domains); counterfactual (images of other classes in the domain)."""

    @property
    def class_texts(self) -> str | tuple[str, ...]:
        """The texts as `extract` takes them: a name, or templates."""
        return self.texts[0] if len(self.texts) == 1 and "{}" not in self.texts[0] else self.texts
