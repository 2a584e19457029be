"""Same and other class in same and other domain, against means of rows."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from circuitry.comparison import PARTS, class_by_domain, sign_flip_p
from circuitry.comparison.class_table import CELLS, EFFECTS
from experiments.simulation import jaccard, keep
from tests.comparison.similarities import similarities


def test_cells_and_effects_are_means_of_rows() -> None:
    parts = similarities(6, ("u",)).parts
    table = class_by_domain(parts).set_index("what")
    assert table.index.tolist() == [*CELLS, *EFFECTS]
    same, within = parts["class_a"] == parts["class_b"], parts["domain_a"] == parts["domain_b"]
    chosen = (same & within, same & ~within, ~same & within, ~same & ~within)
    a, b, c, d = (parts[rows]["value"].mean() for rows in chosen)
    expected = [a, b, c, d, (a + b - c - d) / 2, (a - b + c - d) / 2, a - b, b - d]
    assert table["value"].tolist() == pytest.approx(expected)
    assert (table["low"] < table["value"]).all()
    assert table["p"].isna().tolist() == [True] * 4 + [False] * 4
    assert table["p"].to_dict()["class effect across domains"] == 2 / 2**6
    assert table["n_classes"].tolist() == [6] * 8


def test_p_is_that_of_signs_of_classes() -> None:
    parts = similarities(5, ("u",), seed=2).parts
    own = parts[parts["class_a"] == parts["class_b"]]
    within = own["domain_a"] == own["domain_b"]
    effects = own[within].groupby("class_a")["value"].mean() - own[~within].groupby("class_a")["value"].mean()
    found = class_by_domain(parts).set_index("what")["p"].to_dict()
    assert found["domain effect within a class"] == pytest.approx(sign_flip_p(effects.to_numpy()))


def test_without_other_classes_there_is_only_the_domain() -> None:
    parts = similarities(4).parts
    alone = class_by_domain(parts[parts["class_a"] == parts["class_b"]])
    assert alone["what"].tolist() == [CELLS[0], CELLS[1], "domain effect within a class"]
    assert class_by_domain(parts.iloc[:0]).empty


def one_pair_of_parts_per_two_classes(rng: np.random.Generator, n: int) -> pd.DataFrame:
    """Return parts of unrelated circuits; each class meets the next two, in one pair of parts."""
    scores = rng.normal(size=(n, 2, 1, 40)) + 0.7 * rng.normal(size=(n, 2, 4, 40))
    kept = keep(scores, 6)
    values = jaccard(kept[:, :, :, None, None, None], kept)
    c, a, p, o, b, q = np.meshgrid(*map(np.arange, values.shape), indexing="ij")
    met = rng.permuted(np.tile(np.arange(4), (n, n, 1)), axis=2)
    own = (c == o) & ((a < b) | ((a == b) & (p < q)))
    other = (c < o) & (o <= c + 2) & (met[c, o, 0] == p) & (met[c, o, 1] == q)
    rows = (own | other) & (p != q)
    names = [np.char.add(letter, x[rows].astype(str)) for letter, x in zip("ccdd", (c, o, a, b), strict=True)]
    columns = (*names, p[rows], q[rows], None, values[rows])
    return pd.DataFrame(dict(zip(PARTS, columns, strict=True)))


def test_intervals_are_wide_and_never_narrow() -> None:
    rng = np.random.default_rng(0)
    tables = [class_by_domain(one_pair_of_parts_per_two_classes(rng, 8)) for _ in range(50)]
    found = [table.set_index("what").loc["class effect", ["value", "low", "high"]] for table in tables]
    value, low, high = np.array(found, float).T
    assert ((low <= value.mean()) & (value.mean() <= high)).mean() >= 0.95
    needed = 2 * stats.t.ppf(0.975, 7) * value.std(ddof=1)
    assert 1.2 < (high - low).mean() / needed < 2.4


def test_families_are_units() -> None:
    parts = similarities(6, ("u",)).parts
    found = class_by_domain(parts, {f"c{i:03}": str(i // 2) for i in range(6)}).set_index("what")
    assert found["p"].to_dict()["class effect"] == 2 / 2**3
    assert np.isfinite(found["low"]).all()
