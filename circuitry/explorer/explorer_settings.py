"""How much of the circuits the explorer's page gets. No torch."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from circuitry.data.shared_options import EdgesPerNode, NUnseen
from circuitry.runs.arguments import Count, checked


@checked
@dataclass(frozen=True)
class ExplorerSettings:
    """How much of the circuits the page gets.

    Example:
        >>> from circuitry.explorer import ExplorerSettings, export_explorer
        >>> small = ExplorerSettings(edges_per_node=1, twins=False)
        >>> explorer = export_explorer(graphs, "runs/x/explorer", settings=small)
    """

    edges_per_node: EdgesPerNode = 3
    twins: bool = True
    """Circuits of two folds of the images, for the twin view; they treble the size of the circuits."""
    images_per_list: Annotated[Count, tyro.conf.arg(name="top")] = 6
    """Top images of a unit in a domain: by activation and by effect."""
    held_out_images: Annotated[NUnseen, tyro.conf.arg(name="n-unseen")] = 4
