"""Own parts that are found twice: on which images, what is tested, and what their overlaps are."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image, ImageOps

from circuitry import DomainFolder
from circuitry.circuits import own_part
from circuitry.interventions import OwnPartSettings, lesion, part_overlaps
from circuitry.models import Clip
from circuitry.questions import OwnParts, own_parts_jobs
from circuitry.runs import Rank
from tests.support.extraction import contents
from tests.support.typical_pictures import model_and_pictures
from tests.support.work import QUIET

NAMES = ("c0", "c1", "c2", "c3")
DOMAINS = ("real", "sketch")
SETTINGS = OwnPartSettings(n_images=2, n_others=6, shares=(0.05, 0.1))
FEW = ("c3", "sketch")
KEYS = {(name, domain) for name in NAMES for domain in DOMAINS}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Clip, DomainFolder]:
    """Six pictures of each class in each domain, but five of one: too few for two halves."""
    folder = tmp_path_factory.mktemp("halves")
    clip, _ = model_and_pictures(folder, NAMES, DOMAINS, n_images=6)
    (folder / "data" / FEW[1] / FEW[0] / "0.png").unlink()
    return clip, DomainFolder(folder / "data", split=None)


@pytest.fixture(scope="module")
def run(world: tuple[Clip, DomainFolder], tmp_path_factory: Any) -> OwnParts:
    done = OwnParts(*world, tmp_path_factory.mktemp("run"), SETTINGS)
    done.run(QUIET)
    return done


def test_halves_are_disjoint_equal_and_leave_as_many_images_to_test(
    run: OwnParts,
) -> None:
    assert set(run.keys) == KEYS
    for key in run.keys:
        first, second, unseen = run.found_on[key], run.second_half[key], run.unseen[key]
        used = {*first, *second, *unseen}
        assert len(used) == len(first) + len(second) + len(unseen)
        assert len(first) == len(unseen) == 2
        assert len(second) == (0 if key == FEW else 2)
        # Images of other classes are of the same half as the images of the class.
        for half in (1, 2):
            others = run.others(key, half)
            cells = {(record.class_name, record.domain) for record in others}
            assert all(
                record in run.finds((record.class_name, record.domain), half)
                for record in others
            )
            absent = {key, FEW} if half == 2 else {key}
            assert cells == {one for one in KEYS if one[1] == key[1]} - absent
    assert set(run.keys_by_half[2]) == KEYS - {FEW}
    assert set(run.circuits(half=2)) == KEYS - {FEW}


def test_second_parts_are_own_parts_of_their_half(run: OwnParts) -> None:
    key = ("c1", "real")
    own, others = (run.read(some) for some in (run.finds(key, 2), run.others(key, 2)))
    expected = own_part(run.task(key, own, others), share=0.1)
    given = run.circuits(0.1, half=2)[key]
    assert {site: set(units) for site, units in given.units.items()} == {
        site: set(units) for site, units in expected.units.items()
    }
    assert given.scored_edges.count > 0
    first = run.circuits(0.1)[key]
    assert given.source.provenance["pixels"] != first.source.provenance["pixels"]


def test_second_parts_are_tested_on_their_own_class_without_random_units(
    run: OwnParts,
) -> None:
    again = run.lesions(half=2)
    assert set(again["half"]) == {2}
    assert set(again["cut"]) == {"part"}
    assert (again["part_class"] == again["class"]).all()
    # Each part is tested in both domains, at both shares.
    assert len(again) == 2 * 2 * (len(KEYS) - 1)
    key = ("c0", "sketch")
    task = run.task(key, run.read(run.unseen[key]))
    expected = lesion({key: task}, run.circuits(0.1, half=2), random_draws=0)
    expected = expected[expected["part_class"] == "c0"].set_index("part_domain")
    rows = again[(again["class"] == "c0") & (again["domain"] == "sketch")]
    rows = rows[rows["share"] == 0.1].set_index("part_domain")
    pd.testing.assert_frame_equal(
        rows[list(expected)], expected.loc[rows.index], rtol=1e-5, check_dtype=False
    )
    assert set(run.run(QUIET)["lesions"]["half"]) == {1}


def test_overlaps_have_ceilings_and_never_one_half_on_both_sides_of_a_class(
    run: OwnParts,
) -> None:
    overlaps = run.run(QUIET)["overlaps"]
    of_share = overlaps[overlaps["share"] == 0.1].reset_index(drop=True)
    first, second = (dict(run.circuits(0.1, half)) for half in (1, 2))
    expected = part_overlaps(first, second=second)
    pd.testing.assert_frame_equal(of_share[list(expected)], expected)
    one_class = of_share["class_a"] == of_share["class_b"]
    one_style = of_share["domain_a"] == of_share["domain_b"]
    assert (of_share["half_a"] != of_share["half_b"]).equals(one_class)
    assert len(of_share[one_class & one_style]) == len(KEYS) - 1
    # The class of few images has a second part in one of two styles: one row for both, in place of two.
    across = of_share[one_class & ~one_style]
    assert across["class_a"].value_counts().to_dict() == dict.fromkeys(NAMES, 2) | {
        "c3": 1
    }
    row = across[across["class_a"] == "c0"].iloc[0]
    a, b = (
        {(site, unit) for site, units in part.units.items() for unit in units}
        for part in (
            {1: first, 2: second}[row[f"half_{side}"]]["c0", row[f"domain_{side}"]]
            for side in "ab"
        )
    )
    assert row["overlap"] == pytest.approx(len(a & b) / len(a | b))
    assert (of_share["n_a"] <= 2).all()
    assert of_share["edges"].notna().all()
    assert of_share["edges_chance"].between(0, 0.2).all()


def test_the_second_half_can_be_switched_off(
    world: tuple[Clip, DomainFolder], run: OwnParts, tmp_path: Path
) -> None:
    single = OwnParts(*world, tmp_path, replace(SETTINGS, second_half=False))
    assert single.keys_by_half == {1: single.keys}
    assert all(len(images) == 2 for images in single.unseen.values())
    planned = [step.name for step in single.steps()]
    assert planned == ["baseline", "own parts", "lesions 1 of at most 1"]
    key = ("c0", "real")
    # The images that would be the second half are unseen again.
    assert single.unseen[key] == run.second_half[key]
    tables = single.run(QUIET)
    assert set(tables["overlaps"]["half_b"]) == {1}
    units = {half.circuits(0.1)[key].count for half in (single, run)}
    assert len(units) == 1
    assert not single.circuits(half=2)


def test_a_run_that_is_killed_while_it_finds_second_parts_goes_on(
    world: tuple[Clip, DomainFolder],
    run: OwnParts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    n_found = 0

    def killed_after(
        most: int, find: Callable[..., Any], *given: Any, **by: Any
    ) -> Any:
        nonlocal n_found
        n_found += 1
        if n_found > most:
            raise KeyboardInterrupt
        return find(*given, **by)

    third_of_second_half = len(KEYS) + 2
    with monkeypatch.context() as patched:
        patched.setattr(
            own_parts_jobs,
            "own_part",
            partial(killed_after, third_of_second_half, own_part),
        )
        with pytest.raises(KeyboardInterrupt):
            OwnParts(*world, tmp_path, SETTINGS).run(QUIET)
    left = {
        step.name: step.jobs for step in OwnParts(*world, tmp_path, SETTINGS).steps()
    }
    assert "own parts" not in left
    assert left["own parts of the second half"] == len(KEYS) - 1 - 2
    for worker in (1, 0):
        again = OwnParts(*world, tmp_path, SETTINGS)
        again.find_and_test(replace(QUIET, rank=Rank(worker, 2)))
    assert again.steps() == []
    ours, theirs = contents(tmp_path), contents(run.out)
    tables = [name for name in theirs if name.endswith(".csv")]
    assert len(tables) == len(KEYS)
    assert all(ours[name] == theirs[name] for name in tables)


def test_a_class_that_the_model_does_not_know_is_named_and_has_no_part(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clip, _ = model_and_pictures(tmp_path, NAMES, ("real",), n_images=6)
    for path in (tmp_path / "data" / "real" / "c2").iterdir():
        ImageOps.invert(Image.open(path)).save(path)
    folder = DomainFolder(tmp_path / "data", split=None)
    run = OwnParts(clip, folder, tmp_path / "out", SETTINGS)
    tables = run.run(QUIET)
    assert "c2 in real is left out of the parts of half 1" in caplog.text
    assert ("c2", "real") not in run.circuits()
    assert "c2" not in set(tables["lesions"]["part_class"])
