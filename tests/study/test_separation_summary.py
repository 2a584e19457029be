"""All measures of separation in one table, over models and seeds, by hand."""

import pandas as pd
import pytest

from experiments.study.separation import by_seed, compare_distances, differences, gather, separation_measures, summarise
from tests.study.test_separation import random_embeddings


def test_all_measures_of_one_model() -> None:
    images = random_embeddings(6, n=60)
    texts = random_embeddings(7, n=2, domains=1)
    table = separation_measures(images, texts, held_out=("c1",))
    sizes = table.groupby("measure", sort=False).size().to_dict()
    by_class = ("distance", "standardised distance", "spread", "silhouette by domain", "silhouette by class")
    assert {sizes[name] for name in (*by_class, "distance of parts", "standardised distance of parts")} == {6}
    assert (sizes["domain probe"], sizes["modality gap"]) == (4, 4)
    assert set(table[table["measure"] == "accuracy, held-out classes"]["class"]) == {"c1"}
    assert set(table[table["measure"] == "accuracy, seen classes"]["class"]) == {"c0"}
    distances = compare_distances(images).values.set_index(["class", "domain_a", "domain_b"])["value"]
    found = table.set_index(["measure", "class", "domain"])["value"]
    expected = (distances["c0", "d0", "d1"] + distances["c0", "d1", "d2"]) / 2
    assert found["distance", "c0", "d1"] == pytest.approx(expected)
    assert table[table["measure"] == "modality gap"]["class"].isna().all()
    without = separation_measures(images, texts)
    assert "accuracy, held-out classes" not in set(without["measure"])


def measured(values: dict[str | None, float], measure: str = "distance") -> pd.DataFrame:
    rows = [(measure, class_name, "ink", value) for class_name, value in values.items()]
    return pd.DataFrame(rows, columns=["measure", "class", "domain", "value"])


def test_seeds_are_averaged_before_classes_and_differences_are_paired() -> None:
    table = gather(
        {
            ("a", 0): measured({"axe": 1.0, "cat": 2.0}),
            ("a", 1): measured({"axe": 3.0, "cat": 2.0}),
            ("b", 0): measured({"axe": 1.0, "cat": 0.5}),
        }
    )
    found = summarise(table)
    assert found["model"].tolist() == ["a", "b"]
    reach = 12.7062 * 0.25  # Student's quantile with one degree of freedom, and the standard error of 0.5 and 1
    assert found[["value", "n_classes", "n_seeds"]].to_numpy().tolist() == [[2, 2, 2], [0.75, 2, 1]]
    assert found["low"].tolist() == pytest.approx([2, 0.75 - reach], rel=1e-5)
    assert found["high"].tolist() == pytest.approx([2, 0.75 + reach], rel=1e-5)
    assert by_seed(table)["value"].tolist() == [1.5, 2.5, 0.75]
    change = differences(table, "a", "b").iloc[0]
    assert change[["difference", "low", "high"]].tolist() == pytest.approx(
        [-1.25, -1.25 - reach, -1.25 + reach], rel=1e-5
    )
    assert change["n_classes"] == 2


def test_what_is_not_of_a_class_has_no_interval() -> None:
    table = gather({("a", 0): measured({None: 0.5}), ("a", 1): measured({None: 0.7}), ("b", 0): measured({None: 0.1})})
    row = summarise(table).iloc[0]
    assert row["value"] == pytest.approx(0.6)
    assert row[["low", "high"]].isna().all()
    assert (row["n_classes"], row["n_seeds"]) == (0, 2)
    assert differences(table, "a", "b")["difference"].item() == pytest.approx(-0.5)
