"""The folders inside the folder of a run: their names, and where they lie. Does not import torch."""

from pathlib import Path

from circuitry.runs.settings_file import SETTINGS

CIRCUITS = "circuits"
"""Name of the folder of circuits, in the folder of a run or of own parts."""
OWN_PARTS = "own-parts"
"""Name of the folder of own parts, in the folder of a run."""
CARDS = ("cards", "first-cards")
"""Names of folders of cards beside circuits.

The first is made by ``circuitry cards``. The second is made by the quickstart from few images, and is used only if the
first does not exist.
"""
WITHIN = ("", "check")
"""Folders that hold the comparisons and curves of a run: the folder of the run, and the folder of ``circuitry check``
in it."""


def drawn_circuits(run: Path) -> Path:
    """Return the folder of the circuits that a run shows first.

    These are the own parts if the run has any, otherwise the circuits of the run.

    Example:
        >>> from circuitry.analysis import drawn_circuits
        >>> drawn_circuits(Path("runs/some")).name
        'circuits'
    """
    own = run / OWN_PARTS / CIRCUITS
    return own if own.is_dir() else run / CIRCUITS


def run_of(circuits: Path) -> Path:
    """Return the folder of the run that a folder of circuits belongs to."""
    beside = circuits.parent
    # In a run with other circuits, own parts lie one level deeper. Without other circuits, the folder of own parts is
    # the folder of the run, and contains its settings.
    if beside.name == OWN_PARTS and not (beside / SETTINGS).is_file():
        return beside.parent
    return beside


def cards_beside(circuits: Path) -> Path | None:
    """Return the folder of cards beside a folder of circuits, or None if there are no cards.

    If there are two such folders, the first in `CARDS` is returned.
    """
    # The cards of more images take precedence.
    for name in CARDS:
        cards = circuits.parent / name
        if cards.is_dir():
            return cards
    return None


def curve_folders(run: Path) -> list[Path]:
    """Return the folders of faithfulness curves in a run.

    The curves of the run itself come first, followed by the curves of ``circuitry check``.
    """
    folders = [run / name / "faithfulness" for name in WITHIN]
    return [folder for folder in folders if folder.is_dir()]
