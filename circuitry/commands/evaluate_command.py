"""How accurate is a model on images by domain, or every checkpoint of a training run?

Classifies all images by the class texts, without training on them, and prints accuracies by domain and a report.

    circuitry evaluate --model ViT-B-32 --pretrained openai --data DomainNet
    circuitry evaluate      # the tiny CLIP and the drawn pictures that come with the package
"""

from dataclasses import dataclass
from pathlib import Path

from circuitry.data.shared_options import HeldOut
from circuitry.models import ModelOptions


@dataclass(frozen=True, kw_only=True)
class Config(ModelOptions):
    """Settings of the evaluation."""

    out: Path = Path("runs/evaluate")
    """Folder of the results: tables and the report."""
    held_out: HeldOut = ()
