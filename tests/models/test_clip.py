"""Models are loaded from checkpoints and configurations of every kind, and the refusals."""

import copy
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from circuitry import Clip, Encoder, InputError, in_feature_basis, load_clip
from circuitry.models.open_clip_models import register_model
from tests.support.feature_bases import make_sae
from tests.support.tiny_clip import CONFIG, NAME, Tiny, saved

WRITERS: dict[str, Callable[[dict[str, Tensor], Path], Path]] = {
    "training checkpoint": lambda state, folder: saved(
        {
            "epoch": 3,
            "state_dict": {f"module.{key}": value for key, value in state.items()},
            "optimizer": {
                "state": {0: {"step": torch.tensor(1.0)}},
                "param_groups": [{"betas": (0.9, 0.98)}],
            },
        },
        folder / "epoch_3.pt",
    ),
    "state dict": lambda state, folder: saved(state, folder / "model.pth"),
    "compiled": lambda state, folder: saved(
        {f"_orig_mod.{k}": v for k, v in state.items()}, folder / "model.bin"
    ),
    "both wrappers": lambda state, folder: saved(
        {f"module._orig_mod.{k}": v for k, v in state.items()}, folder / "m.pt"
    ),
    "twice the same": lambda state, folder: saved(
        {**state, **{f"module.{key}": value for key, value in state.items()}},
        folder / "t.pt",
    ),
    "half precision": lambda state, folder: saved(
        {
            key: value.half() if value.is_floating_point() else value
            for key, value in state.items()
        },
        folder / "h.pt",
    ),
}


def test_a_saved_model_is_the_same_in_open_clip_and_here(
    clip: Clip, tiny: Tiny, tmp_path: Path
) -> None:
    path = tmp_path / "copy.pt"
    clip.in_components().save(path)
    assert load_clip(tiny.config, path).identity == clip.identity
    plain = open_clip.create_model(NAME)
    read = torch.load(path, weights_only=True)["state_dict"]
    plain.load_state_dict(read, strict=True)
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, tiny.state[name]), name


def test_a_tower_beside_the_model_is_not_saved(clip: Clip, tmp_path: Path) -> None:
    other = replace(clip, encoder=Encoder.from_tower(copy.deepcopy(clip.encoder.tower)))
    with pytest.raises(InputError, match="no module of the model"):
        other.save(tmp_path / "other.pt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", list(WRITERS))
def test_checkpoints_of_every_kind_are_loaded(
    kind: str, tiny: Tiny, tmp_path: Path
) -> None:
    loaded = load_clip(
        tiny.config, WRITERS[kind](tiny.state, tmp_path)
    ).model.state_dict()
    assert loaded.keys() == tiny.state.keys()
    tolerance = 1e-3 if kind == "half precision" else 0
    for key, value in tiny.state.items():
        torch.testing.assert_close(loaded[key], value, rtol=tolerance, atol=tolerance)


def test_the_encoder_is_the_models_own_tower(clip: Clip, tiny: Tiny) -> None:
    images = torch.randn(2, 3, 64, 64)
    own = open_clip.create_model(NAME).eval()
    own.load_state_dict(tiny.state)
    with torch.no_grad():
        assert torch.equal(clip.encoder(images), own.encode_image(images))
    assert clip.name == NAME
    assert clip.encoder.tower is clip.model.visual


def test_a_loaded_model_is_ready_for_analysis(clip: Clip) -> None:
    assert not any(module.training for module in clip.model.modules())
    assert not any(p.requires_grad for p in clip.model.parameters())
    pixels = clip.preprocess(Image.new("RGB", (90, 70), "white"))
    white = (1 - torch.tensor(open_clip.OPENAI_DATASET_MEAN)) / torch.tensor(
        open_clip.OPENAI_DATASET_STD
    )
    torch.testing.assert_close(pixels, white[:, None, None].expand(3, 64, 64))


