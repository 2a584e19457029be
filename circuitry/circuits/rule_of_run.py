"""The quadrature rule of a folder: chosen once, and kept beside its results for all processes that follow.

The first process writes ``rule.json`` before the first job; the others wait for it. A folder with results and without
this file was made with a given rule.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from circuitry.circuits.circuit_settings import AttributionSettings
from circuitry.circuits.quadrature import parse_rule
from circuitry.circuits.rule_choice import cheapest_rule
from circuitry.circuits.rule_errors import RuleErrors
from circuitry.circuits.rule_report import RULE_CHOICE
from circuitry.runs.errors import InputError
from circuitry.runs.files import file_lock
from circuitry.runs.manifest import NAME, read_sealed, write_sealed

log = logging.getLogger(__name__)

CHOICE = "rule.json"
_REMOVE = "remove its folder and make it again"
CIRCUITS, IMAGES = 4, 2
"""The least number of circuits to choose a rule by, and the images of each. There is a circuit in every domain: on a
model of emoji in seven styles the errors in four domains were half of those in the other three."""

_Settings = TypeVar("_Settings", bound=AttributionSettings)


def spread(keys: Sequence[tuple[str, str]], most: int | None = None) -> list[tuple[str, str]]:
    """Return some (class, domain) of a list of all: the first class in the first domain, the second in the second.

    As many as there are domains unless ``most`` is given, and at least `CIRCUITS`.
    """
    n_domains = len({domain for _, domain in keys})
    wanted = min(max(CIRCUITS, n_domains) if most is None else most, len(keys))
    places = list[int]()
    for i in range(wanted):
        place = i * (n_domains + 1) % len(keys)
        while place in places:  # the step may share a factor with the number of keys
            place = (place + 1) % len(keys)
        places.append(place)
    return [keys[place] for place in places]


def ruled(
    settings: _Settings, folder: Path, circuits: Callable[[], Iterable[RuleErrors]]
) -> tuple[_Settings, dict[str, Any]]:
    """Return settings with their rules, and the choice under `RULE_CHOICE`; nothing for a given rule.

    Args:
        settings: How to attribute; a given rule is kept.
        folder: Folder of the results, which keeps the choice.
        circuits: Makes the few circuits to choose the rule by.

    Raises:
        InputError: for a damaged file, a choice for another error, and what `cheapest_rule` raises.
    """
    if settings.rule is not None:
        return settings, {}
    path = folder / CHOICE
    if not path.is_file() and not (folder / NAME).is_file():
        with file_lock(folder, "rule"):
            if not path.is_file() and (few := list(circuits())):
                log.warning(
                    "Choosing the quadrature rule of %s once, on a few images of %d circuits; a given rule skips this.",
                    *(folder, len(few)),
                )
                write_sealed(path, cheapest_rule(few, settings.rule_error).as_dict())
    if not path.is_file():
        return settings, {}
    choice = read_sealed(path, _REMOVE)
    try:
        node_rule, edge_rule = (parse_rule(choice[kind]["rule"]) for kind in ("nodes", "edges"))
        asked = float(choice["asked"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}): {_REMOVE}.") from error
    if asked != settings.rule_error:
        raise InputError(
            f"{folder} was made for a rule error of {asked:g}, but {settings.rule_error:g} was given: choose another "
            "folder, or remove this one."
        )
    return replace(settings, rule=node_rule, edge_rule=settings.edge_rule or edge_rule), {RULE_CHOICE: choice}
