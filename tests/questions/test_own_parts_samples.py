"""Own parts of so many classes that each part is tested on a sample of them: in waves, by several processes, killed."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from circuitry import DomainFolder, InputError
from circuitry.interventions import OwnPartSettings, lesion, part_overlaps
from circuitry.interventions.lesions import lesion_cell
from circuitry.models import Clip
from circuitry.questions import OwnParts, own_parts_jobs, own_parts_plan
from circuitry.runs import Rank
from circuitry.runs.manifest import write_sealed
from tests.support.extraction import contents
from tests.support.typical_pictures import model_and_pictures
from tests.support.work import QUIET

NAMES = [f"c{label}" for label in range(8)]
DOMAINS = ("real", "sketch")
CELL = ["part_class", "part_domain", "class", "domain", "cut", "share"]
SETTINGS = OwnPartSettings(n_images=2, n_others=7, shares=(0.05, 0.1), other_cells=3)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Clip, DomainFolder]:
    folder = tmp_path_factory.mktemp("samples")
    return model_and_pictures(folder, NAMES, DOMAINS, n_images=4)


@pytest.fixture(scope="module")
def full(world: tuple[Clip, DomainFolder], tmp_path_factory: Any) -> OwnParts:
    run = OwnParts(
        *world, tmp_path_factory.mktemp("full"), replace(SETTINGS, other_cells=100)
    )
    run.run(QUIET)
    return run


def two_waves(waves: list[pd.DataFrame]) -> bool:
    return len(waves) < 2


def patch_decision(
    monkeypatch: pytest.MonkeyPatch, decide: Callable[[list[pd.DataFrame]], bool]
) -> None:
    for module in (own_parts_plan, own_parts_jobs):
        monkeypatch.setattr(module, "wants_more_cells", decide)


def test_few_cells_give_the_tables_of_lesion_and_of_all_overlaps(
    full: OwnParts,
) -> None:
    assert full.design.n_waves == 1
    table = full.lesions()
    for key in [("c0", "real"), ("c5", "sketch")]:
        task = full.task(key, full.read(full.unseen[key]))
        for share in SETTINGS.shares:
            expected = lesion({key: task}, full.circuits(share)).set_index(CELL[:-1])
            of_cell = table[
                (table["class"] == key[0])
                & (table["domain"] == key[1])
                & (table["share"] == share)
            ]
            given = of_cell.set_index(CELL[:-1])[list(expected)]
            # Parts of the class itself come first.
            pd.testing.assert_frame_equal(
                given.sort_index(), expected.sort_index(), rtol=1e-5, check_dtype=False
            )
    overlaps = full.run(QUIET)["overlaps"]
    for share in SETTINGS.shares:
        expected = part_overlaps(dict(full.circuits(share)))
        given = overlaps[overlaps["share"] == share].reset_index(drop=True)
        pd.testing.assert_frame_equal(given[list(expected)], expected)


def test_a_sample_has_rows_of_the_whole_table_and_grows_by_waves(
    world: tuple[Clip, DomainFolder],
    full: OwnParts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patch_decision(monkeypatch, two_waves)
    run = OwnParts(*world, tmp_path, SETTINGS)
    tables = run.run(QUIET)
    assert run.design.others_by_wave == (2, 4, 7)
    lesions = tables["lesions"].set_index(CELL)
    whole = full.lesions().set_index(CELL)
    assert lesions.index.is_unique
    numbers = ["n_units", "whole_right", "right", "log_odds", "rank", "taken_for"]
    pd.testing.assert_frame_equal(
        lesions[numbers], whole.loc[lesions.index, numbers], rtol=1e-5
    )
    parts = lesions.xs("part", level="cut").reset_index()
    is_own = parts["part_class"] == parts["class"]
    n_parts = len(run.circuits())
    assert is_own.sum() == n_parts * len(DOMAINS) * len(SETTINGS.shares)
    assert len(parts) <= n_parts * len(DOMAINS) * (1 + 4) * len(SETTINGS.shares)
    pairs = ["class_a", "domain_a", "class_b", "domain_b", "share"]
    overlaps = tables["overlaps"].set_index(pairs)
    all_overlaps = full.run(QUIET)["overlaps"].set_index(pairs)
    assert len(overlaps) < len(all_overlaps)
    pd.testing.assert_frame_equal(overlaps, all_overlaps.loc[overlaps.index])
    saved = run.save_circuits(0.05)
    assert set(saved) == set(run.circuits(0.05))


def test_a_run_that_is_killed_in_a_wave_goes_on_and_several_workers_make_one_table(
    world: tuple[Clip, DomainFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch_decision(monkeypatch, two_waves)
    whole = OwnParts(*world, tmp_path / "whole", SETTINGS)
    expected = whole.run(QUIET)["lesions"]
    n_cells = 0

    def killed_after(most: int, measure: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal n_cells
        n_cells += 1
        if n_cells > most:
            raise KeyboardInterrupt
        return measure(*arguments)

    second = len(whole.keys) + 5  # in the middle of the second wave
    with monkeypatch.context() as patched:
        patched.setattr(
            own_parts_jobs,
            "lesion_cell",
            partial(killed_after, second, lesion_cell),
        )
        killed = OwnParts(*world, tmp_path / "killed", SETTINGS)
        with pytest.raises(KeyboardInterrupt):
            killed.run(QUIET)
    with pytest.raises(InputError, match="not done"):
        OwnParts(*world, tmp_path / "killed", SETTINGS).lesions()
    for worker in (1, 0):
        again = OwnParts(*world, tmp_path / "killed", SETTINGS)
        again.find_and_test(replace(QUIET, rank=Rank(worker, 2)))
        assert again.folder.unfinished() == []
    pd.testing.assert_frame_equal(again.lesions(), expected)
    ours, theirs = (contents(tmp_path / name) for name in ("killed", "whole"))
    tables = [name for name in theirs if name.endswith(".csv")]
    assert len(tables) == 2 * len(whole.keys)
    assert all(ours[name] == theirs[name] for name in tables)


def test_a_folder_of_an_earlier_format_is_refused_by_name(
    world: tuple[Clip, DomainFolder], tmp_path: Path
) -> None:
    run = OwnParts(*world, tmp_path, SETTINGS)
    manifest = run.folder.path / "manifest.json"
    content = json.loads(manifest.read_text())
    content["format"] = "circuitry own parts 1"
    del content["checksum"]
    write_sealed(manifest, content)
    with pytest.raises(InputError, match="format 'circuitry own parts 1'"):
        _ = OwnParts(*world, tmp_path, SETTINGS).folder


def test_a_plan_knows_the_next_wave_and_tests_of_other_parts_are_refused(
    world: tuple[Clip, DomainFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch_decision(monkeypatch, lambda waves: False)
    OwnParts(*world, tmp_path, SETTINGS).run(QUIET)
    run = OwnParts(*world, tmp_path, SETTINGS)
    assert run.steps() == []
    patch_decision(monkeypatch, two_waves)
    assert [step.name for step in run.steps()] == [
        "baseline",
        "lesions 2 of at most 3",
    ]
    other = OwnParts(*world, tmp_path, replace(SETTINGS, n_others=6))
    with pytest.raises(InputError, match="n_others: 7 -> 6"):
        other.lesions()