def transform(size: int = 64, **changes: Any) -> Callable[[Image.Image], Tensor]:
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    settings = {
        "mean": mean,
        "std": std,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    } | changes
    made: Callable[[Image.Image], Tensor] = image_transform_v2(
        PreprocessCfg(size=size, **settings), is_train=False
    )
    return made


PREPROCESSING: dict[str, Callable[[Image.Image], Tensor]] = {
    "mean": transform(mean=(0.482, 0.457, 0.408)),
    "deviation": transform(std=(0.27, 0.26, 0.27)),
    "size": transform(32),
    "squashed": transform(resize_mode="squash"),
    "interpolation": transform(interpolation="bilinear"),
    "channels": lambda picture: transform()(picture).flip(0),
    "mirrored": lambda picture: transform()(picture).flip(-1),
}


@pytest.mark.parametrize("change", PREPROCESSING)
def test_other_preprocessing_is_another_digest(change: str, clip: Clip) -> None:
    with torch.autocast("cpu"), torch.device("meta"):
        assert replace(clip, preprocess=transform()).digest == clip.digest
    stored = clip.with_decoding("as-stored")
    assert stored.digest != clip.digest == stored.with_decoding("upright").digest
    assert replace(clip, preprocess=PREPROCESSING[change]).digest != clip.digest


