"""Which units of my model recognise a class, and do they work?

Finds one circuit: of a class in a domain of a data set, or of a plain folder with images of one class. Half of the
images find it, the other half, unseen, test it: is the class recognised with the circuit alone, with as many random
units, with circuits of other classes, and without the circuit? Prints the answer, and writes a report with the circuit
drawn. A second run with the same settings goes on where the first one stopped.

    circuitry find --model ViT-B-32 --pretrained openai --data pictures --domain photo --class cat
    circuitry find --model rn-tiny --checkpoint epoch_16.pt --data DomainNet --class axe --domain real --selectivity 0.8
    circuitry find --model ViT-B-32 --pretrained openai --units components --data DomainNet --class axe --domain real
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from circuitry.circuits.circuit_settings import UnitMethod
from circuitry.circuits.methods import ITERATIVE
from circuitry.data.shared_options import NOthers
from circuitry.interventions.intervention_settings import Selectivity
from circuitry.models import FolderSettings, ModelOptions
from circuitry.runs.given import Count, Share


@dataclass(frozen=True, kw_only=True)
class Config(FolderSettings, ModelOptions):
    """Settings of the search."""

    NOT_BOTH: ClassVar = (("size", "selectivity"),)

    class_name: Annotated[str, tyro.conf.arg(name="class")]
    """The class."""
    domain: str | None = None
    """The domain (default: the only one)."""
    n_others: NOthers = 12
    """As many to find on as to test on."""

    out: Path | None = None
    """Folder of the results: the report, the tables and the circuit (default: runs/find/CLASS, with --domain
    runs/find/CLASS-DOMAIN)."""
    method: UnitMethod = ITERATIVE
    """How units are chosen: by a score of each; or learned together as a mask, which takes minutes and is worth it for
    small circuits."""
    size: Share | None = None
    """Share of the units to keep (default: without --selectivity by the kind of tower, see `DEFAULT_SIZES`)."""
    selectivity: Selectivity | None = None
    """What the circuit is to reach, as small as it can: 0.8 for 80 % of what separates the class from others."""
    steps: Count = 300
    """Steps that masks are learned for."""

    @property
    def folder(self) -> Path:
        """Folder of the results."""
        return self.out or Path("runs/find") / "-".join(
            filter(None, (self.class_name, self.domain))
        )
