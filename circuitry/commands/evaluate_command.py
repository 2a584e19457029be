"""How accurate is a model on images by domain, or every checkpoint of a training run?

Classifies all images by the class texts, without training on them, and prints accuracies by domain and a report.

    circuitry evaluate --model ViT-B-32 --pretrained openai --data DomainNet
    circuitry evaluate --model rn-tiny --checkpoint runs/quickstart-trained/clip --data runs/quickstart/toy
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
