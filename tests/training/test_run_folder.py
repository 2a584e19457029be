"""A training run's folder: settings that are compared, whole checkpoints, and the record of its training."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from circuitry.runs import InputError, versions
from circuitry.runs.manifest import write_sealed
from circuitry.training import (
    CaptionedImage,
    checkpoints,
    clip_preset,
    read_description,
    read_run,
    record_run,
    write_captioned_table,
)
from circuitry.training.run_folder import TRAINING_JOB, claim_run, described
from circuitry.training.training_table import CheckedTable

CLIP = replace(clip_preset("rn-tiny"), seed=4, precision="amp")


def test_settings_are_compared(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("filepath\n/a\n")
    table = CheckedTable(tmp_path / "x.tsv", np.array([True]))
    settings, model = replace(clip_preset("rn-tiny"), model="anywhere/x.json", epochs=4), {"x": {"width": 8}}
    assert not claim_run(tmp_path / "run", settings, model, table, labels="a").is_done(TRAINING_JOB)
    claim_run(tmp_path / "run", replace(settings, model="elsewhere/x.json"), model, table, labels="a")
    with pytest.raises(InputError, match="epochs: 4 -> 16; labels: 'a' -> 'b'"):
        claim_run(tmp_path / "run", replace(settings, epochs=16), model, table, labels="b")
    with pytest.raises(InputError, match="width: 8 -> 9"):
        claim_run(tmp_path / "run", settings, {"x": {"width": 9}}, table, labels="a")


def test_a_table_is_the_same_wherever_its_folder_lies(tmp_path: Path) -> None:
    for name, root in (("a", tmp_path / "a"), ("b", tmp_path / "b"), ("c", tmp_path / "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.tsv").write_text(f"filepath\ttitle\n{root}/1.png\tone\n/elsewhere/2.png\ttwo\n")
    a, b, c = (described(tmp_path / name / "x.tsv") for name in "abc")
    assert a == b
    assert a["first image"] == "1.png"
    assert c["first image"] == f"{tmp_path}/a/1.png"
    assert c["sha256"] != a["sha256"]
    (tmp_path / "b" / "x.tsv").write_text((tmp_path / "b" / "x.tsv").read_text().replace("two", "three"))
    assert described(tmp_path / "b" / "x.tsv")["sha256"] != a["sha256"]


def test_checkpoints_in_order_of_epochs_without_those_cut_short(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=str(tmp_path / "checkpoints")):
        checkpoints(tmp_path)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    assert checkpoints(tmp_path) == []
    for name in ("epoch_10", "epoch_9", "epoch_11", "epoch_latest", "tmp"):
        torch.save({"epoch": 1, "state_dict": {"w": torch.zeros(100)}}, folder / f"{name}.pt")
    cut = (folder / "epoch_11.pt").read_bytes()
    (folder / "epoch_11.pt").write_bytes(cut[: len(cut) // 2])
    assert checkpoints(tmp_path) == [(9, folder / "epoch_9.pt"), (10, folder / "epoch_10.pt")]


def test_a_run_has_its_settings_and_its_table_word_for_word(tmp_path: Path) -> None:
    image = CaptionedImage("/x/1.png", "1.png", "real", "axe", "a axe")
    table = write_captioned_table([image], tmp_path / "t.tsv", about={"mine": [1]}, missing_files="unchecked")
    record_run(tmp_path / "run", table, CLIP)
    found = read_run(tmp_path / "run")
    assert found["table"] == read_description(table)
    assert found["training"] == json.loads(json.dumps(asdict(CLIP)))
    assert (found["kind"], found["commit"]) == ("ClipTraining", versions()["commit"])
    record_run(tmp_path / "run", table, replace(CLIP, seed=5))  # what is written stays
    assert read_run(tmp_path / "run") == found
    record_run(tmp_path / "other", tmp_path / "by_hand.tsv", replace(CLIP, model=tmp_path / "mine.json"))
    assert read_run(tmp_path / "other")["table"] is None
    assert read_run(tmp_path / "other")["training"]["model"] == str(tmp_path / "mine.json")


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"run\.json"):
        read_run(tmp_path)
    write_sealed(tmp_path / "run.json", {"format": "circuitry run 2"})
    with pytest.raises(InputError, match=r"'circuitry run 2'.*'circuitry run 3'"):
        read_run(tmp_path)
