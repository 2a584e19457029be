"""What scripts have in common."""

from pathlib import Path

import pytest

from circuitry.circuits import CircuitSettings
from circuitry.models import MetricSettings, ModelSettings
from circuitry.models.settings import QUICKSTART_CHECKPOINT
from circuitry.runs import InputError


def test_the_quickstarts_checkpoint_goes_with_its_model_alone() -> None:
    assert ModelSettings().weights_file == QUICKSTART_CHECKPOINT
    assert ModelSettings(model="RN50").weights_file is None
    assert ModelSettings(pretrained="openai").weights_file is None
    assert ModelSettings(model="RN50", checkpoint=Path("x.pt")).weights_file == Path("x.pt")


def test_a_tag_alone_needs_no_checkpoint_option() -> None:
    with pytest.raises(InputError, match="open_clip has no weights 'x' for RN50; its tags are"):
        ModelSettings(model="RN50", pretrained="x").clip()
    with pytest.raises(InputError, match=r"'RN50' needs either .* neither was given: .* --checkpoint and --pretrained"):
        ModelSettings(model="RN50").clip()


def test_texts_are_a_name_or_templates() -> None:
    assert MetricSettings().class_texts == "pooled"
    assert MetricSettings(texts=("own-style",)).class_texts == "own-style"
    assert MetricSettings(texts=("a {}.",)).class_texts == ("a {}.",)
    assert MetricSettings(texts=("a {}.", "the {}")).class_texts == ("a {}.", "the {}")


def test_circuit_settings_are_those_of_an_attribution() -> None:
    made = CircuitSettings(node_fraction=0.2, rule="left-3", sites=("act1", "act2")).attribution("mean-unit")
    assert made.as_dict() == {
        "node_fraction": 0.2,
        "node_rule": "left-3",
        "edge_rule": "left-3",
        "baseline": "mean-unit",
        "autocast": None,
    }
    assert made.sites == ("act1", "act2")
    assert CircuitSettings.study().attribution().as_dict()["node_rule"] == "left-10"
    assert CircuitSettings(rule_error=0.2).attribution().rule_error == 0.2
    assert CircuitSettings(edge_rule="midpoint-1").attribution().as_dict()["edge_rule"] == "midpoint-1"
