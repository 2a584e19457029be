"""Names of ImageNet's classes and the templates that name a style, as the study has them. No torch."""

from typing import Literal

from circuitry.models import default_templates

ImagenetNames = Literal["open_clip", "study"]  # whose names of ImageNet's classes
STUDY_IMAGENET_NAMES = {27: "eft", 638: "maillot", 744: "projectile", 836: "sunglass"}
"""The study's names by index, where open_clip has others."""
STYLE_WORDS_OF_TEMPLATES = ("clipart", "infograph", "painting", "quickdraw", "sketch")
"""The words by which the study picks templates that name a style."""


def style_word_templates() -> tuple[str, ...]:
    """Return the ten default templates that name one of `STYLE_WORDS_OF_TEMPLATES`; none names photographs."""
    return tuple(t for t in default_templates() if any(word in t for word in STYLE_WORDS_OF_TEMPLATES))


def imagenet_names(whose: ImagenetNames = "open_clip") -> tuple[str, ...]:
    """Return the names of ImageNet's thousand classes in the order of their indices."""
    from open_clip import IMAGENET_CLASSNAMES

    names = dict(enumerate(IMAGENET_CLASSNAMES)) | (STUDY_IMAGENET_NAMES if whose == "study" else {})
    return tuple(names.values())
