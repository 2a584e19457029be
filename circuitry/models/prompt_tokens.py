"""Turn prompts into tokens, and refuse prompts that the text encoder would not read to their end."""

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
"""Function of texts that returns tokens [texts, context]. open_clip's tokenizers and ours for transformers also take
``context_length``."""


def prompt_tokens(
    tokenizer: Tokenizer, names: Sequence[str], prompts: Sequence[str]
) -> Tensor:
    """Return the tokens of prompts, after checking that they fit the context and that names differ as tokens.

    Args:
        tokenizer: The model's tokenizer.
        names: Class names.
        prompts: Prompts, all of the first name first; as many for each name.
    """
    tokens = tokenizer(prompts)
    if "context_length" in signature(tokenizer).parameters:
        _check_length(tokenizer, prompts, tokens)
    # Names such as n02123045 or 17 are numbers of classes; a text encoder knows nothing of them.
    if codes := [name for name in names if re.fullmatch(r"[a-z]?\d+", name)]:
        text = f"{len(codes)} of {len(names)} class names, such as {codes[0]!r}, are no words: prompts mean nothing."
        say_once(log, text)
    known: dict[tuple[int, ...], str] = {}
    # The first prompt of each name: two names that are equal there are equal in every template.
    first_prompts = tokens[:: len(prompts) // len(names)].tolist()
    for name, row in zip(names, first_prompts, strict=True):
        if (other := known.setdefault(tuple(row), name)) != name:
            raise InputError(
                f"Class names differ from each other as the model reads them, but {other!r} and {name!r} are the same "
                "tokens: leave one of them out, or name it in another way."
            )
    return tokens


def _check_length(tokenizer: Tokenizer, prompts: Sequence[str], tokens: Tensor) -> None:
    """Raise `InputError` for a prompt that was cut: one that has other tokens in a longer context."""
    # The commonest token of an empty text is the padding. A prompt with more than one is not full, so it was not cut.
    padding = tokenizer([""]).mode().values
    context = tokens.shape[1]
    is_full = (tokens == padding).sum(1) <= 1
    for i in is_full.nonzero().flatten().tolist():
        # No tokenizer makes more tokens than the text has bytes.
        longer = context + len(prompts[i].encode())
        uncut = tokenizer([prompts[i]], context_length=longer)[0]
        uncut = uncut[uncut != padding]
        if not torch.equal(uncut, tokens[i][tokens[i] != padding]):
            raise InputError(
                f"A prompt fits the {context} tokens that the text encoder reads, but {shortened(prompts[i])!r} has at "
                f"least {max(len(uncut), context + 1)}, so its end would be cut off: give a shorter template or name."
            )


def absent_tokens(tokenizer: Tokenizer, embedding: Tensor, tokens: Tensor) -> Tensor:
    """Return the tokens without an embedding in packed weights, except those of an empty text."""
    # Packed weights have rows of zeros for tokens that they do not store.
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
    """Raise `InputError` for words of prompts without an embedding in packed weights; see `shipped_weights`."""
    absent = absent_tokens(tokenizer, embedding, tokens)
    if not len(absent):
        return
    # Tokens are parts of words; the message names the words that they are of, each once and in order.
    words = dict.fromkeys(re.findall(r"\w+|[^\w\s]", " ".join(prompts)))
    unknown = [
        repr(word) for word in words if torch.isin(tokenizer([word]), absent).any()
    ]
    trained_on = "words that it was trained on"
    if classes := shipped_classes(model):
        trained_on += f" (the {model} of this package: {', '.join(classes)})"
    raise InputError(
        f"The weights of {model} have no embedding of {name_some(unknown)}, so it reads nothing there: "
        f"give {trained_on}, or another model."
    )
