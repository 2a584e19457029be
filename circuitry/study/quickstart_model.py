"""The model and the images that the quickstart leaves behind: what scripts start from without options."""

from dataclasses import dataclass
from pathlib import Path

from circuitry.models.options import ModelOptions
from circuitry.runs.given import checked
from circuitry.study.mixtures.mixture_files import caption_words

QUICKSTART = Path("runs/quickstart")
"""The quickstart's folder."""
QUICKSTART_CHECKPOINT = QUICKSTART / "clip" / "checkpoints" / "epoch_16.pt"
QUICKSTART_MODEL = "rn-tiny"


@checked
@dataclass(frozen=True, kw_only=True)
class QuickstartModel(ModelOptions):
    """A model and images; the defaults are the quickstart's."""

    model: str = QUICKSTART_MODEL
    """open_clip model name, a name shipped here (rn-tiny), hf-hub:org/model or the path of a model-config JSON; a hub
    id (org/model) or folder of transformers; or a classifier, for data with a classes.tsv of its outputs by class:
    timm:NAME, torchvision:NAME, efficientnet-lite0, 1 or 2 (ImageNet weights by the extra real)."""
    checkpoint: Path | None = QUICKSTART_CHECKPOINT
    """Local checkpoint; the default is of the default model alone."""
    data: Path = QUICKSTART / "toy"
    """Folder of the images: <domain>/<class>/<file>."""

    @property
    def known_words(self) -> tuple[str, ...] | None:
        """Words of the captions beside the images, if there are any: a small model knows no others."""
        return caption_words(self.data) if (self.data / "captions.tsv").is_file() else None

    @property
    def weights_file(self) -> Path | None:
        """The checkpoint, if any: the quickstart's for its own model only."""
        other = self.pretrained is not None or self.model != QUICKSTART_MODEL
        return None if other and self.checkpoint == QUICKSTART_CHECKPOINT else self.checkpoint
