"""Settings as TOML files: the settings of a run, written beside its results, and presets. Does not import torch.

Each line is an option as on the command line, such as ``n-images = 8``. The text ``"None"`` stands for the value None.
Settings that contain other settings are tables, such as ``[training]``. The file of a run says what was done, so it
leaves out the options that say where results are written. The option ``--config`` reads such a file. A preset is a file
of settings with a name. It is the file ``presets/NAME/COMMAND.toml``, either in the folder of this package or in the
folder of the script that is run.
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
    """Write the settings of a finished run into the folder of its results.

    Nothing is written if the settings name no existing folder, if the folder can only be read, or after a dry run.

    Args:
        config: The settings. The folder of the results is their attribute ``folder``. If they have no such attribute,
            it is ``out``.
        command: The command line of the run. It is written into the file as a comment.
    """
    folder = getattr(config, "folder", None) or getattr(config, "out", None)
    if not isinstance(folder, Path) or not folder.is_dir():
        return
    if getattr(config, "dry_run", False):
        return
    try:
        with whole_file(folder / SETTINGS) as temporary:
            temporary.write_text(settings_text(config, command), encoding="utf-8")
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise


def settings_text(config: Any, command: str) -> str:
    """Return settings as TOML, after a comment with the command line.

    Values that no command line can give are left out.
    """
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
    """Replace the files of settings and the presets that a command line names by the options in these files.

    The returned line begins with these options, in the order of the files. The other words of the given line follow. If
    an option occurs twice, its last value counts. So an option of the given line overrules the same option of a file.

    Args:
        words: The words of the command line.
        kind: The class of the command's settings.

    Raises:
        InputError: if a file cannot be read, or if a preset does not exist.
    """
    files: list[Path] = []
    left: list[str] = []
    rest = iter(words)
    for word in rest:
        option, sign, value = word.partition("=")
        if word == "--study":
            files.append(preset_file(STUDY, kind))
        elif option in ("--config", "--preset"):
            if not sign:
                value = next(rest, "")
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
    """Return the file of a preset for a command.

    Args:
        name: Name of the preset.
        kind: The class of the command's settings.
    """
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
    """Return the settings of a command in a preset of this package, by the names of their fields.

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
    """Read a file of settings, and return the values by option.

    Raises:
        InputError: if the file cannot be read or is not a file of settings.
    """
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
    """Yield settings as the words of a command line.

    Args:
        table: The values by option. If a value is itself a dictionary, its key and a dot are put before the names of
            the options in it: ``{"training": {"lr": 0.1}}`` gives ``--training.lr 0.1``.
        prefix: Text that is put before the names of all options.
    """
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
    """Return the name of the command line option for a field of settings, without the hyphens in front.

    Args:
        field: Name of the field.
        hint: Annotation of the field; it may contain another name for the option.
    """
    for mark in getattr(hint, "__metadata__", ()):
        if hasattr(mark, "metavar") and getattr(mark, "name", None):
            return str(mark.name)
    return field.replace("_", "-")


def _options(config: Any) -> Iterator[tuple[str, Any]]:
    """Yield the name and the value of each option of some settings.

    A value is of a plain type (text, number, list), or is itself an object of settings, which the file writes as a
    table. Options that say where results are written, values that have no plain form, and arguments that each command
    line gives anyway because they have no name, are left out.
    """
    hints = get_type_hints(type(config), include_extras=True)
    for field in fields(config):
        value = getattr(config, field.name)
        marks = getattr(hints[field.name], "__metadata__", ())
        positional = tyro.conf.Positional[int].__metadata__[0]  # type: ignore[attr-defined]
        if field.name in WHERE or positional in marks:
            continue
        without_prefix = tyro.conf.OmitArgPrefixes[int].__metadata__[0]  # type: ignore[attr-defined]
        if is_dataclass(value) and without_prefix in marks:
            yield from _options(value)
            continue
        # A quadrature rule is a dataclass, too, but a command line gives it as a word.
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
    """Return a value in a type of TOML, or None if the value has no such form.

    A path becomes a text, and an object with a name, such as a quadrature rule, becomes its name.
    """
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
