"""Which model and which images: what the command lines of scripts have in common."""

from dataclasses import dataclass
from pathlib import Path

from circuitry.data.domains import DomainFolder
from circuitry.models.clip import Clip, load_clip


@dataclass(frozen=True)
class ModelSettings:
    """A model and images; the defaults are those that the quickstart leaves behind."""

    model: str = "rn-tiny"
    """open_clip model name, a name shipped here (rn-tiny), or the path of a model-config JSON."""
    checkpoint: Path | None = Path("runs/quickstart/clip/checkpoints/epoch_16.pt")
    """Local checkpoint; this or --pretrained."""
    pretrained: str | None = None
    """open_clip's tag of pretrained weights; give --checkpoint None with it."""
    data: Path = Path("runs/quickstart/toy")
    """Folder of the images: <domain>/<class>/<file>."""
    split: str | None = "test"
    """Which of DomainNet's lists to use, where there are lists."""
    classes: tuple[str, ...] | None = None
    """Classes to look at; all unless told."""
    domains: tuple[str, ...] | None = None
    """Domains to look at; all unless told."""
    device: str = "cpu"
    """Where the model runs."""

    def clip(self) -> Clip:
        """Load the model."""
        return load_clip(self.model, self.checkpoint, self.pretrained, self.device)

    def images(self) -> DomainFolder:
        """Return the images."""
        return self.images_of(self.split)

    def images_of(self, split: str | None) -> DomainFolder:
        """Return the images of another list."""
        return DomainFolder(self.data, split=split, domains=self.domains, classes=self.classes)
