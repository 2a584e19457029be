"""A comparison's means, tables and files against numbers worked out on paper and against the plain functions."""

import csv
import math
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitry import Comparison
from circuitry.comparison import (
    domain_matrix,
    domain_tests,
    fold_tests,
    per_domain,
)
from circuitry.comparison.table import class_groups, read_named_table, write_named_table
from tests.comparison.similarities import similarities
from tests.support.folds import folds_of_halves

DOMAINS = ("clipart", "real", "sketch")
CLASSES = ("axe", "cat", "fish")
PAIRS = [("clipart", "real"), ("clipart", "sketch"), ("real", "sketch")]


def values(sites: tuple[str | None, ...] = ("a", "b"), seed: int = 0) -> pd.DataFrame:
    """Three classes in three domains; there is no sketch of a fish."""
    rng = np.random.default_rng(seed)
    keys = [
        (c, *pair, site)
        for c in CLASSES
        for pair in PAIRS
        for site in sites
        if (c, pair[1]) != ("fish", "sketch")
    ]
    rows = [(*key, rng.random()) for key in keys]
    return pd.DataFrame(
        rows, columns=["class", "domain_a", "domain_b", "site", "value"]
    )


def ceilings(sites: tuple[str | None, ...] = ("a", "b")) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    rows = [
        (c, d, site, 0.5 + rng.random() / 2)
        for c in CLASSES
        for d in DOMAINS
        for site in sites
    ]
    return pd.DataFrame(rows, columns=["class", "domain", "site", "value"])


def comparison(sites: tuple[str | None, ...] = ("a", "b")) -> Comparison:
    return Comparison(
        "node_overlap",
        values(sites),
        folds_of_halves(ceilings(sites)),
        pd.DataFrame({"site": list(sites), "value": 0.05}),
        groups={"held-out": ("fish",)},
        about={"edges_per_node": 3},
    )


def test_means_over_depth_are_those_of_each_domain_with_the_others() -> None:
    found = comparison()
    pd.testing.assert_frame_equal(found.over_depth(), per_domain(values()))
    by_site = found.ceiling_by_site().set_index("site")["value"]
    assert by_site["b"] == pytest.approx(
        ceilings().query("site == 'b'")["value"].mean()
    )
    assert (found.sites, found.domains, found.n_classes) == (("a", "b"), DOMAINS, 3)


def test_matrices_of_a_group_are_of_its_classes_alone() -> None:
    expected = domain_matrix(values().query("`class` == 'fish'"))
    found = comparison().matrix("held-out")
    pd.testing.assert_frame_equal(
        found, expected
    )  # without sketch, of which there is no fish
    whole = comparison().matrix()
    assert not np.isclose(
        whole["clipart"].to_dict()["real"], expected["clipart"].to_dict()["real"]
    )


def test_a_summary_has_every_domain_of_every_group() -> None:
    summary = comparison().summary()
    assert list(summary.columns) == [
        "group",
        "domain",
        "value",
        "low",
        "high",
        "n_classes",
    ]
    value, low, high, classes = (
        summary.set_index(["group", "domain"])[c].to_dict()
        for c in ("value", "low", "high", "n_classes")
    )
    assert set(value) == {("all", d) for d in DOMAINS} | {
        ("held-out", d) for d in ("clipart", "real")
    }
    sketch = values().query("domain_b == 'sketch'")
    by_class = [
        sketch[sketch["class"] == c]["value"].mean() for c in ("axe", "cat")
    ]  # over sites and other domains
    assert value["all", "sketch"] == pytest.approx(np.mean(by_class))
    assert classes["all", "sketch"] == 2
    assert low["all", "sketch"] < value["all", "sketch"] < high["all", "sketch"]
    assert math.isnan(low["held-out", "real"])


