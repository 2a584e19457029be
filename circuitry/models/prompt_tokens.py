"""Tokens of prompts; a prompt that the text encoder would read in part, or not at all, is refused."""

import logging
import re
from collections.abc import Callable, Sequence
from inspect import signature

import torch
from torch import Tensor

from circuitry.models.shipped_weights import shipped_classes
from circuitry.runs.errors import InputError, name_some, shortened
from circuitry.runs.progress import say_once

log = logging.getLogger(__name__)
Tokenizer = Callable[..., Tensor]
"""Texts -> tokens [texts, context]; open_clip's and ours for transformers also take ``context_length``."""


def prompt_tokens(
    tokenizer: Tokenizer, names: Sequence[str], prompts: Sequence[str]
) -> Tensor:
    """Return the tokens of prompts, name by name."""
    tokens = tokenizer(prompts)
    if "context_length" in signature(tokenizer).parameters:
        _check_length(tokenizer, prompts, tokens)
    if codes := [name for name in names if re.fullmatch(r"[a-z]?\d+", name)]:
        text = f"{len(codes)} of {len(names)} class names, such as {codes[0]!r}, are no words: prompts mean nothing."
        say_once(log, text)
    known: dict[tuple[int, ...], str] = {}
    for name, row in zip(
        names, tokens[:: len(prompts) // len(names)].tolist(), strict=True
    ):
        if (other := known.setdefault(tuple(row), name)) != name:
            raise InputError(
                f"Class names differ from each other as the model reads them, but {other!r} and {name!r} are the same "
                "tokens: leave one of them out, or name it in another way."
            )
    return tokens


def _check_length(tokenizer: Tokenizer, prompts: Sequence[str], tokens: Tensor) -> None:
    """Check that no prompt was cut: a prompt that fills the context has the same tokens in a longer context."""
    padding, context = tokenizer([""]).mode().values, tokens.shape[1]
    for i in ((tokens == padding).sum(1) <= 1).nonzero().flatten().tolist():
        whole = tokenizer(
            [prompts[i]], context_length=context + len(prompts[i].encode())
        )[0]
        whole = whole[whole != padding]
        if not torch.equal(whole, tokens[i][tokens[i] != padding]):
            raise InputError(
                f"A prompt fits the {context} tokens that the text encoder reads, but {shortened(prompts[i])!r} has at "
                f"least {max(len(whole), context + 1)}, so its end would be cut off: give a shorter template or name."
            )


def absent_tokens(tokenizer: Tokenizer, embedding: Tensor, tokens: Tensor) -> Tensor:
    """Return the tokens that have no embedding in packed weights, without the tokens of an empty text."""
    used = torch.unique(tokens)
    absent: Tensor = used[~embedding[used].any(1).cpu()]
    return absent[~torch.isin(absent, tokenizer([""]))]


def check_known_words(
    model: str,
    tokenizer: Tokenizer,
    embedding: Tensor,
    prompts: Sequence[str],
    tokens: Tensor,
) -> None:
    """Raise `InputError` for words without an embedding [tokens, d] in packed weights; see `shipped_weights`."""
    absent = absent_tokens(tokenizer, embedding, tokens)
    if not len(absent):
        return
    words = dict.fromkeys(
        word for prompt in prompts for word in re.findall(r"\w+|[^\w\s]", prompt)
    )
    unknown = [
        repr(word) for word in words if torch.isin(tokenizer([word]), absent).any()
    ]
    known = ", ".join(shipped_classes(model))
    raise InputError(
        f"The weights of {model} have no embedding of {name_some(unknown)}, so it reads nothing there: "
        "give words that it was trained on"
        + (f" (the {model} of this package: {known})" if known else "")
        + ", or another model."
    )
