"""Settings as TOML files: the settings of a run, written beside its results, and presets. No torch.

A line is an option as on the command line, ``n-images = 8``, with ``"None"`` for none; settings made of settings are
tables, ``[training]``. The file of a run leaves out where results go: it says what was done, not where. ``--config``
reads a file; a preset is one that has a name: ``NAME/COMMAND.toml`` in the folder ``presets`` of this package, or
beside the program.
"""

import errno
import json
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from itertools import chain
from pathlib import Path
from typing import Any, get_type_hints

import tyro

from circuitry.runs.errors import InputError, unknown_name
from circuitry.runs.files import at_home, whole_file
from circuitry.runs.provenance import WHERE

SETTINGS = "settings.toml"
STUDY = "icml2025"
"""The preset of ``--study``."""
PACKAGE = Path(__file__).parents[1]


def write_settings(config: Any, command: str) -> None:
    """Write the settings of a finished run into its folder, if it has one that can be written."""
    folder = getattr(config, "folder", None) or getattr(config, "out", None)
    if not isinstance(folder, Path) or not folder.is_dir():
        return
    try:
        with whole_file(folder / SETTINGS) as temporary:
            temporary.write_text(settings_text(config, command), encoding="utf-8")
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise


def settings_text(config: Any, command: str) -> str:
    """Return settings as TOML; those that no command line can give are left out."""
    lines = [f"# {command}"]
    tables = []
    for name, value in _options(config):
        if is_dataclass(value):
            tables += ["", f"[{name}]"]
            tables += [f"{key} = {_toml(inner)}" for key, inner in _options(value)]
        else:
            lines.append(f"{name} = {_toml(value)}")
    return "\n".join([*lines, *tables]) + "\n"


def expanded(words: Sequence[str], kind: type[Any]) -> list[str]:
    """Return a command line in which the words of the files that it names stand in front, one file after the other."""
    files: list[Path] = []
    left: list[str] = []
    rest = iter(words)
    for word in rest:
        option, sign, value = word.partition("=")
        if word == "--study":
            files.append(preset_file(STUDY, kind))
        elif option in ("--config", "--preset"):
            value = value if sign else next(rest, "")
            if not value or value.startswith("--"):
                raise InputError(
                    f"{option} takes a file of settings or the name of a preset, but none was given."
                )
            known = option == "--preset" and not value.endswith(".toml")
            files.append(preset_file(value, kind) if known else Path(at_home(value)))
        else:
            left.append(word)
    return [
        *chain.from_iterable(words_of(read_settings(path)) for path in files),
        *left,
    ]


def preset_file(name: str, kind: type[Any]) -> Path:
    """Return the file of a preset for the command whose settings are of this class."""
    program = Path(str(sys.modules[kind.__module__].__file__))
    return _found(
        name, program.stem.removesuffix("_command").replace("_", "-"), program.parent
    )


def _found(name: str, command: str, *folders: Path) -> Path:
    files = (
        path
        for folder in (*folders, PACKAGE)
        for path in sorted(folder.glob(f"presets/*/{command}.toml"))
    )
    known = {path.parent.name: path for path in files}
    if name not in known:
        raise unknown_name(f"preset (--preset, --study) of {command}", name, known)
    return known[name]


def preset(name: str, command: str) -> dict[str, Any]:
    """Return what a preset of this package sets of a command, by the names of fields.

    Example:
        >>> circuitry.runs.preset("rn-tiny", "train")["epochs"]
        20
    """
    table = read_settings(_found(name, command))
    settings: dict[str, Any] = {}
    for option, value in table.items():
        if isinstance(value, list):
            value = tuple(value)
        settings[option.replace("-", "_")] = None if value == "None" else value
    return settings


def read_settings(path: Path) -> dict[str, Any]:
    """Return a file of settings as its values by option."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"The settings {path} cannot be read ({error.strerror}): give a file for --config."
        ) from error
    except ValueError as error:
        raise InputError(
            f"{path} is no file of settings ({error}): --config takes the {SETTINGS} of a run."
        ) from error


def words_of(table: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield settings as the words of a command line."""
    for name, value in table.items():
        option = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from words_of(value, f"{option}.")
        elif isinstance(value, bool):
            yield f"--{option}" if value else f"--{prefix}no-{name}"
        else:
            yield f"--{option}"
            yield from map(str, value if isinstance(value, list) else [value])


def option_name(field: str, hint: Any) -> str:
    """Return the name of the option of a field of settings, without hyphens before it."""
    for mark in getattr(hint, "__metadata__", ()):
        if hasattr(mark, "metavar") and getattr(mark, "name", None):
            return str(mark.name)
    return field.replace("_", "-")


def _options(config: Any) -> Iterator[tuple[str, Any]]:
    """Yield the options of settings with values in plain types, or settings in a table of their own."""
    hints = get_type_hints(type(config), include_extras=True)
    for field in fields(config):
        value = getattr(config, field.name)
        marks = getattr(hints[field.name], "__metadata__", ())
        if field.name in WHERE:
            continue
        without_prefix = tyro.conf.OmitArgPrefixes[int].__metadata__[0]  # type: ignore[attr-defined]
        if is_dataclass(value) and without_prefix in marks:
            yield from _options(value)
            continue
        # A rule is a dataclass, too, and is given by a word.
        by_word = any(hasattr(mark, "instance_from_str") for mark in marks)
        if value is None:
            plain: Any = "None"
        elif is_dataclass(value) and not by_word:
            plain = value
        else:
            plain = _plain(value)
        if plain is not None:
            yield option_name(field.name, hints[field.name]), plain


def _plain(value: Any) -> Any:
    """Return a value in TOML's types, a rule as its name, None for another."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        items = [_plain(item) for item in value]
        if None in items or any(isinstance(item, list) for item in items):
            return None
        return items
    value = getattr(value, "name", value)
    return value if isinstance(value, str | bool | int | float) else None


def _toml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
