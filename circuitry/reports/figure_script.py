"""The command line of the scripts in ``figures/``: the folder of the tables, and the path of the figure."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go

from circuitry.reports.page import write_figure
from circuitry.runs.command_line import run_script


@dataclass(frozen=True)
class FigureSettings:
    """Settings of a figure."""

    results: Path
    """Folder of the tables that it is drawn from."""
    out: Path
    """Path of the figure without its ending: an HTML file and, with Chrome, a PNG file."""


def run_figure(figure: Callable[[Path], go.Figure], results: Path, script: str, description: str | None) -> None:
    """Draw a figure, as a command line asks for it; by default from the committed tables, beside its script.

    Example:
        >>> if __name__ == "__main__":
        ...     run_figure(figure, RESULTS, __file__, __doc__)
    """

    def main(settings: FigureSettings) -> None:
        print(*write_figure(figure(settings.results), settings.out), sep="\n")

    run_script(FigureSettings, main, description, lambda kind: kind(results, Path(script).with_suffix("")))
