"""One switch for the study's settings: `StudySettings.study`, and ``--study`` on every command line.

A class of settings lists in `StudySettings.STUDY` what the study sets otherwise than its defaults; classes that inherit
from it add their own. Whatever is given by hand wins over the preset.
"""

from collections.abc import Mapping
from dataclasses import MISSING, field, fields, is_dataclass, make_dataclass
from typing import Any, ClassVar, TypeVar

from circuitry.runs.given import checked

Settings = TypeVar("Settings", bound="StudySettings")


MOST_SHOWN = 8
"""Names that a table shows of a setting; of more it shows the first two."""


class StudySettings:
    """What every frozen dataclass of settings inherits from that has a preset of the study's.

    Example:
        >>> @dataclass(frozen=True)
        ... class Config(StudySettings):
        ...     STUDY: ClassVar = {"seed": 42}
        ...     seed: int = 0
        ...     n_images: int = 50
        >>> Config.study(n_images=10)
        Config(seed=42, n_images=10)
    """

    STUDY: ClassVar[Mapping[str, Any]] = {}
    """Field -> the study's value, of the fields that this class declares or inherits and that differ in the study."""
    by_study: ClassVar[bool] = False
    """Whether these settings began from the study's: of a configuration that ``--study`` made."""

    @classmethod
    def study_values(cls) -> dict[str, Any]:
        """Return what the study sets otherwise than the defaults, of this class and all that it inherits from."""
        found: dict[str, Any] = {}
        for parent in reversed(cls.__mro__):
            found |= vars(parent).get("STUDY", {})
        return found

    @classmethod
    def study(cls: type[Settings], **given: Any) -> Settings:
        """Return the study's settings, changed by what is given."""
        return cls(**{**cls.study_values(), **given})

    @classmethod
    def study_table(cls) -> list[tuple[str, Any, Any]]:
        """Return (field, default or None, the study's value) of each field that differs in the study."""
        values = cls.study_values()
        return [(f.name, _default(f), values[f.name]) for f in fields(cls) if f.name in values]  # type: ignore[arg-type]


def with_study_defaults(settings: type[Settings]) -> type[Settings]:
    """Return a class of settings whose defaults are the study's, for a command line with ``--study``."""
    made = with_defaults(settings, settings.study_values())
    made.by_study = True
    return made


def with_defaults(settings: type[Settings], values: Mapping[str, Any]) -> type[Settings]:
    """Return a class of settings that has these defaults."""
    changed = [(f.name, f.type, field(default=values[f.name])) for f in fields(settings) if f.name in values]  # type: ignore[arg-type]
    made = make_dataclass(settings.__name__, changed, bases=(settings,), frozen=True, kw_only=True)
    made.__module__, made.__doc__ = settings.__module__, settings.__doc__
    return checked(made)


def study_markdown(settings: Mapping[str, type[StudySettings]]) -> str:
    """Return a Markdown table of what the study sets otherwise than the defaults, of classes by the name to show.

    A setting that is itself made of settings is told field by field.
    """
    rows = ["| where | setting | default | study |", "|---|---|---|---|"]
    for name, kind in settings.items():
        for setting, default, value in kind.study_table():
            for field_name, one, other in _told(setting, default, value):
                rows.append(f"| {name} | {field_name} | {_in_words(one)} | {_in_words(other)} |")
    return "\n".join(rows) + "\n"


def _told(name: str, default: Any, value: Any) -> list[tuple[str, Any, Any]]:
    if not (is_dataclass(value) and is_dataclass(default)):
        return [(name, default, value)]
    pairs = [(f.name, getattr(default, f.name), getattr(value, f.name)) for f in fields(value)]
    return [(f"{name}: {field_name}", one, other) for field_name, one, other in pairs if one != other]


def _in_words(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        more = f" and {len(value) - 2} more" if len(value) > MOST_SHOWN else ""
        return ", ".join(map(_in_words, value[:2] if more else value)) + more or "none"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return str(getattr(value, "name", value))


def _default(of: Any) -> Any:
    if of.default_factory is not MISSING:
        return of.default_factory()
    return None if of.default is MISSING else of.default
