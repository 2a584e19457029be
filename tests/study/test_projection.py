"""Maps: principal components against numpy, UMAP deterministic, what is drawn chosen evenly."""

import importlib.util
from functools import partial

import numpy as np
import pytest

from circuitry import InputError
from experiments.study.separation import embedding_map, map_table
from tests.study.test_separation import random_embeddings


@pytest.mark.parametrize("shape", [(30, 5), (6, 40)])
def test_principal_components_are_numpys_up_to_sign(shape: tuple[int, int]) -> None:
    vectors = (
        np.random.default_rng(0).normal(size=shape) * np.arange(1, shape[1] + 1) + 3
    )
    points, method = embedding_map(vectors, "pca")
    u, s, _ = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    expected = u[:, :2] * s[:2]
    for found, own in zip(points.T, expected.T, strict=True):
        assert found == pytest.approx(own * np.sign(own @ found), abs=1e-9)
    assert (
        method
        == f"principal components ({(s[:2] ** 2).sum() / (s**2).sum():.0%} of the variance)"
    )


def test_auto_is_principal_components_without_umap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == "umap" else found(name),
    )
    vectors = np.random.default_rng(0).normal(size=(9, 4))
    np.testing.assert_array_equal(
        embedding_map(vectors)[0], embedding_map(vectors, "pca")[0]
    )
    with pytest.raises(InputError, match="pip install umap-learn"):
        embedding_map(vectors, "umap")


@pytest.mark.skipif(importlib.util.find_spec("umap") is None, reason="needs umap-learn")
@pytest.mark.filterwarnings(
    "ignore::ImportWarning"
)  # importing umap says that it found no Tensorflow
def test_umap_is_slow_to_import_but_deterministic_and_keeps_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The only test that imports umap, which takes seconds; to compile it for 24 points would take as long again."""
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    umap = importlib.import_module("umap")
    monkeypatch.setattr(umap, "UMAP", partial(umap.UMAP, n_epochs=100))
    rng = np.random.default_rng(0)
    vectors = np.concatenate([rng.normal(size=(12, 5)), rng.normal(size=(12, 5)) + 20])
    points, method = embedding_map(vectors, seed=1)
    assert method == "UMAP with density"
    np.testing.assert_array_equal(points, embedding_map(vectors, "umap", seed=1)[0])
    assert not np.allclose(points, embedding_map(vectors, "umap", seed=2)[0])
    distances = np.linalg.norm(points[:, None] - points[None], axis=2) + 1e9 * np.eye(
        24
    )
    assert ((distances.argmin(1) < 12) == (np.arange(24) < 12)).all()


def test_so_many_images_of_each_domain_are_drawn_at_random() -> None:
    images = random_embeddings(0, n=60).take(
        np.arange(58)
    )  # 20, 19 and 19 of three domains
    found = map_table(images, "pca", per_domain=12, seed=1)
    assert found["domain"].value_counts().to_dict() == {"d0": 12, "d1": 12, "d2": 12}
    assert found["class"].nunique() == 2
    assert found.equals(map_table(images, "pca", per_domain=12, seed=1))
    assert not found.equals(map_table(images, "pca", per_domain=12, seed=2))
    assert (
        len(map_table(images, "pca", per_domain=None))
        == len(map_table(images, "pca", per_domain=20))
        == 58
    )


def test_a_domain_is_left_out_of_the_map() -> None:
    images = random_embeddings(0, n=30)
    for without, kept in ((None, images), ("d1", images.take(images.domain != "d1"))):
        found = map_table(images, "pca", without=without)
        np.testing.assert_array_equal(
            found[["x", "y"]].to_numpy(), embedding_map(kept.vectors, "pca")[0]
        )
        assert found["domain"].tolist() == kept.domain.tolist()
    with pytest.raises(InputError, match=r"'ink'.* d0, d1, d2"):
        map_table(images, "pca", without="ink")
