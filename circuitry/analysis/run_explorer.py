"""Write the explorer for the results in the folder of a run. Does not import torch."""

from pathlib import Path

from circuitry.analysis.run_layout import WITHIN, cards_beside, curve_folders
from circuitry.cards.card_folder import CardFolder
from circuitry.circuits.graph_folder import GraphFolder
from circuitry.comparison.comparison import Comparison
from circuitry.explorer.explorer_settings import ExplorerSettings
from circuitry.explorer.export import ExplorerPage, export_explorer
from circuitry.explorer.overview import read_curves
from circuitry.explorer.view_files import ModelView
from circuitry.interventions.curves import FaithfulnessCurve
from circuitry.reports.run_pages import link_pages


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

    Args:
        run: Folder of the run.
        graphs: The circuits to show.
        out: Folder of the page (default: ``explorer`` in the folder of the run).
        cards: Folder of the cards (default: the folder ``cards`` beside the circuits; if it does not exist, the folder
            ``first-cards``, which the quickstart makes).
        model: Results that need the model, such as its answers to images (default: the page shows no such results).
        settings: How much data the page gets.

    Example:
        >>> from circuitry.analysis import explore_run
        >>> explore_run(Path("runs/x"), graphs)
    """
    out = out or run / "explorer"
    cards = cards or cards_beside(graphs.path)
    comparisons: dict[str, Comparison] = {}
    curves: list[FaithfulnessCurve] = []
    # Own parts have lesions and no curves. If curves lie in the folder of their run, they are curves of its circuits.
    if graphs.lesions is None:
        for name in WITHIN:
            for path in sorted((run / name / "comparisons").glob("*/")):
                comparisons[path.name] = Comparison.load(path)
        for folder in curve_folders(run):
            curves += read_curves(folder)
    exported = export_explorer(
        graphs,
        out,
        comparisons=comparisons,
        curves=curves,
        cards=None if cards is None else CardFolder(cards),
        model=model,
        settings=settings,
    )
    # If the page lies elsewhere, there is no report beside it for a link.
    if out.resolve().parent == run.resolve():
        link_pages(run)
    return exported
