"""Settings, presets, devices and folders of trainings."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from circuitry import InputError
from circuitry.runs import versions
from circuitry.runs.manifest import write_sealed
from circuitry.training import (
    CaptionedImage,
    ClipTraining,
    SaeTraining,
    checkpoints,
    clip_preset,
    write_captioned_table,
)
from circuitry.training.clip_training import available_device
from circuitry.training.run_folder import (
    TRAINING_JOB,
    claim_run,
    described,
    read_run,
    record_run,
)
from circuitry.training.sae_training import pinned_threads
from circuitry.training.trainer_table import read_description
from circuitry.training.training_settings import CLIP_PRESETS

CLIP = ClipTraining(model="rn-tiny", epochs=2, batch_size=4, lr=1e-3, warmup=1)


def test_the_studys_settings() -> None:
    # slurm/train-clip.sh: 4 GPUs with twice 128 images of RN50, 256 of others; slurm/train-clip-ccxm.sh: 8 GPUs.
    study = ClipTraining(
        model="ViT-S-32", epochs=32, batch_size=2048, lr=5e-4, warmup=2000, weight_decay=0.2, crop_scale=0.9,
        processes=8, precision="amp", grad_checkpointing=True, keep_checkpoints=1, decoding="as-stored",
    )  # fmt: skip
    captions = replace(study, batch_size=1024, lr=1e-3, warmup=500, processes=4)
    for model, short, parts in (
        ("ViT-S-32", "vit-s-32", 1),
        ("swin-t", "swin-t", 1),
        ("RN50", "rn50", 2),
    ):
        for base, one in (
            ("cc3m", study),
            ("cc12m", study),
            ("imagenet-captions", captions),
        ):
            for by_study in (False, True):
                found = clip_preset(f"{short}-{base}", study=by_study)
                assert found == replace(one, model=model, accumulation=parts)
    assert len(CLIP_PRESETS) == 3 * 3 + 5
    # Tiny models are trained on one device.
    tiny = ClipTraining(
        model="rn-tiny", epochs=20, batch_size=128, lr=3e-3, warmup=50, crop_scale=0.6
    )
    assert clip_preset("rn-tiny") == tiny
    assert clip_preset("vit-tiny") == replace(
        tiny, model="vit-tiny", epochs=40, batch_size=64, lr=1e-3, warmup=100
    )
    fine = clip_preset("vit-tiny-8")
    assert fine == replace(
        clip_preset("vit-tiny"), model="vit-tiny-8", lr=2e-3, crop_scale=0.9
    )
    found = clip_preset("rn-tiny", study=True)
    assert found == replace(
        tiny,
        precision="amp",
        grad_checkpointing=True,
        keep_checkpoints=1,
        decoding="as-stored",
    )


@pytest.mark.parametrize(
    ("settings", "change", "words"),
    [
        (CLIP, {"processes": 3}, "batch_size.* 4 "),
        (CLIP, {"processes": 2, "accumulation": 4}, "batch_size.* 4 "),
        (SaeTraining(), {"l1": -1.0}, r"l1.*-1\.0"),
        (SaeTraining(), {"initialisation": "zero"}, "initialisation.*'zero'"),
    ],
)
def test_unusable_settings_are_named(
    settings: Any, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        replace(settings, **change)


def gpus(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def test_devices_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0)
    assert available_device(None) == available_device("cpu", processes=4) == "cpu"
    gpus(monkeypatch, 2)
    assert available_device(None, processes=2) == "cuda"
    assert available_device("cuda:1") == "cuda:1"


@pytest.mark.parametrize(
    ("wanted", "processes", "there", "words"),
    [
        ("cuda", 1, 0, "'cuda'.* 0 GPUs"),
        ("cuda:2", 1, 2, "'cuda:2'.* 2 GPUs"),
        ("cuda", 3, 2, "'cuda'.* 3 .* 2 GPUs"),
        ("cuda:1", 2, 2, " 2 .*'cuda:1'"),
        *((wanted, 1, 2, repr(wanted)) for wanted in ("mps", "gpu", "cuda:x", "cpu:0")),
    ],
)
def test_no_such_devices(
    wanted: str, processes: int, there: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, there)
    with pytest.raises(InputError, match=words):
        available_device(wanted, processes)


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt), pinned_threads(before + 1):  # noqa: PT012
        assert torch.get_num_threads() == before + 1
        raise KeyboardInterrupt
    assert torch.get_num_threads() == before


def test_settings_are_compared(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("filepath\n/a\n")
    table = tmp_path / "x.tsv"
    settings, model = (
        replace(clip_preset("rn-tiny"), model="anywhere/x.json", epochs=4),
        {"x": {"width": 8}},
    )
    assert not claim_run(tmp_path / "run", settings, model, table, labels="a").is_done(
        TRAINING_JOB
    )
    claim_run(
        tmp_path / "run",
        replace(settings, model="elsewhere/x.json"),
        model,
        table,
        labels="a",
    )
    with pytest.raises(InputError, match="epochs: 4 -> 16; labels: 'a' -> 'b'"):
        claim_run(
            tmp_path / "run", replace(settings, epochs=16), model, table, labels="b"
        )
    with pytest.raises(InputError, match="width: 8 -> 9"):
        claim_run(tmp_path / "run", settings, {"x": {"width": 9}}, table, labels="a")


def test_a_table_is_the_same_wherever_its_folder_lies(tmp_path: Path) -> None:
    for name, root in (
        ("a", tmp_path / "a"),
        ("b", tmp_path / "b"),
        ("c", tmp_path / "a"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.tsv").write_text(
            f"filepath\ttitle\n{root}/1.png\tone\n/elsewhere/2.png\ttwo\n"
        )
    a, b, c = (described(tmp_path / name / "x.tsv") for name in "abc")
    assert a == b
    assert a["first image"] == "1.png"
    assert c["first image"] == f"{tmp_path}/a/1.png"
    assert c["sha256"] != a["sha256"]
    (tmp_path / "b" / "x.tsv").write_text(
        (tmp_path / "b" / "x.tsv").read_text().replace("two", "three")
    )
    assert described(tmp_path / "b" / "x.tsv")["sha256"] != a["sha256"]


def test_checkpoints_in_order_of_epochs_without_those_cut_short(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=str(tmp_path / "checkpoints")):
        checkpoints(tmp_path)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    assert checkpoints(tmp_path) == []
    for name in ("epoch_10", "epoch_9", "epoch_11", "epoch_latest", "tmp"):
        torch.save(
            {"epoch": 1, "state_dict": {"w": torch.zeros(100)}}, folder / f"{name}.pt"
        )
    cut = (folder / "epoch_11.pt").read_bytes()
    (folder / "epoch_11.pt").write_bytes(cut[: len(cut) // 2])
    assert checkpoints(tmp_path) == [
        (9, folder / "epoch_9.pt"),
        (10, folder / "epoch_10.pt"),
    ]
    # Of two files of an epoch one is taken, whichever the file system lists first.
    for name in ("epoch_9", "epoch_10"):
        (folder / f"{name}.safetensors").touch()
    assert [path.suffix for _, path in checkpoints(tmp_path)] == [".safetensors"] * 2


def test_a_run_has_its_settings_and_its_table_word_for_word(tmp_path: Path) -> None:
    image = CaptionedImage("/x/1.png", "1.png", "real", "axe", "a axe")
    table = write_captioned_table(
        [image], tmp_path / "t.tsv", about={"mine": [1]}, missing_files="unchecked"
    )
    amp = replace(clip_preset("rn-tiny"), seed=4, precision="amp")
    record_run(tmp_path / "run", table, amp)
    found = read_run(tmp_path / "run")
    assert found["table"] == read_description(table)
    assert found["training"] == json.loads(json.dumps(asdict(amp)))
    assert (found["kind"], found["commit"]) == ("ClipTraining", versions()["commit"])
    record_run(tmp_path / "run", table, replace(amp, seed=5))  # what is written stays
    assert read_run(tmp_path / "run") == found
    record_run(
        tmp_path / "other",
        tmp_path / "by_hand.tsv",
        replace(amp, model=tmp_path / "mine.json"),
    )
    assert read_run(tmp_path / "other")["table"] is None
    assert read_run(tmp_path / "other")["training"]["model"] == str(
        tmp_path / "mine.json"
    )


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"run\.json"):
        read_run(tmp_path)
    write_sealed(tmp_path / "run.json", {"format": "circuitry run 2"})
    with pytest.raises(InputError, match=r"'circuitry run 2'.*'circuitry run 3'"):
        read_run(tmp_path)
