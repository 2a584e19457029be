"""Files of sparse autoencoders that others released: found on disk or on the hub, opened without running code in them.

torch.save or safetensors wrote a weights file. Its settings are a JSON file beside it, its own first line, or an object
inside it, whose class `StoredSettings` replaces.
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
"""Weights files that are taken where a folder has several."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(/.+)?")


class StoredSettings:
    """Replaces a class of settings whose object a weights file holds: it has the fields, and nothing else."""

    def __init__(self, *arguments: object) -> None:
        """Take what the class would take, and do nothing with it."""

    def __new__(cls, *arguments: object) -> "StoredSettings":
        """Make an object without fields; reading fills them in."""
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
"""What replaces the classes whose objects released files hold."""


@dataclass(frozen=True, eq=False)
class SaeFile:
    """A weights file and its settings; the first access to an attribute reads it.

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
    """Whether the user says how the inputs were shifted and scaled."""

    @classmethod
    def find(
        cls, path: str | os.PathLike[str], *, is_shifted: bool = False
    ) -> "SaeFile":
        """Return the weights file of a path, a folder or a place on the hub."""
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
        """The header of a safetensors file; empty for others."""
        try:
            with safe_open(self.path, "numpy") as file:
                return file.metadata() or {}
        except SafetensorError:
            return {}

    @cached_property
    def first_line(self) -> bytes:
        """The line of JSON that a file begins with; empty for others."""
        with open(self.path, "rb") as opened:
            line = opened.readline() if self.path.suffix != ".safetensors" else b""
        return line if line.startswith(b"{") else b""

    @cached_property
    def content(self) -> Mapping[str, Any]:
        """The content of the weights file."""
        content = read_content(self.path, STORED, len(self.first_line))
        return content if isinstance(content, Mapping) else {}

    @cached_property
    def config(self) -> dict[str, Any]:
        """The settings of the weights, in values that JSON can hold; empty where there are none."""
        config = dict[str, Any]()
        stored = plain(self.content.get("cfg", self.content.get("config")))
        if isinstance(stored, dict):
            config |= stored
        try:
            text: str | bytes = self.first_line or "{}"
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
        """The weights by name, in single precision."""
        state = self.content
        for name in ("model", "model_state_dict", "state_dict"):
            inside = self.content.get(name)
            if isinstance(inside, Mapping):
                state = inside
        tensors = {}
        for name, value in state.items():
            if isinstance(value, Tensor):
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
        """Return the error for an autoencoder that cannot be run here."""
        return InputError(f"{self.path} holds {reason}.")


def _only(names: Iterable[str], path: str | os.PathLike[str]) -> str:
    """Return the weights file among names of files, of those in fewest folders; refuse none or several."""
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
    """Return where files lie on this machine, after fetching the weights and their settings from the hub."""
    name = os.fspath(path)
    here = Path(name)
    if not name.startswith(HUB):
        is_hub_id = _HUB_ID.fullmatch(name) and not Path(*here.parts[:1]).exists()
        if here.exists() or not is_hub_id or here.suffix in WEIGHTS:
            return here
    owner, repository, *inside = name.removeprefix(HUB).split("/")
    below = "/".join(inside)
    try:
        folder = Path(_fetched(f"{owner}/{repository}", below, name))
    except InputError:
        raise
    # Of the hub's client, or of the library that it reaches the network by.
    except Exception as error:
        raise InputError(
            f"{name} is neither a path on this machine nor could it be fetched from the hub "
            f"({' '.join(str(error).split())[:200]}): give a path, or fetch it once with the network."
        ) from error
    return folder / below


def _fetched(repository: str, below: str, name: str) -> str:
    """Return the folder of a repository with one weights file below a path in it, or what was fetched before."""
    try:
        files = list_repo_files(repository)
    except Exception:  # as above
        return snapshot_download(repository, local_files_only=True)
    start = f"{below}/" if below else ""
    weights = _only([file for file in files if f"{file}/".startswith(start)], name)
    folder, slash, _ = weights.rpartition("/")
    wanted = [weights, *(f"{folder}{slash}{config}" for config in CONFIGS)]
    return snapshot_download(repository, allow_patterns=wanted)


def plain(value: Any) -> Any:
    """Return settings as values that JSON can hold; objects become their fields, or their text."""
    if isinstance(value, StoredSettings):
        return plain(vars(value))
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)
