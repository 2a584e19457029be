"""Find released files of sparse autoencoders on disk or on the hub, and open them without running code in them.

A weights file was written by torch.save or safetensors. The settings of the weights are in one of three places: in a
JSON file beside the weights file, in the first line of the weights file, or in an object inside the weights file. Such
an object is read as a `StoredSettings`, so the code of its own class is not needed.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from huggingface_hub import list_repo_files, snapshot_download
from safetensors import SafetensorError, safe_open
from torch import Tensor

from circuitry.models.checkpoints import check_numbers, read_content
from circuitry.runs.errors import InputError, name_some

HUB = "hf-hub:"
WEIGHTS = (".pt", ".pth", ".bin", ".safetensors", ".pkl", ".gz")
"""Endings of files that hold weights."""
CONFIGS = ("cfg.json", "config.json")
"""Names of JSON files that hold the settings of weights."""
PREFERRED = ("sae_weights.safetensors", "ae.pt")
"""Names of weights files that are chosen if a folder has several weights files."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(/.+)?")


class StoredSettings:
    """A settings object that was read from a weights file without the code of its class.

    It has the fields of the stored object and no methods.
    """

    def __init__(self, *arguments: object) -> None:
        """Ignore all arguments, which the file holds for the class of the stored object."""

    def __new__(cls, *arguments: object) -> "StoredSettings":
        """Make an object without fields. The code that reads the file adds the fields later."""
        return super().__new__(cls)


STORED = (
    (StoredSettings, "vit_prisma.sae.config.VisionModelSAERunnerConfig"),
    (StoredSettings, "vit_prisma.configs.HookedViTConfig.HookedViTConfig"),
    (StoredSettings, "src.sae_training.config.ViTSAERunnerConfig"),
    (StoredSettings, "src.sae_training.config.Config"),
    (StoredSettings, "sae_training.config.ViTSAERunnerConfig"),
    (StoredSettings, "sae_training.config.Config"),
    (StoredSettings, "pathlib.PosixPath"),
    (StoredSettings, "pathlib._local.PosixPath"),
)
"""Pairs of `StoredSettings` and the full name of a class that it replaces. Released files hold objects of these
classes."""


