"""Read checkpoint files as state dicts, and check that their weights fit a model. No code in a file is run."""

import io
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.serialization import safe_globals

from circuitry.models.shipped_weights import unpacked
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError

_PREFIX = re.compile(r"^((module|_orig_mod)\.)+")
"""Prefixes that DistributedDataParallel and torch.compile put before the names of weights."""


@checked
def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return the state dict of a checkpoint file, without the prefixes of wrappers (``module.``, ``_orig_mod.``).

    Args:
        path: One of: an open_clip training checkpoint, a state dict (.pt, .pth, .bin), a safetensors file, or a weights
            file of this package.

    Returns:
        The weights by name.

    Example:
        >>> from circuitry.models import read_checkpoint
        >>> torch.save({"state_dict": {"module.weight": torch.ones(2)}}, "epoch_1.pt")
        >>> read_checkpoint("epoch_1.pt")
        {'weight': tensor([1., 1.])}
    """
    file = Path(path)
    state = read_content(file)
    if isinstance(state, Mapping):
        state = state.get("state_dict", state)
    if not isinstance(state, Mapping):
        state = {}
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        if isinstance(value, Tensor):
            # A file may have one weight with and without a prefix, if a wrapper and its module were saved together.
            name = _PREFIX.sub("", key)
            other = tensors.setdefault(name, value)
            if value is other:
                continue
            if value.dtype != other.dtype or not torch.equal(value, other):
                raise InputError(
                    f"{file} holds two different tensors {name}, with and without a prefix such as module.: save one "
                    "model's state dict alone."
                )
    if not tensors:
        raise InputError(
            f"{file} holds no state dict: expected names and tensors, or an open_clip training checkpoint."
        )
    return unpacked(tensors)


def read_content(
    file: Path, stand_ins: Sequence[tuple[type, str]] = (), start: int = 0
) -> Any:
    """Return the content of a file of torch.save or safetensors, without running code in it.

    Args:
        file: The file.
        stand_ins: Pairs (harmless class, full name of a class). While the file is read, objects of the named class
            become objects of the harmless class.
        start: Number of bytes to skip at the start, such as a line of JSON before a pickle.
    """
    if not file.is_file():
        raise InputError(
            f"Expected a checkpoint at {file}, but there is {'a folder' if file.is_dir() else 'no such file'}."
        )
    try:
        return _read(file, stand_ins, start)
    except InputError:
        raise
    except UnpicklingError as error:
        raise InputError(
            f"{file} holds more than tensors and plain values, and reading it could run code: save its state "
            "dict alone (torch.save(model.state_dict(), ...)) or as safetensors."
        ) from error
    except Exception as error:  # readers of broken files raise almost anything
        raise InputError(
            f"{file} is not a readable checkpoint ({str(error) or type(error).__name__})."
        ) from error


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Turn any error raised within the block into an `InputError`, which says that ``what`` could not be loaded."""
    try:
        yield
    except Exception as error:  # readers of hubs and files raise almost anything
        raise InputError(
            f"Could not load {what} ({' '.join(str(error).split())[:300]}): give a name, a folder or a file that its "
            "library reads; what is not on this machine needs the network once."
        ) from error


def check_state(
    model: nn.Module, state: Mapping[str, Tensor], source: str, name: str
) -> None:
    """Check that a state dict fits a model, and that its values are finite.

    Args:
        model: The model that will get the weights.
        state: The weights by name.
        source: Name of the file in messages.
        name: Name of the model in messages.

    Raises:
        InputError: if a key is only in the model or only in the state dict, if a tensor has another shape in the model,
            or if `check_numbers` refuses a tensor. The message names the first such key.
    """
    check_weights(model.state_dict(), state, source, name)


def check_weights(
    expected: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    source: str,
    name: str,
) -> None:
    """Check a state dict as `check_state` does, against the weights of a model by name."""
    # All keys, in the model's order: the first key that differs tells most about the model that the file is of.
    for key in dict.fromkeys([*expected, *state]):
        ours = expected.get(key)
        theirs = state.get(key)
        if ours is None or theirs is None or ours.shape != theirs.shape:
            raise InputError(
                f"{source} is not a checkpoint of {name}: {key} is {_shape(ours)} in the model and "
                f"{_shape(theirs)} in the file."
            )
        check_numbers(theirs, source, key, weight=ours.is_floating_point())


def check_numbers(
    tensor: Tensor, source: object, key: str, *, weight: bool = True
) -> None:
    """Raise `InputError` for a tensor with NaN or infinite values, and for weights that are quantised or integers.

    Args:
        tensor: The tensor to check.
        source: Name of its file in messages.
        key: Name of the tensor in messages.
        weight: Whether the tensor holds weights, which must be floating-point numbers of 16 bits or more. If False,
            integers are allowed.
    """
    if weight and (not tensor.is_floating_point() or tensor.itemsize < 2):
        raise InputError(
            f"{source} holds {key} as {str(tensor.dtype).removeprefix('torch.')}, but weights are real numbers of 16 "
            "bits or more: undo a quantisation, and save them as bfloat16, float16 or float32."
        )
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        raise InputError(
            f"{source} holds NaN or infinite values in {key}: take an earlier checkpoint."
        )


def _read(file: Path, stand_ins: Sequence[tuple[type, str]], start: int) -> Any:
    if file.suffix == ".safetensors":
        return load_file(file)
    with open(file, "rb") as opened:
        opened.seek(start)
        # A zip archive is read from its end, so the content is copied without the skipped bytes.
        content = io.BytesIO(opened.read()) if start else opened
        first = content.read(64)
        content.seek(0)
        # PyTorch writes a zip archive; before version 1.6 it wrote a pickle. Other content gets its own error message.
        if not first.startswith((b"PK", b"\x80")):
            raise InputError(
                f"{file} is not a checkpoint but {_what(first)}: download or save it again."
            )
        if zipfile.is_zipfile(content):
            _check_not_compressed(file, content)
        content.seek(0)
        # weights_only refuses every class that is not listed, so no code of the file runs.
        with safe_globals(list(stand_ins)):
            return torch.load(content, map_location="cpu", weights_only=True)


def _check_not_compressed(file: Path, content: Any) -> None:
    """Raise `InputError` for a compressed archive, because its content could be far larger than the memory."""
    with zipfile.ZipFile(content) as archive:
        held = sum(entry.file_size for entry in archive.infolist())
    if held > file.stat().st_size:
        raise InputError(
            f"{file} is {file.stat().st_size:,} bytes long, but unpacks to {held:,}: PyTorch's checkpoints are not "
            "compressed; save its state dict again with torch.save, or as safetensors."
        )


def _what(start: bytes) -> str:
    """Describe a file that torch.save did not write, judging by the first bytes of the file."""
    if not start:
        return "an empty file"
    if start.startswith(b"\x1f\x8b"):
        return "a compressed archive, whose pickle could run code"
    if start.lstrip().startswith(b"<"):
        return "a web page (HTML or XML)"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS to a file that was not fetched"
    return f"a file that begins with the bytes {start[:8]!r}"


def _shape(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else str(list(tensor.shape))
