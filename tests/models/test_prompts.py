"""Prompts as the study has them."""

import open_clip
import pytest

from circuitry.data.names import in_a_sentence
from circuitry.models import default_templates
from circuitry.models.prompts import imagenet_names, style_word_templates, templates_of
from circuitry.runs import InputError


def test_style_templates_are_the_ten_of_the_study() -> None:
    assert len(default_templates()) == 86
    assert set(style_word_templates()) == {
        f"{article} {word} of {of} {{}}."
        for word, article in (
            ("clipart", "a"),
            ("infograph", "an"),
            ("painting", "a"),
            ("quickdraw", "a"),
            ("sketch", "a"),
        )
        for of in ("a", "the")
    }


def test_hyphens_stay_in_prompts() -> None:
    assert in_a_sentence("ice_cream") == "ice cream"
    assert in_a_sentence("t-shirt") == "t-shirt"
    assert in_a_sentence("_black-and-white__colobus ") == "black-and-white colobus"


def test_own_style_names_the_domain_and_other_names_are_refused() -> None:
    assert templates_of("own-style", "quickdraw") == ("a quickdraw of a {}.", "a quickdraw of the {}.")
    with pytest.raises(InputError, match="the string 'own style' was given"):
        templates_of("own style", "quickdraw")


def test_four_names_of_imagenet_are_others_in_the_study() -> None:
    ours, study = imagenet_names(), imagenet_names("study")
    assert list(ours) == list(open_clip.IMAGENET_CLASSNAMES)
    assert {i: names for i, names in enumerate(zip(study, ours, strict=True)) if names[0] != names[1]} == {
        27: ("eft", "newt"),
        638: ("maillot", "tights"),
        744: ("projectile", "missile"),
        836: ("sunglass", "sunglasses"),
    }
