"""Prompt templates of zero-shot classification. No torch."""

from collections.abc import Callable, Sequence

STYLE_TEMPLATES = (
    "a clipart of a {}.",
    "a clipart of the {}.",
    "an infograph of a {}.",
    "an infograph of the {}.",
    "a quickdraw of a {}.",
    "a quickdraw of the {}.",
)
"""The six templates that the study adds for DomainNet's styles."""


STYLES = ("clipart", "infograph", "painting", "quickdraw", "photo", "sketch")
"""DomainNet's styles as a prompt names them."""


def style_templates() -> tuple[str, ...]:
    """Return templates that do nothing but name a style: "a sketch of a {}." and "a sketch of the {}.", for all six."""
    articles = {style: "an" if style[0] in "aeiou" else "a" for style in STYLES}
    return tuple(f"{articles[style]} {style} of {article} {{}}." for style in STYLES for article in ("a", "the"))


def default_templates() -> tuple[str, ...]:
    """Return the 80 templates that OpenAI used for ImageNet, from open_clip, and `STYLE_TEMPLATES`."""
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    return (*as_patterns(OPENAI_IMAGENET_TEMPLATES), *STYLE_TEMPLATES)


def as_patterns(templates: Sequence[str | Callable[[str], str]]) -> tuple[str, ...]:
    """Return templates as strings with one ``{}`` for the class name; open_clip writes them as functions."""
    return tuple(t if isinstance(t, str) else t("{}") for t in templates)
