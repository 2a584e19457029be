"""A trained model's folder says what it was trained on, and how."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from circuitry.runs import InputError, versions
from circuitry.runs.manifest import write_sealed
from circuitry.training import (
    CaptionedImage,
    clip_preset,
    read_description,
    read_run,
    record_run,
    write_captioned_table,
)

CLIP = replace(clip_preset("rn-tiny"), seed=4, precision="amp")


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
