"""Embeddings equal those of the model, are stored and read, and made again when what they are of has changed."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from circuitry import Clip, DomainFolder, Encoder, InputError
from circuitry.data import load_image, part_numbers
from circuitry.representations import (
    Embeddings,
    RepresentationSettings,
    embed_images,
    embed_texts,
    extract_representations,
    read_representations,
)
from circuitry.representations.grams import DomainRepresentation, gram_matrix
from circuitry.representations.representation_folder import check_enough_images, unit_means
from circuitry.runs import Work
from tests.support.tiny_clip import Tiny
from tests.support.work import QUIET

FILES = ("ink/axe/0.png", "ink/axe/1.png", "ink/cat/0.png", "photo/axe/0.png", "photo/cat/0.png")


def draw(root: Path, names: tuple[str, ...] = FILES) -> DomainFolder:
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / name)
    return DomainFolder(root)


@pytest.fixture
def images(tmp_path: Path) -> DomainFolder:
    return draw(tmp_path / "data")


@pytest.fixture
def embed(clip: Clip, images: DomainFolder, tmp_path: Path) -> Callable[..., Embeddings]:
    def call(n_images: int | None = None, **settings: object) -> Embeddings:
        return embed_images(clip, images, n_images, cache_dir=tmp_path / "cache", work=QUIET, **settings)  # type: ignore[arg-type]

    return call


@pytest.fixture
def encoded(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sizes: list[int] = []
    forward = type(clip.encoder).forward

    def counting(self: object, x: torch.Tensor, *args: object, **kwargs: object) -> object:
        sizes.append(len(x))
        return forward(self, x, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(type(clip.encoder), "forward", counting)
    return sizes


def assert_equal(a: Embeddings, b: Embeddings) -> None:
    for name in ("vectors", "source", "domain", "class_name"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_vectors_are_the_models_own(embed: Callable[..., Embeddings], clip: Clip, images: DomainFolder) -> None:
    found = embed()
    assert found.source.tolist() == list(FILES)
    assert found.domain.tolist() == ["ink", "ink", "ink", "photo", "photo"]
    assert found.class_name.tolist() == ["axe", "axe", "cat", "axe", "cat"]
    for row, record in zip(found.vectors, images.records, strict=True):
        with torch.no_grad():
            own = clip.model.encode_image(clip.preprocess(load_image(record.path))[None])[0].double()  # type: ignore[operator]
        assert row == pytest.approx((own / own.norm()).numpy(), abs=1e-5)
    assert np.linalg.norm(found.vectors, axis=1) == pytest.approx(1, abs=1e-6)


def test_replaced_images_are_seen(embed: Callable[..., Embeddings], encoded: list[int], images: DomainFolder) -> None:
    path = images.records[0].path

    def paint(colour: str) -> None:
        Image.new("RGB", (40, 40), colour).save(path, "BMP")  # without compression every picture has one size
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


def test_images_are_those_of_select_in_its_order(embed: Callable[..., Embeddings], images: DomainFolder) -> None:
    for n in (1, 9):
        cells = [(c, d) for d in images.domains for c in images.classes]
        assert embed(n, seed=3).source.tolist() == [r.relative for cell in cells for r in images.select(*cell, n, 3)]


def test_unreadable_images_are_left_out_each_time_and_are_an_error_where_all_are_needed(
    clip: Clip, embed: Callable[..., Embeddings], images: DomainFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images.records[2].path.write_bytes(b"")
    with pytest.warns(UserWarning, match=r"ink/cat/0\.png"):
        found = embed()
    caplog.clear()
    assert_equal(embed(), found)  # from the cache
    assert "1 of 5 images" in caplog.text
    assert found.source.tolist() == [name for name in FILES if name != "ink/cat/0.png"]
    with pytest.raises(InputError, match=r"ink/cat/0\.png"):
        embed_images(clip, images, cache_dir=tmp_path / "cache", work=Work(progress=False, strict=True))
    for record in images.records:
        record.path.write_bytes(b"")
    with pytest.warns(UserWarning, match="empty"), pytest.raises(InputError, match="None of the 5 images"):
        embed()


def test_texts_in_styles_use_the_words_of_the_domains(clip: Clip, tmp_path: Path) -> None:
    found = embed_texts(clip, ["axe", "cat"], ["infograph", "real", "line_art"], cache_dir=tmp_path)
    assert found.source.tolist() == [
        *("an infograph of a axe.", "an infograph of a cat."),
        *("a photo of a axe.", "a photo of a cat."),
        *("a line art of a axe.", "a line art of a cat."),
    ]
    assert found.domain.tolist() == ["infograph"] * 2 + ["real"] * 2 + ["line_art"] * 2
    with torch.no_grad():
        own = clip.model.encode_text(clip.tokenizer(["a photo of a cat."]))[0]  # type: ignore[operator]
    plain = embed_texts(clip, ["alarm_clock", "axe"], cache_dir=tmp_path)
    assert (plain.source.tolist(), plain.class_name.tolist()) == (["alarm clock", "axe"], ["alarm_clock", "axe"])
    np.testing.assert_array_equal(plain.vectors, clip.text_weights(["alarm_clock", "axe"], cache_dir=tmp_path).numpy())
    assert found.vectors[3] == pytest.approx((own / own.norm()).numpy(), abs=1e-5)


def small() -> Embeddings:
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]], np.float32)
    return Embeddings(
        vectors, np.array(list("wxyz")), np.array(["b", "a", "b", "a"]), np.array(["dog", "dog", "cat", "dog"])
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
        (lambda clip: embed_texts(clip, ["axe"], []), "at least one style"),
        (lambda clip: Embeddings(np.eye(2)[:1], ONE, ONE, np.array(["a", "b"])), "1 vectors .* 2 of class_name"),
        (lambda clip: Embeddings(np.array([[2.0, 0.0]]), ONE, ONE, ONE), "between 2 and 2"),
        (lambda clip: Embeddings(np.array([[np.nan, 1.0]]), ONE, ONE, ONE), "finite vectors of length 1"),
    ],
)
def test_unusable_embeddings_are_refused(clip: Clip, use: Callable[[Clip], object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        use(clip)


CLASSES = ("axe", "cat", "fish", "key", "lion", "pizza")
CUT = 200
"""Bytes that are left of a broken file."""
pytestmark = pytest.mark.filterwarnings("ignore:Skipped an image")


@pytest.fixture(scope="module")
def clip(tiny: Tiny) -> Clip:
    """The tiny model in double precision: it hardly tells images of noise apart, and rounding depends on batches."""
    loaded = tiny.load()
    loaded.model.double()
    return loaded


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two domains; there is no drawn pizza, one drawn key, and one drawn cat cannot be read."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for domain in ("real", "sketch"):
        for name in CLASSES:
            count = {"real": 4, "sketch": {"pizza": 0, "key": 1}.get(name, 3)}[domain]
            (folder / domain / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, size=(64, 64, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / domain / name / f"{i}.png")
    broken = folder / "sketch" / "cat" / "1.png"
    broken.write_bytes(broken.read_bytes()[:CUT])
    return folder


def represent(
    clip: Clip, root: Path, out: Path, work: Work = QUIET, **settings: object
) -> dict[str, DomainRepresentation]:
    chosen = RepresentationSettings(**{"n_images": 3, "n_parts": 2, "positions": "flattened"} | settings)  # type: ignore[arg-type]
    found = extract_representations(clip, DomainFolder(root), out, chosen, work)
    return {one.grams.domain: one for one in found}


@pytest.fixture(scope="module")
def made(clip: Clip, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made")
    represent(clip, root, out)
    return out


def activations(clip: Clip, root: Path, domain: str, name: str) -> list[dict[str, np.ndarray]]:
    """By readable image, in the order of their choice: flat activations by site."""
    found = []
    for record in DomainFolder(root).select(name, domain, 3):
        if record.path.stat().st_size != CUT:
            with torch.no_grad():
                _, cache = clip.encoder.run_with_cache(clip.preprocess(Image.open(record.path))[None].double())
            found.append({site: cache[site].flatten().numpy() for site in clip.encoder.sites})
        else:
            found.append({})
    return found


def parts_of(root: Path, domain: str, name: str) -> np.ndarray:
    """The part of each of a class's images; that items are told apart right is tested with `part_numbers`."""
    images = DomainFolder(root)
    cells = {(n, d): images.select(n, d, 3) for n in CLASSES for d in images.domains}
    return part_numbers(cells, 2)[name, domain]


