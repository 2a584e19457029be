"""One switch for the study's settings: `StudySettings.study`, and ``--study`` on every command line.

A class of settings lists in `StudySettings.STUDY` what the study sets otherwise than its defaults; classes that inherit
from it add their own. Whatever is given by hand wins over the preset.
"""

from collections.abc import Mapping
from dataclasses import MISSING, field, fields, make_dataclass
from typing import Any, ClassVar, TypeVar

Settings = TypeVar("Settings", bound="StudySettings")


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
        """Return the study's settings, but for what is given."""
        return cls(**{**cls.study_values(), **given})

    @classmethod
    def study_table(cls) -> list[tuple[str, Any, Any]]:
        """Return (field, default or None, the study's value) of each field that differs in the study."""
        values = cls.study_values()
        return [(f.name, _default(f), values[f.name]) for f in fields(cls) if f.name in values]  # type: ignore[arg-type]


def with_study_defaults(settings: type[Settings]) -> type[Settings]:
    """Return a class of settings whose defaults are the study's, for a command line with ``--study``."""
    values = settings.study_values()
    changed = [(f.name, f.type, field(default=values[f.name])) for f in fields(settings) if f.name in values]  # type: ignore[arg-type]
    made = make_dataclass(
        settings.__name__, changed, bases=(settings,), frozen=True, kw_only=True, namespace={"by_study": True}
    )
    made.__module__, made.__doc__ = settings.__module__, settings.__doc__
    return made


def _default(of: Any) -> Any:
    if of.default_factory is not MISSING:
        return of.default_factory()
    return None if of.default is MISSING else of.default
