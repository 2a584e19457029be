"""Features of images against one image at a time, their names against planted directions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from circuitry import Clip, DomainFolder, InputError
from circuitry.bases import SparseAutoencoder
from circuitry.data import load_image
from circuitry.representations import default_vocabulary, extract_features, image_features, name_features
from tests.support.work import QUIET

CELLS = [(name, domain) for name in ("cat", "dog") for domain in ("clipart", "real", "sketch")]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, domain in CELLS:
        for i in range(3):
            path = folder / domain / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).resize((64, 64)).save(path)
    return folder


def sae_at(clip: Clip, site: str, features: int = 64) -> SparseAutoencoder:
    with torch.no_grad():
        at_site = clip.encoder(torch.zeros(1, 3, *clip.encoder.image_size), stop=site)
    d = at_site.shape[clip.encoder.unit_dim(site)]
    generator = torch.Generator().manual_seed(0)
    w_enc = torch.randn(d, features, generator=generator)
    return SparseAutoencoder(w_enc, torch.zeros(features), w_enc.T.contiguous(), torch.zeros(d), site=site)


def one_by_one(clip: Clip, sae: SparseAutoencoder, path: Path) -> Tensor:
    with torch.no_grad():
        at_site = clip.encoder(clip.preprocess(load_image(path))[None], stop=sae.site)[0]
        positions = at_site.reshape(at_site.shape[0], -1).T
        return torch.stack([sae.encode(position) for position in positions]).max(dim=0).values


@pytest.mark.parametrize(("site", "features"), [("attnpool", 64), ("layer3.0", 64), ("attnpool", 24)])
def test_the_strongest_features_of_every_image(site: str, features: int, clip: Clip, root: Path) -> None:
    sae = sae_at(clip, site, features)
    found = image_features(clip, sae, DomainFolder(root), work=QUIET)
    assert sorted(found.images["relative"]) == sorted(f"{d}/{c}/{i}.png" for c, d in CELLS for i in range(3))
    assert found.n_features == features
    for row, relative in enumerate(found.images["relative"]):
        expected = one_by_one(clip, sae, root / relative)
        order = torch.argsort(expected, descending=True)[:20]
        positive = int((expected[order] > 0).sum())
        assert found.strongest[row].tolist() == order[:positive].tolist() + [-1] * (20 - positive)
        np.testing.assert_allclose(found.activation[row], expected[order].clamp_min(0), rtol=1e-4, atol=1e-5)


def test_images_are_chosen_as_elsewhere_and_unreadable_ones_left_out(clip: Clip, root: Path, tmp_path: Path) -> None:
    images = DomainFolder(root, domains=("real", "sketch"))
    found = image_features(clip, sae_at(clip, "attnpool"), images, n_images=2, seed=3, work=QUIET)
    expected = [r.relative for c in images.classes for d in images.domains for r in images.select(c, d, 2, 3)]
    assert found.images["relative"].tolist() == expected
    broken = tmp_path / "real" / "cat" / "0.png"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"no image")
    Image.new("RGB", (64, 64)).save(broken.with_name("1.png"))
    with pytest.warns(UserWarning, match="Skipped an image"):
        found = image_features(clip, sae_at(clip, "attnpool"), DomainFolder(tmp_path), work=QUIET)
    assert found.images["relative"].tolist() == ["real/cat/1.png"]
    broken.with_name("1.png").unlink()
    with pytest.warns(UserWarning, match="Skipped"), pytest.raises(InputError, match="None of the 1 images"):
        image_features(clip, sae_at(clip, "attnpool"), DomainFolder(tmp_path), work=QUIET)


def test_a_folder_of_features_holds_those_of_all_images_by_domain(clip: Clip, root: Path, tmp_path: Path) -> None:
    """How a folder is shared, resumed and repaired is tested with `JobFolder`."""
    images, sae = DomainFolder(root), sae_at(clip, "layer3.0")
    found = extract_features(clip, sae, images, tmp_path, work=QUIET)
    expected = image_features(clip, sae, images, work=QUIET)
    assert found.images["domain"].drop_duplicates().tolist() == list(images.domains)
    order = expected.images.reset_index().merge(found.images, how="right", on=list(found.images))["index"].to_numpy()
    np.testing.assert_array_equal(found.strongest, expected.strongest[order])
    np.testing.assert_allclose(found.activation, expected.activation[order], rtol=1e-4)
    with pytest.raises(InputError, match="n_images: None -> 1"):
        extract_features(clip, sae, images, tmp_path, n_images=1, work=QUIET)


@pytest.mark.parametrize(
    ("site", "changes", "words"),
    [
        ("attnpool", {"site": None}, "site.* 'attnpool'"),
        ("attnpool", {"site": "blocks.3"}, "'blocks.3'"),
        ("attnpool", {"about": {"model_digest": "123"}}, "digest 123"),
        ("layer2.0", {"site": "attnpool"}, "width 64"),
    ],
)
def test_autoencoders_of_something_else_are_refused(
    clip: Clip, root: Path, site: str, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        image_features(clip, replace(sae_at(clip, site), **changes), DomainFolder(root), work=QUIET)


def test_features_are_called_by_the_nearest_word(clip: Clip) -> None:
    words = ["cat", "alarm_clock", "blue", "cat"]
    texts = clip.text_weights(["cat", "alarm clock", "blue"], ["{}"])
    w_dec = torch.stack([3 * texts[2], 0.5 * texts[1], texts[0] + 0.01 * texts[1]])
    sae = SparseAutoencoder(w_dec.T.contiguous(), torch.zeros(3), w_dec, torch.zeros(w_dec.shape[1]), site="attnpool")
    names = name_features(sae, clip, words)
    assert names["name"].tolist() == ["blue", "alarm clock", "cat"]
    assert names["feature"].tolist() == [0, 1, 2]
    assert names["cosine"].tolist() == pytest.approx([1, 1, 1], abs=1e-3)
    cosines = torch.nn.functional.normalize(w_dec, dim=1) @ texts.T
    second = cosines.sort(dim=1, descending=True)
    assert names["runner_up"].tolist() == [["cat", "alarm clock", "blue"][i] for i in second.indices[:, 1].tolist()]
    lead = second.values[:, 0] - second.values[:, 1]
    assert names["lead"].tolist() == pytest.approx(lead.tolist(), abs=1e-5)
    assert names["weak"].tolist() == (lead < 0.02).tolist()
    between = replace(sae, w_dec=torch.stack([texts[0] + texts[1], texts[0], -texts.sum(0)]))
    assert name_features(between, clip, words)["weak"].tolist()[::2] == [True, True]  # no lead; no cosine
    single = name_features(sae, clip, ["cat"])
    assert single["runner_up"].isna().all()
    assert single["weak"].tolist() == (single["cosine"] < 0.2).tolist()
    opposite = name_features(replace(sae, w_dec=-w_dec), clip, words)
    cosine = torch.nn.functional.normalize(-w_dec, dim=1) @ texts.T
    assert opposite["cosine"].tolist() == pytest.approx(cosine.max(dim=1).values.tolist(), abs=1e-5)


def test_the_default_vocabulary() -> None:
    words = default_vocabulary(["ice_cream", "tench"])
    assert words[:2] == ("ice cream", "tench")
    assert {"sketch", "doodle", "quickdraw", "goldfish"} <= set(words)
    assert len(words) == len(set(words)) > 1000
    assert "T shirt" not in default_vocabulary(["t-shirt"])  # ImageNet's T-shirt is the same to a model


def test_features_of_another_site_have_no_names(clip: Clip) -> None:
    with pytest.raises(InputError, match=r"'attnpool'.*'layer3.0'"):
        name_features(sae_at(clip, "layer3.0"), clip, ["cat"])
    with pytest.raises(InputError, match=r"16 .* 64"):
        name_features(replace(sae_at(clip, "layer2.0"), site="attnpool"), clip, ["cat"])
