"""What a training run leaves in its folder: settings that are compared, checkpoints that are whole."""

import hashlib
from pathlib import Path

import pytest
import torch

from circuitry import InputError
from circuitry.training.run_folder import checkpoints, file_digest, is_finished, record


def test_settings_are_compared(tmp_path: Path) -> None:
    assert not is_finished(tmp_path, {"lr": 1})
    record(tmp_path, {"lr": 1, "sizes": (1, 2), "workers": 2}, finished=False)
    assert not is_finished(tmp_path, {"lr": 1, "sizes": (1, 2), "workers": 4}, ("workers",))
    record(tmp_path, {"lr": 1, "sizes": (1, 2), "workers": 2}, finished=True)
    assert is_finished(tmp_path, {"lr": 1, "sizes": [1, 2], "workers": 2})
    with pytest.raises(InputError, match=r"other settings: lr was 1, now 2; seed was null, now 0; choose another"):
        is_finished(tmp_path, {"lr": 2, "sizes": (1, 2), "workers": 2, "seed": 0})


@pytest.mark.parametrize("content", ["{", "[]", "{}", ""])
def test_damaged_settings(tmp_path: Path, content: str) -> None:
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(InputError, match=r"settings\.json is damaged \(.*\): remove it, or choose another folder"):
        is_finished(tmp_path, {})


def test_checkpoints_in_order_of_epochs_without_those_cut_short(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the folder of a training run, but there is no folder .*checkpoints"):
        checkpoints(tmp_path)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    assert checkpoints(tmp_path) == []
    for name in ("epoch_10", "epoch_9", "epoch_11", "epoch_latest", "tmp"):
        torch.save({"epoch": 1, "state_dict": {"w": torch.zeros(100)}}, folder / f"{name}.pt")
    cut = (folder / "epoch_11.pt").read_bytes()
    (folder / "epoch_11.pt").write_bytes(cut[: len(cut) // 2])
    assert checkpoints(tmp_path) == [(9, folder / "epoch_9.pt"), (10, folder / "epoch_10.pt")]


def test_the_digest_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc" * 100_000)
    assert file_digest(tmp_path / "x") == hashlib.sha256(b"abc" * 100_000).hexdigest()
