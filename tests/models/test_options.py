"""Options of command lines, and the weights that come with the package."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import open_clip
import pytest
import torch
import tyro

from circuitry import InputError, left_rule, load_clip
from circuitry.analysis import QuickstartModel
from circuitry.analysis.quickstart_settings import QUICKSTART_MODEL
from circuitry.bases import Transcoder
from circuitry.data.names import in_a_sentence
from circuitry.models import ModelOptions, read_checkpoint
from circuitry.models.open_clip_models import register_model
from circuitry.models.prompts import style_word, templates_of
from circuitry.models.shipped_weights import (
    SHIPPED_WEIGHTS,
    shipped_file,
    shipped_models,
    write_packed,
)
from circuitry.questions import ExtractionSettings
from experiments.drawn import draw_image
from experiments.drawn.drawing import STYLES, TOY_CLASSES
from tests.support.feature_bases import make_sae


@dataclass(frozen=True)
class Config(ExtractionSettings, ModelOptions):
    """Settings of a script."""


def read(*words: str) -> Config:
    return tyro.cli(Config, args=["--model", "RN50", "--data", "x", *words])


def test_text_becomes_rules_texts_and_names(tmp_path: Path) -> None:
    config = read()
    assert (config.rule, config.metric, config.texts, config.baseline) == (
        None,
        "logit",
        "pooled",
        None,
    )
    config = read(
        "--rule",
        "left-3",
        "--metric",
        "margin",
        "--texts",
        "own-style",
        "--baseline",
        "mean-unit",
    )
    assert (config.rule, config.resolved_edge_rule, config.metric) == (
        left_rule(3),
        left_rule(3),
        "margin",
    )
    assert (config.texts, config.baseline) == ("own-style", "mean-unit")
    assert read("--texts", "a {}.").texts == ("a {}.",)
    assert read("--texts", "a {}.", "the {}").texts == ("a {}.", "the {}")
    (tmp_path / "items.csv").write_text("path,thing\nreal/axe/0.png,7\n")
    assert read("--items", str(tmp_path / "items.csv"), "thing").items == {
        "real/axe/0.png": "7"
    }


def test_an_mlp_is_read_in_latents_beside_heads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(
        open_clip.create_model(register_model("vit-tiny")).state_dict(),
        tmp_path / "vit.pt",
    )
    options = ModelOptions(
        model="vit-tiny",
        checkpoint=tmp_path / "vit.pt",
        data=tmp_path,
        units="components",
    )
    width = options.clip().encoder.stages[-2].block.width
    sae = make_sae(width, factor=1, dtype=torch.float)
    weights = {
        name: getattr(sae, name) for name in ("w_enc", "b_enc", "w_dec", "b_dec")
    }
    transcoder = Transcoder(**weights, subtract_decoder_bias=False)
    transcoder.save(tmp_path / "a.safetensors")
    clip = replace(
        options, sae=(f"blocks.-1.hook_mlp_out={tmp_path}/a.safetensors",)
    ).clip()
    ((site, units),) = clip.encoder.error_units.items()
    assert (site, units) == (clip.encoder.sites[-2], range(width, 2 * width))
    assert site in clip.encoder.carried


def test_the_quickstarts_model_brings_its_weights_and_no_other_gets_them() -> None:
    assert QuickstartModel().clip().digest == load_clip("rn-tiny").digest
    with pytest.raises(InputError, match=r"'RN50' .*--checkpoint and --pretrained"):
        QuickstartModel(model="RN50").clip()


UNSEEN = 999_900
"""First seed of drawings that no model was trained on."""


@pytest.mark.parametrize("model", shipped_models())
def test_a_model_of_the_quickstart_recognises_new_drawings(model: str) -> None:
    clip = load_clip(model)
    seeds = range(UNSEEN, UNSEEN + 4)
    drawn = torch.stack(
        [
            clip.preprocess(draw_image(name, "real", seed))
            for name in TOY_CLASSES
            for seed in seeds
        ]
    )
    logits = clip.encoder(drawn) @ clip.text_weights(TOY_CLASSES).T
    right = (
        logits.argmax(1).view(len(TOY_CLASSES), -1)
        == torch.arange(len(TOY_CLASSES))[:, None]
    )
    assert right.float().mean() > 4 / len(TOY_CLASSES)  # guessing is right in one of 16


def test_packed_weights_lack_only_words_that_are_not_known(tmp_path: Path) -> None:
    model = open_clip.create_model(register_model(QUICKSTART_MODEL))
    known = model.state_dict()
    tokens = open_clip.get_tokenizer(QUICKSTART_MODEL)(["a photo of a fish"]).unique()
    write_packed(known, tokens, tmp_path / "x.safetensors", {"model": "x"})
    found = read_checkpoint(tmp_path / "x.safetensors")
    embedding, whole = (
        found.pop("token_embedding.weight"),
        known.pop("token_embedding.weight"),
    )
    assert found.keys() == known.keys()
    assert all(torch.equal(value, known[key]) for key, value in found.items())
    assert embedding.shape == whole.shape
    assert torch.equal(embedding[tokens], whole[tokens])
    assert (embedding.abs().sum(1) > 0).sum() == len(tokens)
    assert (tmp_path / "x.safetensors").stat().st_size < 5e6


@pytest.mark.parametrize("model", shipped_models())
def test_words_that_a_shipped_model_does_not_know_are_named(
    model: str, tmp_path: Path
) -> None:
    clip = load_clip(model)
    for names, templates, unknown in (
        (["cat", "cup", "alarm clock"], None, "'cat', 'alarm', "),
        (["cup", "pink clock"], ["a {}."], "'pink', "),
        (["cup", "clock"], ["a {}, which I like"], "',', 'which', 'I', 'like', "),
    ):
        with pytest.raises(
            InputError,
            match=f"{model}.* of {unknown}.*{', '.join(map(in_a_sentence, TOY_CLASSES))}",
        ):
            clip.text_weights(names, templates, cache_dir=tmp_path)


def test_the_words_of_domains_are_known_to_the_shipped_models(tmp_path: Path) -> None:
    clip = load_clip(QUICKSTART_MODEL)
    for domain in STYLES:
        clip.text_weights(
            TOY_CLASSES, templates_of("own-style", domain), cache_dir=tmp_path
        )
        clip.text_weights([style_word(domain)], ["{}"], cache_dir=tmp_path)


def test_weights_unlike_their_description_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(SHIPPED_WEIGHTS, tmp_path / "weights")
    monkeypatch.setattr("circuitry.models.shipped_weights.SHIPPED_WEIGHTS", folder)
    assert shipped_file(QUICKSTART_MODEL) == folder / f"{QUICKSTART_MODEL}.safetensors"
    with open(folder / f"{QUICKSTART_MODEL}.safetensors", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    with pytest.raises(InputError, match=r"rn-tiny\.safetensors.*install"):
        shipped_file(QUICKSTART_MODEL)