@dataclass(frozen=True, eq=False)
class SaeFile:
    """A weights file and its settings. Each attribute is read from the file when it is first used.

    Example:
        >>> from circuitry.models import SaeFile
        >>> torch.save({"enc": torch.ones(4, 8), "config": {"layer": 3}}, "sae.pt")
        >>> file = SaeFile.find("sae.pt")
        >>> file.config, file.take("enc")[0].shape
        ({'layer': 3}, torch.Size([4, 8]))
    """

    path: Path
    """The weights file."""
    is_shifted: bool = False
    """Whether the user gives the mean or the scale of the inputs to `load_sae`."""

    @classmethod
    def find(
        cls, path: str | os.PathLike[str], *, is_shifted: bool = False
    ) -> "SaeFile":
        """Find a weights file and return it.

        Args:
            path: Path of a weights file; path of a folder with a single weights file; or a place on the hub.
            is_shifted: Whether the user gives the mean or the scale of the inputs to `load_sae`.

        Raises:
            InputError: if there is no weights file, or more than one.
        """
        place = _local(path)
        if place.is_dir():
            names = [file.relative_to(place).as_posix() for file in place.rglob("*")]
            place = place / _only(names, path)
        if not place.is_file():
            raise InputError(
                f"There is no sparse autoencoder at {path}: give the path of one, or make it."
            )
        return cls(place, is_shifted)

    @cached_property
    def metadata(self) -> Mapping[str, str]:
        """Metadata in the header of a safetensors file; empty for a file of another kind."""
        try:
            with safe_open(self.path, "numpy") as file:
                return file.metadata() or {}
        except SafetensorError:
            return {}

    @cached_property
    def first_line(self) -> bytes:
        """First line of a file if this line is JSON, as in files of saev; otherwise empty."""
        with open(self.path, "rb") as opened:
            # A safetensors file begins with the length of its header. The bytes of this number may look like JSON.
            line = opened.readline() if self.path.suffix != ".safetensors" else b""
        return line if line.startswith(b"{") else b""

    @cached_property
    def content(self) -> Mapping[str, Any]:
        """The mapping that the weights file holds; empty if the file holds an object of another type."""
        content = read_content(self.path, STORED, len(self.first_line))
        return content if isinstance(content, Mapping) else {}

    @cached_property
    def config(self) -> dict[str, Any]:
        """Settings of the weights, as values that JSON can hold; empty if the file has no settings."""
        config = dict[str, Any]()
        stored = plain(self.content.get("cfg", self.content.get("config")))
        if isinstance(stored, dict):
            config |= stored
        try:
            text: str | bytes = self.first_line or "{}"
            # Reversed, so that the first name in CONFIGS is used if both files exist.
            for name in reversed(CONFIGS):
                beside = self.path.with_name(name)
                if not self.first_line and beside.is_file():
                    text = beside.read_text("utf-8")
            written = json.loads(text)
        except (OSError, ValueError) as error:
            raise InputError(
                f"The settings of {self.path} cannot be read ({error}): download them again."
            ) from error
        # A setting in a JSON file replaces the setting of the same name inside the weights file.
        return config | written if isinstance(written, dict) else config

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Weights by name, in single precision."""
        # Training checkpoints hold the weights under one of these names, and the state of the optimiser under another.
        state = self.content
        for name in ("model", "model_state_dict", "state_dict"):
            inside = self.content.get(name)
            if isinstance(inside, Mapping):
                state = inside
        tensors = {}
        for name, value in state.items():
            if isinstance(value, Tensor):
                # Vectors and counters may be integers, but matrices must be floating-point numbers.
                check_numbers(value, self.path, name, weight=value.dim() > 1)
                tensors[name] = value.detach().float()
        return tensors

    def take(self, *names: str) -> list[Tensor]:
        """Return the weights with these names, in their order; raise `InputError` if the file lacks one of them."""
        missing = [name for name in names if name not in self.tensors]
        if missing:
            raise InputError(
                f"{self.path} lacks {', '.join(missing)}: it is no whole autoencoder's."
            )
        return [self.tensors[name] for name in names]

    def refuse(self, reason: str) -> InputError:
        """Return the error to raise if the autoencoder in this file is not supported.

        Args:
            reason: What the file holds and why this is not supported; the message continues "FILE holds ...".
        """
        return InputError(f"{self.path} holds {reason}.")


def _only(names: Iterable[str], path: str | os.PathLike[str]) -> str:
    """Return the path of the only weights file of a folder.

    If several files hold weights, files with a name in `PREFERRED` are preferred to all other files. After that, only
    the files in the fewest nested folders are considered.

    Args:
        names: Paths of all files, relative to the folder.
        path: The folder, for the message.

    Raises:
        InputError: if no weights file is left, or more than one.
    """
    # SAELens stores a file of sparsity statistics beside the weights.
    weights = [
        name
        for name in sorted(names)
        if name.endswith(WEIGHTS) and not name.endswith("sparsity.safetensors")
    ]
    preferred = [name for name in weights if name.rpartition("/")[2] in PREFERRED]
    weights = preferred or weights
    depth = min((name.count("/") for name in weights), default=0)
    weights = [name for name in weights if name.count("/") == depth]
    if len(weights) != 1:
        raise InputError(
            f"{path} is a folder with {len(weights)} weights files ({name_some(weights, 6) or 'none'}), but one with "
            "its settings (config.json, cfg.json) is needed: give the path of a weights file."
        )
    return weights[0]


def _local(path: str | os.PathLike[str]) -> Path:
    """Return the path of a weights file, or of its folder, on this machine.

    If the weights are on the hub, they are downloaded together with their settings.
    """
    name = os.fspath(path)
    here = Path(name)
    if not name.startswith(HUB):
        # org/name has the form of a hub id, but it may also be a path. It is read as a path if it exists, if the folder
        # org exists, or if it ends like a weights file.
        is_hub_id = _HUB_ID.fullmatch(name) and not Path(*here.parts[:1]).exists()
        if here.exists() or not is_hub_id or here.suffix in WEIGHTS:
            return here
    owner, repository, *inside = name.removeprefix(HUB).split("/")
    below = "/".join(inside)
    try:
        folder = Path(_fetched(f"{owner}/{repository}", below, name))
    except InputError:
        raise
    # The errors of the hub's client and of its network library have no common base class.
    except Exception as error:
        raise InputError(
            f"{name} is neither a path on this machine nor could it be fetched from the hub "
            f"({' '.join(str(error).split())[:200]}): give a path, or fetch it once with the network."
        ) from error
    return folder / below


def _fetched(repository: str, below: str, name: str) -> str:
    """Download a weights file and its settings from the hub, and return the repository's folder on this machine.

    Without the network, the folder of an earlier download is returned.

    Args:
        repository: Id of the repository (org/name).
        below: Path in the repository of the weights file, or of a folder with a single weights file.
        name: What the user gave, for the message.

    Raises:
        InputError: if there is no weights file at this path, or more than one.
    """
    try:
        # Files are listed first, so that a repository with several autoencoders is refused before any download.
        files = list_repo_files(repository)
    except Exception:  # errors of the hub's client have no common base class
        return snapshot_download(repository, local_files_only=True)
    start = f"{below}/" if below else ""
    weights = _only([file for file in files if f"{file}/".startswith(start)], name)
    folder, slash, _ = weights.rpartition("/")
    wanted = [weights, *(f"{folder}{slash}{config}" for config in CONFIGS)]
    return snapshot_download(repository, allow_patterns=wanted)


def plain(value: Any) -> Any:
    """Return settings as values that JSON can hold.

    A `StoredSettings` becomes a dictionary of its fields. Any other object that JSON cannot hold becomes text.
    """
    if isinstance(value, StoredSettings):
        return plain(vars(value))
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)
