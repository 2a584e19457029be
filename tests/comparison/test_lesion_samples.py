"""Intervals of lesions that are tested on a sample of the other classes, against tables of all classes."""

import numpy as np
import pandas as pd
import pytest

from circuitry.comparison import lesion_summary
from circuitry.comparison.lesion_reading import NARROW, wants_more_cells
from circuitry.questions.lesion_design import LesionDesign

N_CLASSES = 20
KEYS = [(f"class{label}", "real") for label in range(N_CLASSES)]
DRAWS = 80


def kept(
    rng: np.random.Generator, *, of_parts: float, of_cells: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the right answers of each cell, and what is left of them after the lesion of each part.

    Args:
        of_parts: How much the parts differ in what they take from all others.
        of_cells: How much the cells differ in what they lose by any part.
    """
    whole = rng.integers(3, 7, N_CLASSES) / 6
    lost = (
        0.1 + of_parts * rng.random((N_CLASSES, 1)) + of_cells * rng.random(N_CLASSES)
    )
    left = rng.binomial(6, np.clip(1 - lost, 0, 1), (N_CLASSES, N_CLASSES)) / 6
    return whole, np.minimum(left, 1) * whole


def table_of(
    whole: np.ndarray, right: np.ndarray, tested: list[tuple[int, int]]
) -> pd.DataFrame:
    parts, cells = np.array(tested).T
    names = np.array([name for name, _ in KEYS])
    return pd.DataFrame(
        {
            "part_class": names[parts],
            "part_domain": "real",
            "class": names[cells],
            "domain": "real",
            "cut": "part",
            "whole_right": whole[cells],
            "right": right[parts, cells],
            "share": 0.02,
            "sites": "everywhere",
        }
    )


def pairs_of(design: LesionDesign, wave: int) -> list[tuple[int, int]]:
    place = {key: i for i, key in enumerate(KEYS)}
    return [
        (place[part], place[cell])
        for cell, parts in design.parts_by_cell(wave).items()
        for part in parts
    ]


def others(table: pd.DataFrame) -> "pd.Series[float]":
    summary = lesion_summary(table).set_index("answers")
    columns = ["value", "low", "high"]
    return summary[columns].astype(float).T["other classes"]


def value_of_all(whole: np.ndarray, right: np.ndarray) -> float:
    """Return the mean over parts of the share of right answers that is left, on all cells of other classes."""
    is_known = (whole >= 0.5) * (1 - np.eye(N_CLASSES))
    left = (right * is_known).sum(1) / (whole * is_known).sum(1)
    return float(left[whole >= 0.5].mean())


@pytest.mark.parametrize(
    ("of_parts", "of_cells"), [(0.0, 0.0), (0.3, 0.0), (0.0, 0.5), (0.3, 0.5)]
)
def test_the_interval_of_a_sample_covers_the_value_of_all_cells_as_often_as_it_says(
    of_parts: float, of_cells: float
) -> None:
    """It is wider than it must be where parts differ, because all parts are tested, and only cells are sampled."""
    rng = np.random.default_rng(0)
    covered = 0
    errors = list[float]()
    for seed in range(DRAWS):
        whole, right = kept(rng, of_parts=of_parts, of_cells=of_cells)
        value = value_of_all(whole, right)
        design = LesionDesign(KEYS, 4, seed)
        sample = others(table_of(whole, right, pairs_of(design, 0)))
        covered += sample["low"] <= value <= sample["high"]
        errors.append(sample["value"] - value)
    assert covered / DRAWS >= 0.93
    # The sample is unbiased.
    assert abs(np.mean(errors)) < 3 * np.std(errors) / np.sqrt(DRAWS) + 1e-3


def test_samples_that_grow_until_they_are_narrow_still_cover() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    n_waves = list[int]()
    for seed in range(DRAWS):
        whole, right = kept(rng, of_parts=0.0, of_cells=0.3)
        value = value_of_all(whole, right)
        design = LesionDesign(KEYS, 2, seed)
        waves = list[pd.DataFrame]()
        for wave in range(design.n_waves):
            waves.append(table_of(whole, right, pairs_of(design, wave)))
            if not wants_more_cells(waves):
                break
        sample = others(pd.concat(waves))
        covered += sample["low"] <= value <= sample["high"]
        n_waves.append(len(waves))
    assert covered / DRAWS >= 0.93
    assert 1 < np.mean(n_waves) < design.n_waves


def test_more_cells_are_wanted_only_if_they_make_wide_intervals_narrower() -> None:
    rng = np.random.default_rng(2)
    design = LesionDesign(KEYS, 2, 0)
    whole = np.ones(N_CLASSES)

    def waves(right: np.ndarray) -> list[pd.DataFrame]:
        return [table_of(whole, right, pairs_of(design, wave)) for wave in range(2)]

    alike = waves(np.full((N_CLASSES, N_CLASSES), 0.8))
    assert not wants_more_cells(alike[:1])
    # Each part takes half of the others from all cells or from none: it is the parts that differ.
    parts = waves(np.repeat(rng.integers(1, 3, (N_CLASSES, 1)) / 2, N_CLASSES, 1))
    assert wants_more_cells(parts[:1])
    assert not wants_more_cells(parts)
    by_chance = waves(rng.integers(0, 2, (N_CLASSES, N_CLASSES)).astype(float))
    assert wants_more_cells(by_chance[:1])
    assert wants_more_cells(by_chance)
    # Only the width counts, and a class alone has none.
    one = by_chance[0][by_chance[0]["part_class"] == "class0"]
    assert not wants_more_cells([one])
    half = others(alike[0])
    assert half["high"] - half["low"] < NARROW
