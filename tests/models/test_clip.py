"""Models are loaded from checkpoints and configurations of every kind, and the refusals."""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from circuitry import Clip, InputError, load_clip
from circuitry.models import read_checkpoint
from circuitry.models.architectures import register_model
from tests.support.tiny_clip import CONFIG, NAME, Tiny, saved

TEMPLATES = ["a photo of a {}.", "the {}", "{} and {}"]


# Checkpoints

WRITERS: dict[str, Callable[[dict[str, Tensor], Path], Path]] = {
    "training checkpoint": lambda state, folder: saved(
        {
            "epoch": 3,
            "name": "run",
            "state_dict": {f"module.{key}": value for key, value in state.items()},
            "optimizer": {
                "state": {0: {"step": torch.tensor(1.0)}},
                "param_groups": [{"lr": 0.1, "betas": (0.9, 0.98)}],
            },
        },
        folder / "epoch_3.pt",
    ),
    "state dict": lambda state, folder: saved(state, folder / "model.pth"),
    "compiled": lambda state, folder: saved({f"_orig_mod.{k}": v for k, v in state.items()}, folder / "model.bin"),
    "both wrappers": lambda state, folder: saved(
        {f"module._orig_mod.{k}": v for k, v in state.items()}, folder / "m.pt"
    ),
    "half precision": lambda state, folder: saved(
        {key: value.half() if value.is_floating_point() else value for key, value in state.items()}, folder / "h.pt"
    ),
}


@pytest.mark.parametrize("kind", list(WRITERS))
def test_checkpoints_of_every_kind_are_loaded(kind: str, tiny: Tiny, tmp_path: Path) -> None:
    loaded = load_clip(tiny.config, WRITERS[kind](tiny.state, tmp_path)).model.state_dict()
    assert loaded.keys() == tiny.state.keys()
    tolerance = 1e-3 if kind == "half precision" else 0
    for key, value in tiny.state.items():
        torch.testing.assert_close(loaded[key], value, rtol=tolerance, atol=tolerance)


def test_safetensors_are_loaded(clip: Clip, tiny: Tiny) -> None:
    assert all(torch.equal(value, tiny.state[key]) for key, value in clip.model.state_dict().items())


def test_wrappers_are_taken_off_in_any_order(tmp_path: Path) -> None:
    path = saved({"_orig_mod.module.weight": torch.ones(1)}, tmp_path / "x.pt")
    assert list(read_checkpoint(path)) == ["weight"]


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
    white = (1 - torch.tensor(open_clip.OPENAI_DATASET_MEAN)) / torch.tensor(open_clip.OPENAI_DATASET_STD)
    torch.testing.assert_close(pixels, white[:, None, None].expand(3, 64, 64))


def test_a_shipped_model_is_loaded_by_name(tmp_path: Path) -> None:
    state = open_clip.create_model(register_model("rn-tiny")).state_dict()
    loaded = load_clip("rn-tiny", saved(state, tmp_path / "x.pt"))
    assert loaded.name == "rn-tiny"
    assert all(torch.equal(v, state[k]) for k, v in loaded.model.state_dict().items())


def test_two_models_have_one_digest_if_their_weights_agree(clip: Clip, tiny: Tiny, tmp_path: Path) -> None:
    same = load_clip(tiny.config, saved(tiny.state, tmp_path / "same.pt"))
    other = load_clip(tiny.config, saved(tiny.state | {"logit_scale": torch.tensor(1.0)}, tmp_path / "other.pt"))
    assert same.digest == clip.digest != other.digest


