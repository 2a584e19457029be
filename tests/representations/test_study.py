"""Representations of whole domains against activations held in memory."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from circuitry import Clip, DomainFolder, Encoder
from circuitry.representations.class_means import DomainRepresentation
from circuitry.representations.grams import gram_matrix
from circuitry.representations.kernel_alignment import cka
from circuitry.representations.similarity import compare_representation_halves, compare_representations
from circuitry.representations.study import _unit_means, study_representations
from circuitry.runs.errors import InputError
from tests.support.tiny_clip import Tiny

CLASSES = ("axe", "cat", "fish", "key", "lion", "pizza")
CUT = 200
"""Bytes that are left of a broken file."""


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


def represent(clip: Clip, root: Path, out: Path, **changes: object) -> dict[str, DomainRepresentation]:
    arguments = {"n_images": 3, "progress": False} | changes
    found = study_representations(clip, DomainFolder(root), out, **arguments)  # type: ignore[arg-type]
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


def expected_means(clip: Clip, root: Path, domain: str, site: str, part: slice) -> tuple[list[str], np.ndarray]:
    means = {}
    for name in CLASSES:
        chosen = [found[site] for found in activations(clip, root, domain, name)[part] if found]
        if chosen:
            means[name] = np.mean(chosen, axis=0)
    return list(means), np.stack(list(means.values()))


def assert_rows(gram: np.ndarray, names: list[str], rows: np.ndarray) -> None:
    """The Gram matrix holds these rows of these classes, centred in any way, and nothing of the others."""
    index = [CLASSES.index(name) for name in names]
    there = np.isfinite(gram)
    np.testing.assert_array_equal(there, np.outer(*[np.isin(np.arange(6), index)] * 2))
    n = len(names)
    centring = np.eye(n) - 1 / n
    expected = gram_matrix(rows)
    found = centring @ gram[np.ix_(index, index)] @ centring
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())


# Class means


@pytest.mark.parametrize("domain", ["real", "sketch"])
def test_class_means_are_those_of_activations_in_memory(clip: Clip, root: Path, made: Path, domain: str) -> None:
    found = DomainRepresentation.load(made / f"{domain}.safetensors")
    assert tuple(found.grams.by_site) == clip.encoder.sites
    assert found.grams.classes == CLASSES
    for site in (clip.encoder.sites[0], "layer2.0", clip.encoder.sites[-1]):
        for grams, part in (
            (found.grams, slice(None)),
            (found.halves[0], slice(0, 3, 2)),
            (found.halves[1], slice(1, 3, 2)),
        ):
            assert grams.by_site[site].shape == (1, 6, 6)
            assert_rows(grams.by_site[site][0], *expected_means(clip, root, domain, site, part))


def test_similarity_of_domains_is_that_of_their_class_means(clip: Clip, root: Path, made: Path) -> None:
    found = [DomainRepresentation.load(made / f"{domain}.safetensors") for domain in ("real", "sketch")]
    pairs = compare_representations([one.grams for one in found], permutations=5).pairs
    for site in ("layer1.0", clip.encoder.sites[-1]):
        names, sketch = expected_means(clip, root, "sketch", site, slice(None))
        real = expected_means(clip, root, "real", site, slice(None))[1][[CLASSES.index(name) for name in names]]
        for kernel in ("linear", "rbf"):
            row = pairs[(pairs["site"] == site) & (pairs["kernel"] == kernel)].iloc[0]
            assert row["value"] == pytest.approx(cka(real, sketch, kernel), abs=1e-6)
            assert row["n_classes"] == 5
    with pytest.raises(InputError, match="sketch and sketch have 3 in common"):  # no second key, cat or pizza
        compare_representation_halves([found[1].halves])


def test_unit_means_are_of_every_readable_image(clip: Clip, root: Path, made: Path) -> None:
    found = DomainRepresentation.load(made / "sketch.safetensors")
    assert found.image_classes == ("axe",) * 3 + ("cat",) * 2 + ("fish",) * 3 + ("key",) + ("lion",) * 3
    first, _, third = activations(clip, root, "sketch", "fish")
    by_half = [*(first, third), activations(clip, root, "sketch", "fish")[1]]
    for site in ("layer2.0", clip.encoder.sites[-1]):
        units = found.unit_means[site].shape[1]
        expected = np.stack([one[site].reshape(units, -1).mean(1) for one in by_half])
        np.testing.assert_allclose(found.unit_means[site][5:8], expected, rtol=1e-6)


def test_unit_means_average_over_positions_wherever_units_are(any_tower: nn.Module) -> None:
    encoder = Encoder.from_tower(any_tower)
    with torch.no_grad():
        _, cache = encoder.run_with_cache(torch.rand(2, 3, *encoder.image_size))
    for site in encoder.sites:
        activation, dim = cache[site], encoder.unit_dim(site)
        means = _unit_means(activation, dim)
        assert means.shape == (2, activation.shape[dim])
        unit = activation.select(dim, 1)[1]
        assert means[1, 1].item() == pytest.approx(unit.mean().item(), abs=1e-5)


@pytest.mark.parametrize("rows", ["class-means", "images"])
def test_batches_and_budget_do_not_change_the_result(
    rows: str, clip: Clip, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = ["layer1.0", "layer2.0"]
    large = represent(clip, root, tmp_path / "large", rows=rows, sites=sites)
    monkeypatch.setattr("circuitry.representations.study.LARGEST_BATCH", 2)
    small = represent(clip, root, tmp_path / "small", rows=rows, sites=sites[::-1], memory_gib=1e-6)
    for domain, expected in large.items():
        found = small[domain]
        assert tuple(found.grams.by_site) == ("layer1.0", "layer2.0")
        assert found.image_classes == expected.image_classes
        for mine, theirs in zip((found.grams, *found.halves), (expected.grams, *expected.halves), strict=True):
            for site in sites:
                scale = np.nanmax(np.abs(theirs.by_site[site]))
                np.testing.assert_allclose(mine.by_site[site], theirs.by_site[site], atol=1e-6 * scale)


# Single images


def test_a_batch_holds_one_image_of_every_class(clip: Clip, root: Path, tmp_path: Path) -> None:
    found = represent(clip, root, tmp_path, rows="images", sites=["layer1.0", "layer3.0"])["sketch"]
    assert found.grams.by_site["layer1.0"].shape == (3, 6, 6)
    by_class = {name: activations(clip, root, "sketch", name) for name in CLASSES}
    for i, gram in enumerate(found.grams.by_site["layer3.0"]):
        rows = {name: images[i]["layer3.0"] for name, images in by_class.items() if len(images) > i and images[i]}
        assert_rows(gram, list(rows), np.stack(list(rows.values())))
    np.testing.assert_array_equal(found.halves[0].by_site["layer1.0"], found.grams.by_site["layer1.0"][::2])
    np.testing.assert_array_equal(found.halves[1].by_site["layer1.0"], found.grams.by_site["layer1.0"][1::2])
    # The first image of all but pizza, then the second without the key, then the third; one of the cats is broken.
    assert len(found.image_classes) == 12
    assert found.image_classes[-3:] in {("axe", "fish", "lion"), ("cat", "fish", "lion")}


# Folders


def test_a_second_run_reads_and_a_damaged_file_is_made_again(
    clip: Clip, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"sites": ["layer4.0"]}
    first = represent(clip, root, tmp_path, **settings)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "manifest.json",
        "real.safetensors",
        "sketch.safetensors",
    ]
    damaged = tmp_path / "sketch.safetensors"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    before = (tmp_path / "real.safetensors").stat().st_mtime_ns
    with caplog.at_level(logging.WARNING):
        again = represent(clip, root, tmp_path, **settings)
    assert "sketch is made again" in caplog.text
    assert damaged.read_bytes() == whole
    assert (tmp_path / "real.safetensors").stat().st_mtime_ns == before
    np.testing.assert_array_equal(again["real"].grams.by_site["layer4.0"], first["real"].grams.by_site["layer4.0"])
    with pytest.raises(InputError, match="another configuration"):
        represent(clip, root, tmp_path, **settings, n_images=2)


def test_an_image_that_cannot_be_read_is_left_out_with_a_line(
    clip: Clip, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        represent(clip, root, tmp_path, sites=["layer4.0"])
    lines = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith("left out an image: Cannot read ")


# Bad input


def test_bad_input_is_named_in_a_sentence(clip: Clip, root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rows that are one of class-means, images, but 'pixels' was given"):
        represent(clip, root, tmp_path, rows="pixels")
    with pytest.raises(InputError, match="at least two of them, but n_images=1 was given"):
        represent(clip, root, tmp_path, n_images=1)
    with pytest.raises(InputError, match="no site 'layer9'"):
        represent(clip, root, tmp_path, sites=["layer9"])
    assert list(tmp_path.iterdir()) == []


def test_activations_that_are_not_finite_are_refused(clip: Clip, root: Path, tmp_path: Path) -> None:
    def spoil(activation: torch.Tensor, hook: object) -> torch.Tensor:
        return activation.masked_fill(activation == activation.max(), torch.inf)

    with (
        clip.encoder.hooks(fwd_hooks=[("layer2.0", spoil)]),
        pytest.raises(
            InputError, match=r"finite activations, but layer2\.0 has NaN or infinite ones on .*0?\.png or the"
        ),
    ):
        represent(clip, root, tmp_path, sites=["layer1.0", "layer2.0"])


def test_a_domain_without_a_readable_image_is_refused(clip: Clip, tmp_path: Path) -> None:
    (tmp_path / "real" / "cat").mkdir(parents=True)
    (tmp_path / "real" / "cat" / "0.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="None of the images of real can be read: give others, or leave"):
        represent(clip, tmp_path, tmp_path / "out", sites=["layer4.0"])