def expected_means(
    clip: Clip, root: Path, domain: str, site: str, part: int | None = None
) -> tuple[list[str], np.ndarray]:
    means = {}
    for name in CLASSES:
        parts = parts_of(root, domain, name)
        images = zip(activations(clip, root, domain, name), parts, strict=True)
        chosen = [found[site] for found, of in images if found and part in (None, of)]
        if chosen:
            means[name] = np.mean(chosen, axis=0)
    return list(means), np.stack(list(means.values()))


def assert_rows(gram: np.ndarray, names: list[str], rows: np.ndarray) -> None:
    index = [CLASSES.index(name) for name in names]
    there = np.isfinite(gram)
    np.testing.assert_array_equal(there, np.outer(*[np.isin(np.arange(6), index)] * 2))
    n = len(names)
    centring = np.eye(n) - 1 / n
    expected = gram_matrix(rows)
    found = centring @ gram[np.ix_(index, index)] @ centring
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("domain", ["real", "sketch"])
def test_class_means_are_those_of_activations_in_memory(clip: Clip, root: Path, made: Path, domain: str) -> None:
    found = DomainRepresentation.load(made / f"{domain}.safetensors")
    assert tuple(found.grams.by_site) == clip.encoder.sites
    assert found.grams.classes == CLASSES
    for site in (clip.encoder.sites[0], "layer2.0", clip.encoder.sites[-1]):
        for grams, part in ((found.grams, None), (found.parts[0], 0), (found.parts[1], 1)):
            assert_rows(grams.by_site[site], *expected_means(clip, root, domain, site, part))


