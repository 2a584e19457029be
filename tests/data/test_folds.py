"""Images cut into folds by item: the laws of the cut, and what items are."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitry.data import ImageRecord, fold_numbers, item_column
from circuitry.data.folds import stem_without_domain

Records = dict[tuple[str, str], list[ImageRecord]]


def record(domain: str, class_name: str, file: str) -> ImageRecord:
    relative = f"{domain}/{class_name}/{file}"
    return ImageRecord(Path("/data") / relative, relative, domain, class_name)


def records_of(
    items: Mapping[str, Sequence[object]], class_name: str = "axe"
) -> Records:
    files = {
        domain: [f"{domain}_{item}.png" for item in names]
        for domain, names in items.items()
    }
    return {
        (class_name, d): [record(d, class_name, file) for file in names]
        for d, names in files.items()
    }


def sizes(folds: np.ndarray, n_folds: int) -> list[int]:
    return [int(size) for size in np.bincount(folds, minlength=n_folds)]


subsets = st.lists(st.sets(st.integers(0, 20), max_size=14), min_size=1, max_size=5)
n_folds = st.integers(2, 5)


@settings(deadline=None)
@given(subsets, n_folds)
def test_an_item_is_in_one_fold_of_its_class_in_every_domain(
    domains: list[set[int]], n: int
) -> None:
    records = records_of({f"d{i}": sorted(items) for i, items in enumerate(domains)})
    fold_of: dict[str, set[int]] = {}
    for key, folds in fold_numbers(records, n).items():
        assert len(folds) == len(records[key])
        for one, fold in zip(records[key], folds, strict=True):
            fold_of.setdefault(stem_without_domain(one), set()).add(int(fold))
    assert all(len(found) == 1 and found < set(range(n)) for found in fold_of.values())


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=6),
    n_folds,
    st.sampled_from(["all", "none", "two"]),
)
def test_folds_have_equal_sizes(counts: list[int], n: int, shared: str) -> None:
    if shared == "all":  # every item in every domain
        items: dict[str, list[object]] = {
            f"d{i}": list(range(counts[0])) for i in range(len(counts))
        }
    elif shared == "none":
        items = {
            f"d{i}": [f"{i}-{j}" for j in range(count)]
            for i, count in enumerate(counts)
        }
    else:  # two domains with any items in common
        first, last = counts[0], counts[-1]
        items = {
            "a": list(range(first)),
            "b": list(range(first // 2, first // 2 + last)),
        }
    for folds in fold_numbers(records_of(items), n).values():
        assert np.ptp(sizes(folds, n)) <= 1


def spread(colours: Sequence[int], domains: Sequence[set[int]], n: int) -> int:
    """Sum of squared sizes, which equal sizes make smallest."""
    return sum(
        sum(colours[item] == fold for item in items) ** 2
        for items in domains
        for fold in range(n)
    )


@settings(deadline=None)
@given(st.lists(st.sets(st.integers(0, 6), min_size=1), min_size=3, max_size=4))
def test_sizes_are_as_equal_as_in_most_cuts_where_items_forbid_equal_ones(
    domains: list[set[int]],
) -> None:
    found = fold_numbers(
        records_of({f"d{i}": sorted(items) for i, items in enumerate(domains)}), 2
    )
    colours = [0] * 7
    for i, items in enumerate(domains):
        for item, fold in zip(sorted(items), found["axe", f"d{i}"], strict=True):
            colours[item] = int(fold)
    every = [spread(cut, domains, 2) for cut in itertools.product((0, 1), repeat=7)]
    assert np.mean([spread(colours, domains, 2) <= other for other in every]) >= 0.85


def test_moving_and_exchanging_items_evens_out_what_some_domains_share() -> None:
    """Of 300 classes whose domains share some items, one in twenty would be left uneven by going through them once."""
    uneven = 0
    for seed in range(300):
        random = np.random.default_rng(seed)
        n_domains, n_items, n = (
            random.integers(2, 8),
            random.integers(6, 21),
            int(random.integers(2, 5)),
        )
        share = random.random()
        items: dict[str, list[object]] = {}
        for d in range(n_domains):
            there = [k for k in range(n_items) if random.random() < 0.85]
            items[f"d{d}"] = [
                f"{k}" if random.random() < share else f"{d}-{k}" for k in there
            ]
        found = fold_numbers(records_of(items), n)
        uneven += any(np.ptp(sizes(folds, n)) > 1 for folds in found.values())
    assert uneven <= 5


@settings(deadline=None)
@given(st.permutations(range(12)), st.permutations(range(12)))
def test_the_order_of_files_and_other_classes_change_nothing(
    first: list[int], second: list[int]
) -> None:
    reference = fold_numbers(records_of({"a": range(12), "b": range(6, 12)}))
    mixed = records_of({"b": [i for i in second if i >= 6], "a": first}) | records_of(
        {"a": range(3)}, "cat"
    )
    found = fold_numbers(mixed)
    assert list(found) == list(mixed)
    for domain in ("a", "b"):
        names = [one.relative for one in mixed["axe", domain]]
        by_name = dict(zip(names, found["axe", domain].tolist(), strict=True))
        start = 0 if domain == "a" else 6
        ordered = [by_name[f"{domain}/axe/{domain}_{i}.png"] for i in range(start, 12)]
        assert ordered == reference["axe", domain].tolist()


def test_the_cut_is_the_same_on_every_machine() -> None:
    assert fold_numbers(records_of({"a": range(8)}))["axe", "a"].tolist() == [
        3,
        0,
        1,
        0,
        1,
        2,
        3,
        2,
    ]


def test_fewer_images_than_folds_leave_folds_empty() -> None:
    found = fold_numbers(records_of({"a": range(2), "b": range(9), "c": []}))
    assert sorted(sizes(found["axe", "a"], 4)) == [0, 0, 1, 1]
    assert sorted(sizes(found["axe", "b"], 4)) == [2, 2, 2, 3]
    assert len(found["axe", "c"]) == 0


def test_images_of_one_item_in_a_domain_stay_together() -> None:
    images = {("axe", "a"): [record("a", "axe", f"{i}.png") for i in range(8)]}
    found = fold_numbers(images, 2, key=lambda one: str(int(one.path.stem) // 2))[
        "axe", "a"
    ]
    assert (found[0::2] == found[1::2]).all()
    assert sizes(found, 2) == [4, 4]


@pytest.mark.parametrize(
    ("file", "stem"),
    [
        ("sketch_012_7.png", "012_7"),
        ("012-sketch.png", "012"),
        ("dove.png", "dove"),
        ("sketch.png", "sketch"),
    ],
)
def test_by_default_an_item_is_the_name_of_the_file(file: str, stem: str) -> None:
    assert stem_without_domain(record("sketch", "bird", file)) == stem


def test_items_are_read_from_a_listing(tmp_path: Path) -> None:
    listing = tmp_path / "pictures.tsv"
    listing.write_text(
        "path\tsource\na/axe/1.png\tx\na/axe/2.png\tx\na/axe/3.png\ty\na/axe/4.png\t\n"
    )
    items = item_column(listing, "source")
    images = {("axe", "a"): [record("a", "axe", f"{i}.png") for i in (1, 2, 3)]}
    first, second, third = fold_numbers(images, 2, items)["axe", "a"]
    assert first == second != third
    comma = tmp_path / "pictures.csv"
    comma.write_text('filepath,source\na/axe/1.png,"x, y"\n')
    assert item_column(comma, "source") == {"a/axe/1.png": "x, y"}
