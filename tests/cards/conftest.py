"""Images of three classes in two domains, circuits of two classes, and the cards of their units."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from circuitry import Clip, DomainFolder, GraphFolder, extract, left_rule
from circuitry.cards import CardFolder, unit_cards
from tests.support.extraction import TEMPLATES
from tests.support.work import QUIET

CLASSES, DOMAINS, N = ("axe", "cat", "fish"), ("real", "sketch"), 8
SITES = ("layer3.0", "layer4.0", "attnpool")
FEW: dict[str, Any] = {"top": 3, "bins": 5, "exact_images": 2, "exact_units": 2, "vocabulary": ["red", "blue", "fur"]}


@pytest.fixture(scope="package")
def folder(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, rng = tmp_path_factory.mktemp("cards"), np.random.default_rng(0)
    for class_name in CLASSES:
        for domain in DOMAINS:
            place = root / "images" / domain / class_name
            place.mkdir(parents=True)
            for i in range(N):
                pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
                Image.fromarray(pixels // (2 if domain == "sketch" else 1)).save(place / f"{i}.png")
    rules: dict[str, Any] = {"rule": left_rule(1), "edge_rule": left_rule(1), "sites": SITES, "texts": TEMPLATES}
    images = DomainFolder(root / "images")
    extract(clip, images, root / "graphs", CLASSES[:2], n_images=3, work=QUIET, node_fraction=0.05, **rules)
    made(clip, root, root / "cards")
    return root


def made(clip: Clip, root: Path, out: Path, **changes: Any) -> CardFolder:
    images, graphs = DomainFolder(root / "images"), GraphFolder(root / "graphs")
    return unit_cards(clip, images, graphs, out, **({"work": QUIET} | FEW | changes))