def test_unit_means_are_of_every_readable_image(clip: Clip, root: Path, made: Path) -> None:
    found = DomainRepresentation.load(made / "sketch.safetensors")
    assert found.image_classes == ("axe",) * 3 + ("cat",) * 2 + ("fish",) * 3 + ("key",) + ("lion",) * 3
    order = np.argsort(parts_of(root, "sketch", "fish"), kind="stable")
    fish = [activations(clip, root, "sketch", "fish")[i] for i in order]
    names = [DomainFolder(root).select("fish", "sketch", 3)[i].path.stem for i in order]
    assert found.image_items[5:8] == tuple(f"fish/{name}" for name in names)
    for site in ("layer2.0", clip.encoder.sites[-1]):
        units = found.unit_means[site].shape[1]
        expected = np.stack([one[site].reshape(units, -1).mean(1) for one in fish])
        np.testing.assert_allclose(found.unit_means[site][5:8], expected, rtol=1e-6)


def test_unit_means_average_over_positions_wherever_units_are(any_tower: nn.Module) -> None:
    encoder = Encoder.from_tower(any_tower)
    with torch.no_grad():
        _, cache = encoder.run_with_cache(torch.rand(2, 3, *encoder.image_size))
    for site in encoder.sites:
        activation, dim = cache[site], encoder.unit_dim(site)
        means = unit_means(activation, dim)
        assert means.shape == (2, activation.shape[dim])
        unit = activation.select(dim, 1)[1]
        assert means[1, 1].item() == pytest.approx(unit.mean().item(), abs=1e-5)


def test_batches_change_nothing(clip: Clip, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sites = ("layer1.0", "layer2.0")
    large = represent(clip, root, tmp_path / "large", sites=sites)
    monkeypatch.setattr("circuitry.representations.representation_folder.BATCH_SIZE", 1)
    small = represent(clip, root, tmp_path / "small", Work(memory_gib=1e-6, progress=False), sites=sites[::-1])
    for domain, expected in large.items():
        found = small[domain]
        assert tuple(found.grams.by_site) == ("layer1.0", "layer2.0")
        assert found.image_classes == expected.image_classes
        for mine, theirs in zip((found.grams, *found.parts), (expected.grams, *expected.parts), strict=True):
            for site in sites:
                scale = np.nanmax(np.abs(theirs.by_site[site]))
                np.testing.assert_allclose(mine.by_site[site], theirs.by_site[site], atol=1e-6 * scale)


def test_refusals(clip: Clip, root: Path, tiny: Tiny, tmp_path: Path) -> None:
    """How a folder is shared, resumed and repaired is tested with `JobFolder`."""
    represent(clip, root, tmp_path / "out", sites=("layer4.0",))
    assert [one.grams.domain for one in read_representations(tmp_path / "out")] == ["real", "sketch"]
    spoiled = tiny.load()
    spoiled.encoder.tower.get_submodule("layer2.0.bn3").bias.data[0] = torch.inf  # type: ignore[operator]
    (tmp_path / "empty" / "real" / "cat").mkdir(parents=True)
    (tmp_path / "empty" / "real" / "cat" / "0.png").write_bytes(b"no image")
    four, three = ("axe", "fish", "lion", "key"), ("axe", "cat", "pizza", "key")
    check_enough_images(DomainFolder(root, domains=("real",)))
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: represent(clip, root, tmp_path / "out", sites=("layer4.0",), n_images=2), "n_images: 3 -> 2"),
        (lambda: read_representations(tmp_path / "none"), r"none .*manifest\.json"),
        (lambda: represent(clip, root, tmp_path / "x", n_images=1), "2 parts.* n_images=1"),
        (lambda: represent(clip, root, tmp_path / "x", sites=("layer9",)), "'layer9'"),
        (lambda: represent(spoiled, root, tmp_path / "y", sites=("layer2.0",)), r"'layer2\.0' are not finite.*/axe/\d"),
        (lambda: represent(clip, tmp_path / "empty", tmp_path / "z", sites=("layer4.0",)), "images of real"),
        (lambda: check_enough_images(DomainFolder(root, classes=four), 2), "4 classes with 2 .* sketch has 3"),
        (lambda: check_enough_images(DomainFolder(root, classes=three)), "real and sketch have 3"),
    ]
    for call, words in refused:
        with pytest.raises(InputError, match=words):
            call()
    assert not (tmp_path / "x").exists()
