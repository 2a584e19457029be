"""Names that are not there, or that belong to other libraries: what is said of them."""

import re
import subprocess
import sys

import pytest
import torch

import circuitry
from circuitry import Clip, InputError, attribute, load_clip
from circuitry.questions import ExtractionSettings

MEANT = {
    "own_prat": "own_part",
    "atribute": "attribute",
    "Clipp": "Clip",
    "direct_effects": "circuitry.circuits.direct_effects",
    "from_pretrained": "load_clip",
    "list_models": "load_clip",
}


@pytest.mark.parametrize("name", MEANT)
def test_a_module_says_which_name_is_meant(name: str) -> None:
    with pytest.raises(AttributeError, match=rf"'{name}'.*{MEANT[name]}"):
        getattr(circuitry, name)
    assert not hasattr(circuitry, name)


def test_an_import_says_which_name_is_meant() -> None:
    """In a fresh process, where calls are not checked: how a name is asked for is seen by who asks."""
    lines = [
        f"try:\n    from circuitry import {name}\nexcept ImportError as error:\n    print(error)"
        for name in MEANT
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        capture_output=True,
        text=True,
        check=True,
    )
    for told, (name, meant) in zip(
        done.stdout.splitlines(), MEANT.items(), strict=True
    ):
        assert re.search(rf"'{name}'.*{meant}", told)


def test_names_of_python_itself_are_just_not_there() -> None:
    with pytest.raises(AttributeError, match="__wrapped__") as told:
        getattr(circuitry, "__wrapped__")  # noqa: B009
    assert "meant" not in str(told.value)


def test_the_products_own_question_is_asked_at_the_top() -> None:
    from circuitry import lesion, own_part

    assert {"lesion", "own_part"} <= set(dir(circuitry))
    assert lesion is circuitry.interventions.lesion
    assert own_part is circuitry.circuits.own_part


def test_a_model_says_what_loads_it_and_what_it_is_asked_by() -> None:
    with pytest.raises(InputError, match="load_clip"):
        Clip.from_pretrained("ViT-B-32")
    clip = load_clip("rn-tiny")
    with pytest.raises(InputError, match=r"clip\.encoder\(images\)"):
        clip(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ViT-B/32", "ViT-B-32"),
        ("ViT-L/14@336px", "ViT-L-14-336"),
        ("ViT-B/16", "ViT-B-16"),
    ],
)
def test_openais_spelling_is_told_before_any_network(
    name: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "circuitry.models.loading.load_transformers",
        lambda *_: pytest.fail("asks the network"),
    )
    with pytest.raises(
        InputError, match=rf"'{name}'.*perhaps you meant {meant}.*pretrained='openai'"
    ):
        load_clip(name)


def test_an_argument_that_was_renamed_is_told_by_its_new_name() -> None:
    with pytest.raises(InputError, match=r"'node_fraction'.*perhaps you meant size="):
        attribute(node_fraction=0.1)  # type: ignore[call-arg]
    with pytest.raises(InputError, match=r"'parts'.*perhaps you meant folds="):
        ExtractionSettings(parts=4)  # type: ignore[call-arg]
    with pytest.raises(InputError, match="perhaps you meant encoder="):
        attribute(enocder=None)  # type: ignore[call-arg]
