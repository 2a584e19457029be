"""Write or serve the page of circuits."""

import os
import webbrowser
from dataclasses import fields

from circuitry import CausalChecks, GraphFolder
from circuitry.analysis.quickstart_settings import drawn_circuits
from circuitry.analysis.run_explorer import explore_run
from circuitry.commands.explore_command import Config
from circuitry.explorer import (
    ExplorerSettings,
    LiveModel,
    ModelView,
    exported_study,
    serve_explorer,
    view_model,
)
from circuitry.explorer.export import INDEX_PAGE
from circuitry.interventions import CheckSettings


def main(config: Config) -> None:
    """Write the page, or serve it, and say where it is."""
    graphs = GraphFolder(config.circuits or drawn_circuits(config.run))
    page, is_there = (
        config.folder / INDEX_PAGE,
        exported_study(config.folder) == graphs.identity.key,
    )
    if is_there and not os.access(config.folder, os.W_OK):
        print(
            f"nothing is written, {config.folder} can only be read; an earlier page: {page}"
        )
    elif not (is_there and config.serve):
        export(config, graphs)
    if not config.serve:
        if config.open:
            webbrowser.open(page.resolve().as_uri())
        return
    live = (
        LiveModel(checks_of(config, graphs), work=config.work())
        if config.with_model
        else None
    )
    serve_explorer(config.folder, live=live, port=config.port, open_page=config.open)


def export(config: Config, graphs: GraphFolder) -> None:
    """Write the page of what is there."""
    settings = ExplorerSettings(
        **{
            field.name: getattr(config, field.name)
            for field in fields(ExplorerSettings)
        }
    )
    model = ask_model(config, graphs) if config.with_model else None
    print(
        explore_run(
            config.run,
            graphs,
            config.folder,
            cards=config.cards,
            model=model,
            settings=settings,
        )
    )


def ask_model(config: Config, graphs: GraphFolder) -> ModelView:
    """Return what only the model can tell."""
    n_images = max(1, config.held_out_images)
    return view_model(
        checks_of(config, graphs),
        n_images=n_images,
        vocabulary=config.known_words,
        work=config.work(),
    )


def checks_of(config: Config, graphs: GraphFolder) -> CausalChecks:
    """Return the model, with the circuits, the images, and the baseline that circuits were found with."""
    settings = CheckSettings(baseline=graphs.manifest["config"]["baseline"])
    return CausalChecks(
        config.clip(config.work().rank, parts=True), config.images(), graphs, settings
    )
