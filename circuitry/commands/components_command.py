"""What do the heads and MLPs of a vision transformer do? Effects, texts, ablations and edges, on one page.

1. direct effects: what each head and MLP adds to the lead of an image's class over the other classes, past no later
   component, exactly (Gandelsman et al. 2024, arXiv 2310.05916);
2. accuracy with a head, all heads of a layer or an MLP at its mean over images;
3. texts that span what each head writes;
4. from where to where in the image the strongest edge into a head's keys or values carries what it carries (which
   edges are sufficient: ``edge_scoreboard.py``).

That direct effects say which components matter is refuted where accuracy falls most without one of small effect.

    circuitry components      # vit-tiny, on the images of the quickstart
    circuitry components --model ViT-B-32 --pretrained openai --data DomainNet --out runs/components
"""

from dataclasses import dataclass
from pathlib import Path

from circuitry.analysis import QuickstartModel
from circuitry.data.shared_options import NImages, SeedOption, SmallTables


@dataclass(frozen=True)
class Config(QuickstartModel):
    """Settings of the script."""

    model: str = "vit-tiny"
    """The model: a vision transformer, by open_clip name, a name shipped here, hf-hub:org/model, or a model-config
    JSON."""
    out: Path = Path("runs/components")
    """Folder of the results: tables and the report."""
    results: SmallTables = None
    n_images: NImages = 50
    seed: SeedOption = 0
