"""Options of command lines, and their values made from text."""

from dataclasses import dataclass, replace
from pathlib import Path

import open_clip
import pytest
import torch
import tyro

from circuitry import InputError, left_rule, load_clip
from circuitry.analysis import QuickstartModel
from circuitry.bases import Transcoder
from circuitry.circuits import ExtractionSettings
from circuitry.models import ModelOptions
from circuitry.models.architectures import register_model
from tests.support.feature_bases import make_sae


@dataclass(frozen=True)
class Config(ExtractionSettings, ModelOptions):
    """Settings of a script."""


def read(*words: str) -> Config:
    return tyro.cli(Config, args=["--model", "RN50", "--data", "x", *words])


def test_text_becomes_rules_texts_and_names(tmp_path: Path) -> None:
    config = read()
    assert (config.rule, config.metric, config.texts, config.baseline) == (None, "logit", "pooled", None)
    config = read("--rule", "left-3", "--metric", "margin", "--texts", "own-style", "--baseline", "mean-unit")
    assert (config.rule, config.resolved_edge_rule, config.metric) == (left_rule(3), left_rule(3), "margin")
    assert (config.texts, config.baseline) == ("own-style", "mean-unit")
    assert read("--texts", "a {}.").texts == ("a {}.",)
    assert read("--texts", "a {}.", "the {}").texts == ("a {}.", "the {}")
    (tmp_path / "items.csv").write_text("path,thing\nreal/axe/0.png,7\n")
    assert read("--items", str(tmp_path / "items.csv"), "thing").items == {"real/axe/0.png": "7"}


@pytest.mark.parametrize("words", [("--metric", "loss"), ("--baseline", "one"), ("--rule", "x")])
def test_words_that_are_not_known_are_refused(words: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((SystemExit, InputError)) as caught:
        read(*words)
    assert words[1] in capsys.readouterr().err + str(caught.value)


def test_an_mlp_is_read_in_latents_beside_heads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(open_clip.create_model(register_model("vit-tiny")).state_dict(), tmp_path / "vit.pt")
    options = ModelOptions(model="vit-tiny", checkpoint=tmp_path / "vit.pt", data=tmp_path, units="components")
    width = options.clip().encoder.stages[-2].block.width
    sae = make_sae(width, factor=1, dtype=torch.float)
    weights = {name: getattr(sae, name) for name in ("w_enc", "b_enc", "w_dec", "b_dec")}
    transcoder = Transcoder(**weights, subtract_decoder_bias=False)
    transcoder.save(tmp_path / "a.safetensors")
    clip = replace(options, sae=(f"blocks.-1.hook_mlp_out={tmp_path}/a.safetensors",)).clip()
    ((site, units),) = clip.encoder.error_units.items()
    assert (site, units) == (clip.encoder.sites[-2], range(width, 2 * width))
    assert site in clip.encoder.carried


def test_the_quickstarts_model_brings_its_weights_and_no_other_gets_them() -> None:
    assert QuickstartModel().clip().digest == load_clip("rn-tiny").digest
    with pytest.raises(InputError, match=r"'RN50' .*--checkpoint and --pretrained"):
        QuickstartModel(model="RN50").clip()
