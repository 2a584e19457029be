"""What lies where in the folder of a run. No torch."""

from pathlib import Path

from circuitry.runs.settings_file import SETTINGS

CIRCUITS = "circuits"
"""Folder of circuits, within that of a run or of own parts."""
OWN_PARTS = "own-parts"
"""Folder of own parts, within that of a run."""
CARDS = ("cards", "first-cards")
"""Folders of cards beside circuits: those of circuitry cards, else those of few images that the quickstart makes."""
WITHIN = ("", "check", "check-transfer")
"""Folders of a run that hold comparisons and curves: its own, and those of circuitry check."""


def drawn_circuits(run: Path) -> Path:
    """Return the folder of the circuits that a run shows first: own parts, where there are any."""
    own = run / OWN_PARTS / CIRCUITS
    return own if own.is_dir() else run / CIRCUITS


def run_of(circuits: Path) -> Path:
    """Return the folder of the run that circuits lie in."""
    beside = circuits.parent
    # Own parts lie one deeper in a run that has other circuits, too; alone they are a run with its settings.
    if beside.name == OWN_PARTS and not (beside / SETTINGS).is_file():
        return beside.parent
    return beside


def cards_beside(circuits: Path) -> Path | None:
    """Return the folder of cards beside circuits, if there is one."""
    for name in CARDS:
        cards = circuits.parent / name
        if cards.is_dir():
            return cards
    return None


def curve_folders(run: Path) -> list[Path]:
    """Return the folders of a run's faithfulness curves: first its own, then that of circuitry check."""
    folders = [run / name / "faithfulness" for name in WITHIN]
    return [folder for folder in folders if folder.is_dir()]
