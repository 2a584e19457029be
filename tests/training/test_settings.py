"""Presets of CLIP trainings."""

from dataclasses import replace

import open_clip
import pytest
import torch

from circuitry import Encoder, InputError
from circuitry.models.architectures import register_model
from circuitry.training import ClipTraining, clip_preset
from circuitry.training.training_settings import CLIP_PRESETS


def test_the_studys_settings() -> None:
    study = ClipTraining(
        model="ViT-S-32", epochs=32, batch_size=2048, lr=5e-4, warmup=2000, weight_decay=0.2, crop_scale=0.9
    )
    assert clip_preset("vit-s-32-cc3m") == study
    assert clip_preset("swin-t-cc12m") == replace(study, model="swin-t")
    captions = replace(study, model="RN50", batch_size=1024, lr=1e-3, warmup=500)
    assert clip_preset("rn50-imagenet-captions") == captions
    assert len(CLIP_PRESETS) == 3 * 3 + 2


def test_how_the_study_trained() -> None:
    # slurm/train-clip.sh: 4 GPUs with twice 128 images of RN50, 256 of others; slurm/train-clip-ccxm.sh: 8 GPUs.
    for name, processes, accumulation in (
        ("rn50-imagenet-captions", 4, 2),
        ("rn50-cc12m", 8, 2),
        ("vit-s-32-imagenet-captions", 4, 1),
        ("swin-t-cc3m", 8, 1),
    ):
        study = clip_preset(name, study=True)
        assert study == replace(
            clip_preset(name),
            processes=processes,
            accumulation=accumulation,
            precision="amp",
            grad_checkpointing=True,
            keep_checkpoints=1,
        )
    assert clip_preset("rn-tiny", study=True).processes == 1


@pytest.mark.parametrize("name", CLIP_PRESETS)
def test_presets_are_of_models_with_circuits(name: str) -> None:
    preset = clip_preset(name)
    with torch.device("meta"):
        model = open_clip.create_model(register_model(preset.model), device="meta")
    sites = Encoder.from_tower(model.visual).sites
    assert len(sites) > 5


def test_unknown_presets() -> None:
    with pytest.raises(InputError, match="no preset 'rn50-cc3' here; perhaps you meant rn50-cc3m or rn50-cc12m"):
        clip_preset("rn50-cc3")
    with pytest.raises(InputError, match=r"no preset 'x' here; available: .*swin-t-cc12m, rn-tiny, vit-tiny\.$"):
        clip_preset("x")