def test_preprocessing_by_chance_is_another_digest_each_time_and_one_that_fails_is_named(
    clip: Clip,
) -> None:
    noisy = replace(
        clip,
        preprocess=lambda picture: clip.preprocess(picture) + torch.randn(3, 64, 64),
    )
    assert noisy.digest != noisy.digest
    with pytest.raises(InputError, match=r"128 x 96 pixels \(integer division"):
        _ = replace(clip, preprocess=lambda picture: torch.ones(1) * (1 // 0)).digest


def test_another_encoder_is_another_digest(
    clip: Clip, tiny: Tiny, tmp_path: Path
) -> None:
    assert (
        load_clip(tiny.config, saved(tiny.state, tmp_path / "same.pt")).digest
        == clip.digest
    )
    other_scale = saved(
        tiny.state | {"logit_scale": torch.tensor(1.0)}, tmp_path / "other.pt"
    )
    assert load_clip(tiny.config, other_scale).digest != clip.digest
    own, other = (
        Encoder.from_tower(copy.deepcopy(clip.encoder.tower)) for _ in range(2)
    )
    other.tower.get_submodule("conv1").weight.data.neg_()  # type: ignore[operator]
    assert (
        replace(clip, encoder=own).digest
        != replace(clip, encoder=other).digest
        != clip.digest
    )
    sae = make_sae(16, dtype=torch.float32)
    features = in_feature_basis(clip.encoder, {"attnpool": sae})
    assert (
        replace(clip, encoder=features).digest
        == clip.in_basis({"attnpool": sae}).digest
        != clip.digest
    )
    assert (
        replace(clip, encoder=Encoder.from_tower(clip.encoder.tower)).digest
        == clip.digest
    )


def test_settings_of_modules_are_in_the_digest_and_in_that_of_texts(
    tiny: Tiny, tmp_path: Path
) -> None:
    clip = tiny.load()
    model: Any = clip.model
    model.visual.scales = [1.0, 2.0]
    digests, weights = (
        [clip.digest],
        clip.text_weights(["cat", "dog"], ["the {}"], cache_dir=tmp_path),
    )
    model.visual.scales[0] = -1.0
    digests.append(clip.digest)
    model.text_pool_type = "first"
    assert len({*digests, clip.digest}) == 3
    assert not torch.allclose(
        clip.text_weights(["cat", "dog"], ["the {}"], cache_dir=tmp_path),
        weights,
        atol=1e-2,
    )


class Custom:
    """What a pickle must not be able to bring along."""


def truncated(state: dict[str, Tensor], path: Path) -> Path:
    (save_file if path.suffix == ".safetensors" else torch.save)(state, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def holding(content: bytes, path: Path) -> Path:
    path.write_bytes(content)
    return path


def compressed(path: Path) -> Path:
    with zipfile.ZipFile(path) as archive:
        held = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (*held.items(), ("x/data/zeros", bytes(10**7))):
            archive.writestr(name, content)
    return path


def with_first_as(dtype: torch.dtype, state: dict[str, Tensor], folder: Path) -> Path:
    return saved(state | {FIRST: state[FIRST].to(dtype)}, folder / "x.pt")


State = dict[str, Tensor]
FIRST = "visual.conv1.weight"
NO_CHECKPOINTS: dict[str, tuple[Callable[[State, Path], Path], str]] = {
    "missing": (lambda _, folder: folder / "epoch_1.pt", "epoch_1.pt.*no such file"),
    "folder": (lambda _, folder: folder, "a folder"),
    "code": (
        lambda state, folder: saved(
            {"state_dict": state, "x": Custom()}, folder / "x.pt"
        ),
        "run code",
    ),
    "cut short": (lambda state, folder: truncated(state, folder / "x.pt"), r"x\.pt"),
    "cut safetensors": (
        lambda state, folder: truncated(state, folder / "x.safetensors"),
        r"x\.safetensors",
    ),
    "empty": (lambda _, folder: holding(b"", folder / "x.pt"), "an empty file"),
    "exploding": (
        lambda state, folder: compressed(saved(state, folder / "x.pt")),
        r"unpacks to 1\d,\d{3},\d{3}",
    ),
    "page": (
        lambda _, folder: holding(
            b"\n<!DOCTYPE html><html>404</html>", folder / "x.pt"
        ),
        "a web page",
    ),
    "pointer": (
        lambda _, folder: holding(
            b"version https://git-lfs.github.com/spec", folder / "x.pt"
        ),
        "Git LFS",
    ),
    "like a pickle": (
        lambda _, folder: holding(b"\x80garb", folder / "x.pt"),
        r"x\.pt",
    ),
    "no weights": (
        lambda _, folder: saved({"epoch": 1}, folder / "x.pt"),
        "no state dict",
    ),
    "list": (
        lambda _, folder: saved([torch.ones(1)], folder / "x.pt"),
        "no state dict",
    ),
    "other shape": (
        lambda state, folder: saved(
            state | {"visual.conv2.weight": torch.ones(2, 3)}, folder / "x.pt"
        ),
        r"visual.conv2.weight is \[4, 4, 3, 3\] in the model and \[2, 3\] in the",
    ),
    # Of two differences the first in the model's order is named.
    "two differences": (
        lambda state, folder: saved(
            {k: v for k, v in state.items() if k != "visual.bn1.bias"}
            | {"logit_scale": torch.ones(2)},
            folder / "x.pt",
        ),
        r"logit_scale is \[\] in the model and \[2\] in the file",
    ),
    "more": (
        lambda state, folder: saved(state | {"extra": torch.ones(5)}, folder / "x.pt"),
        "extra is absent in the",
    ),
    **{
        str(dtype): (
            partial(with_first_as, dtype),
            f"{FIRST} as {str(dtype).removeprefix('torch.')}",
        )
        for dtype in (
            torch.int8,
            torch.int64,
            torch.bool,
            torch.complex64,
            torch.float8_e4m3fn,
        )
    },
    "two models": (
        lambda state, folder: saved(
            state | {f"module.{FIRST}": state[FIRST] / 2}, folder / "x.pt"
        ),
        f"two different tensors {FIRST}",
    ),
    "infinite": (
        lambda state, folder: saved(
            state | {"logit_scale": torch.tensor(torch.inf)}, folder / "x.pt"
        ),
        "infinite values in logit_scale",
    ),
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", list(NO_CHECKPOINTS))
def test_files_that_are_no_checkpoints_are_refused(
    kind: str, tiny: Tiny, tmp_path: Path
) -> None:
    make, words = NO_CHECKPOINTS[kind]
    with pytest.raises(InputError, match=words):
        load_clip(tiny.config, make(tiny.state, tmp_path))


@pytest.mark.parametrize(
    ("name", "weights", "words"),
    [
        ("RN50", {}, r"'RN50'.*neither.*--checkpoint and --pretrained"),
        ("RN50", {"checkpoint": "x.pt", "pretrained": "openai"}, "both"),
        ("RN5O", {"checkpoint": "x.pt"}, r"'RN5O'.*rn-tiny, swin-t, vit-tiny"),
        ("RN50", {"pretrained": "opneai"}, "'opneai' for RN50.*openai, "),
        ("ViT-B/32", {"pretrained": "openai"}, "perhaps .*ViT-B-32"),
        (
            "openai/clip-vit-base-patch32",
            {"checkpoint": "x.pt"},
            "hf-hub:openai/clip-vit-base-patch32",
        ),
    ],
)
def test_names_and_tags_that_are_not_known_are_refused(
    name: str, weights: dict[str, str], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        load_clip(name, **weights)


@pytest.mark.parametrize("name", ["ViT-B-16-SigLIP", "RN50"])
def test_a_checkpoint_of_a_model_that_is_normalised_in_another_way_is_named(
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    clip: Clip,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(
        "circuitry.models.open_clip_models._built", lambda *_, **__: clip
    )
    load_clip(name, saved(clip.model.state_dict(), tmp_path / "x.pt"))
    assert [name in one and "0.5, 0.5, 0.5" in one for one in caplog.messages] == [
        True
    ] * (name != "RN50")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there_is_named(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'cuda:7'"):
        load_clip(tiny.config, saved(tiny.state, tmp_path / "x.pt"), device="cuda:7")


@pytest.mark.parametrize("config", [None, {"model_cfg": CONFIG}])
@pytest.mark.parametrize(
    ("name", "tag"), [("RN50", "openai"), ("hf-hub:org/model", None)]
)
def test_weights_that_cannot_be_downloaded_are_no_random_ones(
    name: str,
    tag: str | None,
    config: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def no_network(*_: object, **__: object) -> str:
        raise OSError("no route to host")

    for download in ("download_pretrained", "download_pretrained_from_hf"):
        monkeypatch.setattr(f"open_clip.factory.{download}", no_network)
    if config is not None:
        monkeypatch.setattr("open_clip.factory._get_hf_config", lambda *_, **__: config)
    with pytest.raises(InputError, match=name):
        load_clip(name, pretrained=tag)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", "{", r"a.json"),
        ("b.json", None, r"b.json"),
        ("c.json", json.dumps({"embed_dim": 4}), "vision_cfg, text_cfg"),
        ("RN50.json", json.dumps(CONFIG), r"'RN50'.*RN50.json"),
        ("circuitry-test-x.json", json.dumps(CONFIG | {"colour": 1}), "colour"),
        (
            "circuitry-test-y.json",
            json.dumps(CONFIG | {"vision_cfg": {"colour": 1}}),
            "colour",
        ),
    ],
)
def test_what_is_no_configuration(
    name: str, content: str | None, words: str, tiny: Tiny, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=words):
        load_clip(tmp_path / name, saved(tiny.state, tmp_path / "x.pt"))


def test_the_same_configuration_may_lie_in_two_places(
    tiny: Tiny, tmp_path: Path
) -> None:
    copy = tmp_path / tiny.config.name
    copy.write_text(tiny.config.read_text())
    assert register_model(copy) == NAME
    copy.write_text(json.dumps(CONFIG | {"embed_dim": 8}))
    with pytest.raises(InputError, match=f"'{NAME}'"):
        register_model(copy)
    copy.write_text(
        tiny.config.read_text()
    )  # open_clip reads it again whenever a model is registered
