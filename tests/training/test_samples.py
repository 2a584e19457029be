"""Samples of activations that autoencoders are trained on."""

from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from circuitry import DomainFolder, Encoder, InputError
from circuitry.models import activations
from circuitry.training import sample_activations, samples
from tests.support.work import QUIET


class Shown:
    """Image files of which each stands for one tensor; their preprocessing looks it up."""

    def __init__(self, folder: Path, images: Tensor) -> None:
        self.images = images
        for i in range(len(images)):
            path = folder / "real" / "cat" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (1, 1), (i, 0, 0)).save(path)
        self.records = list(DomainFolder(folder).records)

    def __call__(self, image: Image.Image) -> Tensor:
        return self.images[image.getpixel((0, 0))[0]]  # type: ignore[index]


def test_every_position_is_a_sample(any_tower: nn.Module, tmp_path: Path) -> None:
    encoder = Encoder.from_tower(any_tower.eval())
    images = torch.randn(3, 3, *encoder.image_size)
    site = encoder.sites[len(encoder.sites) // 2]
    with torch.no_grad():
        expected = encoder(images, stop=site)
        embeddings = encoder(images)
    shown = Shown(tmp_path, images)
    sampled = sample_activations(encoder, shown, shown.records, site, work=QUIET)
    units = expected.shape[encoder.unit_dim(site)]
    if encoder.unit_dim(site) == 1 and expected.dim() == 4:
        rows = [
            expected[i, :, y, x] for i in range(3) for y in range(expected.shape[2]) for x in range(expected.shape[3])
        ]
    else:
        rows = list(expected.reshape(-1, units))
    torch.testing.assert_close(sampled, torch.stack(rows), atol=1e-5, rtol=1e-4)
    found = sample_activations(encoder, shown, shown.records, work=QUIET)
    torch.testing.assert_close(found, embeddings, atol=1e-5, rtol=1e-4)


def test_a_few_positions_of_every_image(resnet: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder.from_tower(resnet.eval())
    shown = Shown(tmp_path, torch.randn(4, 3, *encoder.image_size))

    def sampled(site: str, positions: int | None = None, seed: int = 1) -> Tensor:
        return sample_activations(
            encoder, shown, shown.records, site, positions_per_image=positions, seed=seed, work=QUIET
        )

    everything = sampled("layer2.0").reshape(4, -1, 64)
    few = sampled("layer2.0", 5)
    assert few.shape == (20, 64)
    for image, chosen in zip(everything, few.reshape(4, 5, 64), strict=True):
        same = (chosen[:, None] == image[None]).all(-1)
        assert same.any(1).all()  # each is a position of its own image,
        assert int(same.any(0).sum()) == 5  # and no two the same one
    assert not torch.equal(sampled("layer2.0", 5, seed=2), few)
    assert len(sampled("attnpool", 5)) == 4
    for cut in (1, 3):
        monkeypatch.setattr(samples, "activations", partial(activations, batch_size=cut))
        torch.testing.assert_close(sampled("layer2.0", 5), few, atol=1e-5, rtol=1e-4)


def test_what_cannot_be_sampled_is_refused(resnet: nn.Module, tmp_path: Path) -> None:
    encoder = Encoder.from_tower(resnet)
    shown = Shown(tmp_path, torch.zeros(1, 3, 8, 8))
    for records, site, words in (([], None, "none"), (shown.records, "layer9", "'layer9'")):
        with pytest.raises(InputError, match=words):
            sample_activations(encoder, shown, records, site)
