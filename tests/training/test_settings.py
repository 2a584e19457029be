"""Settings and presets of trainings."""

import math
import re
from dataclasses import replace
from typing import Any

import open_clip
import pytest
import torch

from circuitry import Encoder, InputError
from circuitry.models.architectures import register_model
from circuitry.training import ClipTraining, SaeTraining, TrainingWork, clip_preset
from circuitry.training.training_settings import CLIP_PRESETS

CLIP = ClipTraining(model="rn-tiny", epochs=2, batch_size=4, lr=1e-3, warmup=1)
SAE = SaeTraining()


def test_the_studys_settings() -> None:
    # slurm/train-clip.sh: 4 GPUs with twice 128 images of RN50, 256 of others; slurm/train-clip-ccxm.sh: 8 GPUs.
    study = ClipTraining(
        model="ViT-S-32", epochs=32, batch_size=2048, lr=5e-4, warmup=2000, weight_decay=0.2, crop_scale=0.9,
        processes=8, precision="amp", grad_checkpointing=True, keep_checkpoints=1, decoding="as-stored",
    )  # fmt: skip
    captions = replace(study, batch_size=1024, lr=1e-3, warmup=500, processes=4)
    for model, short, parts in (("ViT-S-32", "vit-s-32", 1), ("swin-t", "swin-t", 1), ("RN50", "rn50", 2)):
        for base, one in (("cc3m", study), ("cc12m", study), ("imagenet-captions", captions)):
            for by_study in (False, True):
                found = clip_preset(f"{short}-{base}", study=by_study)
                assert found == replace(one, model=model, accumulation=parts)
    assert len(CLIP_PRESETS) == 3 * 3 + 2


def test_tiny_models_train_on_one_device() -> None:
    tiny = ClipTraining(model="rn-tiny", epochs=20, batch_size=128, lr=3e-3, warmup=50, crop_scale=0.6)
    assert clip_preset("rn-tiny") == tiny
    assert clip_preset("vit-tiny") == replace(tiny, model="vit-tiny", epochs=40, batch_size=64, lr=1e-3, warmup=100)
    found = clip_preset("rn-tiny", study=True)
    assert found == replace(tiny, precision="amp", grad_checkpointing=True, keep_checkpoints=1, decoding="as-stored")


@pytest.mark.parametrize("name", CLIP_PRESETS)
def test_presets_are_of_models_with_circuits(name: str) -> None:
    preset = clip_preset(name)
    with torch.device("meta"):
        model = open_clip.create_model(register_model(preset.model), device="meta")
    sites = Encoder.from_tower(model.visual).sites
    assert len(sites) > 5


@pytest.mark.parametrize(
    ("settings", "name", "value"),
    [
        *((CLIP, "batch_size", value) for value in (1, 0)),
        *((CLIP, "lr", value) for value in (0.0, math.nan, math.inf)),
        *((CLIP, name, 0) for name in ("epochs", "processes", "accumulation", "threads")),
        *((CLIP, name, -1) for name in ("keep_checkpoints", "seed", "warmup")),
        *((CLIP, name, value) for name, value in (("crop_scale", 0.0), ("weight_decay", -1.0))),
        (CLIP, "precision", "fp9"),
        *((SAE, name, 0) for name in ("steps", "epochs", "piece", "threads")),
        *((SAE, name, -1) for name in ("expansion", "resample_every")),
        *((SAE, "l1", value) for value in (-1.0, math.inf)),
        (SAE, "lr", math.nan),
        (SAE, "initialisation", "zero"),
        (TrainingWork(), "nodes", 0),
    ],
)
def test_unusable_settings_are_named(settings: Any, name: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"\b{name}\b.*{re.escape(repr(value))}"):
        replace(settings, **{name: value})


@pytest.mark.parametrize("change", [{"processes": 3}, {"processes": 2, "accumulation": 4}])
def test_a_batch_is_cut_into_equal_shares(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"batch_size.* 4 "):
        replace(CLIP, **change)


@pytest.mark.parametrize(("name", "words"), [("rn50-cc3", "rn50-cc3m"), ("x", "swin-t-cc12m")])
def test_unknown_presets(name: str, words: str) -> None:
    with pytest.raises(InputError, match=f"{name!r}.*{words}"):
        clip_preset(name)
