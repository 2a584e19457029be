"""Turn prompts into tokens, and refuse prompts that are too long for the text encoder."""

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
"""Function of texts that returns their tokens [texts, context]. The tokenizers of open_clip, and ours for models of
transformers, also take ``context_length``."""


def prompt_tokens(
    tokenizer: Tokenizer, names: Sequence[str], prompts: Sequence[str]
) -> Tensor:
    """Return the tokens of prompts [prompts, context], after checking that they are not cut and that names differ.

    Args:
        tokenizer: The model's tokenizer.
        names: Class names.
        prompts: Prompts, equally many for each name: all prompts of the first name, then all prompts of the second
            name, and so on.

    Raises:
        InputError: for a prompt that does not fit the context of the text encoder, and for two names with the same
            tokens.
    """
    tokens = tokenizer(prompts)
    if "context_length" in signature(tokenizer).parameters:
        _check_length(tokenizer, prompts, tokens)
    # Names such as n02123045 or 17 are codes of classes, which mean nothing to a text encoder.
    if codes := [name for name in names if re.fullmatch(r"[a-z]?\d+", name)]:
        text = f"{len(codes)} of {len(names)} class names, such as {codes[0]!r}, are no words: prompts mean nothing."
        say_once(log, text)
    known: dict[tuple[int, ...], str] = {}
    # Only the first prompt of each name is compared: two names that have equal tokens in one template have equal tokens
    # in every template.
    first_prompts = tokens[:: len(prompts) // len(names)].tolist()
    for name, row in zip(names, first_prompts, strict=True):
        if (other := known.setdefault(tuple(row), name)) != name:
            raise InputError(
                f"Class names differ from each other as the model reads them, but {other!r} and {name!r} are the same "
                "tokens: leave one of them out, or name it in another way."
            )
    return tokens


def _check_length(tokenizer: Tokenizer, prompts: Sequence[str], tokens: Tensor) -> None:
    """Raise `InputError` for a prompt that is longer than the context, so that its tokens are cut.

    This is the case if the prompt has other tokens in a longer context.

    Args:
        tokenizer: The model's tokenizer.
        prompts: The prompts.
        tokens: Tokens of the prompts [prompts, context].
    """
    # The most frequent token of an empty text is the padding. A prompt with two or more padding tokens does not fill
    # the context, so it was not cut.
    padding = tokenizer([""]).mode().values
    context = tokens.shape[1]
    is_full = (tokens == padding).sum(1) <= 1
    for i in is_full.nonzero().flatten().tolist():
        # A text never has more tokens than bytes.
        longer = context + len(prompts[i].encode())
        uncut = tokenizer([prompts[i]], context_length=longer)[0]
        uncut = uncut[uncut != padding]
        if not torch.equal(uncut, tokens[i][tokens[i] != padding]):
            raise InputError(
                f"A prompt fits the {context} tokens that the text encoder reads, but {shortened(prompts[i])!r} has at "
                f"least {max(len(uncut), context + 1)}, so its end would be cut off: give a shorter template or name."
            )


def absent_tokens(tokenizer: Tokenizer, embedding: Tensor, tokens: Tensor) -> Tensor:
    """Return the given tokens that have no embedding, except for tokens of an empty text, such as padding.

    Packed weights (`shipped_weights`) store the embeddings of some tokens only. After reading, the embedding of any
    other token is zero.

    Args:
        tokenizer: The model's tokenizer.
        embedding: Embeddings of all tokens [tokens, d].
        tokens: Tokens of any shape.
    """
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
    """Raise `InputError` if a word of a prompt has no embedding; see `absent_tokens`. The message names such words.

    Args:
        model: Name of the model in the message.
        tokenizer: The model's tokenizer.
        embedding: Embeddings of all tokens [tokens, d].
        prompts: The prompts.
        tokens: Their tokens.
    """
    absent = absent_tokens(tokenizer, embedding, tokens)
    if not len(absent):
        return
    # A token may be a part of a word. The message names whole words, each once, in the order of the prompts.
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
