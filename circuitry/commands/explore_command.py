"""What is in these circuits? This writes a page that shows their classes, domains, units and images.

The command reads the results of other commands in the folder of a run: circuits, comparisons,
faithfulness curves and unit cards. It writes a folder with one page. The page can be opened from disk or from any web
host, and needs no files from other web sites. If results are missing, the page names the command that makes them. With
--serve, this machine serves the page, and notes that you write on the page are stored on disk. With --serve and
--with-model, the page can also measure the exact effect of a unit or of a group of units, and explain
the answer of the model to an image that you drop on the page.

    circuitry explore --open                             # of the quickstart
    circuitry cards && circuitry explore --with-model --open
    circuitry explore --run runs/domainnet --with-model
    circuitry explore --serve --with-model --open        # the page that is there, or a new one
"""

import os
import webbrowser
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from circuitry import analysis, circuits, explorer, questions
from circuitry.analysis import QUICKSTART, QuickstartModel
from circuitry.explorer import ExplorerSettings
from circuitry.interventions import CheckSettings
from circuitry.runs import WorkSettings
from circuitry.runs.arguments import Natural

if TYPE_CHECKING:
    from circuitry import CausalChecks, GraphFolder
    from circuitry.explorer import ModelView


@dataclass(frozen=True, kw_only=True)
class Config(ExplorerSettings, WorkSettings, QuickstartModel):
    """Settings of the explorer. By default it shows the quickstart."""

    run: Path = QUICKSTART
    """Folder that the quickstart, circuitry find or circuitry compare wrote."""
    circuits: Path | None = None
    """Folder of circuits that the quickstart, circuitry find or circuitry compare wrote. The model and images of that
    run are used, unless a model or images are given (default: the own parts of the run if it has any, otherwise its
    circuits)."""
    cards: Path | None = None
    """Folder of unit cards (default: the folder cards beside the circuits)."""
    out: Path | None = None
    """Folder of the results: the page (default: the folder explorer in the run)."""
    with_model: bool = False
    """Load the model, to show its answers to unseen images, and the direct effects of its components on words."""
    open: bool = False
    """Open the page in the browser."""
    serve: bool = False
    """Serve the page on this machine. If the folder already has a page of these circuits, that page is served.
    Otherwise a new page is written first. Notes are stored in the folder of the page. With --with-model, the page can
    measure effects of units, and explain the model's answer to your own images."""
    port: Natural = 0
    """Port of the server; 0 for any free port."""

    @property
    def folder(self) -> Path:
        """Folder of the page."""
        return self.out or self.run / "explorer"


def main(config: Config) -> None:
    """Write the page, then serve it (--serve) or open it (--open).

    If the folder already has a page of these circuits, it is not written again with --serve, or if the folder can only
    be read.
    """
    folder = config.circuits or analysis.drawn_circuits(config.run)
    graphs = circuits.GraphFolder(folder)
    page = config.folder / explorer.INDEX_PAGE
    # The page contains the digest of its circuits, so a page of other circuits is recognised as such.
    is_there = explorer.exported_study(config.folder) == graphs.identity.key
    if is_there and not os.access(config.folder, os.W_OK):
        print(
            f"nothing is written, {config.folder} can only be read; an earlier page: {page}"
        )
    # With --serve an existing page is enough. Without --serve the user wants a new page.
    elif not (is_there and config.serve):
        export(config, graphs)
    if config.serve:
        serve(config, graphs)
    elif config.open:
        webbrowser.open(page.resolve().as_uri())


def export(config: Config, graphs: "GraphFolder") -> None:
    """Write the page of the circuits, with all results in the folder of the run, and print where the page is."""
    model = ask_model(config, graphs) if config.with_model else None
    # Only the settings of the page are passed on, because the digest of the page includes them.
    names = [field.name for field in fields(ExplorerSettings)]
    settings = ExplorerSettings(**{name: getattr(config, name) for name in names})
    exported = analysis.explore_run(
        config.run,
        graphs,
        config.folder,
        cards=config.cards,
        model=model,
        settings=settings,
    )
    print(exported)


def ask_model(config: Config, graphs: "GraphFolder") -> "ModelView":
    """Compute the results that need the model: its answers to unseen images, and its components' effects on words."""
    return explorer.view_model(
        checks_of(config, graphs),
        n_images=max(1, config.held_out_images),
        vocabulary=config.known_words,
        work=config.work(),
    )


def serve(config: Config, graphs: "GraphFolder") -> None:
    """Serve the page until the process is interrupted. With --with-model, the page can ask the model."""
    live = None
    if config.with_model:
        live = explorer.LiveModel(checks_of(config, graphs), work=config.work())
    explorer.serve_explorer(
        config.folder, live=live, port=config.port, open_page=config.open
    )


def checks_of(config: Config, graphs: "GraphFolder") -> "CausalChecks":
    """Return the object that tests the circuits on images of the settings, with the baseline used to find them."""
    # The baseline that the circuits were found with is used, because effects with another baseline are no exact values
    # of the scores.
    settings = CheckSettings(baseline=graphs.manifest["config"]["baseline"])
    clip = config.clip(config.work().rank, components=True)
    return questions.CausalChecks(clip, config.images(), graphs, settings)
