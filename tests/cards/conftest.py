"""Images of three classes in two domains, circuits of two classes, and the cards of their units."""

from pathlib import Path
from typing import Any

import pytest

from circuitry import Clip, DomainFolder, GraphFolder, extract, left_rule
from circuitry.cards import CardFolder, unit_cards
from tests.support.extraction import TEMPLATES
from tests.support.noise_images import write_noise
from tests.support.work import AS_STUDIED, QUIET

CLASSES = ("axe", "cat", "fish")
DOMAINS = ("real", "sketch")
N = 8
SITES = ("layer3.0", "layer4.0", "attnpool")
FEW: dict[str, Any] = {"top": 3, "exact_units": 2, "vocabulary": ["red", "blue", "fur"]}


@pytest.fixture(scope="package")
def folder(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cards")
    write_noise(root / "images", DOMAINS, CLASSES, N)
    rules: dict[str, Any] = {
        "rule": left_rule(1),
        "edge_rule": left_rule(1),
        "sites": SITES,
        "texts": TEMPLATES,
    }
    rules |= AS_STUDIED
    images = DomainFolder(root / "images")
    extract(
        clip,
        images,
        root / "graphs",
        CLASSES[:2],
        n_images=3,
        work=QUIET,
        size=0.05,
        **rules,
    )
    made(clip, root, root / "cards")
    return root


def made(clip: Clip, root: Path, out: Path, **changes: Any) -> CardFolder:
    images = DomainFolder(root / "images")
    graphs = GraphFolder(root / "graphs")
    return unit_cards(clip, images, graphs, out, **({"work": QUIET} | FEW | changes))
