"""The model and the images that the quickstart leaves behind: what scripts start from without options."""

from dataclasses import dataclass
from pathlib import Path

from circuitry.analysis.quickstart_settings import DRAWN_IMAGES, QUICKSTART, QUICKSTART_MODEL
from circuitry.models.options import ModelOptions
from circuitry.runs.given import checked
from circuitry.training.captioned_table import caption_words


@checked
@dataclass(frozen=True, kw_only=True)
class QuickstartModel(ModelOptions):
    """A model and images; the defaults are the quickstart's."""

    model: str = QUICKSTART_MODEL
    data: Path = QUICKSTART / DRAWN_IMAGES

    @property
    def known_words(self) -> tuple[str, ...] | None:
        """Words of the captions beside the images, if there are any: a small model knows no others."""
        return caption_words(self.data) if (self.data / "captions.tsv").is_file() else None
