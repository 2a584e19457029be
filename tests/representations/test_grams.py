"""Inner products of rows in files against whole matrices in memory, for any budget."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from circuitry.representations.grams import RowFiles, gram_matrix
from circuitry.runs import InputError

ONE_FEATURE = 1e-9
"""A budget in GiB below that of a single feature."""


def rows_of(x: np.ndarray) -> np.ndarray:
    """Inner products after centring, with the centring matrix written out."""
    n = len(x)
    centring = np.eye(n) - np.ones((n, n)) / n
    return np.asarray(centring @ x.astype(float) @ x.astype(float).T @ centring)


def stored(x: np.ndarray, memory_gib: float, folder: Path | None = None) -> np.ndarray:
    with RowFiles(folder) as rows:
        for row in x:
            rows.add({"a": row, "b": row[:2]})
        assert len(rows) == len(x)
        assert rows.sites == ("a", "b")
        np.testing.assert_allclose(rows.gram("b", memory_gib), rows_of(x[:, :2]), rtol=1e-5, atol=1e-5)
        return rows.gram("a", memory_gib)


def test_a_gram_matrix_is_that_of_centred_features() -> None:
    x = np.random.default_rng(0).normal(3, 1, size=(6, 9)).astype(np.float32)
    before = x.copy()
    np.testing.assert_allclose(gram_matrix(x), rows_of(x), atol=1e-12)
    assert (x == before).all()
    assert gram_matrix(np.array([[0.0, 5.0], [2.0, 5.0]])).tolist() == [[1, -1], [-1, 1]]


@pytest.mark.parametrize("memory_gib", [ONE_FEATURE, 12 * 5 * 7 / 2**30, 1.0])
def test_a_budget_does_not_change_the_result(memory_gib: float) -> None:
    x = np.random.default_rng(1).normal(size=(5, 23))
    np.testing.assert_allclose(stored(x, memory_gib), rows_of(x), rtol=1e-6, atol=1e-6)


def test_small_differences_of_large_numbers_survive() -> None:
    # In single precision, numbers near a million are a sixteenth apart.
    small = np.random.default_rng(2).normal(0, 0.01, size=(6, 500))
    found = stored(1e6 + small, ONE_FEATURE * 100)
    np.testing.assert_allclose(found, rows_of(small), rtol=1e-5, atol=1e-7)


def test_blocks_stay_within_their_budget() -> None:
    rng = np.random.default_rng(4)
    with RowFiles() as rows:
        for _ in range(40):
            rows.add({"act3": rng.normal(size=50_000).astype(np.float32)})  # 16 MB in double precision
        tracemalloc.start()
        rows.gram("act3", memory_gib=1 / 1024)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 1.1 * 2**20


def test_nothing_is_left_in_the_folder(tmp_path: Path) -> None:
    with RowFiles(tmp_path) as rows:
        rows.add({"a": np.ones(3)})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="closed file"):
        rows.gram("a")


def test_other_rows_are_refused() -> None:
    with RowFiles() as rows:
        rows.add({"a": np.ones(3)})
        for other, words in (({"a": np.ones(4)}, r"\{'a': 3\}, .*\{'a': 4\}"), ({"b": np.ones(3)}, r"\{'b': 3\}")):
            with pytest.raises(InputError, match=words):
                rows.add(other)