def test_sites_that_are_left_out_have_no_part_in_means_over_sites() -> None:
    found = replace(comparison(), left_out={"a": "repeats b"})
    only = values().query("site == 'b'")
    pd.testing.assert_frame_equal(found.matrix(), domain_matrix(only))
    assert found.summary()["value"].tolist()[:3] == pytest.approx(
        per_domain(only)["value"].tolist()
    )
    pd.testing.assert_frame_equal(found.tests(), domain_tests(only))
    assert found.over_depth()["site"].unique().tolist() == [
        "a",
        "b",
    ]  # each site is still shown
    pd.testing.assert_frame_equal(
        found.at("a").matrix(), domain_matrix(values().query("site == 'a'"))
    )


def test_intervals_of_its_own_are_those_of_the_measure() -> None:
    own = pd.DataFrame(
        [("clipart", "a", 0.5, 0.4, 0.6, 9), ("real", "a", 0.3, 0.1, 0.4, 8)],
        columns=["domain", "site", "value", "low", "high", "n_classes"],
    )
    found = replace(comparison().at("a"), intervals=own)
    pd.testing.assert_frame_equal(found.over_depth(), own)
    assert found.summary()[["domain", "low"]].to_numpy().tolist() == [
        ["clipart", 0.4],
        ["real", 0.1],
    ]
    assert found.n_classes == 9
    assert all(
        words in repr(found)
        for words in ("node_overlap", "1 sites", "3 classes in 3 domains", "units 0.05")
    )


def test_levels_are_means_of_what_there_is() -> None:
    made = similarities()
    found = replace(
        made, about={"n": 40, "n_per_fold": 10}, chance_of="random features"
    ).levels()
    folds = made.folds
    same, within = (
        folds["class_a"] == folds["class_b"],
        folds["domain_a"] == folds["domain_b"],
    )
    assert found["what"].tolist() == [
        "the same class in two domains",
        "the same class in two domains, folds",
        "two folds of the same images",
        "two classes in two domains",
        "two classes in one domain",
        "random features",
    ]
    means = [
        folds[chosen]["value"].mean()
        for chosen in (same & ~within, same & within, ~same & ~within, ~same & within)
    ]
    assert found["value"].tolist() == pytest.approx(
        [made.values["value"].mean(), *means, made.chance["value"].mean()]
    )
    assert found["n_images"].tolist()[:5] == [40, 10, 10, 10, 10]
    assert len(Comparison("overlap", values()).levels()) == 1


def test_with_folds_everything_is_read_against_the_ceiling() -> None:
    found = similarities()
    matrix, ratios = (
        found.matrix(normalise=True),
        found.ratios().set_index(["domain_a", "domain_b"]),
    )
    assert np.isnan(np.diag(matrix)).all()
    for (a, b), row in zip(
        [("d0", "d1"), ("d0", "d2"), ("d1", "d2")],
        ratios.to_dict("records"),
        strict=True,
    ):
        assert matrix.loc[[a, b], [a, b]].to_numpy()[[0, 1], [1, 0]] == pytest.approx(
            [row["value"]] * 2
        )
    assert ratios["n_per_fold"].tolist() == [10] * 3
    assert replace(found, seed=5).ratios()["low"].tolist() != ratios["low"].tolist()
    shown = found.ratios_over_depth()
    assert shown["site"].tolist() == [*["u"] * 3, *["v"] * 3]
    first = found.at("u").ratios().query("domain_a == 'd0'")["value"].mean()
    assert shown.query("site == 'u' and domain == 'd0'")[
        "value"
    ].item() == pytest.approx(first)
    pd.testing.assert_frame_equal(
        found.tests(), fold_tests(found._array, found._draws(found._array))
    )
    assert found.ceiling_by_site()["upper"].isna().all()


def test_sites_are_counted_once_in_ratios() -> None:
    found = similarities()
    left_out = replace(found, left_out={"v": "repeats u"})
    alone = found.at("u").ratios().drop(columns="n_per_fold")
    pd.testing.assert_frame_equal(left_out.ratios().drop(columns="n_per_fold"), alone)
    assert set(left_out.ratios_over_depth()["site"]) == {"u", "v"}


