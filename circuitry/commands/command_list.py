"""The names of the command ``circuitry``, in groups, with a line of help each. No torch."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import NamedTuple


class Command(NamedTuple):
    """What the list of commands says of one."""

    group: str
    help: str
    """One line."""


COMMANDS: Mapping[str, Command] = {
    "quickstart": Command("start here", "the whole study in miniature, on drawn images"),
    "info": Command("start here", "versions, devices and caches, and what is missing"),
    "find": Command("circuits", "which units recognise one class, and do they work?"),
    "compare": Command("circuits", "are the circuits of my model shared between the domains of my images?"),
    "check": Command("circuits", "do circuits recover the answer, and in other domains, too?"),
    "components": Command("circuits", "which heads and neurons of a transformer act, by their exact effects?"),
    "cards": Command("look inside", "what does each unit of the circuits respond to?"),
    "explore": Command("look inside", "a page to look into circuits, units and images"),
    "train-sae": Command("models", "train a sparse autoencoder on activations"),
    "train": Command("models", "train a CLIP"),
    "evaluate": Command("models", "how accurate is a checkpoint, or every checkpoint of a run?"),
}
"""Name -> its group and its line of help; names of a group stand beside each other."""


def module_of(name: str) -> str:
    """Return the name of the module of a command, which has its options."""
    return f"circuitry.commands.{name.replace('-', '_')}_command"


def work_of(name: str) -> str:
    """Return the name of the module with the work of a command, which may load torch."""
    work = module_of(name).replace("_command", "_work")
    return work if find_spec(work) else module_of(name)
