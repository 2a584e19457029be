"""What own parts leave of the information: new heads, fitted in a folder of own parts by images of their own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from circuitry import DomainFolder
from circuitry.comparison import depths_of_loss
from circuitry.data.folds import Key
from circuitry.encoder.tensor_batches import Images
from circuitry.interventions import OwnPartSettings, lesion
from circuitry.interventions.ablated_units import KEYS
from circuitry.models import Clip
from circuitry.questions import OwnParts
from circuitry.questions.own_parts_plan import REFITTED
from tests.support.typical_pictures import model_and_pictures
from tests.support.work import QUIET

NAMES = [f"c{label}" for label in range(4)]
SETTINGS = OwnPartSettings(
    n_images=2, n_tests=3, n_refit=4, n_others=6, shares=(0.05,), second_half=False
)
OF_HEADS = ["auc", "constant", "refit", "refit_auc", "whole_refit"]
World = tuple[Clip, DomainFolder]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("refit")
    return model_and_pictures(folder, NAMES, ("real", "sketch"), n_images=9)


@pytest.fixture(scope="module")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> OwnParts:
    parts = OwnParts(*world, tmp_path_factory.mktemp("run"), SETTINGS)
    parts.run(QUIET)
    return parts


def test_new_heads_are_fitted_to_images_that_neither_find_nor_test(
    run: OwnParts,
) -> None:
    for key in run.keys:
        used = [run.found_on[key], run.unseen[key], run.fitting[key]]
        assert list(map(len, used)) == [2, 3, 4]
        assert len(set().union(*used)) == 9


def test_a_folder_has_what_lesion_measures_in_one_call(run: OwnParts) -> None:
    tasks = dict[Key, Any]()
    fitting = dict[Key, Images]()
    for name in NAMES:
        key = (name, "real")
        # Images of other classes are as many as found the part.
        n_images = 3 if name == "c1" else 2
        tasks[key] = run.task(key, run.read(run.unseen[key][:n_images]))
        fitting[key] = run.read(run.fitting[key])
    part = ("c1", "real")
    parts = {part: run.circuits()[part]}
    expected = lesion(tasks, parts, refit=fitting, random_draws=0)
    table = run.lesions()
    given = table.merge(expected[list(KEYS)], on=list(KEYS))[[*KEYS, *OF_HEADS]]
    expected = expected[[*KEYS, *OF_HEADS]]
    pd.testing.assert_frame_equal(given, expected, rtol=1e-6)
    assert given["refit"].notna().all()


def test_a_part_is_read_in_its_own_style_alone(run: OwnParts) -> None:
    table = run.lesions()
    in_own_style = table["part_domain"] == table["domain"]
    assert table.loc[in_own_style, "refit"].notna().all()
    assert table.loc[~in_own_style, "refit"].isna().all()
    depths = depths_of_loss(table)
    assert not depths["takes"].str.contains("not tested").any()


def test_what_was_lost_is_fitted_again_and_nothing_else(
    run: OwnParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run.lesions()
    lost = run.out / "parts" / REFITTED / "c2" / "sketch.csv"
    text = lost.read_text(encoding="utf-8")
    lost.unlink()
    again = OwnParts(run.clip, run.images, run.out, SETTINGS)
    (baseline, heads) = again.steps()
    assert (baseline.name, heads.name, heads.jobs) == ("baseline", "new heads", 1)
    again.run(QUIET)
    assert lost.read_text(encoding="utf-8") == text
    pd.testing.assert_frame_equal(again.lesions(), before)
    assert again.steps() == []


@pytest.mark.parametrize("n_refit", [0, 3])
def test_without_enough_images_the_information_is_not_tested(
    world: World, tmp_path: Path, n_refit: int
) -> None:
    few = OwnParts(*world, tmp_path, replace(SETTINGS, n_refit=n_refit))
    assert few.cells_of_refit == {}
    table = few.run(QUIET)["lesions"]
    assert "refit" not in table
    takes = set(depths_of_loss(table)["takes"])
    assert "the answer, not the information" not in takes
