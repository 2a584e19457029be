"""Settings and presets of trainings."""

import math
from dataclasses import replace
from typing import Any

import pytest

from circuitry import InputError
from circuitry.training import ClipTraining, SaeTraining, TrainingWork, clip_preset
from circuitry.training.training_settings import CLIP_PRESETS

CLIP = ClipTraining(model="rn-tiny", epochs=2, batch_size=4, lr=1e-3, warmup=1)


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


@pytest.mark.parametrize(
    ("settings", "change", "words"),
    [
        (CLIP, {"lr": math.inf}, "lr.*inf"),
        (CLIP, {"keep_checkpoints": -1}, "keep_checkpoints.*-1"),
        (CLIP, {"crop_scale": 0.0}, r"crop_scale.*0\.0"),
        (CLIP, {"precision": "fp9"}, "precision.*'fp9'"),
        (CLIP, {"processes": 3}, "batch_size.* 4 "),
        (CLIP, {"processes": 2, "accumulation": 4}, "batch_size.* 4 "),
        (SaeTraining(), {"l1": -1.0}, r"l1.*-1\.0"),
        (SaeTraining(), {"initialisation": "zero"}, "initialisation.*'zero'"),
        (TrainingWork(), {"nodes": 0}, "nodes.*0"),
    ],
)
def test_unusable_settings_are_named(settings: Any, change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        replace(settings, **change)
