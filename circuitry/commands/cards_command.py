"""What does each unit of the circuits respond to, in every domain, and what does it do?

For every unit (channel, head, neuron, latent) that any circuit of a folder keeps:

1. the images of each domain that activate it most, with its activation as a heat map, and those in which it contributes
   most to the image's class;
2. histograms of its activation by domain; its effect by class and domain; the exact effect of putting it to zero, to
   its mean, and to its value in other domains, beside the attributed one;
3. a name of at most three words, fitted on one half of the images and tested on the other.

A name is refuted by a correlation no better than that of names of permuted cells: it is weak.
Where the model classifies the images no better than chance, its words name nothing, and the summary says so.

    circuitry cards      # the own parts of the quickstart
    circuitry cards --circuits runs/domainnet/circuits
    torchrun --nproc-per-node 6 -m circuitry cards --device cuda ...    # a domain for each process
"""

from dataclasses import dataclass
from pathlib import Path

from circuitry.analysis import QuickstartModel
from circuitry.cards import CardSettings
from circuitry.runs import WorkSettings


@dataclass(frozen=True, kw_only=True)
class Config(CardSettings, WorkSettings, QuickstartModel):
    """Settings; the defaults are the quickstart's model, images and circuits."""

    circuits: Path = Path("runs/quickstart/own-parts/circuits")
    """Folder of circuits or own parts that the quickstart, circuitry find, own-parts or compare left; model and images
    are those of that run, unless a model or images are given."""
    out: Path | None = None
    """Folder of the results: the cards (default: cards beside the circuits)."""

    @property
    def folder(self) -> Path:
        """Where the cards go."""
        return self.out or self.circuits.parent / "cards"
