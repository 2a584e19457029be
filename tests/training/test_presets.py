"""Presets of CLIP trainings, and devices that are there."""

from dataclasses import replace

import open_clip
import pytest
import torch

from circuitry import Encoder, InputError
from circuitry.models.architectures import register_model
from circuitry.training.devices import available_device
from circuitry.training.presets import CLIP_PRESETS, clip_preset
from circuitry.training.settings import ClipTraining


def test_the_studys_settings() -> None:
    study = ClipTraining(
        model="ViT-S-32", epochs=32, batch_size=2048, lr=5e-4, warmup=2000, weight_decay=0.2, crop_scale=0.9
    )
    assert clip_preset("vit-s-32-cc3m") == study
    assert clip_preset("swin-t-cc12m") == replace(study, model="swin-t")
    captions = replace(study, model="RN50", batch_size=1024, lr=1e-3, warmup=500)
    assert clip_preset("rn50-imagenet-captions") == captions
    assert len(CLIP_PRESETS) == 3 * 3 + 2


@pytest.mark.parametrize("name", CLIP_PRESETS)
def test_presets_are_of_models_with_circuits(name: str) -> None:
    preset = clip_preset(name)
    with torch.device("meta"):
        model = open_clip.create_model(register_model(preset.model), device="meta")
    sites = Encoder.from_tower(model.visual).sites
    assert len(sites) > 5


def test_unknown_presets() -> None:
    with pytest.raises(InputError, match="no preset 'rn50-cc3', did you mean rn50-cc3m\\? There are rn50-imagenet-cap"):
        clip_preset("rn50-cc3")
    with pytest.raises(InputError, match=r"no preset 'x'\. There are .*swin-t-cc12m, rn-tiny, vit-tiny\.$"):
        clip_preset("x")


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
    ("wanted", "processes", "there", "message"),
    [
        ("cuda", 1, 0, "The device 'cuda' for 1 process was asked for, but PyTorch sees 0 GPUs on this machine: take"),
        ("cuda:2", 1, 2, "'cuda:2' for 1 process was asked for, but PyTorch sees 2 GPUs"),
        ("cuda", 3, 2, "'cuda' for 3 processes was asked for, but PyTorch sees 2 GPUs"),
        ("cuda:1", 2, 2, "cuda with a GPU each, but 2 processes on 'cuda:1' were"),
        ("mps", 2, 0, "cuda with a GPU each, but 2 processes on 'mps' were"),
        ("mps", 1, 0, "The device 'mps' was asked for, but PyTorch sees none on this machine: take the device cpu"),
        ("gpu", 1, 2, "A device is cpu, cuda, cuda:<number> or mps, but 'gpu' was given"),
        ("tpu", 1, 2, "but 'tpu' was given"),
        ("cuda:x", 1, 2, "but 'cuda:x' was given"),
        ("cpu:0", 1, 2, "but 'cpu:0' was given"),
        ("cpu", 0, 2, "The processes that work together must be at least 1, but 0 was given"),
    ],
)
def test_devices_that_are_not(
    wanted: str, processes: int, there: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, there)
    with pytest.raises(InputError, match=message):
        available_device(wanted, processes)
