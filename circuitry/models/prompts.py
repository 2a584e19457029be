"""Prompt templates of zero-shot classification, and the names of sets of templates. Does not import torch."""

from collections.abc import Callable, Sequence

from circuitry.data.captions import (
    SHARED_STYLE_WORDS,
    STYLE_WORDS,
    readable,
    with_article,
)
from circuitry.runs.errors import InputError

Template = str | Callable[[str], str]
"""A string with ``{}`` for the class name, or a function of the class name. open_clip's templates are functions."""

TEXTS = ("pooled", "own-style")
"""Names of class texts: ``pooled`` averages all default templates; ``own-style`` names the style of the domain."""

STYLE_TEMPLATES = (
    "a clipart of a {}.",
    "a clipart of the {}.",
    "an infograph of a {}.",
    "an infograph of the {}.",
    "a quickdraw of a {}.",
    "a quickdraw of the {}.",
)
"""The six templates for styles of DomainNet that the study adds to OpenAI's templates."""


def templates_of(texts: str | Sequence[Template], domain: str) -> tuple[str, ...]:
    """Return the templates for the classes of a domain.

    Args:
        texts: One of: ``"pooled"``, which gives the default templates for every domain; ``"own-style"``, which gives
            two templates that name the style of the domain; or your own templates.
        domain: Domain of the images.

    Example:
        >>> from circuitry.models import templates_of
        >>> templates_of("own-style", "real")
        ('a photo of a {}.', 'a photo of the {}.')
    """
    if not isinstance(texts, str):
        return as_patterns(texts)
    if texts not in TEXTS:
        raise InputError(
            f"Expected class texts {' or '.join(map(repr, TEXTS))}, or a list of templates such as ['a photo of a "
            f"{{}}.'], but the string {texts!r} was given."
        )
    if texts == "pooled":
        return default_templates()
    style = with_article(style_word(domain))
    return (f"{style} of a {{}}.", f"{style} of the {{}}.")


def style_word(domain: str) -> str:
    """Return a word for the style of a domain.

    This is the first of the domain's `STYLE_WORDS` that is not shared by all domains. For a domain without such words,
    the name of the domain is returned.
    """
    for word in STYLE_WORDS.get(domain, ()):
        # A word that all domains share says nothing about the style.
        if word not in SHARED_STYLE_WORDS:
            return word
    return readable(domain)


def default_templates() -> tuple[str, ...]:
    """Return the 80 templates that OpenAI used for ImageNet (open_clip has them), followed by `STYLE_TEMPLATES`.

    Example:
        >>> from circuitry.models import default_templates
        >>> len(default_templates()), default_templates()[0]
        (86, 'a bad photo of a {}.')
    """
    # Imported here, because command lines import this module without torch, and open_clip imports torch.
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    return (*as_patterns(OPENAI_IMAGENET_TEMPLATES), *STYLE_TEMPLATES)


def as_patterns(templates: Sequence[Template]) -> tuple[str, ...]:
    """Return templates as strings with ``{}`` for the class name. A template that is a function becomes a string.

    Raises:
        InputError: for a function that no string can replace, such as a function that chooses an article for the name.
    """
    patterns = []
    for template in templates:
        if isinstance(template, str):
            patterns.append(template)
            continue
        pattern = template("{}")
        # A function may do more than insert the name, such as choose an article. Then no string can replace it.
        if template("owl") != pattern.replace("{}", "owl"):
            raise InputError(
                f"A template puts each name into one sentence, but this one makes {template('owl')!r} of 'owl' and "
                f"{pattern!r} of '{{}}': give strings with {{}}, or the names as they should be written."
            )
        patterns.append(pattern)
    return tuple(patterns)
