"""Find released files of sparse autoencoders on disk or on the hub, and open them without running code in them.

A weights file was written by torch.save or safetensors. Its settings are in a JSON file beside it, in its first line or
in an object inside it. The class of such an object is replaced by `StoredSettings`.
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
"""Names of JSON files with the settings of weights."""
PREFERRED = ("sae_weights.safetensors", "ae.pt")
"""Names of weights files that win if a folder has several."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(/.+)?")


class StoredSettings:
    """Stands for the class of a settings object in a weights file; it has the object's fields and no methods."""

    def __init__(self, *arguments: object) -> None:
        """Accept the arguments of the class that it stands for, and ignore them."""

    def __new__(cls, *arguments: object) -> "StoredSettings":
        """Make an object without fields; the reader of the file fills them in."""
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
"""Classes of objects in released files, by full name, and the class that stands for each."""


@dataclass(frozen=True, eq=False)
class SaeFile:
    """A weights file and its settings; each attribute is read from the file at its first use.

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
    """Whether the user gives mean and scale of the inputs (`load_sae`)."""

    @classmethod
    def find(
        cls, path: str | os.PathLike[str], *, is_shifted: bool = False
    ) -> "SaeFile":
        """Return the weights file at a path, in a folder or on the hub."""
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
        """Header of a safetensors file; empty for another file."""
        try:
            with safe_open(self.path, "numpy") as file:
                return file.metadata() or {}
        except SafetensorError:
            return {}

    @cached_property
    def first_line(self) -> bytes:
        """First line of a file if it is JSON, as in files of saev; else empty."""
        with open(self.path, "rb") as opened:
            # A safetensors file begins with the length of its header, whose bytes may look like anything.
            line = opened.readline() if self.path.suffix != ".safetensors" else b""
        return line if line.startswith(b"{") else b""

    @cached_property
    def content(self) -> Mapping[str, Any]:
        """Mapping that the weights file holds; empty if it holds something else."""
        content = read_content(self.path, STORED, len(self.first_line))
        return content if isinstance(content, Mapping) else {}

    @cached_property
    def config(self) -> dict[str, Any]:
        """Settings of the weights, in values that JSON can hold; empty if there are none."""
        config = dict[str, Any]()
        stored = plain(self.content.get("cfg", self.content.get("config")))
        if isinstance(stored, dict):
            config |= stored
        try:
            text: str | bytes = self.first_line or "{}"
            # Reversed, so that the first name wins if both files are there.
            for name in reversed(CONFIGS):
                beside = self.path.with_name(name)
                if not self.first_line and beside.is_file():
                    text = beside.read_text("utf-8")
            written = json.loads(text)
        except (OSError, ValueError) as error:
            raise InputError(
                f"The settings of {self.path} cannot be read ({error}): download them again."
            ) from error
        # Settings beside the weights win over those inside.
        return config | written if isinstance(written, dict) else config

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Weights by name, in single precision."""
        # Training checkpoints hold the state dict beside the optimiser's.
        state = self.content
        for name in ("model", "model_state_dict", "state_dict"):
            inside = self.content.get(name)
            if isinstance(inside, Mapping):
                state = inside
        tensors = {}
        for name, value in state.items():
            if isinstance(value, Tensor):
                # Biases and counters may be whole numbers, matrices may not.
                check_numbers(value, self.path, name, weight=value.dim() > 1)
                tensors[name] = value.detach().float()
        return tensors

    def take(self, *names: str) -> list[Tensor]:
        """Return weights by name; raise `InputError` for a name that is not there."""
        missing = [name for name in names if name not in self.tensors]
        if missing:
            raise InputError(
                f"{self.path} lacks {', '.join(missing)}: it is no whole autoencoder's."
            )
        return [self.tensors[name] for name in names]

    def refuse(self, reason: str) -> InputError:
        """Return the error of a file whose autoencoder is not supported; ``reason`` says what the file holds."""
        return InputError(f"{self.path} holds {reason}.")


def _only(names: Iterable[str], path: str | os.PathLike[str]) -> str:
    """Return the one weights file among names of files; raise `InputError` for none or several.

    Preferred names win, then files in the fewest folders.
    """
    # SAELens stores statistics of sparsity beside the weights.
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
    """Return the path on this machine; weights on the hub are fetched first, with their settings."""
    name = os.fspath(path)
    here = Path(name)
    if not name.startswith(HUB):
        # org/name may be a path as well: a folder of that name, or a file that is missing, is no id of the hub.
        is_hub_id = _HUB_ID.fullmatch(name) and not Path(*here.parts[:1]).exists()
        if here.exists() or not is_hub_id or here.suffix in WEIGHTS:
            return here
    owner, repository, *inside = name.removeprefix(HUB).split("/")
    below = "/".join(inside)
    try:
        folder = Path(_fetched(f"{owner}/{repository}", below, name))
    except InputError:
        raise
    # Errors of the hub's client, or of the library by which it reaches the network, have no common class.
    except Exception as error:
        raise InputError(
            f"{name} is neither a path on this machine nor could it be fetched from the hub "
            f"({' '.join(str(error).split())[:200]}): give a path, or fetch it once with the network."
        ) from error
    return folder / below


def _fetched(repository: str, below: str, name: str) -> str:
    """Fetch the one weights file below a path of a repository; without the network use an earlier download.

    Return the folder of the repository on this machine.
    """
    try:
        # The list of files comes first, so that a repository with several autoencoders is refused before a download.
        files = list_repo_files(repository)
    except Exception:  # as above
        return snapshot_download(repository, local_files_only=True)
    start = f"{below}/" if below else ""
    weights = _only([file for file in files if f"{file}/".startswith(start)], name)
    folder, slash, _ = weights.rpartition("/")
    wanted = [weights, *(f"{folder}{slash}{config}" for config in CONFIGS)]
    return snapshot_download(repository, allow_patterns=wanted)


def plain(value: Any) -> Any:
    """Return settings as values that JSON can hold: objects become dictionaries of their fields, or text."""
    if isinstance(value, StoredSettings):
        return plain(vars(value))
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)
