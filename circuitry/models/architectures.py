"""Architectures by name: open_clip's, the ones shipped here, and model-config JSONs."""

import difflib
import json
import os
from pathlib import Path

import open_clip

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
            raise InputError(_unknown_model(str(name)))
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


def _unknown_model(name: str) -> str:
    shipped = sorted(p.stem for p in SHIPPED_CONFIGS.glob("*.json"))
    near = difflib.get_close_matches(name.replace("/", "-"), known_models(), n=3)
    hints = [f"did you mean {' or '.join(near)}?"] if near else []
    if name.count("/") == 1:
        hints.append(
            f"A model of the Hugging Face hub is written hf-hub:{name} in open_clip's layout, and {name} without other "
            "weights in transformers'."
        )
    return (
        f"There is no model {name!r}: give a name from open_clip.list_models(), one shipped here "
        f"({', '.join(shipped)}), or the path of a model-config JSON{'; ' if near else '.'}"
        + (f"{'' if near else ' '}{' '.join(hints)}" if hints else "")
    )


def check_tag(name: str, tag: str) -> None:
    """Raise `InputError` for a tag that open_clip has no weights for."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag.lower() not in (t.lower() for t in tags):
        raise InputError(
            f"open_clip has no weights {tag!r} for {name}; its tags are: {', '.join(tags) or 'none'}. "
            "Give a local file as checkpoint instead."
        )
