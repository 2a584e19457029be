"""Overlaps of own parts as shares of their ceiling: by hand, and in simulations of parts with noise."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest

from circuitry.circuits.similarity_matrix import chance_matrix
from circuitry.comparison import overlap_by_styles, overlap_summary
from circuitry.comparison.overlap_reading import across_styles
from circuitry.runs import InputError

COLUMNS = ("class_a", "domain_a", "half_a", "class_b", "domain_b", "half_b")
CELLS = [("ink", 1, "ink", 2), ("oil", 1, "oil", 2)]
ACROSS = [("ink", 1, "oil", 2), ("ink", 2, "oil", 1)]
# By class: the ceilings of ink and of oil, and the overlaps of the two styles across the halves.
BY_HAND = {"cat": (0.44, 0.24, 0.1, 0.2), "dog": (0.46, 0.26, 0.2, 0.3)}


def table_of(
    by_class: Mapping[str, Iterable[float]], n_images: int = 8, chance: float = 0.02
) -> pd.DataFrame:
    rows = list[tuple[str | int | float, ...]]()
    for name, overlaps in by_class.items():
        for (a, p, b, q), overlap in zip(CELLS + ACROSS, overlaps, strict=True):
            rows.append((name, a, p, name, b, q, overlap))
    table = pd.DataFrame(rows, columns=[*COLUMNS, "overlap"])
    table = table.assign(edges=table["overlap"] / 2, edges_chance=0.0)
    return table.assign(chance=chance, n_a=n_images, n_b=n_images)


def of_units(table: pd.DataFrame) -> dict[str, Any]:
    """Return the only row on units as a dictionary."""
    (row,) = table[table["compared"] == "units"].to_dict("records")
    return {str(name): value for name, value in row.items()}


def test_one_style_has_a_ceiling_and_no_share() -> None:
    table = table_of(BY_HAND).query("domain_a == 'ink' and domain_b == 'ink'")
    assert overlap_by_styles(table).empty
    summary = of_units(overlap_summary(table))
    assert summary["value"] == pytest.approx(0.45)
    assert np.isnan(summary["share"])


def test_the_share_of_the_ceiling_is_that_by_hand() -> None:
    shares = overlap_by_styles(table_of(BY_HAND))
    units = of_units(shares)
    edges = shares.set_index("compared")["value"]["edges"]
    # Means over the classes: the parts of two styles share .2, the ceilings are .45 and .25.
    expected = (0.2 - 0.02) / np.sqrt((0.45 - 0.02) * (0.25 - 0.02))
    assert units["value"] == pytest.approx(expected)
    assert edges == pytest.approx(0.1 / np.sqrt(0.225 * 0.125))
    numbers = ["overlap", "ceiling_a", "ceiling_b", "chance", "n_images", "n_classes"]
    said = [units[name] for name in numbers]
    assert said == pytest.approx([0.2, 0.45, 0.25, 0.02, 8, 2])
    assert units["reason"] == ""
    summary = overlap_summary(table_of(BY_HAND))
    ceiling = of_units(summary[summary["parts"] == "one class in one style"])
    assert ceiling["value"] == pytest.approx((0.44 + 0.24 + 0.46 + 0.26) / 4)
    assert np.isnan(ceiling["share"])
    two_styles = of_units(summary[summary["parts"] == "one class in two styles"])
    assert two_styles["share"] == pytest.approx(expected)
    assert (two_styles["share_low"], two_styles["share_high"]) == pytest.approx(
        (units["low"], units["high"])
    )


def test_an_interval_is_that_of_the_ratio_of_means_over_drawn_classes() -> None:
    rng = np.random.default_rng(0)
    overlaps = rng.uniform(0.2, 0.4, (12, 4))
    by_class = {f"class{i}": list(row) for i, row in enumerate(overlaps)}
    row = of_units(overlap_by_styles(table_of(by_class)))
    ratios = []
    for _ in range(4000):
        means = overlaps[rng.integers(12, size=12)].mean(0) - 0.02
        ratios.append(means[2:].mean() / np.sqrt(means[0] * means[1]))
    error = np.std(ratios) * np.sqrt(12 / 11)
    # Student's quantile of 11 degrees of freedom.
    reach = 2.201 * error
    assert row["high"] - row["value"] == pytest.approx(reach, rel=0.08)
    assert row["value"] - row["low"] == pytest.approx(reach, rel=0.08)


@pytest.mark.parametrize(
    ("n_images", "reason"),
    [
        (3, "cannot be told: 3 pictures found each part; give at least 8 a half"),
        (4, "not enough for a sentence: 4 pictures found each part"),
        (7, "not enough for a sentence: 7 pictures found each part"),
        (8, ""),
    ],
)
def test_overlaps_of_few_pictures_are_not_told(n_images: int, reason: str) -> None:
    table = table_of(BY_HAND, n_images)
    for told in (overlap_summary(table), overlap_by_styles(table)):
        assert (told["n_images"] == n_images).all()
        assert told["reason"].str.startswith(reason).all()
        assert (told["reason"] == "").all() == (n_images >= 8)
    shares = overlap_by_styles(table)["value"]
    assert shares.isna().all() == (n_images < 4)
    # Nothing else is said about parts that too few pictures found.
    overlap_by_class = across_styles(table)["overlap"]
    for overlaps in (overlap_summary(table)["value"], overlap_by_class):
        assert overlaps.isna().all() == (n_images < 4)
    summary = overlap_summary(table)
    of_styles = summary[summary["parts"] == "one class in two styles"]
    assert of_styles["share"].isna().all() == (n_images < 4)


def test_a_class_of_few_pictures_is_left_out_of_the_share() -> None:
    third = table_of({"elk": (0.9, 0.9, 0.0, 0.0)}).assign(n_b=3)
    pd.testing.assert_frame_equal(
        overlap_by_styles(pd.concat([table_of(BY_HAND), third])),
        overlap_by_styles(table_of(BY_HAND)),
    )


def test_without_second_halves_there_is_no_share_and_the_reason_says_so() -> None:
    table = table_of(BY_HAND)
    firsts = table[table["domain_a"] != table["domain_b"]]
    firsts = firsts[firsts["half_a"] == 1].assign(half_b=1)
    told = of_units(overlap_by_styles(firsts))
    assert np.isnan(told["value"])
    assert told["overlap"] == pytest.approx(0.15)
    assert "both halves of its pictures" in told["reason"]
    summary = overlap_summary(firsts)
    assert summary["share"].isna().all()
    assert set(summary["reason"]) == {told["reason"]}
    # In a single style there is a ceiling, but nothing to compare with it.
    single = table[table["domain_a"] == table["domain_b"]]
    assert overlap_by_styles(single).empty
    assert set(overlap_summary(single)["parts"]) == {"one class in one style"}


def test_a_ceiling_that_may_be_chance_gives_no_share() -> None:
    weak = {"cat": (0.02, 0.3, 0.1, 0.1), "dog": (0.04, 0.3, 0.1, 0.1)}
    told = of_units(overlap_by_styles(table_of(weak)))
    assert np.isnan(told["value"])
    assert told["reason"].startswith("cannot be told: the ceiling of ink, 0.03")


def test_a_table_without_halves_is_refused() -> None:
    for read in (overlap_summary, overlap_by_styles):
        with pytest.raises(InputError, match="half_a"):
            read(table_of(BY_HAND).drop(columns="half_a"))


def test_two_halves_of_a_class_in_two_styles_are_one_pair() -> None:
    means = across_styles(table_of(BY_HAND)).set_index("class")
    assert means["overlap"].to_dict() == pytest.approx({"cat": 0.15, "dog": 0.25})
    assert set(means["domain_b"]) == {"oil"}


N_UNITS, N_KEPT = 400, 40


def simulated(
    noise: float, shared: float, n_classes: int, seed: int = 0
) -> pd.DataFrame:
    """Return overlaps of parts: the units whose scores, with noise of the pictures of a half, are the largest.

    Args:
        noise: Deviation of the noise of a half; scores have a deviation of 1.
        shared: Correlation of the scores of the two styles without noise.
    """
    rng = np.random.default_rng(seed)
    common, *of_styles = rng.normal(size=(3, n_classes, N_UNITS))
    parts = list[np.ndarray]()
    for own in of_styles:
        scores = np.sqrt(shared) * common + np.sqrt(1 - shared) * own
        for _ in range(2):
            seen = scores + noise * rng.normal(size=scores.shape)
            least = np.partition(seen, -N_KEPT, axis=1)[:, -N_KEPT, None]
            parts.append(seen >= least)
    ink1, ink2, oil1, oil2 = parts
    overlaps = list[np.ndarray]()
    for a, b in [(ink1, ink2), (oil1, oil2), (ink1, oil2), (ink2, oil1)]:
        in_common = (a & b).sum(1)
        overlaps.append(in_common / (2 * N_KEPT - in_common))
    by_chance = N_KEPT**2 / N_UNITS
    by_class = {f"class{i}": row for i, row in enumerate(np.transpose(overlaps))}
    return table_of(by_class, chance=by_chance / (2 * N_KEPT - by_chance))


# Ceilings of .56, .19 and .10, with chance at .05: the noisier, the more classes a mean needs.
@pytest.mark.parametrize(("noise", "n_classes"), [(0.3, 200), (1, 1000), (2, 4000)])
def test_identical_styles_share_their_ceiling_whatever_the_noise(
    noise: float, n_classes: int
) -> None:
    row = of_units(overlap_by_styles(simulated(noise, 1.0, n_classes)))
    assert 0.97 < row["value"] < 1.03


def test_an_interval_of_few_classes_holds_the_truth_nearly_always() -> None:
    covered = list[bool]()
    for seed in range(25):
        row = of_units(overlap_by_styles(simulated(1, 1.0, n_classes=10, seed=seed)))
        covered.append(row["low"] < 1 < row["high"])
    assert sum(covered) >= 22


def test_styles_that_share_nothing_have_a_share_of_zero_and_half_lies_between() -> None:
    shares = dict[float, float]()
    for shared in (0.0, 0.5):
        told = overlap_by_styles(simulated(0.5, shared, 300))
        shares[shared] = of_units(told)["value"]
    assert shares[0.0] == pytest.approx(0, abs=0.02)
    assert 0.1 < shares[0.5] < 0.7


def test_chance_is_that_of_random_members_of_each_kind() -> None:
    n_of_kind = np.array([6, 10])
    kinds = [np.array([0, 0, 0, 1]), np.array([0, 1, 1, 1, 1])]
    rng = np.random.default_rng(0)
    common = list[int]()
    for _ in range(4000):
        drawn = []
        for of_set in kinds:
            members = set[tuple[int, int]]()
            for kind, n in enumerate(n_of_kind):
                n_kept = int((of_set == kind).sum())
                members |= {(kind, int(i)) for i in rng.permutation(n)[:n_kept]}
            drawn.append(members)
        common.append(len(drawn[0] & drawn[1]))
    mean = np.mean(common)
    chance = chance_matrix(kinds, n_of_kind)
    assert chance[0, 1] == pytest.approx(mean / (9 - mean), rel=0.05)
    # 3 * 1 / 6 + 1 * 4 / 10 of 9 members.
    assert chance[0, 1] == pytest.approx(0.9 / (9 - 0.9))
