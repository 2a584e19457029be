"""Presets of CLIP trainings, and devices that are there."""

import inspect
from dataclasses import asdict

import open_clip
import pytest
import torch

from circuitry import Encoder, InputError
from circuitry.models.architectures import register_model
from circuitry.training.clip import train_clip
from circuitry.training.devices import training_device
from circuitry.training.presets import CLIP_PRESETS, ClipPreset, clip_preset, crop_arguments


def test_the_studys_settings() -> None:
    assert clip_preset("rn50-imagenet-captions") == ClipPreset("RN50", 32, 1024, 1e-3, 500)
    assert clip_preset("vit-s-32-cc3m") == ClipPreset("ViT-S-32", 32, 2048, 5e-4, 2000)
    assert clip_preset("swin-t-cc12m") == ClipPreset("swin-t", 32, 2048, 5e-4, 2000)
    assert len(CLIP_PRESETS) == 3 * 3 + 2


@pytest.mark.parametrize("name", CLIP_PRESETS)
def test_presets_are_arguments_of_the_training_and_models_with_circuits(name: str) -> None:
    preset = clip_preset(name)
    inspect.signature(train_clip).bind("table", "out", **asdict(preset))
    with torch.device("meta"):
        model = open_clip.create_model(register_model(preset.model), device="meta")
    sites = Encoder.from_tower(model.visual).sites
    assert len(sites) > 5


def test_unknown_presets_and_crops() -> None:
    with pytest.raises(InputError, match="no preset 'rn50-cc3', did you mean rn50-cc3m; there are rn50-imagenet-cap"):
        clip_preset("rn50-cc3")
    with pytest.raises(InputError, match=r"no preset 'x'; there are .*swin-t-cc12m, rn-tiny, vit-tiny$"):
        clip_preset("x")
    assert crop_arguments(0.6) == ("--aug-cfg", "scale=(0.6,1.0)")
    for least in (0.0, 1.5, float("nan")):
        with pytest.raises(InputError, match="a share of the image's area, above 0 and up to 1; given"):
            crop_arguments(least)


def gpus(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def test_devices_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0)
    assert training_device(None) == training_device("cpu", processes=4) == "cpu"
    gpus(monkeypatch, 2)
    assert training_device(None, processes=2) == "cuda"
    assert training_device("cuda:1") == "cuda:1"


@pytest.mark.parametrize(
    ("wanted", "processes", "there", "message"),
    [
        ("cuda", 1, 0, "the device 'cuda' with 1 process was asked for, but PyTorch sees 0 GPUs on this machine; take"),
        ("cuda:2", 1, 2, "'cuda:2' with 1 process was asked for, but PyTorch sees 2 GPUs"),
        ("cuda", 3, 2, "'cuda' with 3 processes was asked for, but PyTorch sees 2 GPUs"),
        ("cuda:1", 2, 2, "cuda with a GPU each; given processes=2 and 'cuda:1'"),
        ("mps", 2, 0, "cuda with a GPU each; given processes=2 and 'mps'"),
        ("mps", 1, 0, "the device 'mps' was asked for, but PyTorch sees none on this machine; take device='cpu'"),
        ("gpu", 1, 2, "expected the device cpu, cuda, cuda:<number> or mps, given 'gpu'"),
        ("cuda:x", 1, 2, "given 'cuda:x'"),
        ("cpu:0", 1, 2, "given 'cpu:0'"),
        ("cpu", 0, 2, "expected at least one process to train with, given processes=0"),
    ],
)
def test_devices_that_are_not(
    wanted: str, processes: int, there: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, there)
    with pytest.raises(InputError, match=message):
        training_device(wanted, processes)
