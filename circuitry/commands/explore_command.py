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


def main(config: Config) -> None:
    """Write the page, or serve it, and say where it is."""
    folder = config.circuits or analysis.drawn_circuits(config.run)
    graphs = circuits.GraphFolder(folder)
    page = config.folder / explorer.INDEX_PAGE
    # The page names the circuits that it shows, so a page of other circuits is not taken for this one.
    is_there = explorer.exported_study(config.folder) == graphs.identity.key
    if is_there and not os.access(config.folder, os.W_OK):
        print(
            f"nothing is written, {config.folder} can only be read; an earlier page: {page}"
        )
    # Serving needs no new page; without --serve a new page was asked for.
    elif not (is_there and config.serve):
        export(config, graphs)
    if config.serve:
        serve(config, graphs)
    elif config.open:
        webbrowser.open(page.resolve().as_uri())


def export(config: Config, graphs: "GraphFolder") -> None:
    """Write the page of the circuits, with all results in the folder of their run."""
    model = ask_model(config, graphs) if config.with_model else None
    # The page's digest holds its settings, and not how the command was called.
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
    """Return the answers to held-out images and the direct effects on words, which need the model."""
    return explorer.view_model(
        checks_of(config, graphs),
        n_images=max(1, config.held_out_images),
        vocabulary=config.known_words,
        work=config.work(),
    )


def serve(config: Config, graphs: "GraphFolder") -> None:
    """Serve the page until it is interrupted, with the model if it is asked for."""
    live = None
    if config.with_model:
        live = explorer.LiveModel(checks_of(config, graphs), work=config.work())
    explorer.serve_explorer(
        config.folder, live=live, port=config.port, open_page=config.open
    )


def checks_of(config: Config, graphs: "GraphFolder") -> "CausalChecks":
    """Return the model, with the circuits, the images, and the baseline that circuits were found with."""
    # The checks' own default may be another baseline, whose effects would not be those that scores are about.
    settings = CheckSettings(baseline=graphs.manifest["config"]["baseline"])
    clip = config.clip(config.work().rank, components=True)
    return questions.CausalChecks(clip, config.images(), graphs, settings)
