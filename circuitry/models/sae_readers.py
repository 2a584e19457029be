"""Load sparse autoencoders and transcoders.

A reader can read files of one layout. The first reader that recognises the layout of a file reads the file.
"""

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
from circuitry.runs.arguments import FINITE, Positive, checked
from circuitry.runs.arrays import read_arrays
from circuitry.runs.errors import InputError, naming_damage

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
    """Read a sparse autoencoder or a transcoder without running code in its file.

    Supported are files of this package, ViT-Prisma, saev, clipscope, PatchSAE, dictionary_learning, MSAE and SAELens
    (versions 2 to 6), and layouts added by `register_sae_reader`. Each layout has a reader. The name of the reader that
    was used is logged. For a file of another library it is also stored in ``about["reader"]``.

    Args:
        path: One of: a weights file, perhaps with settings beside it (``config.json``, ``cfg.json``); a folder with a
            single weights file; or a place on the hub (``org/name``, ``hf-hub:org/name/file``).
        device: Device of the autoencoder.
        site: Site of the encoder whose units the autoencoder encodes. The default is the site that the file names. The
            file may use a name of TransformerLens, such as ``blocks.9.hook_resid_post``; see `site_named`.
        mean: Vector [d] that was subtracted from the inputs in training. Give it if the file does not store it.
        scale: Number by which the inputs were divided in training, after ``mean`` was subtracted. Give it if the file
            does not store it.

    Raises:
        InputError: for a missing or damaged file, for a file on the hub without the network, for an unknown layout, or
            for a kind of autoencoder that is not supported.

    Example:
        >>> from circuitry.bases import SparseAutoencoder
        >>> from circuitry.models import load_sae
        >>> SparseAutoencoder(torch.eye(4), torch.zeros(4), torch.eye(4), torch.zeros(4)).save("sae.safetensors")
        >>> load_sae("sae.safetensors", site="layer3.0").site
        'layer3.0'
    """
    is_shifted = mean is not None or scale is not None
    file = SaeFile.find(path, is_shifted=is_shifted)
    with naming_damage(file.path):
        name, sae = _read(file)
    if is_shifted:
        shift = torch.as_tensor(0.0 if mean is None else mean)
        sae = of_shifted_inputs(sae, shift, 1.0 if scale is None else scale)
    if name != OWN:
        sae = replace(sae, about={"reader": name, **sae.about})
    kind = type(sae).__name__
    n = sae.n_features
    log.info("%s is read as a %s of %s: %d latents", file.path, kind, name, n)
    if site is not None:
        sae = replace(sae, site=site)
    return sae.to(device)


def _read(file: SaeFile) -> tuple[str, SparseAutoencoder]:
    """Return the name of the first reader that recognises a file, and the autoencoder that it reads."""
    for name, (recognises, read) in _readers.items():
        if recognises(file):
            return name, read(file)
    names = ", ".join(list(file.tensors)[:8]) or "no weights"
    what = "no settings (config.json, cfg.json) beside them, without which their activation is not known"
    if file.config:
        what = f"the settings {', '.join(list(file.config)[:8])} beside them"
    raise InputError(
        f"{file.path} holds {names}, with {what}, which none of the readers {', '.join(_readers)} "
        "knows: give the whole folder that was released, or add a reader by register_sae_reader."
    )


def parse_saes(arguments: Sequence[str]) -> dict[str, SparseAutoencoder]:
    """Read the autoencoders that a command line names in the form SITE=PATH, and return them by site.

    Example:
        >>> from circuitry.bases import SparseAutoencoder
        >>> from circuitry.models import parse_saes
        >>> SparseAutoencoder(torch.eye(4), torch.zeros(4), torch.eye(4), torch.zeros(4)).save("sae.safetensors")
        >>> parse_saes(["layer3.0=sae.safetensors"])["layer3.0"].n_features
        4
    """
    saes: dict[str, SparseAutoencoder] = {}
    for argument in arguments:
        site, _, path = argument.partition("=")
        if site in saes or not site or not path:
            again = " after another one of that site" if site in saes else ""
            raise InputError(
                f"Expected one autoencoder per site as SITE=PATH, such as layer3.0=sae.safetensors, but {argument!r} "
                f"was given{again}."
            )
        saes[site] = load_sae(path)
    return saes


def register_sae_reader(
    name: str,
    recognises: Callable[[SaeFile], bool],
    read: Callable[[SaeFile], SparseAutoencoder],
) -> None:
    """Register a reader of files of sparse autoencoders, so that `load_sae` uses it.

    The new reader is tried before all readers that were registered earlier.

    Args:
        name: Name of the layout, for messages. An earlier reader of the same name is replaced.
        recognises: Function that returns whether a file has the layout, judging by the names of its weights and by its
            settings.
        read: Function that returns the autoencoder in a file with this layout.

    Example:
        >>> from circuitry.bases import SparseAutoencoder
        >>> from circuitry.models import SaeFile, register_sae_reader
        >>> def read(file: SaeFile) -> SparseAutoencoder:
        ...     w_enc, w_dec, b_enc, b_dec = file.take("my_enc", "my_dec", "b_enc", "b_dec")
        ...     return SparseAutoencoder(w_enc, b_enc, w_dec, b_dec, site=file.config["layer"])
        >>> register_sae_reader("mine", lambda file: "my_enc" in file.tensors, read)
    """
    known = {**_readers}
    known.pop(name, None)
    _readers.clear()
    _readers.update({name: (recognises, read)} | known)


def _read_own(file: SaeFile) -> SparseAutoencoder:
    header, arrays = read_arrays(file.path, SAE_FORMAT, "sparse autoencoder")
    # Files of earlier versions do not state a kind. These versions had no transcoders.
    is_transcoder = header.pop("kind", None) == Transcoder.__name__
    kind = Transcoder if is_transcoder else SparseAutoencoder
    tensors: dict[str, Any] = {n: torch.from_numpy(a) for n, a in arrays.items()}
    return kind(**header, **tensors)


OWN = "circuitry"
_readers: dict[str, SaeReader] = {
    OWN: (
        lambda file: '"circuitry-sae-' in file.metadata.get("circuitry", ""),
        _read_own,
    ),
    **LAYOUTS,
}
