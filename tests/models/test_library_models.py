"""Models of transformers, timm and torchvision by one call, against the models themselves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
import transformers as hf
from PIL import Image
from sklearn.linear_model import RidgeClassifierCV
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from circuitry import Clip, DomainFolder, Encoder, InputError, attribute, class_logit, load_classifier, load_clip
from circuitry.models import Classifier, ModelOptions, linear_probe, read_images
from circuitry.models.ridge import PENALTIES
from tests.support.assert_same import assert_same
from tests.support.library_towers import library_tower, save_model

SENTENCES = ["a photo of a cat.", "a photo of a dog."]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of some models as save_pretrained writes them."""
    root = tmp_path_factory.mktemp("models")
    for name in ("clip", "siglip", "dinov2", "dinov2-classifier", "vit-classifier"):
        save_model(library_tower(name)[0], root / name)
    return root


def picture(clip: Clip) -> Tensor:
    return clip.preprocess(Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)))[None]


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_texts_and_logits_are_the_models_own(saved: Path, name: str) -> None:
    clip, model = load_clip(saved / name), library_tower(name)[0]
    images = picture(clip)
    tokenizer: Any = hf.AutoTokenizer.from_pretrained(saved / name)
    tokens = tokenizer(SENTENCES, padding="max_length", max_length=12, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        own = model(input_ids=tokens, pixel_values=images)
        weights = clip.text_weights(["cat", "dog"], templates=["a photo of a {}."])
        assert_same(weights, F.normalize(own.text_embeds, dim=-1), at_least=0.1)
        found = clip.pair_logits(clip.encoder(images), weights)
    assert_same(found, own.logits_per_image, at_least=0.01)


def test_images_pass_the_models_own_processor(saved: Path) -> None:
    clip = load_clip(saved / "dinov2")
    processor: Any = hf.AutoImageProcessor.from_pretrained(saved / "dinov2")
    image = Image.new("RGB", (50, 40), (10, 200, 30))
    assert torch.equal(clip.preprocess(image), processor(images=image, return_tensors="pt")["pixel_values"][0])
    assert clip.shown(clip.preprocess(image)[None])[0, 5, 5].tolist() == [10, 200, 30]


def test_an_image_size_of_the_processor_goes_before_that_of_the_configuration(tmp_path: Path) -> None:
    model, own = library_tower("dinov2")
    clip = load_clip(save_model(model, tmp_path, hf.ViTImageProcessor(size={"height": 48, "width": 48})))
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
    assert_same(clip.with_classes({"cat": [3]}).text_weights(["cat"]), rows[3:4], at_least=0.1)


def test_a_model_in_memory_is_not_changed(saved: Path) -> None:
    model: Any = hf.ViTForImageClassification.from_pretrained(saved / "vit-classifier")
    clip = load_clip(model)
    assert clip.digest != load_clip(saved / "clip").digest
    assert isinstance(model.classifier, torch.nn.Linear)
    images = picture(clip)
    assert isinstance(clip, Classifier)
    with torch.no_grad():
        assert_same(clip.logits(clip.encoder(images)), model.eval()(images).logits, at_least=0.01)


def test_a_digest_names_the_weights_and_the_preprocessing(saved: Path, tmp_path: Path) -> None:
    model = library_tower("dinov2")[0]
    same = save_model(model, tmp_path / "same")
    other = save_model(model, tmp_path / "other", hf.ViTImageProcessor(size={"height": 32, "width": 32}))
    digests = [load_clip(folder).digest for folder in (saved / "dinov2", same, other)]
    assert digests[0] == digests[1] != digests[2]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of three classes, each of a colour."""
    root, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for i, name in enumerate(("cat", "dog", "fox")):
        (folder := root / "photo" / name).mkdir(parents=True)
        for j in range(4):
            pixels = random.integers(0, 255, (32, 32, 3), np.uint8)
            pixels[..., i] = 255
            Image.fromarray(pixels).save(folder / f"{j}.png")
    return root


@pytest.mark.parametrize("classes", [("cat", "dog"), ("cat", "dog", "fox")])
def test_a_linear_probe_stands_in_for_texts(saved: Path, pictures: Path, classes: tuple[str, ...]) -> None:
    clip = load_clip(saved / "dinov2")
    records, images = read_images(clip, DomainFolder(pictures, classes=classes).records)
    with pytest.raises(InputError, match="linear_probe"):
        clip.text_weights(["cat"])
    probed = linear_probe(clip, records)
    with torch.no_grad():
        embeddings = clip.encoder(images)
    x, y = embeddings.double().numpy(), [record.class_name for record in records]
    scaled = StandardScaler().fit_transform(x)
    expected = RidgeClassifierCV(PENALTIES, class_weight="balanced").fit(scaled, y).decision_function(scaled)
    expected = np.stack([-expected, expected], 1) if len(classes) == 2 else expected
    assert_same(probed.logits(embeddings), expected, at_least=0.1, rtol=1e-4)
    weights = probed.text_weights(list(classes))
    assert_same(weights, F.normalize(probed.rows, dim=-1), at_least=0.1)
    graph = attribute(probed.encoder, images[:1], class_logit(weights, 0), sites=["layernorm"], progress=False)
    assert graph.completeness["layernorm"].gap < 0.1


def test_scripts_load_them_by_their_options(saved: Path, pictures: Path) -> None:
    probed = ModelOptions(model=str(saved / "dinov2"), data=pictures, split=None).clip
    with pytest.raises(InputError, match="linear_probe"):
        probed().text_weights(["cat"])
    options = ModelOptions(model=str(saved / "dinov2"), data=pictures, probe="test")
    clip = options.clip()
    assert isinstance(clip, Classifier)
    assert sorted(clip.classes) == ["cat", "dog", "fox"]


@pytest.mark.parametrize("name", ["timm:mobilenetv3_small_050", "torchvision:mobilenet_v3_small"])
def test_networks_of_timm_and_torchvision_load_from_a_file(name: str, tmp_path: Path) -> None:
    library, _, own_name = name.partition(":")
    torch.manual_seed(0)
    net: Any = timm.create_model(own_name) if library == "timm" else torchvision.models.get_model(own_name)
    torch.save(net.eval().state_dict(), tmp_path / "x.pt")
    clip = load_classifier(name, tmp_path / "x.pt", classes={"cat": [3]})
    images = picture(clip)
    assert images.shape == (1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(clip.logits(clip.encoder(images)), net(images))
    plain = clip.preprocess(Image.new("RGB", (256, 256), (10, 200, 30)))
    assert clip.shown(plain[None])[0, 9, 9].tolist() == [10, 200, 30]


def bert(folder: Path) -> Path:
    hf.BertConfig().save_pretrained(folder)
    return folder


def naflex(folder: Path) -> Path:
    hf.Siglip2Config().save_pretrained(folder)
    return folder


def without(name: str, kind: str = "dinov2") -> Any:
    def make(folder: Path) -> Path:
        (save_model(library_tower(kind)[0], folder) / name).unlink()
        return folder

    return make


def lacking(folder: Path) -> Path:
    """A vision tower alone that says it is a whole model."""
    save_model(library_tower("clip-projected")[0], folder)
    about = json.loads((folder / "config.json").read_text())
    about = hf.CLIPConfig(vision_config=about, projection_dim=16).to_dict() | {"architectures": ["CLIPModel"]}
    (folder / "config.json").write_text(json.dumps(about))
    return folder


def uncut(folder: Path) -> Path:
    processor = hf.CLIPImageProcessor(size={"shortest_edge": 32}, do_center_crop=False)
    return save_model(library_tower("dinov2")[0], folder, processor)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (bert, r"'bert'"),
        (naflex, "NaFlex"),
        (without("config.json"), "no config.json"),
        (without("preprocessor_config.json"), "image processor"),
        (without("model.safetensors"), "weights"),
        (lacking, "CLIPModel.*missing"),
        (uncut, r"\[3, 32, 48\].*\[3, 48, 32\]"),
    ],
)
def test_folders_that_are_no_vision_model_are_refused(make: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        load_clip(make(tmp_path))


def test_a_hub_that_cannot_be_reached_and_models_from_nowhere_are_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, saved: Path
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(hf.AutoConfig, "from_pretrained", no_network)
    with pytest.raises(InputError, match=r"'org/model'.*no route to host"):
        load_clip("org/model")
    monkeypatch.undo()
    with pytest.raises(InputError, match="CLIPModel was made from a configuration"):
        load_clip(library_tower("clip")[0])
    with pytest.raises(InputError, match="Linear"):
        load_clip(torch.nn.Linear(1, 1))
    with pytest.raises(InputError, match="own weights"):
        load_clip(saved / "clip", "x.pt")
    dino = load_clip(saved / "dinov2")
    with pytest.raises(InputError, match="no scale"):
        dino.pair_logits(torch.zeros(1, 32), torch.zeros(1, 32))


@pytest.mark.parametrize(
    ("name", "tag", "words"),
    [
        ("timm:resnet5", "a1_in1k", "resnet50"),
        ("timm:resnet50", "no-tag", "a1_in1k"),
        ("torchvision:resnet5", "DEFAULT", "resnet50"),
        ("torchvision:resnet50", "no-tag", "IMAGENET1K_V2"),
        ("keras:resnet50", "x", "keras:resnet50"),
    ],
)
def test_unknown_networks_and_tags_are_refused_with_those_that_come_near(name: str, tag: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_classifier(name, pretrained=tag)


def test_a_text_model_and_one_with_other_inputs_are_no_towers() -> None:
    config = hf.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9)
    with pytest.raises(InputError, match=r"CLIP, SigLIP, DINOv2.*'bert'"):
        Encoder.from_tower(hf.BertModel(config))
    vision = hf.Siglip2VisionConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    with pytest.raises(InputError, match="NaFlex"):
        Encoder.from_tower(hf.Siglip2VisionModel(vision))
