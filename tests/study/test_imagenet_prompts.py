"""Prompts and names of classes as the study has them."""

import open_clip

from circuitry.models import default_templates
from experiments.study.selection import imagenet_names, style_word_templates


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


def test_four_names_of_imagenet_are_others_in_the_study() -> None:
    ours, study = imagenet_names(), imagenet_names("study")
    assert list(ours) == list(open_clip.IMAGENET_CLASSNAMES)
    assert {i: names for i, names in enumerate(zip(study, ours, strict=True)) if names[0] != names[1]} == {
        27: ("eft", "newt"),
        638: ("maillot", "tights"),
        744: ("projectile", "missile"),
        836: ("sunglass", "sunglasses"),
    }