@pytest.fixture(scope="module")
def twin(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """A model with the weights of the tiny one and another activation function, which has no weights."""
    folder = tmp_path_factory.mktemp("twin")
    config = folder / f"{NAME}-twin.json"
    config.write_text(json.dumps(CONFIG | {"quick_gelu": True}))
    return load_clip(config, saved(tiny.state, folder / "x.pt"))


def test_a_model_of_another_configuration_has_another_digest_and_other_text_weights(
    clip: Clip, twin: Clip, tmp_path: Path
) -> None:
    assert all(torch.equal(weight, twin.model.state_dict()[name]) for name, weight in clip.model.state_dict().items())
    assert twin.digest != clip.digest
    ours, theirs = (model.text_weights(["cat"], TEMPLATES, cache_dir=tmp_path / "one") for model in (clip, twin))
    assert not torch.equal(ours, theirs)
    assert torch.equal(theirs, twin.text_weights(["cat"], TEMPLATES, cache_dir=tmp_path / "another"))


def test_other_preprocessing_is_another_digest(clip: Clip, tiny: Tiny) -> None:
    other = tiny.load()
    half = open_clip.get_model_preprocess_cfg(other.model) | {"mean": (0.5, 0.5, 0.5)}
    open_clip.factory.set_model_preprocess_cfg(other.model, half)
    assert other.digest != clip.digest


def test_a_model_prints_in_a_line(clip: Clip) -> None:
    assert repr(clip) == f"Clip('{NAME}': 11 sites, 64 x 64 px, on cpu)"


def test_loading_a_checkpoint_says_nothing_of_random_weights(
    tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    before = list(logging.getLogger().handlers)
    load_clip(tiny.config, saved(tiny.state, tmp_path / "x.pt"))
    assert caplog.records == []
    assert capsys.readouterr() == ("", "")
    assert logging.getLogger().handlers == before
    assert logging.getLogger().filters == []


# Refusals


class Custom:
    """What a pickle must not be able to bring along."""


def test_a_missing_checkpoint_says_so(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Expected a checkpoint at .*epoch_1.pt, but there is no such file"):
        load_clip(tiny.config, tmp_path / "epoch_1.pt")


def test_a_pickle_that_needs_code_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    path = saved({"state_dict": tiny.state, "extra": Custom()}, tmp_path / "x.pt")
    with pytest.raises(InputError, match="more than tensors and plain values, and reading it could run code: save its"):
        load_clip(tiny.config, path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_truncated_checkpoint_is_refused(suffix: str, tiny: Tiny, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    if suffix == ".pt":
        torch.save(tiny.state, path)
    else:
        save_file(tiny.state, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"x\.\w+ is not a readable checkpoint \(.+\)"):
        load_clip(tiny.config, path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a checkpoint but an empty file: download or save it again"),
        (b"\n<!DOCTYPE html><html>404</html>", r"not a checkpoint but a web page \(HTML or XML\)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4", "not a checkpoint but a pointer of Git LFS"),
        (b"eeny meeny", r"not a checkpoint but a file that begins with the bytes b'eeny mee'"),
    ],
)
def test_files_that_are_no_checkpoints_are_called_what_they_are(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(InputError, match=rf"x\.pt is {words}"):
        read_checkpoint(tmp_path / "x.pt")


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="but there is a folder"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("content", [{"epoch": 1}, [torch.ones(1)], {"state_dict": {"a": 1}}, {}])
def test_a_file_without_weights_is_refused(content: object, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no state dict: expected names and tensors"):
        read_checkpoint(saved(content, tmp_path / "x.pt"))


@pytest.mark.parametrize("content", [None, [1, 2]])
def test_a_state_dict_that_is_none_is_refused(content: object, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no state dict"):
        read_checkpoint(saved({"state_dict": content}, tmp_path / "x.pt"))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_bytes_that_start_like_a_pickle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"\x80garb")
    with pytest.raises(InputError, match=r"x\.pt"):
        read_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"visual.conv2.weight": torch.ones(2, 3)},
            "visual.conv2.weight is [4, 4, 3, 3] in the model and [2, 3] in the",
        ),
        ({"visual.bn1.bias": None}, "visual.bn1.bias is [4] in the model and absent in the file"),
        ({"extra": torch.ones(5)}, "extra is absent in the model and [5] in the file"),
        # Of two differences the first in the model's order is named.
        ({"visual.bn1.bias": None, "logit_scale": torch.ones(2)}, "logit_scale is [] in the model and [2] in the file"),
    ],
)
def test_the_first_difference_is_named(
    change: dict[str, Tensor | None], words: str, tiny: Tiny, tmp_path: Path
) -> None:
    state = {key: value for key, value in (tiny.state | change).items() if value is not None}
    with pytest.raises(InputError, match=re.escape(f"x.pt is not a checkpoint of {NAME}: {words}")):
        load_clip(tiny.config, saved(state, tmp_path / "x.pt"))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_named(bad: float, tiny: Tiny, tmp_path: Path) -> None:
    weight = tiny.state["visual.layer2.1.conv1.weight"].clone()
    weight[3, 0] = bad
    path = saved(tiny.state | {"visual.layer2.1.conv1.weight": weight}, tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"NaN or infinite values in visual.layer2.1.conv1.weight: take an earlier"):
        load_clip(tiny.config, path)


def test_exactly_one_source_of_weights_is_asked_for(tiny: Tiny) -> None:
    with pytest.raises(
        InputError, match="model 'RN50' needs either a checkpoint file or a pretrained tag, but neither was given"
    ):
        load_clip("RN50")
    with pytest.raises(
        InputError,
        match=r"but both were given: give one of checkpoint= and pretrained= \(of a script --",
    ):
        load_clip("RN50", tiny.config, "openai")


def test_unknown_names_and_tags_list_the_known(tiny: Tiny) -> None:
    with pytest.raises(
        InputError,
        match=r"no model 'RN5O': .* one shipped here \(rn-tiny, swin-t, vit-tiny\), or the path",
    ):
        load_clip("RN5O", "x.pt")
    with pytest.raises(InputError, match=r"no weights 'opneai' for RN50; its tags are: openai, .*\. Give a local"):
        load_clip("RN50", pretrained="opneai")
    with pytest.raises(InputError, match=f"no weights 'openai' for {NAME}; its tags are: none"):
        load_clip(tiny.config, pretrained="openai")
    with pytest.raises(InputError, match=r"did you mean ViT-B-32.*\?"):
        load_clip("ViT-B/32", pretrained="openai")
    with pytest.raises(InputError, match="hub is written hf-hub:openai/clip-vit-base-patch32"):
        load_clip("openai/clip-vit-base-patch32")


@pytest.mark.parametrize(("name", "tag"), [("RN50", "openai"), ("hf-hub:org/model", None)])
def test_weights_that_cannot_be_downloaded_are_told_in_a_sentence(
    name: str, tag: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_network(*_: object, **__: object) -> str:
        raise OSError("no route to host")

    for download in ("download_pretrained", "download_pretrained_from_hf"):
        monkeypatch.setattr(f"open_clip.factory.{download}", no_network)
    with pytest.raises(InputError, match=rf"could not load .*{name}.*no route to host.*network once.*local file"):
        load_clip(name, pretrained=tag)
    assert caplog.records == []


def test_a_hub_model_whose_weights_cannot_be_downloaded_is_not_a_random_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_the_configuration(*_: object, **__: object) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr("open_clip.factory._get_hf_config", lambda *_, **__: {"model_cfg": CONFIG})
    monkeypatch.setattr("open_clip.factory.download_pretrained_from_hf", only_the_configuration)
    with pytest.raises(InputError, match=r"could not load model, weights or tokenizer of hf-hub:org/model"):
        load_clip("hf-hub:org/model")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize("device", ["cuda", "tpu", "cuda:7"])
def test_a_device_that_is_not_there_is_named(device: str, tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"Device '{device}' cannot be used here \(.+\): give cpu, or cuda"):
        load_clip(tiny.config, saved(tiny.state, tmp_path / "x.pt"), device=device)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", "{", r"a.json is not a readable model-config JSON \(Expecting"),
        ("b.json", None, r"b.json is not a readable model-config JSON \(.*No such file"),
        ("c.json", json.dumps({"embed_dim": 4}), "not an open_clip model configuration: it lacks vision_cfg, text_cfg"),
        ("RN50.json", json.dumps(CONFIG), r"open_clip has another model named 'RN50': rename .*RN50.json"),
    ],
)
def test_model_configurations_that_are_none(name: str, content: str | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=words):
        load_clip(tmp_path / name, "x.pt")


@pytest.mark.parametrize("change", [{"colour": 1}, {"vision_cfg": {"colour": 1}}])
def test_keys_that_open_clip_does_not_know_are_named(change: dict[str, object], tiny: Tiny, tmp_path: Path) -> None:
    path = tmp_path / f"circuitry-test-{'-'.join(change)}.json"
    path.write_text(json.dumps(CONFIG | change))
    with pytest.raises(InputError, match="colour"):
        load_clip(path, saved(tiny.state, tmp_path / "x.pt"))


def test_the_same_configuration_may_lie_in_two_places(tiny: Tiny, tmp_path: Path) -> None:
    copy = tmp_path / tiny.config.name
    copy.write_text(tiny.config.read_text())
    assert register_model(copy) == NAME
    copy.write_text(json.dumps(CONFIG | {"embed_dim": 8}))
    with pytest.raises(InputError, match=f"another model named '{NAME}'"):
        register_model(copy)
    copy.write_text(tiny.config.read_text())  # open_clip reads it again whenever a model is registered
