"""The model and the images that the quickstart leaves behind: what commands start from without options. No torch."""

from dataclasses import dataclass
from pathlib import Path

import circuitry
from circuitry.analysis.quickstart_settings import DRAWN_IMAGES, QUICKSTART, QUICKSTART_MODEL
from circuitry.models.options import ModelOptions
from circuitry.runs.given import checked


@checked
@dataclass(frozen=True, kw_only=True)
class QuickstartModel(ModelOptions):
    """A model and images; the defaults are the quickstart's."""

    model: str = QUICKSTART_MODEL
    data: Path = QUICKSTART / DRAWN_IMAGES

    @property
    def known_words(self) -> tuple[str, ...] | None:
        """Words of the captions beside the images, if there are any: a small model knows no others."""
        return circuitry.training.caption_words(self.data) if (self.data / "captions.tsv").is_file() else None
