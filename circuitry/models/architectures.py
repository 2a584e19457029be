"""Architectures by name: open_clip's, the ones shipped here, and model-config JSONs."""

import json
import os
from pathlib import Path

import open_clip

from circuitry.data.names import unknown_name
from circuitry.runs.errors import InputError

SHIPPED_CONFIGS = Path(__file__).parent / "configs"
"""Model configurations that come with this package."""


def known_models() -> list[str]:
    """Return the names of models that open_clip or this package has."""
    return [*open_clip.list_models(), *sorted(path.stem for path in SHIPPED_CONFIGS.glob("*.json"))]


def register_model(name: str | os.PathLike[str]) -> str:
    """Make a model-config JSON or a shipped configuration known to open_clip; return the model's name there.

    Raises:
        InputError: for an unknown name, a file that is no model configuration, or one named like a model.
    """
    path = Path(name)
    if path.suffix != ".json":
        if str(name) in open_clip.list_models():
            return str(name)
        path = SHIPPED_CONFIGS / f"{name}.json"
        if not path.is_file():
            hub = "" if str(name).count("/") != 1 else f", or for one of the hub in open_clip's layout hf-hub:{name}"
            raise InputError(
                f"{unknown_name('model', str(name), known_models())} Give a name from open_clip.list_models(), one "
                f"shipped here ({', '.join(sorted(p.stem for p in SHIPPED_CONFIGS.glob('*.json')))}), or the path of a "
                f"model-config JSON{hub}."
            )
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a readable model-config JSON ({error}).") from error
    missing = [
        key for key in ("embed_dim", "vision_cfg", "text_cfg") if not isinstance(config, dict) or key not in config
    ]
    if missing:
        raise InputError(f"{path} is not an open_clip model configuration: it lacks {', '.join(missing)}.")
    if path.stem in open_clip.list_models() and open_clip.get_model_config(path.stem) != config:
        raise InputError(f"open_clip has another model named {path.stem!r}: rename {path}.")
    open_clip.add_model_config(path)
    return path.stem


def check_tag(name: str, tag: str) -> None:
    """Raise `InputError` for a tag that open_clip has no weights for."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag.lower() not in (t.lower() for t in tags):
        raise InputError(
            f"open_clip has no weights {tag!r} for {name}; its tags are: {', '.join(tags) or 'none'}. "
            "Give a local file as checkpoint instead."
        )
