"""What the room of cards refuses, and the names and values that the sentence holds."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from circuitry import Clip, InputError, load_clip
from circuitry.cards import CardFolder, read_vocabulary, vocabulary_of
from circuitry.runs.manifest import read_sealed, write_sealed
from tests.cards.conftest import made
from tests.cards.test_top_images import tasks
from tests.cards.test_unit_names import N, classifier, worded
from tests.support.oracles import setting
from tests.support.top_images import top_images
from tests.support.towers import make_tower


class World(NamedTuple):
    clip: Clip
    root: Path
    empty: Path

    def read(self, change: Callable[[Path], object]) -> None:
        change(copy := Path(shutil.copytree(self.root / "cards", self.empty / "cards")))
        cards = CardFolder(copy)
        assert cards.words
        cards.card(*cards.units()[0])
        assert all(cards.activations(domain) for domain in cards.domains)

    def vocabulary(self, content: bytes) -> None:
        (self.empty / "words.txt").write_bytes(content)
        read_vocabulary(self.empty / "words.txt")


def other_version(cards: Path) -> None:
    about = read_sealed(cards / "manifest.json", "make it again")
    write_sealed(cards / "manifest.json", about | {"format": "circuitry unit cards 0"})


def other_bit(name: str) -> Callable[[Path], object]:
    """Return how to change a bit in the last third of a file, where JSON and arrays stay readable."""

    def change(cards: Path) -> None:
        content = bytearray((cards / name).read_bytes())
        place = content.rfind(b"1") if name.endswith("json") else len(content) - 3
        content[place] ^= 2
        (cards / name).write_bytes(content)

    return change


def top_at(site: str) -> Any:
    return top_images(
        tasks(*setting(make_tower("resnet"), 11)), {site: np.array([0])}, 3
    )


def unknown_word() -> Any:
    clip = load_clip("rn-tiny")
    return clip.text_weights(vocabulary_of(clip, ["tench"]), ["{}"])


REFUSALS: list[tuple[Callable[[World], object], tuple[str, ...]]] = [
    (lambda w: w.read(shutil.rmtree), ("cards", "circuitry cards")),
    (lambda w: w.read(other_version), ("unit cards 0", "unit cards 2")),
    (
        lambda w: w.read(lambda cards: (cards / "words.json").unlink()),
        ("1 of 10", "words", "circuitry cards"),
    ),
    (
        lambda w: w.read(lambda cards: (cards / "words.json").write_text("{")),
        ("words.json", "circuitry cards"),
    ),
    (
        lambda w: w.read(
            lambda cards: (cards / "sites" / "layer3.0.safetensors").write_bytes(
                b"torn"
            )
        ),
        ("layer3.0.safetensors",),
    ),
    *(
        (
            lambda w, name=name: w.read(other_bit(name)),
            (name, "checksum", "circuitry cards"),
        )
        for name in (
            "images/real.npy",
            "images/sketch.json",
            "words.json",
            "sites/layer3.0.json",
        )
    ),
    (lambda w: made(w.clip, w.root, w.root / "cards", top=4), ("top: 3 -> 4",)),
    (lambda w: read_vocabulary(w.empty / "words.txt"), ("words.txt",)),
    (lambda w: w.vocabulary(b"# nothing\n"), ("words.txt",)),
    (lambda w: w.vocabulary(b"\xff"), ("UTF-8",)),
    (
        lambda w: vocabulary_of(classifier(w.clip, 4), ["fish"], ["red"]),
        ("classifier", "vocabulary"),
    ),
    (lambda w: unknown_word(), ("'tench'",)),
    (lambda w: top_at("layer9"), ("layer9",)),
    (lambda w: replace(worded(), tested=np.arange(N) < 3), ("20", "has 3")),
]


@pytest.mark.parametrize(("use", "words"), REFUSALS)
@pytest.mark.usefixtures("unchecked")
def test_refusals(
    use: Callable[[World], object],
    words: tuple[str, ...],
    clip: Clip,
    folder: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(InputError) as refused:
        use(World(clip, folder, tmp_path))
    assert all(word in str(refused.value) for word in words), refused.value
