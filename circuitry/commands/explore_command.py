"""What is in these circuits? A page to look at classes, domains, units and images, from disk.

Reads what other commands left in the folder of a run: circuits, comparisons, also of transfer, faithfulness curves and
unit cards. Writes a folder with one page, which opens from disk or from any web host and asks for nothing else. What is
missing, the page says, with the command that makes it. Served on this machine, the page keeps notes on disk. With the
model it measures the exact effect of units and groups of units when it is asked to, and looks at images that the reader
drops on it.

    circuitry explore --open                             # of the quickstart
    circuitry cards && circuitry explore --with-model --open
    circuitry explore --run runs/domainnet --with-model
    circuitry explore --serve --with-model --open        # the page that is there, or a new one
"""

from dataclasses import dataclass
from pathlib import Path

from circuitry.analysis import QuickstartModel
from circuitry.analysis.quickstart_settings import QUICKSTART
from circuitry.explorer import ExplorerSettings
from circuitry.runs import WorkSettings
from circuitry.runs.given import Natural


@dataclass(frozen=True, kw_only=True)
class Config(ExplorerSettings, WorkSettings, QuickstartModel):
    """Settings; the defaults are the quickstart's folder."""

    run: Path = QUICKSTART
    """Folder that the quickstart, circuitry find or circuitry compare wrote."""
    circuits: Path | None = None
    """Folder of circuits that the quickstart, circuitry find or circuitry compare left; model and images are those of
    that run, unless a model or images are given (default: own parts in the run, else its
    circuits)."""
    cards: Path | None = None
    """Folder of unit cards (default: cards beside the circuits)."""
    out: Path | None = None
    """Folder of the results: the page (default: explorer in the run)."""
    with_model: bool = False
    """Load the model for its answers to held-out images, and for direct effects on words."""
    open: bool = False
    """Open the page in the browser."""
    serve: bool = False
    """Serve the page on this machine: the one that is there, if it is of these circuits, else a new one. Notes are kept
    in its folder; with the model, units are measured, and own images looked at."""
    port: Natural = 0
    """Port of the server; 0 for a free one."""

    @property
    def folder(self) -> Path:
        """Folder of the page."""
        return self.out or self.run / "explorer"
