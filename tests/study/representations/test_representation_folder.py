"""Representations of whole domains against activations held in memory."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from circuitry import Clip, DomainFolder, Encoder
from circuitry.data import fold_numbers
from circuitry.runs import InputError, Work
from experiments.representations.grams import (
    DomainRepresentation,
    gram_matrix,
    read_representations,
)
from experiments.representations.representation_folder import (
    RepresentationSettings,
    check_enough_images,
    extract_representations,
    unit_means,
)
from tests.support.tiny_clip import Tiny
from tests.support.work import QUIET

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
    chosen = RepresentationSettings(**{"n_images": 3, "n_folds": 2} | settings)  # type: ignore[arg-type]
    found = extract_representations(clip, DomainFolder(root), out, chosen, work)
    return {one.grams.domain: one for one in found}


@pytest.fixture(scope="module")
def made(clip: Clip, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made")
    represent(clip, root, out)
    return out


def activations(
    clip: Clip, root: Path, domain: str, name: str
) -> list[dict[str, np.ndarray]]:
    """By readable image, in the order of their choice: means over positions by site."""
    found = []
    for record in DomainFolder(root).select(name, domain, 3):
        if record.path.stat().st_size != CUT:
            with torch.no_grad():
                _, cache = clip.encoder.run_with_cache(
                    clip.preprocess(Image.open(record.path))[None].double()
                )
            found.append(
                {
                    s: cache[s][0].reshape(cache[s].shape[1], -1).mean(1).numpy()
                    for s in clip.encoder.sites
                }
            )
        else:
            found.append({})
    return found


def folds_of(root: Path, domain: str, name: str) -> np.ndarray:
    """The fold of each of a class's images; that items are told apart right is tested with `fold_numbers`."""
    images = DomainFolder(root)
    cells = {(n, d): images.select(n, d, 3) for n in CLASSES for d in images.domains}
    return fold_numbers(cells, 2)[name, domain]


def expected_means(
    clip: Clip, root: Path, domain: str, site: str, fold: int | None = None
) -> tuple[list[str], np.ndarray]:
    means = {}
    for name in CLASSES:
        folds = folds_of(root, domain, name)
        images = zip(activations(clip, root, domain, name), folds, strict=True)
        chosen = [found[site] for found, of in images if found and fold in (None, of)]
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
def test_class_means_are_those_of_activations_in_memory(
    clip: Clip, root: Path, made: Path, domain: str
) -> None:
    found = DomainRepresentation.load(made / f"{domain}.safetensors")
    assert tuple(found.grams.by_site) == clip.encoder.sites
    assert found.grams.classes == CLASSES
    for site in (clip.encoder.sites[0], "layer2.0", clip.encoder.sites[-1]):
        for grams, fold in (
            (found.grams, None),
            (found.folds[0], 0),
            (found.folds[1], 1),
        ):
            assert_rows(
                grams.by_site[site], *expected_means(clip, root, domain, site, fold)
            )


def test_unit_means_are_of_every_readable_image(
    clip: Clip, root: Path, made: Path
) -> None:
    found = DomainRepresentation.load(made / "sketch.safetensors")
    assert (
        found.image_classes
        == ("axe",) * 3 + ("cat",) * 2 + ("fish",) * 3 + ("key",) + ("lion",) * 3
    )
    order = np.argsort(folds_of(root, "sketch", "fish"), kind="stable")
    fish = [activations(clip, root, "sketch", "fish")[i] for i in order]
    names = [DomainFolder(root).select("fish", "sketch", 3)[i].path.stem for i in order]
    assert found.image_items[5:8] == tuple(f"fish/{name}" for name in names)
    for site in ("layer2.0", clip.encoder.sites[-1]):
        np.testing.assert_allclose(
            found.unit_means[site][5:8],
            np.stack([one[site] for one in fish]),
            rtol=1e-6,
        )


def test_unit_means_average_over_positions_wherever_units_are(
    any_tower: nn.Module,
) -> None:
    encoder = Encoder.from_tower(any_tower)
    with torch.no_grad():
        _, cache = encoder.run_with_cache(torch.rand(2, 3, *encoder.image_size))
    for site in encoder.sites:
        activation, dim = cache[site], encoder.unit_dim(site)
        means = unit_means(activation, dim)
        assert means.shape == (2, activation.shape[dim])
        unit = activation.select(dim, 1)[1]
        assert means[1, 1].item() == pytest.approx(unit.mean().item(), abs=1e-5)


def test_batches_change_nothing(
    clip: Clip, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = ("layer1.0", "layer2.0")
    large = represent(clip, root, tmp_path / "large", sites=sites)
    monkeypatch.setattr(
        "experiments.representations.representation_folder.BATCH_SIZE", 1
    )
    small = represent(
        clip,
        root,
        tmp_path / "small",
        Work(memory_gib=1e-6, progress=False),
        sites=sites[::-1],
    )
    for domain, expected in large.items():
        found = small[domain]
        assert tuple(found.grams.by_site) == ("layer1.0", "layer2.0")
        assert found.image_classes == expected.image_classes
        for mine, theirs in zip(
            (found.grams, *found.folds), (expected.grams, *expected.folds), strict=True
        ):
            for site in sites:
                scale = np.nanmax(np.abs(theirs.by_site[site]))
                np.testing.assert_allclose(
                    mine.by_site[site], theirs.by_site[site], atol=1e-6 * scale
                )


def test_refusals(clip: Clip, root: Path, tiny: Tiny, tmp_path: Path) -> None:
    """How a folder is shared, resumed and repaired is tested with `JobFolder`."""
    represent(clip, root, tmp_path / "out", sites=("layer4.0",))
    assert [one.grams.domain for one in read_representations(tmp_path / "out")] == [
        "real",
        "sketch",
    ]
    spoiled = tiny.load()
    spoiled.encoder.tower.get_submodule("layer2.0.bn3").bias.data[0] = torch.inf  # type: ignore[operator]
    (tmp_path / "empty" / "real" / "cat").mkdir(parents=True)
    (tmp_path / "empty" / "real" / "cat" / "0.png").write_bytes(b"no image")
    four, three = ("axe", "fish", "lion", "key"), ("axe", "cat", "pizza", "key")
    check_enough_images(DomainFolder(root, domains=("real",)))
    refused: list[tuple[Callable[[], object], str]] = [
        (
            lambda: represent(
                clip, root, tmp_path / "out", sites=("layer4.0",), n_images=2
            ),
            "n_images: 3 -> 2",
        ),
        (lambda: read_representations(tmp_path / "none"), r"none .*manifest\.json"),
        (
            lambda: represent(clip, root, tmp_path / "x", n_images=1),
            "2 folds.* n_images=1",
        ),
        (lambda: represent(clip, root, tmp_path / "x", sites=("layer9",)), "'layer9'"),
        (
            lambda: represent(spoiled, root, tmp_path / "y", sites=("layer2.0",)),
            r"'layer2\.0' are not finite.*/axe/\d",
        ),
        (
            lambda: represent(
                clip, tmp_path / "empty", tmp_path / "z", sites=("layer4.0",)
            ),
            "images of real",
        ),
        (
            lambda: check_enough_images(DomainFolder(root, classes=four), 2),
            "4 classes with 2 .* sketch has 3",
        ),
        (
            lambda: check_enough_images(DomainFolder(root, classes=three)),
            "real and sketch have 3",
        ),
    ]
    for call, words in refused:
        with pytest.raises(InputError, match=words):
            call()
    assert not (tmp_path / "x").exists()
