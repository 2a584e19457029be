"""Are the circuits of my CLIP model shared between the domains of my images?

For any open_clip model and any images laid out as root/<domain>/<class>/<file> (DomainNet's lists are used where
they exist), it answers in this order: Does the model know the classes in each domain? Do their circuits work, and are
they the class's own? Which units are the class's own part, and is it the same in two domains? How similar are the
circuits? It writes tables and one HTML report. A second run with the same settings goes on where the first one stopped.

    circuitry compare --model RN50 --checkpoint epoch_32.pt --data DomainNet \\
        --classes axe lion pizza --n-images 50 --out runs/domainnet
    torchrun --nproc-per-node 8 -m circuitry compare --device cuda ...      # eight GPUs
    circuitry compare --cluster slurm --jobs 32 --device cuda ... # an array of SLURM jobs
    circuitry compare --sae layer3.0=runs/sae.safetensors ...     # features in place of channels
    circuitry compare --baseline counterfactual --texts own-style ...
    circuitry compare --study ...                                 # as the study did it
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import circuitry
from circuitry.circuits import ExtractionSettings
from circuitry.circuits.circuit_settings import OwnShare
from circuitry.data.shared_options import EdgesPerNode, HeldOut, NUnseen, SmallTables
from circuitry.models import ModelOptions
from circuitry.runs import WorkSettings
from circuitry.runs.given import Count, Part

Choice = Literal["by-name", "shuffled"]


@dataclass(frozen=True, kw_only=True)
class Config(ExtractionSettings, WorkSettings, ModelOptions):
    """Settings of a comparison."""

    out: Path = Path("runs/compare")
    """Folder of the results: graphs, tables and the report."""
    results: SmallTables = None
    choice: Choice = "by-name"
    """Choice of the images: by-name, by a hash of seed and path, whatever else there is; shuffled: as in the study, one
    random stream through all lists, the held-out classes first."""
    edges_per_node: EdgesPerNode = 3
    held_out: HeldOut = ()
    pair: tuple[str, str, str] | None = None
    """Class and two domains whose circuits are drawn (default: the first class in its two least similar domains)."""
    kernel_depths: tuple[Count, ...] = (1,)
    """Depths of the Weisfeiler-Lehman kernel."""
    any_sign: bool = False
    """Count edges with a score of zero or less."""
    all_sites: bool = False
    """Let sites that repeat another, or keep few units, take part in means over sites."""
    apart: str | None = None
    """A domain to set against the others."""
    accuracy: bool = True
    """Measure zero-shot accuracy on all images of the chosen classes and domains, too."""
    least_accuracy: Part = 0.5
    """A class with a smaller share of right images in a domain is left out of own parts and comparisons there; 0 leaves
    none out."""
    n_unseen: NUnseen = 4
    shares: tuple[OwnShare, ...] = (0.005, 0.01, 0.02)
    """Shares of the units that own parts have, as in circuitry own-parts; none for no own parts."""
    dry_run: bool = False
    """Only count the jobs, do the first two, and estimate the time of the others."""

    def images_of(self, split: str | None) -> "circuitry.DomainFolder":
        """Return the images of another list."""
        if self.choice == "by-name":
            return super().images_of(split)
        choice = {"domains": self.domains, "classes": self.classes}
        return circuitry.data.ShuffledImages(
            self.data, split, first=self.held_out, **choice
        )
