"""Refuse a command line that cannot be right, by the help page alone: no library of models is loaded. No torch."""

import difflib
import re
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from circuitry.commands.help_pages import HelpPage, Option
from circuitry.runs.errors import InputError
from circuitry.runs.settings_file import words_of

_NUMBERS = {"INT": (int, "a whole number"), "FLOAT": (float, "a number")}
"""What the help calls numbers -> how they are read, and what they are."""
_NEAR = 2
"""Similar names that are shown at most."""
_MOST_SHOWN = 12
"""Choices that a sentence lists; more are on the page."""


def refuse_wrong(page: HelpPage, words: Sequence[str]) -> None:
    """Refuse words of a command line that do not fit the command's options.

    Raises:
        InputError: for an option that is unknown, that lacks values or has wrong ones, that is required and not given,
            or that contradicts another; for words that no option takes.
    """
    typed = given = _sorted_by_option(page, words)
    if config := typed.get("--config"):
        given = _sorted_by_option(page, words_of(Path(config[0]))) | typed
    for option in page.options:
        if option.name in given:
            _refuse_values(page, option, given[option.name])
        elif option.required:
            raise InputError(f"Expected {option.name} {option.takes}, but it was not given: see {page.see}.")
    _refuse_together(page, given, typed)


def near_words(word: str, known: Sequence[str]) -> str:
    """Return what may have been meant, as the end of a clause."""
    near = difflib.get_close_matches(word, known, n=_NEAR)
    return f", perhaps you meant {' or '.join(near)}" if near else ""


def _sorted_by_option(page: HelpPage, words: Sequence[str]) -> dict[str, list[str]]:
    """Return the values of each option that is given; refuse options and values that none takes."""
    flags = page.flags
    values = next((option for option in page.options if option.name not in flags), None)  # it takes bare words
    given: dict[str, list[str]] = {}
    current, room = values, None if values is None else values.words
    for word in words:
        if word.startswith("--"):
            flag, sign, value = word.partition("=")
            option = flags.get(flag.replace("_", "-"))
            if option is None:
                raise InputError(f"There is no option {flag}{near_words(flag, list(flags))}: see {page.see}.")
            current, room = option, option.words
            given[option.name] = [value] if sign else []
            if sign and option.words == 0:
                raise InputError(f"The switch {flag} takes no value, but {value!r} was given: see {page.see}.")
        elif current is None or (room is not None and len(given.get(current.name, [])) >= room):
            raise InputError(f"Expected an option, but {word!r} was given{_after(current)}: see {page.see}.")
        else:
            given.setdefault(current.name, []).append(word)
    return given


def _after(option: Option | None) -> str:
    return "" if option is None else f" after {option.name} {option.takes}".rstrip()


def _refuse_values(page: HelpPage, option: Option, values: Sequence[str]) -> None:
    if option.none and list(values) == ["None"]:
        return
    if option.words is not None and len(values) < option.words:
        what = f"{option.words} values" if option.words > 1 else "a value"
        raise InputError(
            f"Expected {what} after {option.name} ({option.takes}), but "
            f"{' '.join(values) or 'none'} was given: see {page.see}."
        )
    place = f"after {option.name}" if option.name.startswith("--") else f"as {option.name}"
    for value in values:
        if (wanted := _misfit(option, value)) is not None:
            near = near_words(value, [word for word in option.taken if isinstance(word, str)])
            raise InputError(f"Expected {wanted} {place}, but {value!r} was given{near}: see {page.see}.")


def _misfit(option: Option, value: str) -> str | None:
    """Return what was expected in place of a value, None if it fits."""
    kind = option.takes.strip("[].").split(" ")[0]
    if option.taken and isinstance(option.taken[0], str):
        known = f"one of {', '.join(option.taken)}" if len(option.taken) <= _MOST_SHOWN else "one of the known names"
        return None if value in option.taken else known
    if kind in _NUMBERS:
        read, what = _NUMBERS[kind]
        try:
            number = read(value)
        except ValueError:
            return option.wanted or what
        return option.wanted if option.taken and not option.taken[0] <= number <= option.taken[1] else None
    if kinds := re.fullmatch(r"\{(.*)\}-N", option.takes):
        name, _, number = value.rpartition("-")
        return None if name in kinds[1].split(",") and number.isdecimal() else option.takes
    return None


def _refuse_together(page: HelpPage, given: Mapping[str, Sequence[str]], typed: Container[str]) -> None:
    """Refuse options that do not go together.

    A file of settings has all switches and empty lists, also where they play no part: they don't contradict an option,
    nor does one with the value None, which undoes what a file says.
    """
    switches = [option.name for option in page.options if option.words == 0]
    held = [
        name
        for name, values in given.items()
        if (values and list(values) != ["None"]) or (name in switches and name in typed)
    ]
    for group in page.not_both:
        if len(both := [name for name in group if name in held]) > 1:
            raise InputError(
                f"Expected one of {' and '.join(group)}, but {' and '.join(both)} were given: see {page.see}."
            )
    for group in page.one_of:
        if not given.keys() & set(group):
            raise InputError(f"Expected {' or '.join(group)}, but neither was given: see {page.see}.")
    for name, *needed in page.needs:
        if name in held and (missing := [other for other in needed if other not in held]):
            raise InputError(f"The option {name} needs {' and '.join(missing)}, which was not given: see {page.see}.")
