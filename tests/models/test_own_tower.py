"""A tower that no library knows goes through all work on a folder, in Python and in a command, by a few lines."""

import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL.Image import fromarray
from PIL.Image import open as open_picture
from torch import nn
from torchvision.transforms.functional import pil_to_tensor

from circuitry import DomainFolder, Encoder, InputError, extract, load_clip
from circuitry.analysis import Analysis
from circuitry.commands import run_command
from circuitry.interventions import OwnPartSettings
from circuitry.models import (
    Classifier,
    Model,
    from_encoder,
    image_batches,
    linear_probe,
)
from circuitry.questions import ExtractionSettings, OwnParts
from tests.support.work import QUIET

NET = '''
import torch
from torch import nn

class Net(nn.Module):
    """Somebody's tower: two outputs, of red and of blue."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2)
        self.body = nn.Conv2d(6, 8, 3, stride=2)
        self.last = nn.Linear(8, 2, bias=False)

    def embed(self, x):
        return self.body(self.stem(x).relu()).relu().mean((2, 3))

    def forward(self, x):
        return self.last(self.embed(x))
'''
MODEL = """
import torch
from circuitry import Encoder
from circuitry.models import from_encoder
from torchvision.transforms.functional import pil_to_tensor
from net import Net

class Tower(Net):
    forward = Net.embed

def make_model():
    torch.manual_seed(0)
    net = Tower().eval()
    links = [("stem", torch.relu), ("body", torch.relu, lambda x: x.mean((2, 3)))]
    encoder = Encoder.from_stages(net, links, (16, 16))
    rows = dict(zip(["red", "blue"], net.last.weight))
    return from_encoder(encoder, lambda picture: pil_to_tensor(picture) / 128 - 1, rows)
"""
"""Everything that is written for the package."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    (folder / "net.py").write_text(NET)
    (folder / "model.py").write_text(MODEL)
    rng = np.random.default_rng(0)
    for domain, class_name in product(("real", "sketch"), ("red", "blue")):
        place = folder / "data" / domain / class_name
        place.mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(0, 100, (16, 16, 3), np.uint8)
            pixels[..., 0 if class_name == "red" else 2] += 150
            fromarray(pixels).save(place / f"{i}.png")
    return folder


def test_a_tower_of_nobody_s_library_takes_fourteen_lines(place: Path) -> None:
    assert len([line for line in MODEL.splitlines() if line]) == 14
    clip = load_clip(f"{place / 'model.py'}:make_model")
    images = DomainFolder(place / "data")
    assert str(clip.encoder) == ("Encoder of Tower: 3 sites, images of 16 x 16 pixels")
    assert clip.identity.unknown == ()
    assert clip.text_weights(["blue", "red"]).norm(dim=1).tolist() == pytest.approx(
        [1, 1]
    )
    picture = open_picture(images.records[0].path).convert("RGB")
    shown = clip.shown(clip.preprocess(picture)[None])[0]
    assert abs(shown.astype(int) - np.asarray(picture, int)).max() <= 1

    graphs = extract(clip, images, place / "graphs", n_images=2, work=QUIET)
    assert len(graphs) == 4
    # A random tower tells red from blue along the difference of the means, away from what all images share.
    height, width = clip.encoder.image_size
    halves = image_batches(
        clip.encoder, lambda picture: torch.zeros(3, height, width // 2), images.records
    )
    with pytest.raises(InputError, match=rf"\[3, {height}, {width // 2}\]"):
        next(iter(halves))
    batches = image_batches(clip.encoder, clip.preprocess, images.records)
    records, pictures = next(iter(batches))
    embeddings = clip.encoder(pictures)
    is_red = torch.tensor([record.class_name == "red" for record in records])
    red = embeddings[is_red].mean(0)
    blue = embeddings[~is_red].mean(0)
    shared = torch.nn.functional.normalize(red + blue, dim=0)
    row = red - blue - (red - blue) @ shared * shared
    rows = {"red": row, "blue": -row}
    knowing = from_encoder(clip.encoder, clip.preprocess, rows)
    models: list[Model] = [clip, knowing]
    assert all(len(model.text_weights(["red", "blue"])) == 2 for model in models)
    settings = OwnPartSettings(n_images=2, n_others=2, shares=(0.2,))
    tables = OwnParts(knowing, images, place / "parts", settings).run(QUIET)
    assert len(tables["lesions"])
    run = Analysis(clip, images, place / "run", ExtractionSettings(n_images=2))
    assert len(run.circuits(QUIET)) == 4
    assert list(run.compare())

    other = load_clip(f"{place / 'model.py'}:make_model")
    next(other.encoder.tower.parameters()).data.mul_(2)
    with pytest.raises(InputError, match="weights"):
        extract(other, images, place / "graphs", n_images=2, work=QUIET)


def test_a_command_takes_the_file_and_the_function(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    line = "find --class red --model model.py:make_model --data data --domain real --n-images 2 --out found"
    monkeypatch.setattr(sys, "argv", ["circuitry", *line.split()])
    run_command()
    assert list((place / "found").rglob("*.html"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.py:make", r"function of .*'make'.*make_model"),
        ("none.py:make_model", r"no file .*none\.py.*FILE\.py:FUNCTION"),
        ("model.py:Net", r"model\.py:Net returned .*Net.*from_encoder"),
    ],
)
def test_what_a_file_does_not_give_is_named(name: str, words: str, place: Path) -> None:
    with pytest.raises(InputError, match=f"(?s){words}"):
        load_clip(str(place / name))
    with pytest.raises(InputError, match="own weights"):
        load_clip(str(place / name), pretrained="openai")


def test_a_tower_without_a_library_is_told_how_to_become_a_model(place: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    encoder = Encoder.from_stages(net, ["0", "1"], (4, 4))
    images = DomainFolder(place / "data")
    wrong: Any = encoder
    asked: list[Callable[[], object]] = [
        lambda: load_clip(net),
        lambda: extract(wrong.tower, images, place / "x"),
        lambda: extract(wrong, images, place / "x"),
        lambda: OwnParts(wrong, images, place / "x"),
    ]
    for ask in asked:
        with pytest.raises(InputError, match="from_encoder"):
            ask()
    with pytest.raises(InputError, match=r"row of 16 numbers.*'a'.*\[3\]"):
        from_encoder(encoder, pil_to_tensor, {"a": torch.ones(3)})
    with pytest.raises(InputError, match=r"at least one value as rows.*none"):
        from_encoder(encoder, pil_to_tensor, {})


def test_rows_of_numpy_s_precision_give_logits() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    encoder = Encoder.from_stages(net, ["0", "1"], (4, 4))
    rows = {"a": torch.ones(16).double(), "b": torch.zeros(16).double()}
    model = from_encoder(encoder, pil_to_tensor, rows)
    assert isinstance(model, Classifier)
    embeddings = torch.arange(32.0).reshape(2, 16)
    expected = torch.stack([embeddings.sum(1), torch.zeros(2)], 1)
    torch.testing.assert_close(model.logits(embeddings), expected)


def test_a_model_without_rows_takes_those_of_a_probe(place: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 14**2, 5))
    encoder = Encoder.from_stages(net, ["0", ("1", "2")], (16, 16))
    clip = from_encoder(encoder, lambda x: pil_to_tensor(x) / 255, name="mine")
    assert (clip.name, clip.scale) == ("mine", 100)
    with pytest.raises(InputError, match="linear_probe"):
        clip.text_weights(["red"])
    images = DomainFolder(place / "data")
    probe = linear_probe(clip, images.records)
    assert probe.text_weights(["red", "blue"]).shape == (2, 5)
