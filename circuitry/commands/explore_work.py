"""Write or serve the page of circuits."""

import webbrowser
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from circuitry import CausalChecks, Comparison, GraphFolder
from circuitry.cards import CardFolder
from circuitry.commands.explore_command import Config
from circuitry.explorer import (
    ExplorerSettings,
    LiveModel,
    ModelView,
    export_explorer,
    exported_study,
    read_curves,
    serve_explorer,
    view_model,
)
from circuitry.interventions import CheckSettings
from circuitry.reports import link_pages
from circuitry.runs import InputError

VARIANTS = {
    "own-style texts": "circuits-own-style",
    "the metric margin": "circuits-margin",
    "means as baseline": "circuits-mean-position",
}
"""What other circuits of a run were found with, and their folder."""


def main(config: Config) -> None:
    """Write the page, or serve it, and say where it is."""
    graphs = GraphFolder(config.circuits or config.run / "circuits")
    if not config.serve:
        page = export(config, graphs)
        if config.open:
            webbrowser.open(page.resolve().as_uri())
        return
    if exported_study(config.folder) != graphs.manifest["config_hash"]:
        export(config, graphs)
    live = LiveModel(checks_of(config, graphs), work=config.work()) if config.with_model else None
    serve_explorer(config.folder, live=live, port=config.port, open_page=config.open)


def export(config: Config, graphs: GraphFolder) -> Path:
    """Read what is there, and write the page."""
    found = {name: there(config.run / name, getattr(config, name)) for name in ("comparisons", "cards")}
    names = [field.name for field in fields(ExplorerSettings)]
    exported = export_explorer(
        graphs,
        config.folder,
        comparisons=read_comparisons(found["comparisons"]),
        curves=[curve for folder in folders_of_curves(config) for curve in read_curves(folder)],
        cards=None if found["cards"] is None else CardFolder(found["cards"]),
        variants=variants_of(config.run),
        model=ask_model(config, graphs) if config.with_model else None,
        settings=ExplorerSettings(**{name: getattr(config, name) for name in names}),
    )
    print(exported)
    if config.folder.resolve().parent == config.run.resolve():
        link_pages(config.run)
    return exported.page


def there(default: Path, given: Path | None) -> Path | None:
    """Return the folder that was given, or the default one where it exists."""
    return given if given is not None else default if default.is_dir() else None


def folders_of_curves(config: Config) -> list[Path]:
    """Return the folder of curves that was given, or those of the run: first its own, then that of circuitry check."""
    if config.faithfulness is not None:
        return [config.faithfulness]
    return [folder for name in ("faithfulness", "check/all-sites") if (folder := config.run / name).is_dir()]


def read_comparisons(folder: Path | None) -> Mapping[str, Comparison]:
    """Return the comparisons in a folder by measure."""
    if folder is None:
        return {}
    found = {path.name: Comparison.load(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    if not found:
        raise InputError(f"There is no comparison in {folder}: give the folder of comparisons.")
    return found


def variants_of(run: Path) -> dict[str, GraphFolder]:
    """Return the circuits of a run that were found in another way."""
    return {title: GraphFolder(run / name) for title, name in VARIANTS.items() if (run / name).is_dir()}


def ask_model(config: Config, graphs: GraphFolder) -> ModelView:
    """Return what only the model can tell."""
    n_images = max(1, config.held_out_images)
    return view_model(checks_of(config, graphs), n_images=n_images, vocabulary=config.known_words, work=config.work())


def checks_of(config: Config, graphs: GraphFolder) -> CausalChecks:
    """Return the model, with the circuits, the images, and the baseline that circuits were found with."""
    settings = CheckSettings(baseline=graphs.manifest["config"]["baseline"])
    return CausalChecks(config.clip(config.work().rank), config.images(), graphs, settings)
