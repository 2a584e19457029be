"""CKA on the lent tower against the study's formulas, written out on activations that plain hooks read."""

import json
from itertools import combinations
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn

from circuitry import Clip, DomainFolder, Encoder
from circuitry.runs import Work
from experiments.representations.representation_folder import (
    RepresentationSettings,
    extract_representations,
)
from experiments.representations.similarity import compare_representations
from tests.conftest import shared

DOMAINS, OBJECTS, ROWS = ("quickdraw", "real", "sketch"), ("cat", "umbrella"), 4
"""The eight images of each object in each domain make four rows of two images."""


def hsic(k: Tensor, l: Tensor) -> Tensor:  # noqa: E741
    k, l = k - torch.diag(k.diag()), l - torch.diag(l.diag())  # noqa: E741
    n = len(k)
    between = k.sum() * l.sum() / ((n - 1) * (n - 2)) - 2 * (k @ l).sum() / (n - 2)
    return (torch.trace(k @ l) + between) / (n * (n - 3))


def kernel(x: Tensor, name: str) -> Tensor:
    if name == "linear":
        return x @ x.T
    squared = (x[:, None] - x[None]).pow(2).sum(-1)
    sigma = squared[squared != 0].median().sqrt()  # torch takes the lower middle one
    return torch.exp(-squared / (2 * sigma**2))


def rows(tower: nn.Module, module: str, images: dict[str, Tensor]) -> dict[str, Tensor]:
    """Means over the images of a row [rows, features], from a plain forward hook."""
    caught: list[Tensor] = []
    handle = tower.get_submodule(module).register_forward_hook(
        lambda *call: caught.append(call[2])
    )
    found = {}
    for domain, batch in images.items():
        with torch.no_grad():
            tower(batch)
        x = caught.pop()
        x = x.mean((2, 3)) if x.dim() == 4 else x
        found[domain] = x.reshape(2 * ROWS, 2, -1).mean(1)
    handle.remove()
    return found


def test_cka_of_the_lent_tower_is_that_of_the_study_s_formulas(tmp_path: Path) -> None:
    with safe_open(shared("golden/rn_nano.safetensors"), "pt") as file:
        config = json.loads(file.metadata()["model_config"])
        weights = {
            name[7:]: file.get_tensor(name)
            for name in file.keys()  # noqa: SIM118
            if name.startswith("visual.")
        }
        images = {
            d: torch.cat([file.get_tensor(f"images/{d}/{o}") for o in OBJECTS]).double()
            for d in DOMAINS
        }
    model = open_clip.model.CLIP(**config).eval()
    model.visual.load_state_dict(weights)
    model.visual.double()
    for domain in DOMAINS:
        for i in range(
            16
        ):  # a file of one grey pixel stands for an image, whose number it is
            path = tmp_path / domain / f"row{i // 2}" / f"{domain}_{i:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (1, 1), (i, DOMAINS.index(domain), 0)).save(path)

    def preprocess(picture: Image.Image) -> Tensor:
        number, domain, _ = picture.getpixel((0, 0))  # type: ignore[misc]
        return images[DOMAINS[domain % len(DOMAINS)]][
            number % 16
        ]  # of any picture, as digests show one

    clip = Clip(
        "rn-nano",
        model,
        Encoder.from_tower(model.visual),
        preprocess,
        lambda texts: torch.zeros(1),
    )
    sites = ("act1", "layer1.0", "layer4.0", "attnpool")
    settings = RepresentationSettings(sites=sites, n_folds=2)
    found = extract_representations(
        clip, DomainFolder(tmp_path), tmp_path / "out", settings, Work(progress=False)
    )
    pairs = compare_representations([one.grams for one in found], permutations=1).pairs
    value = pairs.set_index(["site", "kernel", "domain_a", "domain_b"])["value"]
    for site in sites:
        x = rows(model.visual, site, images)
        for name in ("linear", "rbf"):
            k = {domain: kernel(x[domain], name) for domain in DOMAINS}
            for a, b in combinations(DOMAINS, 2):
                expected = (
                    hsic(k[a], k[b]) / (hsic(k[a], k[a]) * hsic(k[b], k[b])).sqrt()
                )
                assert value[site, name, a, b] == pytest.approx(
                    expected.item(), abs=1e-10
                )
