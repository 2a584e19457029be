"""Which units are a class's own, and are they the same in another style?

A circuit that is enough for a class holds what every class needs, too. The class's own part is found by contrast: units
whose ablation costs the class much and other classes little. It is tested by lesion, on images that found no part: is
the class lost, are the others spared, in each style? Beside each part stand as many random units at the same sites.

The claim that classes have parts of their own would be refuted by random units that take as much, or by other classes
that are lost, too; that a part is the same in two styles, by one that takes its class in its own style alone.

    circuitry own-parts --model ViT-B-32 --pretrained openai --data pictures --out runs/own
    circuitry own-parts --model efficientnet-lite0 --data RealStyles --domains photo clipart --shares 0.005 0.01 0.02
    circuitry own-parts ... --depth                  # parts up to, and from, some depth
    circuitry cards --circuits runs/own-parts/circuits    # what do the units respond to?
    circuitry explore --run runs/own-parts --open
"""

from dataclasses import dataclass
from pathlib import Path

from circuitry.data.shared_options import SmallTables
from circuitry.interventions import OwnPartSettings
from circuitry.models import ModelOptions
from circuitry.runs import WorkSettings


@dataclass(frozen=True, kw_only=True)
class Config(OwnPartSettings, WorkSettings, ModelOptions):
    """Settings of the search and of the test."""

    out: Path = Path("runs/own-parts")
    """Folder of the results: parts, tables and the report."""
    results: SmallTables = None
