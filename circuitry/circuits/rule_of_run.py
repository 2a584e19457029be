"""The quadrature rule of a run: chosen once, kept in the folder of its results, the same for whoever comes later.

``rule.json`` is written before the first job, by the process that comes first; the others wait for it. A folder that
has results and no such file was made with a rule that was given.
"""

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from circuitry.circuits.quadrature import parse_rule
from circuitry.circuits.rule_choice import RuleErrors, cheapest_rule
from circuitry.circuits.rule_report import RULE_CHOICE
from circuitry.circuits.settings import AttributionSettings
from circuitry.runs.errors import InputError
from circuitry.runs.files import file_lock
from circuitry.runs.manifest import NAME, write_json

log = logging.getLogger(__name__)

CHOICE = "rule.json"
CIRCUITS, IMAGES = 4, 2
"""How many circuits a rule is chosen by at least, and how many images of each. There is one in every domain: on a model
of emoji in seven styles the errors of four circuits in four of them were half of those in the others."""


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
    settings: AttributionSettings, folder: Path, circuits: Callable[[], Iterable[RuleErrors]]
) -> tuple[AttributionSettings, dict[str, Any]]:
    """Return settings with their rules, and the choice by the name that it is kept under; none for a given rule.

    Args:
        settings: How to attribute; a rule that is given is kept.
        folder: Folder of the run, which keeps the choice.
        circuits: Makes the few circuits that the rule is chosen by.

    Raises:
        InputError: for a file of a choice that is damaged or by another error, and as `cheapest_rule`.
    """
    if settings.rule is not None:
        return settings, {}
    path = folder / CHOICE
    if not path.is_file() and not (folder / NAME).is_file():
        with file_lock(folder, "rule"):
            if not path.is_file() and (few := list(circuits())):
                log.warning(
                    "Choosing the quadrature rule of %s on a few images of %d circuits, once; a rule that is given "
                    "saves it.",
                    *(folder, len(few)),
                )
                write_json(path, cheapest_rule(few, settings.rule_error).as_dict())
    if not path.is_file():
        return settings, {}
    try:
        choice = json.loads(path.read_text(encoding="utf-8"))
        node_rule, edge_rule = (parse_rule(choice[kind]["rule"]) for kind in ("nodes", "edges"))
        asked = float(choice["asked"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}): remove its folder and make it again.") from error
    if asked != settings.rule_error:
        raise InputError(
            f"{folder} was made with rules of an error of {asked:g}, but {settings.rule_error:g} was asked for: choose "
            "another folder, or remove this one."
        )
    return replace(settings, rule=node_rule, edge_rule=settings.edge_rule or edge_rule), {RULE_CHOICE: choice}
