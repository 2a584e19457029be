"""Readers of sparse autoencoders and transcoders: the first that recognises the layout of a file reads it."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from circuitry.bases.sae import (
    SAE_FORMAT,
    SparseAutoencoder,
    Transcoder,
    of_shifted_inputs,
)
from circuitry.models.released_layouts import LAYOUTS, SaeReader
from circuitry.models.sae_files import SaeFile
from circuitry.runs.arrays import read_arrays
from circuitry.runs.errors import InputError, naming_damage
from circuitry.runs.given import FINITE, Positive, checked

log = logging.getLogger(__name__)


@checked
def load_sae(
    path: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    *,
    site: str | None = None,
    mean: Annotated[Tensor | Sequence[float] | np.ndarray | None, FINITE] = None,
    scale: Positive | None = None,
) -> SparseAutoencoder:
    """Read a sparse autoencoder or a transcoder, of this package or released by others; no code in it is run.

    These are read: this package's files; ViT-Prisma; saev; clipscope; PatchSAE; dictionary_learning; MSAE; SAELens
    (versions 2 to 6); and what `register_sae_reader` added. The name of the reader is logged, and is
    ``about["reader"]``.

    Args:
        path: A weights file, whose settings may lie beside it (``config.json``, ``cfg.json``); a folder with one; or a
            place on the hub (``org/name``, ``hf-hub:org/name/file``).
        site: Its site in the encoder here (default: what the file says; TransformerLens' names such as
            ``blocks.9.hook_resid_post`` are known, see `in_feature_basis`).
        mean: What was subtracted from its inputs in training, where that is not in the file: a vector [d].
        scale: By what they were divided then.

    Raises:
        InputError: for a missing or damaged file, one that needs the network, a layout that no reader knows, or a kind
            of autoencoder that cannot be run here.

    Example:
        >>> load_sae("sae-blocks.9.hook_resid_post").activation
        'topk'
        >>> load_sae("org/saev-vit-b-16", site="transformer.resblocks.10", mean=mean, scale=2.1).tokens
        'patches'
    """
    is_shifted = mean is not None or scale is not None
    file = SaeFile.find(path, is_shifted=is_shifted)
    with naming_damage(file.path):
        name = next(
            (name for name, (recognises, _) in _readers.items() if recognises(file)),
            None,
        )
        if name is None:
            raise _unknown(file)
        sae = _readers[name][1](file)
    if is_shifted:
        sae = of_shifted_inputs(
            sae,
            torch.as_tensor(0.0 if mean is None else mean),
            1.0 if scale is None else scale,
        )
    if name != OWN:
        sae = replace(sae, about={"reader": name, **sae.about})
    log.info(
        "%s is read as a %s of %s: %d latents",
        file.path,
        type(sae).__name__,
        name,
        sae.n_features,
    )
    return replace(sae, site=sae.site if site is None else site).to(device)


def parse_saes(arguments: Sequence[str]) -> dict[str, SparseAutoencoder]:
    """Read the autoencoders that a command line names.

    Example:
        >>> parse_saes(["layer3.0=runs/sae.safetensors"])["layer3.0"].n_features
        4096
    """
    found: dict[str, SparseAutoencoder] = {}
    for argument in arguments:
        site, equals, path = argument.partition("=")
        if not (site and equals and path) or site in found:
            raise InputError(
                f"Expected one autoencoder per site as SITE=PATH, such as layer3.0=sae.safetensors, but {argument!r} "
                f"was given{' after another one of that site' if site in found else ''}."
            )
        found[site] = load_sae(path)
    return found


def register_sae_reader(
    name: str,
    recognises: Callable[[SaeFile], bool],
    read: Callable[[SaeFile], SparseAutoencoder],
) -> None:
    """Add a reader that sees each file before the others do, or replace one.

    Args:
        recognises: Whether a file has the layout, by its names and settings.

    Example:
        >>> def read(file):
        ...     w_enc, w_dec, b_enc, b_dec = file.take("enc", "dec", "b_enc", "b_dec")
        ...     return SparseAutoencoder(w_enc, b_enc, w_dec, b_dec, site=file.config["layer"])
        >>> register_sae_reader("mine", lambda file: "enc" in file.tensors, read)
    """
    others = {known: reader for known, reader in _readers.items() if known != name}
    _readers.clear()
    _readers.update({name: (recognises, read), **others})


def _read_own(file: SaeFile) -> SparseAutoencoder:
    header, arrays = read_arrays(file.path, SAE_FORMAT, "sparse autoencoder")
    kind = (
        Transcoder
        if header.pop("kind", None) == Transcoder.__name__
        else SparseAutoencoder
    )
    tensors: dict[str, Any] = {
        name: torch.from_numpy(array) for name, array in arrays.items()
    }
    return kind(**header, **tensors)


def _unknown(file: SaeFile) -> InputError:
    names = ", ".join(list(file.tensors)[:8]) or "no weights"
    what = (
        f"the settings {', '.join(list(file.config)[:8])} beside them"
        if file.config
        else "no settings (config.json, cfg.json) beside them, without which their activation is not known"
    )
    return InputError(
        f"{file.path} holds {names}, with {what}, which none of the readers {', '.join(_readers)} "
        "knows: give the whole folder that was released, or add a reader by register_sae_reader."
    )


OWN = "circuitry"
_readers: dict[str, SaeReader] = {
    OWN: (
        lambda file: '"circuitry-sae-' in file.metadata.get("circuitry", ""),
        _read_own,
    ),
    **LAYOUTS,
}
