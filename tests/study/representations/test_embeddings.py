"""Embeddings equal those of the model, are stored and read, and made again when what they are of has changed."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from circuitry import Clip, DomainFolder, InputError
from circuitry.data import load_image
from circuitry.runs import Work
from experiments.representations.embedding_set import Embeddings
from experiments.representations.embeddings import embed_images, embed_texts
from tests.support.work import QUIET

FILES = (
    "ink/axe/0.png",
    "ink/axe/1.png",
    "ink/cat/0.png",
    "photo/axe/0.png",
    "photo/cat/0.png",
)


def draw(root: Path, names: tuple[str, ...] = FILES) -> DomainFolder:
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(
            0, 256, (40, 40, 3), dtype=np.uint8
        )
        Image.fromarray(pixels).save(root / name)
    return DomainFolder(root)


@pytest.fixture
def images(tmp_path: Path) -> DomainFolder:
    return draw(tmp_path / "data")


@pytest.fixture
def embed(
    clip: Clip, images: DomainFolder, tmp_path: Path
) -> Callable[..., Embeddings]:
    def call(n_images: int | None = None, **settings: Any) -> Embeddings:
        return embed_images(
            clip, images, n_images, cache_dir=tmp_path / "cache", work=QUIET, **settings
        )

    return call


@pytest.fixture
def encoded(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sizes: list[int] = []
    forward = type(clip.encoder).forward

    def counting(
        self: object, x: torch.Tensor, *args: object, **kwargs: object
    ) -> object:
        sizes.append(len(x))
        return forward(self, x, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(type(clip.encoder), "forward", counting)
    return sizes


def assert_equal(a: Embeddings, b: Embeddings) -> None:
    for name in ("vectors", "source", "domain", "class_name"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_vectors_are_the_models_own(
    embed: Callable[..., Embeddings], clip: Clip, images: DomainFolder
) -> None:
    found = embed()
    assert found.source.tolist() == list(FILES)
    assert found.domain.tolist() == ["ink", "ink", "ink", "photo", "photo"]
    assert found.class_name.tolist() == ["axe", "axe", "cat", "axe", "cat"]
    for row, record in zip(found.vectors, images.records, strict=True):
        with torch.no_grad():
            own = clip.model.encode_image(
                clip.preprocess(load_image(record.path))[None]
            )[0].double()  # type: ignore[operator]
        assert row == pytest.approx((own / own.norm()).numpy(), abs=1e-5)
    assert np.linalg.norm(found.vectors, axis=1) == pytest.approx(1, abs=1e-6)


def test_replaced_images_are_seen(
    embed: Callable[..., Embeddings], encoded: list[int], images: DomainFolder
) -> None:
    path = images.records[0].path

    def paint(colour: str) -> None:
        Image.new("RGB", (40, 40), colour).save(
            path, "BMP"
        )  # without compression every picture has one size
        os.utime(path, ns=(1, 1))

    paint("blue")
    before, size = embed(), path.stat().st_size
    assert_equal(embed(), before)  # the second run reads it
    paint("red")
    assert path.stat().st_size == size
    after = embed()
    assert encoded == [5, 5]
    assert np.abs(after.vectors[0] - before.vectors[0]).max() > 1e-3
    np.testing.assert_allclose(after.vectors[1:], before.vectors[1:], atol=1e-6)
    os.utime(path, ns=(2, 2))
    assert_equal(embed(), after)
    assert encoded == [5, 5]


def test_images_are_those_of_select_in_its_order(
    embed: Callable[..., Embeddings], images: DomainFolder
) -> None:
    for n in (1, 9):
        cells = [(c, d) for d in images.domains for c in images.classes]
        assert embed(n, seed=3).source.tolist() == [
            r.relative for cell in cells for r in images.select(*cell, n, 3)
        ]


def test_unreadable_images_are_left_out_each_time_and_are_an_error_where_all_are_needed(
    clip: Clip,
    embed: Callable[..., Embeddings],
    images: DomainFolder,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    images.records[2].path.write_bytes(b"")
    with pytest.warns(UserWarning, match=r"ink/cat/0\.png"):
        found = embed()
    caplog.clear()
    assert_equal(embed(), found)  # from the cache
    assert "1 of 5 images" in caplog.text
    assert found.source.tolist() == [name for name in FILES if name != "ink/cat/0.png"]
    with pytest.raises(InputError, match=r"ink/cat/0\.png"):
        embed_images(
            clip,
            images,
            cache_dir=tmp_path / "cache",
            work=Work(progress=False, strict=True),
        )
    for record in images.records:
        record.path.write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="empty"),
        pytest.raises(InputError, match="None of the 5 images"),
    ):
        embed()


def test_texts_are_the_weights_of_zero_shot_classification(
    clip: Clip, tmp_path: Path
) -> None:
    plain = embed_texts(clip, ["alarm_clock", "axe"], cache_dir=tmp_path)
    assert (plain.source.tolist(), plain.class_name.tolist()) == (
        ["alarm clock", "axe"],
        ["alarm_clock", "axe"],
    )
    np.testing.assert_array_equal(
        plain.vectors,
        clip.text_weights(["alarm_clock", "axe"], cache_dir=tmp_path).numpy(),
    )


def small() -> Embeddings:
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]], np.float32)
    return Embeddings(
        vectors,
        np.array(list("wxyz")),
        np.array(["b", "a", "b", "a"]),
        np.array(["dog", "dog", "cat", "dog"]),
    )


def test_groups_and_choice_by_hand() -> None:
    groups = {key: rows.tolist() for key, rows in small().groups().items()}
    assert groups == {("cat", "b"): [2], ("dog", "a"): [1, 3], ("dog", "b"): [0]}
    assert small().take(small().domain == "a").source.tolist() == ["x", "z"]
    assert small().take(np.array([2, 0])).source.tolist() == ["y", "w"]


ONE = np.array(["a"])


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (
            lambda clip: Embeddings(np.eye(2)[:1], ONE, ONE, np.array(["a", "b"])),
            "1 vectors .* 2 of class_name",
        ),
        (
            lambda clip: Embeddings(np.array([[2.0, 0.0]]), ONE, ONE, ONE),
            "between 2 and 2",
        ),
        (
            lambda clip: Embeddings(np.array([[np.nan, 1.0]]), ONE, ONE, ONE),
            "finite vectors of length 1",
        ),
    ],
)
def test_unusable_embeddings_are_refused(
    clip: Clip, use: Callable[[Clip], object], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        use(clip)
