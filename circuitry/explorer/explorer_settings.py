"""Settings of the explorer: how much data its page gets. Does not import torch."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from circuitry.data.shared_options import EdgesPerNode, NUnseen
from circuitry.runs.arguments import Count, checked


@checked
@dataclass(frozen=True)
class ExplorerSettings:
    """How many edges, circuits and images the explorer's page gets.

    Example:
        >>> from circuitry.explorer import ExplorerSettings, export_explorer
        >>> small = ExplorerSettings(edges_per_node=1, twins=False)
        >>> explorer = export_explorer(graphs, "runs/x/explorer", settings=small)
    """

    edges_per_node: EdgesPerNode = 3
    twins: bool = True
    """Whether the page also gets the circuits of two folds of the images, which its twin view shows. They make the data
    of the circuits three times as large."""
    images_per_list: Annotated[Count, tyro.conf.arg(name="top")] = 6
    """Number of top images of a unit in a domain, in the list by activation and in the list by effect."""
    held_out_images: Annotated[NUnseen, tyro.conf.arg(name="n-unseen")] = 4
