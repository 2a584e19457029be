"""Models of transformers, timm and torchvision by one call, against the models themselves."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
import transformers as hf
from open_clip.tokenizer import HFTokenizer
from PIL import Image
from sklearn.linear_model import RidgeClassifierCV
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from circuitry import (
    Clip,
    DomainFolder,
    Encoder,
    InputError,
    attribute,
    class_logit,
    load_classifier,
    load_clip,
)
from circuitry.models import Classifier, ModelOptions, linear_probe, read_images
from circuitry.models.ridge import PENALTIES
from tests.support.assert_same import assert_same
from tests.support.library_towers import library_tower, save_model
from tests.support.work import AS_STUDIED

SENTENCES = ["a photo of a cat.", "a photo of a dog."]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for name in ("clip", "siglip", "dinov2", "dinov2-classifier", "vit-classifier"):
        save_model(library_tower(name)[0], root / name)
    return root


def picture(clip: Clip) -> Tensor:
    return clip.preprocess(
        Image.fromarray(
            np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
        )
    )[None]


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_texts_and_logits_are_the_models_own(saved: Path, name: str) -> None:
    clip, model = load_clip(saved / name), library_tower(name)[0]
    images = picture(clip)
    tokenizer: Any = hf.AutoTokenizer.from_pretrained(saved / name)
    tokens = tokenizer(
        SENTENCES, padding="max_length", max_length=12, return_tensors="pt"
    )["input_ids"]
    with torch.no_grad():
        own = model(input_ids=tokens, pixel_values=images)
        weights = clip.text_weights(["cat", "dog"], templates=["a photo of a {}."])
        assert_same(weights, F.normalize(own.text_embeds, dim=-1), at_least=0.1)
        found = clip.pair_logits(clip.encoder(images), weights)
    assert_same(found, own.logits_per_image, at_least=0.01)


def test_a_folder_without_its_tokenizer_says_so(tmp_path: Path) -> None:
    """As of a CLIP of which the model and its processor were saved alone."""
    model = library_tower("clip")[0]
    save_model(model, tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (tmp_path / name).unlink(missing_ok=True)
    clip = load_clip(tmp_path)
    assert len(clip.encoder(picture(clip)))
    with pytest.raises(
        InputError,
        match=rf"tokenizer, but the folder {tmp_path} has none \(.*tokenizer.json",
    ):
        clip.text_weights(["cat", "dog"])


_ENDS = {"bos_token": "<start>", "eos_token": "<end>", "cls_token": "<unk>"}


@pytest.mark.parametrize(
    ("made", "most"),
    # An end that pads, as SigLIP's, and one behind a token of the class.
    [(None, 9), ({"pad_token": "<end>"}, 9), ({**_ENDS, "tokenizer_mode": "clips"}, 8)],
)
def test_prompts_that_a_tokenizer_would_cut_are_refused(
    made: dict[str, str] | None, most: int, saved: Path
) -> None:
    clip = load_clip(saved / "clip")
    if made is not None:
        clip = replace(clip, tokenizer=HFTokenizer(str(saved / "clip"), 12, **made))
    full = clip.text_weights(["cat", "dog"], [f"{'a ' * most}{{}}"])
    assert not torch.allclose(full[0], full[1], atol=1e-3)
    with pytest.raises(InputError, match=r"12 tokens.*'a a a .*cat'"):
        clip.text_weights(["cat", "dog"], [f"{'a ' * (most + 1)}{{}}"])


def test_images_pass_the_models_own_processor(saved: Path) -> None:
    clip = load_clip(saved / "dinov2")
    processor: Any = hf.AutoImageProcessor.from_pretrained(saved / "dinov2")
    image = Image.new("RGB", (50, 40), (10, 200, 30))
    assert torch.equal(
        clip.preprocess(image),
        processor(images=image, return_tensors="pt")["pixel_values"][0],
    )
    assert clip.shown(clip.preprocess(image)[None])[0, 5, 5].tolist() == [10, 200, 30]


def test_an_image_size_of_the_processor_goes_before_that_of_the_configuration(
    tmp_path: Path,
) -> None:
    model, own = library_tower("dinov2")
    clip = load_clip(
        save_model(
            model, tmp_path, hf.ViTImageProcessor(size={"height": 48, "width": 48})
        )
    )
    images = torch.randn(1, 3, 48, 48)
    assert clip.encoder.image_size == (48, 48)
    with torch.no_grad():
        assert torch.equal(clip.encoder(images), own(images))


@pytest.mark.parametrize("name", ["vit-classifier", "dinov2-classifier"])
def test_rows_of_a_classifier_replace_texts(saved: Path, name: str) -> None:
    clip, (model, own) = load_clip(saved / name), library_tower(name)
    assert isinstance(clip, Classifier)
    images = picture(clip)
    with torch.no_grad():
        assert_same(clip.logits(clip.encoder(images)), own(images), at_least=0.01)
    rows = F.normalize(model.classifier.weight, dim=-1)
    assert_same(clip.text_weights(["LABEL_3"]), rows[3:4], at_least=0.1)
    assert_same(
        clip.with_classes({"cat": [3]}).text_weights(["cat"]), rows[3:4], at_least=0.1
    )


def test_labels_that_are_equal_are_told_apart_by_their_numbers(tmp_path: Path) -> None:
    model, _ = library_tower("vit-classifier")
    model.config.id2label = {0: "crane", 1: "fox", 2: "crane", 3: "dog", 4: "cat"}
    clip = load_clip(save_model(model, tmp_path))
    assert isinstance(clip, Classifier)
    assert clip.classes == {
        "crane (0)": (0,),
        "fox": (1,),
        "crane (2)": (2,),
        "dog": (3,),
        "cat": (4,),
    }
    with pytest.raises(InputError, match="'crane'"):
        clip.text_weights(["crane"])


def test_the_digest_of_texts_names_no_weights_that_see_images(
    saved: Path, tmp_path: Path
) -> None:
    clip = load_clip(saved / "clip")
    model: Any = clip.model

    def files_after(changed: Tensor) -> int:
        changed.mul_(2)
        clip.text_weights(["cat"], cache_dir=tmp_path)
        return len(list(tmp_path.iterdir()))

    weights = (
        model.vision_model.post_layernorm.weight,
        model.visual_projection.weight,
        model.text_projection.weight,
    )
    assert [files_after(weight) for weight in weights] == [1, 1, 2]


def test_a_model_in_memory_is_not_changed(saved: Path) -> None:
    model: Any = hf.ViTForImageClassification.from_pretrained(
        saved / "vit-classifier"
    ).train()
    clip = load_clip(model)
    assert model.training
    assert all(weight.requires_grad for weight in model.parameters())
    assert clip.digest != load_clip(saved / "clip").digest
    assert isinstance(model.classifier, torch.nn.Linear)
    images = picture(clip)
    assert isinstance(clip, Classifier)
    with torch.no_grad():
        assert_same(
            clip.logits(clip.encoder(images)),
            model.eval()(images).logits,
            at_least=0.01,
        )


def test_a_digest_names_neither_the_place_of_a_model_nor_what_saves_memory(
    saved: Path, tmp_path: Path
) -> None:
    model: Any = hf.Dinov2Model.from_pretrained(saved / "dinov2")
    moved: Any = hf.Dinov2Model.from_pretrained(save_model(model, tmp_path))
    getattr(
        moved, "activation_checkpointing_enable", moved.gradient_checkpointing_enable
    )()  # by its newer name
    assert model.name_or_path != moved.name_or_path
    assert (
        Encoder.from_tower(model).identity.key == Encoder.from_tower(moved).identity.key
    )


def test_a_folder_hides_the_model_of_its_name(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "RN50"
    folder.mkdir()
    with pytest.raises(InputError, match=r"missing\.pt"):
        load_clip("RN50", "missing.pt")
    for name, words in (("./RN50", "config.json"), ("RN50", "pretrained")):
        with pytest.raises(InputError, match=words):
            load_clip(name)
    shutil.copytree(saved / "dinov2", folder, dirs_exist_ok=True)
    assert (
        load_clip("RN50").encoder.identity.key
        == load_clip(saved / "dinov2").encoder.identity.key
    )


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for i, name in enumerate(("cat", "dog", "fox")):
        (folder := root / "photo" / name).mkdir(parents=True)
        for j in range(4):
            pixels = random.integers(0, 255, (32, 32, 3), np.uint8)
            pixels[..., i] = 255
            Image.fromarray(pixels).save(folder / f"{j}.png")
    return root


@pytest.mark.parametrize("classes", [("cat", "dog"), ("cat", "dog", "fox")])
def test_a_linear_probe_stands_in_for_texts(
    saved: Path, pictures: Path, classes: tuple[str, ...], tmp_path: Path
) -> None:
    clip = load_clip(saved / "dinov2")
    records, images = read_images(clip, DomainFolder(pictures, classes=classes).records)
    with pytest.raises(InputError, match="linear_probe"):
        clip.text_weights(["cat"])
    probed = linear_probe(clip, records)
    with torch.no_grad():
        embeddings = clip.encoder(images)
    x, y = embeddings.double().numpy(), [record.class_name for record in records]
    scaled = StandardScaler().fit_transform(x)
    expected = (
        RidgeClassifierCV(PENALTIES, class_weight="balanced")
        .fit(scaled, y)
        .decision_function(scaled)
    )
    expected = np.stack([-expected, expected], 1) if len(classes) == 2 else expected
    assert_same(probed.logits(embeddings), expected, at_least=0.1, rtol=1e-4)
    weights = probed.text_weights(list(classes))
    assert_same(weights, F.normalize(probed.rows, dim=-1), at_least=0.1)
    assert probed.digest == probed.with_classes(probed.classes).digest
    assert probed.digest != probed.with_classes({"cat": [1], "dog": [0]}).digest
    copies = tmp_path / "photo" / "cat"
    copies.mkdir(parents=True)
    for record in records[:1]:
        Image.open(record.path).save(
            copies / "copy.png", compress_level=0
        )  # other bytes, and another name
    assert (copies / "copy.png").read_bytes() != records[0].path.read_bytes()
    Image.new("RGB", (32, 32), (9, 9, 9)).save(copies / "other.png")
    found = DomainFolder(tmp_path).records
    with pytest.raises(
        InputError, match=r"fitted on the pixels of .*copy.png, and of 1 of 2 images"
    ):
        read_images(probed, found)
    assert len(read_images(probed, found[1:])[0]) == 1
    assert len(read_images(clip, found)[0]) == 2
    metric = class_logit(weights, 0)
    graph = attribute(
        probed.encoder,
        images[:1],
        metric,
        sites=["layernorm"],
        progress=False,
        **AS_STUDIED,
    )
    assert graph.completeness["layernorm"].gap < 0.1


def test_scripts_load_them_by_their_options(
    saved: Path, pictures: Path, tmp_path: Path
) -> None:
    options = ModelOptions(model=str(saved / "dinov2"), data=pictures)
    with pytest.raises(InputError, match="linear_probe"):
        options.clip().text_weights(["cat"])
    shutil.copytree(pictures, tmp_path, dirs_exist_ok=True)
    for split, numbers in {"train": (0, 1), "more": (1, 2), "test": (2, 3)}.items():
        lines = [
            f"photo/{name}/{j}.png {i}"
            for i, name in enumerate(("cat", "dog", "fox"))
            for j in numbers
        ]
        (tmp_path / f"photo_{split}.txt").write_text("\n".join(lines))
    listed = replace(options, data=tmp_path)
    for probe, count in (("more", 3), ("test", 6)):
        with pytest.raises(
            InputError, match=f"--probe {probe}.*--split test.* {count} images"
        ):
            replace(listed, probe=probe).clip()
    clip = replace(listed, probe="train").clip()
    assert isinstance(clip, Classifier)
    expected = linear_probe(
        load_clip(saved / "dinov2"), DomainFolder(tmp_path, split="train").records
    )
    assert torch.equal(clip.rows, expected.rows)
    assert sorted(clip.classes) == ["cat", "dog", "fox"]


@pytest.mark.parametrize(
    "name", ["timm:mobilenetv3_small_050", "torchvision:mobilenet_v3_small"]
)
def test_networks_of_timm_and_torchvision_load_from_a_file(
    name: str, tmp_path: Path
) -> None:
    library, _, own_name = name.partition(":")
    torch.manual_seed(0)
    net: Any = (
        timm.create_model(own_name)
        if library == "timm"
        else torchvision.models.get_model(own_name)
    )
    torch.save(net.eval().state_dict(), tmp_path / "x.pt")
    clip = load_classifier(name, tmp_path / "x.pt", classes={"cat": [3]})
    images = picture(clip)
    assert images.shape == (1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(clip.logits(clip.encoder(images)), net(images))
    plain = clip.preprocess(Image.new("RGB", (256, 256), (10, 200, 30)))
    assert clip.shown(plain[None])[0, 9, 9].tolist() == [10, 200, 30]


def test_pictures_are_cut_for_a_network_of_timm_as_timm_cuts_them(
    tmp_path: Path,
) -> None:
    net: Any = timm.create_model("mobilenetv3_small_050")
    torch.save(net.state_dict(), tmp_path / "x.pt")
    clip = load_classifier("timm:mobilenetv3_small_050", tmp_path / "x.pt")
    picture = Image.fromarray(
        np.random.default_rng(0).integers(0, 255, (300, 450, 3), np.uint8)
    )
    small = picture.resize((384, 256), Image.Resampling.BICUBIC).crop(
        (80, 16, 304, 240)
    )  # 224 is 0.875 of 256
    expected = (np.asarray(small) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert_same(
        clip.preprocess(picture), expected.transpose(2, 0, 1), at_least=1, rtol=1e-5
    )
    assert np.array_equal(
        clip.shown(clip.preprocess(picture)[None])[0], np.asarray(small)
    )


def configured(config: Any) -> Callable[[Path, Path], object]:
    return lambda _, folder: (config.save_pretrained(folder), load_clip(folder))


def without(name: str) -> Callable[[Path, Path], object]:
    return lambda saved, folder: load_clip(
        shutil.copytree(saved / "dinov2", folder / "x", ignore=lambda *_: [name])
    )


def lacking(folder: Path) -> Path:
    """A vision tower alone that says it is a whole model."""
    save_model(library_tower("clip-projected")[0], folder)
    about = json.loads((folder / "config.json").read_text())
    about = hf.CLIPConfig(vision_config=about, projection_dim=16).to_dict() | {
        "architectures": ["CLIPModel"]
    }
    (folder / "config.json").write_text(json.dumps(about))
    return folder


def uncut(folder: Path) -> Path:
    processor = hf.CLIPImageProcessor(size={"shortest_edge": 32}, do_center_crop=False)
    return save_model(library_tower("dinov2")[0], folder, processor)


def unreachable(name: str, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            hf.AutoConfig,
            "from_pretrained",
            lambda *_, **__: (folder / "no route to host").read_text(),
        )
        load_clip(name)


def network(name: str, tag: str) -> Callable[[Path, Path], object]:
    return lambda *_: load_classifier(name, pretrained=tag)


REFUSED: tuple[tuple[Callable[[Path, Path], object], str], ...] = (
    (configured(hf.BertConfig()), r"CLIP, SigLIP, DINOv2.*'bert'"),
    (configured(hf.Siglip2Config()), "NaFlex"),
    (without("config.json"), "no config.json"),
    (without("preprocessor_config.json"), "image processor"),
    (without("model.safetensors"), "weights"),
    (lambda _, folder: load_clip(lacking(folder)), "CLIPModel.*missing"),
    (lambda _, folder: load_clip(uncut(folder)), r"\[3, 32, 48\].*\[3, 48, 32\]"),
    (
        lambda _, folder: unreachable("org/model", folder),
        r"'org/model'.*no route to host",
    ),
    (
        lambda *_: load_clip(library_tower("clip")[0]),
        "CLIPModel was made from a configuration",
    ),
    (lambda *_: load_clip(torch.nn.Linear(1, 1)), "Linear"),
    (lambda saved, _: load_clip(saved / "clip", "x.pt"), "own weights"),
    (
        lambda saved, _: load_clip(saved / "dinov2").pair_logits(
            torch.zeros(1, 32), torch.zeros(1, 32)
        ),
        "no scale",
    ),
    (network("timm:resnet5", "a1_in1k"), "resnet50"),
    (network("timm:resnet50", "no-tag"), "a1_in1k"),
    (
        network("torchvision:fasterrcnn_resnet50_fpn", "no-tag"),
        "classifier .*'fasterrcnn_resnet50_fpn'",
    ),
    (network("keras:resnet50", "x"), "keras:resnet50"),
)


@pytest.mark.parametrize(("call", "words"), REFUSED)
def test_refusals(
    call: Callable[[Path, Path], object], words: str, saved: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        call(saved, tmp_path)
