"""Weights that come with this package, by the name of their model.

A file of weights holds a state dict with a *packed* token embedding. A packed embedding has only the rows of tokens
that occurred in training or that prompts use. All other rows are zero after reading. An unknown word would therefore
have no meaning, so it is refused (`check_known_words`). A JSON file beside the weights says how they were made, and
holds their checksum.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from circuitry.data.names import in_a_sentence
from circuitry.runs.errors import InputError
from circuitry.runs.files import whole_file
from circuitry.runs.manifest import write_json

SHIPPED_WEIGHTS = Path(__file__).parent / "weights"
"""Folder of the weights that come with this package."""
_ROWS = "token_embedding.weight"
_TOKENS = "token_embedding.tokens"
_SHAPE = "token_embedding.shape"


def shipped_models() -> list[str]:
    """Return the names of the models whose weights come with this package."""
    return sorted(path.stem for path in SHIPPED_WEIGHTS.glob("*.safetensors"))


def shipped_file(name: str) -> Path:
    """Return the path of the weights of a model of this package; raise `InputError` if the file is damaged."""
    path = SHIPPED_WEIGHTS / f"{name}.safetensors"
    if _checksum(path) != _about(name)["sha256"]:
        raise InputError(
            f"Expected the weights that came with this package in {path}, but it differs: install again."
        )
    return path


def shipped_classes(name: str) -> list[str]:
    """Return the names of the classes that a model of this package was trained on.

    The list is empty for a model of another source.
    """
    if name not in shipped_models():
        return []
    return list(map(in_a_sentence, _about(name)["images"]["classes"]))


def _about(name: str) -> dict[str, Any]:
    """Return the content of the JSON file beside the weights of a model: how they were made, and their checksum."""
    text = (SHIPPED_WEIGHTS / f"{name}.json").read_text(encoding="utf-8")
    about: dict[str, Any] = json.loads(text)
    return about


def write_packed(
    state: Mapping[str, Tensor], tokens: Tensor, path: Path, made_by: Mapping[str, Any]
) -> None:
    """Write a state dict that has the embeddings of some tokens only, and a JSON file beside it.

    Args:
        state: The weights by name.
        tokens: Indices of the tokens whose embeddings are written.
        path: The safetensors file to write.
        made_by: How the weights were made, for the JSON file.
    """
    rows = state[_ROWS]
    shape = torch.tensor(rows.shape)
    # The shape and the indices of the rows are stored as tensors, because a safetensors file holds tensors only.
    packed = {**state, _ROWS: rows[tokens], _TOKENS: tokens, _SHAPE: shape}
    with whole_file(path) as temporary:
        save_file({key: value.contiguous() for key, value in packed.items()}, temporary)
    write_json(
        path.with_suffix(".json"),
        {**made_by, "tokens": len(tokens), "sha256": _checksum(path)},
    )


def unpacked(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict with an embedding for every token. Embeddings that were not stored are zero.

    A state dict without a packed embedding is returned as it is.
    """
    if not {_ROWS, _TOKENS, _SHAPE} <= state.keys():
        return state
    plain = dict(state)
    tokens = plain.pop(_TOKENS)
    # [all tokens, d]: the size that the model expects.
    zeros = plain[_ROWS].new_zeros(plain.pop(_SHAPE).tolist())
    plain[_ROWS] = zeros.index_copy(0, tokens, plain[_ROWS])
    return plain


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