def test_tables_come_back_from_their_files(tmp_path: Path) -> None:
    kinds = (
        "",
        "_folds",
        "_matrix",
        "_summary",
        "_paired_tests",
        "_levels",
        "_class_by_domain",
    )
    ratios = ("_ratio_matrix", "_ratios", "_ceiling_tests")
    sited = (
        "_over_depth",
        "_ceiling_by_site",
        "_folds_over_depth",
        "_ratios_over_depth",
    )
    tables = similarities().tables()
    assert set(tables) == {
        "chance_node_overlap",
        *(f"node_overlap{kind}" for kind in (*kinds, *ratios, *sited)),
    }
    for name, table in tables.items():
        write_named_table(tmp_path / f"{name}.csv", table)
    for name, table in tables.items():
        if not {"note", "about"} & set(table):  # an empty word is read as missing
            read = pd.read_csv(tmp_path / f"{name}.csv")
            known = table.dropna(axis=1, how="all")  # no site, no number of images
            pd.testing.assert_frame_equal(
                read[list(known)], known, check_dtype=False, rtol=1e-5
            )
    assert set(replace(comparison((None,)), measure="x").tables()) == {
        "chance_x",
        *(f"x{kind}" for kind in kinds),
    }


def test_no_cell_of_a_table_is_a_formula(tmp_path: Path) -> None:
    names = ["=1+1", "+cmd|x", "-2+3", "@SUM(A1)", "\tx", "'=1", "axe", "'axe", "1-2"]
    table = pd.DataFrame({"=class": names, "value": -1.5, "@x": pd.Categorical(names)})
    write_named_table(tmp_path / "x.csv", table)
    with open(tmp_path / "x.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert not [
        cell
        for row in rows
        for cell in (row[0], row[2])
        if cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    ]
    assert [row[1] for row in rows[1:]] == ["-1.5"] * len(names)
    found = read_named_table(tmp_path / "x.csv")
    assert list(found) == list(table)
    assert found["=class"].tolist() == found["@x"].tolist() == names


def test_groups_hold_the_classes_that_are_there() -> None:
    found = class_groups(
        ["b", "a", "b"], {"none": [], "unknown": ["c"], "some": ["c", "b"]}
    )
    assert found == {"all": ("a", "b"), "some": ("b",)}


NAMES = [
    "NA",
    "nan",
    "",
    "None",
    "1",
    "1e3",
    'a "b", c',
    "ä\nö",
    "True",
    "=1+1",
    "'=1",
    "'a",
    "-1",
    "''@x",
]


def named(name: str, value: float) -> Comparison:
    table = (
        values((None,))
        .drop_duplicates(["domain_a", "domain_b"])
        .assign(**{"class": name}, value=value, p=0.1)
    )
    return Comparison("x", table)


def assert_restored(made: Comparison, folder: Path) -> None:
    found = Comparison.load(folder)
    for name in (field.name for field in fields(made)):
        before, after = getattr(made, name), getattr(found, name)
        if isinstance(before, pd.DataFrame):
            pd.testing.assert_frame_equal(
                before.reset_index(drop=True), after, check_dtype=False, rtol=0, atol=0
            )
        else:
            assert before == after, name


@pytest.mark.parametrize(
    "made",
    [
        lambda: replace(
            comparison(),
            alike=False,
            chance_of="random features",
            left_out={"b": "few"},
            seed=3,
        ),
        lambda: comparison((None,)),
    ],
)
def test_what_is_saved_is_loaded(
    made: Callable[[], Comparison], tmp_path: Path
) -> None:
    folder = tmp_path / "deep" / "x"
    made().save(folder)
    assert_restored(made(), folder)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(NAMES), st.floats(allow_nan=True))
def test_names_and_numbers_are_not_changed(
    tmp_path_factory: pytest.TempPathFactory, name: str, value: float
) -> None:
    folder = tmp_path_factory.mktemp("stored")
    named(name, value).save(folder)
    assert_restored(named(name, value), folder)
