"""The explorer of what is in the folder of a run. No torch."""

from pathlib import Path

from circuitry.analysis.quickstart_settings import CARDS
from circuitry.cards.card_folder import CardFolder
from circuitry.circuits.graph_folder import GraphFolder
from circuitry.comparison.comparison import Comparison
from circuitry.explorer.explorer_settings import ExplorerSettings
from circuitry.explorer.export import ExplorerPage, export_explorer
from circuitry.explorer.overview import read_curves
from circuitry.explorer.view_files import ModelView
from circuitry.reports.run_pages import link_pages

WITHIN = ("", "check", "check-transfer")
"""Folders of a run that hold comparisons and curves: its own, and those of circuitry check."""


def explore_run(
    run: Path,
    graphs: GraphFolder,
    out: Path | None = None,
    *,
    cards: Path | None = None,
    model: ModelView | None = None,
    settings: ExplorerSettings = ExplorerSettings(),
) -> ExplorerPage:
    """Write the explorer of circuits, with the comparisons, curves and cards in the folder of their run.

    The default folder of the page is ``explorer`` in the run, that of the cards ``cards`` beside the circuits.
    """
    within = (
        [run / name for name in WITHIN] if graphs.lesions is None else []
    )  # they are of other circuits
    out, beside = (
        out or run / "explorer",
        [path for name in CARDS if (path := graphs.path.parent / name).is_dir()],
    )
    cards = cards or next(iter(beside), None)
    saved = [
        path
        for folder in within
        for path in sorted((folder / "comparisons").glob("*/"))
    ]
    exported = export_explorer(
        graphs,
        out,
        comparisons={path.name: Comparison.load(path) for path in saved},
        curves=[
            curve
            for folder in curve_folders(run)
            if within
            for curve in read_curves(folder)
        ],
        cards=None if cards is None else CardFolder(cards),
        model=model,
        settings=settings,
    )
    if out.resolve().parent == run.resolve():
        link_pages(run)
    return exported


def curve_folders(run: Path) -> list[Path]:
    """Return the folders of a run's faithfulness curves: first its own, then that of circuitry check."""
    return [
        folder for name in WITHIN if (folder := run / name / "faithfulness").is_dir()
    ]
