"""The explorer of a small study that was made up, exported once."""

from pathlib import Path

import pytest

from circuitry import GraphFolder, compare_domains
from circuitry.explorer import ExplorerSettings, export_explorer
from tests.explorer.made import CLASSES, DOMAINS, MadeCards, make_curve, make_graphs


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> GraphFolder:
    return make_graphs(tmp_path_factory.mktemp("explored") / "circuits")


@pytest.fixture(scope="session")
def exported(graphs: GraphFolder) -> Path:
    """The folder of an explorer with everything in it."""
    out = graphs.path.parent / "explorer"
    curves = [make_curve(name, domain) for name in CLASSES[:2] for domain in DOMAINS]
    settings = ExplorerSettings(images_per_list=2, held_out_images=1)
    comparisons = compare_domains(graphs)
    export_explorer(graphs, out, comparisons=comparisons, curves=curves, cards=MadeCards(graphs), settings=settings)
    return out
