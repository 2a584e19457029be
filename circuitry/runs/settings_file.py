"""The settings of a run as a TOML file: written beside the results, read by ``--config``. No torch.

A line is an option as on the command line, ``n-images = 8``, with ``"None"`` for none; settings made of settings are
tables, ``[training]``.
Where results go is left out: the file says what was done, not where.
"""

import errno
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import tyro

from circuitry.runs.errors import InputError
from circuitry.runs.files import whole_file
from circuitry.runs.provenance import WHERE

SETTINGS = "settings.toml"


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
    lines, tables = [f"# {command}"], list[str]()
    for name, value in _options(config):
        if is_dataclass(value):
            tables += ["", f"[{name}]", *(f"{key} = {_toml(one)}" for key, one in _options(value))]
        else:
            lines.append(f"{name} = {_toml(value)}")
    return "\n".join([*lines, *tables]) + "\n"


def words_of(path: Path) -> list[str]:
    """Return a file of settings as the words of a command line.

    Raises:
        InputError: for a file that cannot be read, and another than a file of settings.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"The settings {path} cannot be read ({error.strerror}): give a file for --config.") from error
    except ValueError as error:
        raise InputError(f"{path} is no file of settings ({error}): --config takes the {SETTINGS} of a run.") from error
    return list(_words(found, ""))


def _words(table: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, value in table.items():
        option = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _words(value, f"{option}.")
        elif isinstance(value, bool):
            before, _, last = option.rpartition(".")
            path = f"{before}." if before else ""
            yield f"--{path}{last}" if value else f"--{path}no-{last}"
        else:
            yield f"--{option}"
            yield from map(str, value if isinstance(value, list) else [value])


def option_name(field: str, hint: Any) -> str:
    """Return the name of the option of a field of settings, without hyphens before it."""
    named = [mark for mark in getattr(hint, "__metadata__", ()) if hasattr(mark, "metavar")]
    return next((mark.name for mark in named if getattr(mark, "name", None)), field.replace("_", "-"))


def _options(config: Any) -> Iterator[tuple[str, Any]]:
    """Yield the options of settings with values in plain types, or settings in a table of their own."""
    hints = get_type_hints(type(config), include_extras=True)
    for field in fields(config):
        value, marks = getattr(config, field.name), getattr(hints[field.name], "__metadata__", ())
        by_word = any(
            hasattr(mark, "instance_from_str") for mark in marks
        )  # such as a rule, which has no word for None
        if field.name in WHERE or (value is None and by_word):
            continue
        if is_dataclass(value) and tyro.conf.OmitArgPrefixes[int].__metadata__[0] in marks:  # type: ignore[attr-defined]
            yield from _options(value)
            continue
        plain = "None" if value is None else value if is_dataclass(value) and not by_word else _plain(value)
        if plain is not None:
            yield option_name(field.name, hints[field.name]), plain


def _plain(value: Any) -> Any:
    """Return a value in TOML's types, a rule as its name, None for another."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        each = [_plain(one) for one in value]
        return None if None in each or any(isinstance(one, list) for one in each) else each
    value = getattr(value, "name", value)
    return value if isinstance(value, str | bool | int | float) else None


def _toml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
