"""Write the explorer of a folder of circuits: a page and its data. It opens from disk or from any web host.

    index.html             the page, with all of its code
    data/index.js          classes, domains, sites, comparisons, faithfulness of circuits, names of units
    data/class/<n>.js      the circuits of a class, in all domains and on folds of the images
    data/site/<n>.js       effects of each unit of a site in all circuits
    data/cards/<n>.js      cards of the units of a site
    data/pictures.js       paths, classes and domains of the images
    data/images/<n>.js     unseen images of a class
    data/direct/<n>.js     contributions of components to the embeddings of a class
    data/words.js          vectors of words
    thumbnails/<id>.webp   a small picture of each image

The page loads a data file when the user opens a view that needs this file. Files are named by numbers, because names of
classes and sites may have any characters.

Does not import torch.
"""

import json
import logging
import shlex
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from circuitry.cards.card_folder import CardFolder
from circuitry.cards.circuit_units import CircuitUnits
from circuitry.circuits.budgets import SAME_SHARE
from circuitry.circuits.graph import AttributionGraph
from circuitry.circuits.graph_folder import GraphFolder
from circuitry.comparison.comparison import Comparison
from circuitry.comparison.lesion_reading import KNOWN
from circuitry.explorer.card_files import pack_cards
from circuitry.explorer.circuit_files import class_series, site_effects
from circuitry.explorer.explorer_settings import ExplorerSettings
from circuitry.explorer.overview import (
    describe_comparison,
    describe_curves,
    describe_lesions,
    lesions_of,
    tested_cells,
)
from circuitry.explorer.packing import EXPLORER_FORMAT, DataFolder
from circuitry.explorer.template import render_page
from circuitry.explorer.view_files import ModelView, pack_view
from circuitry.interventions.curves import FaithfulnessCurve
from circuitry.reports.figures.style import MARKS
from circuitry.reports.run_pages import REPORT_PAGE
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError
from circuitry.runs.files import LOCK, TORN, make_folder, whole_file
from circuitry.runs.manifest import NAME, check_format, write_json
from circuitry.runs.provenance import digest, versions

INDEX_PAGE = "index.html"
"""Name of the page, which is written after all of its data."""
MOST_BYTES = 64 << 20
"""Number of bytes above which the export logs a warning."""

_MADE_BY = {
    "cards": "cards --circuits",
    "comparisons": "compare --out",
    "curves": "check --circuits",
    "answers": "explore --circuits",
}

log = logging.getLogger(__name__)


class ExplorerPage(NamedTuple):
    """The page that `export_explorer` wrote, and the sizes of its files.

    As text, it is one line with the path of the page and the size of all files together.

    Example:
        >>> from circuitry.explorer import export_explorer
        >>> explorer = export_explorer(graphs, "runs/x/explorer")
        >>> explorer.page.name
        'index.html'
        >>> print(explorer)
        explorer: runs/x/explorer/index.html (... MiB)
    """

    page: Path  #: The page to open.
    n_bytes: dict[str, int]
    """Number of bytes by kind of file, such as page, index, class, site, cards, images, thumbnails."""

    def __str__(self) -> str:
        return f"explorer: {self.page} ({sum(self.n_bytes.values()) / 2**20:.1f} MiB)"


@checked
def export_explorer(
    graphs: GraphFolder,
    out: str | Path,
    *,
    comparisons: Mapping[str, Comparison] | None = None,
    curves: Sequence[FaithfulnessCurve] = (),
    cards: CardFolder | None = None,
    model: ModelView | None = None,
    settings: ExplorerSettings = ExplorerSettings(),
) -> ExplorerPage:
    """Write the explorer of a folder of circuits.

    Args:
        graphs: The circuits. If their extraction is not finished, the page shows the circuits found so far.
        out: Folder of the page. An earlier explorer in this folder is replaced.
        comparisons: Comparisons of the circuits between domains, by the name of the similarity measure, as
            `compare_domains` returns them. They are ignored if ``graphs`` are own parts. Then the page shows the
            effects of lesions instead.
        curves: Faithfulness curves of the circuits. The page shows them beside the circuits.
        cards: Cards of the units, from `unit_cards`: images, names and exact effects.
        model: Answers of the model and direct effects on words, from `view_model`.
        settings: How much data the page gets.

    Raises:
        InputError: if ``graphs`` has no circuits; if comparisons, curves, cards or answers were made from other
            circuits than ``graphs``, or with another model; or if ``out`` has files, but no explorer.

    Example:
        >>> from circuitry.explorer import export_explorer
        >>> comparisons = circuitry.compare_domains(graphs)
        >>> export_explorer(graphs, "runs/x/explorer", comparisons=comparisons).page
        PosixPath('runs/x/explorer/index.html')
    """
    if not graphs:
        raise InputError(
            f"There is no circuit to explore in {graphs.path}: let the extraction find one."
        )
    comparisons = comparisons or {}
    for comparison in comparisons.values():
        _check_of(graphs, "comparisons", comparison.about)
    for curve in curves:
        _check_of(graphs, "curves", curve.settings)
    if cards is not None:
        _check_of(graphs, "cards", cards.manifest["config"])
    if model is not None and model.circuits is not None:
        _check_of(graphs, "answers", {"circuits": model.circuits})
    target = Path(out)
    page = target / INDEX_PAGE
    _check_free(target)
    make_folder(target)

    # The index: all that the page needs when it is opened.
    first = graphs[next(iter(graphs))]
    header = _describe(graphs, first, settings)
    beside = target.resolve().parent / REPORT_PAGE
    header["report"] = f"../{REPORT_PAGE}" if beside.is_file() else None
    header["comparisons"] = [describe_comparison(c) for c in comparisons.values()]
    # A folder of own parts was tested by lesions. Its page shows the lesions in place of comparisons.
    lesions = graphs.lesions
    if lesions is not None:
        header["comparisons"] = [describe_lesions(lesions)]
        header["tested"] = tested_cells(lesions)
        header["known"] = KNOWN
        if "share" in lesions:
            # The share that the user asked for. The share of the units that were cut may differ: 1 % of 1,104 units
            # are 12 units, which are 1.1 %.
            header["nodeFraction"] = float(lesions["share"].iloc[0])
    header["curves"] = describe_curves(curves, first.inner_sites, str(header["budget"]))

    # Every data file names its export by this digest. The page refuses data of another export.
    of_units = (
        None if cards is None else cards.manifest["config"],
        None if model is None else model.digest,
    )
    export = digest([header, list(graphs), of_units, repr(settings), versions()])
    folder = DataFolder(target, export)
    # The old page is deleted first and the new page is written last. So an interrupted export leaves no page, rather
    # than a page that lacks data.
    page.unlink(missing_ok=True)
    about = {"study": header["study"], "title": header["title"], "export": export}
    write_json(target / NAME, {"format": EXPLORER_FORMAT, **about})

    # Data that the page reads later, when a view needs them.
    circuits = _write_classes(folder, graphs, first, settings)
    counts: dict[str, np.ndarray] = {}
    for place, site in enumerate(circuits.kept):
        folder.script(f"site/{place}", {"site": site}, site_effects(circuits, site))
        counts[f"counts/{place}"] = circuits.kept[site].sum(1).astype(np.uint16)
    if cards is not None:
        header |= pack_cards(folder, cards, circuits, model, settings)
    if model is not None:
        header |= pack_view(folder, model, graphs.classes)
    folder.script("index", header, counts)
    # Delete files of an earlier export that this export did not write.
    for old in [*target.glob("data/**/*.js"), *target.glob("thumbnails/*.webp")]:
        if old not in folder.written:
            old.unlink()
    content = render_page(str(header["title"])).encode()
    with whole_file(page) as temporary:
        temporary.write_bytes(content)
    folder.sizes["page"] = len(content)
    if sum(folder.sizes.values()) > MOST_BYTES:
        log.warning(
            "The explorer has more than %d MiB: fewer images in each list, or twins=False, make it smaller.",
            MOST_BYTES >> 20,
        )
    return ExplorerPage(page, folder.sizes)


def _check_of(graphs: GraphFolder, what: str, made_of: Mapping[str, Any]) -> None:
    """Raise `InputError` if a result was made from other circuits than ``graphs``, or with another model.

    Args:
        graphs: The circuits of the explorer.
        what: Kind of the result, for the message: one of the keys of `_MADE_BY`.
        made_of: The configuration of the result, which names its model and circuits.
    """
    identity = graphs.identity
    identity.check(made_of, f"the circuits in {graphs.path}", f"the {what}")
    # A comparison that was made by hand does not name its circuits.
    theirs = made_of.get("circuits", identity.key)
    if theirs != identity.key:
        raise InputError(
            f"The {what} given are of the circuits with digest {theirs}, but those in {graphs.path} have "
            f"{identity.key}: make them of these with circuitry {_MADE_BY[what]} {shlex.quote(str(graphs.path))}."
        )


def _check_free(target: Path) -> None:
    """Raise `InputError` if a folder has files, but no explorer."""
    manifest = target / NAME
    if manifest.is_file():
        # An explorer of any version may be replaced, even if its manifest is damaged.
        text = manifest.read_text(encoding="utf-8", errors="replace")
        if "circuitry explorer" in text:
            return
    # Locks, and incomplete files of killed processes, may be overwritten.
    ours = (LOCK, TORN)
    files = [file for file in target.glob("*") if not file.name.startswith(ours)]
    if files:
        named = manifest if manifest in files else files[0]
        raise InputError(
            f"{named} is of no explorer, which needs an empty folder: choose another one."
        )


def _write_classes(
    folder: DataFolder,
    graphs: GraphFolder,
    first: AttributionGraph,
    settings: ExplorerSettings,
) -> CircuitUnits:
    """Write the circuits of every class, and return tables of the units in all circuits.

    Both are done in one loop, so that each graph is read from disk only once.

    Args:
        folder: The folder of the explorer.
        graphs: The circuits.
        first: Any of the graphs; all graphs have the same sites.
        settings: How much data the page gets.
    """
    circuits = CircuitUnits(list(graphs))
    for place, class_name in enumerate(graphs.classes):
        headers: list[Mapping[str, object]] = []
        arrays: dict[str, np.ndarray] = {}
        for series in class_series(graphs, first.inner_sites, class_name, settings):
            for name, array in series.arrays.items():
                arrays[f"{len(headers)}/{name}"] = array
            headers.append(series.header)
            # The tables have the circuits that were found on all images, and not the circuits of folds.
            if series.header["fold"] is None:
                domain = str(series.header["domain"])
                circuits.add((class_name, domain), series.graph)
        header: dict[str, object] = {"class": class_name, "series": headers}
        if graphs.lesions is not None:
            header["lesions"] = lesions_of(graphs.lesions, class_name)
        folder.script(f"class/{place}", header, arrays)
    return circuits


def _describe(
    graphs: GraphFolder,
    first: AttributionGraph,
    settings: ExplorerSettings,
) -> dict[str, object]:
    """Return the entries of the index that describe the circuits: classes, domains, sites and settings."""
    config = graphs.manifest["config"]
    kind = "Circuits" if graphs.lesions is None else "Own parts"
    # The page lists the settings as text.
    made: dict[str, str] = {}
    for name, value in graphs.settings.items():
        values = value if isinstance(value, list | tuple) else [value]
        made[name] = ", ".join(map(str, values))
    scored = f"the metric ({made.get('metric')})"
    # The scores of an own part are costs in log-odds. The settings of such a graph contain a price; other graphs have
    # no price.
    if "price" in first.settings:
        scored = "the class's log-odds"
    # The marks are those of `domain_marks`. If there are more domains than marks, domains share marks; `domain_marks`
    # would raise an error.
    sorted_domains = sorted(graphs.domains)
    marks = []
    for domain in graphs.domains:
        place = sorted_domains.index(domain)
        marks.append(list(MARKS[place % len(MARKS)]))
    circuits = []
    for class_name, domain in graphs:
        row = graphs.classes.index(class_name)
        circuits.append([row, graphs.domains.index(domain)])
    return {
        "title": f"{kind} of {config['model']}",
        "graphs": shlex.quote(graphs.path.as_posix()),
        "study": graphs.identity.key,
        "finished": [len(graphs), len(graphs.manifest["jobs"])],
        "classes": list(graphs.classes),
        "domains": list(graphs.domains),
        "marks": marks,
        "sites": [
            {"name": site, "units": len(first.node_scores[site])}
            for site in first.inner_sites
        ],
        "circuits": circuits,
        "budget": first.settings.get("budget", SAME_SHARE),
        "nodeFraction": config["size"],
        "edgesPerNode": settings.edges_per_node,
        "scored": scored,
        "made": made | graphs.manifest["versions"],
    }


def read_about(folder: Path) -> dict[str, str]:
    """Return three entries from the manifest of an explorer.

    ``study`` is the digest of the circuits, ``title`` is the title of the page, and ``export`` is the digest of the
    data that were exported.

    Raises:
        InputError: if the folder has no complete explorer.
    """
    again = "export it again with circuitry explore"
    try:
        manifest = json.loads((folder / NAME).read_text(encoding="utf-8"))
        check_format(folder / NAME, manifest["format"], EXPLORER_FORMAT)
        about = {name: str(manifest[name]) for name in ("study", "title", "export")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"There is no explorer in {folder} ({error!r}): {again}."
        ) from error
    # The study becomes part of the name of a file, so it may not hold a path.
    has_page = (folder / INDEX_PAGE).is_file()
    if not has_page or not about["study"].isalnum():
        raise InputError(f"The explorer in {folder} is not complete: {again}.")
    return about


def exported_study(folder: str | PathLike[str]) -> str | None:
    """Return the digest of the circuits that the explorer in a folder shows.

    The result is None if the folder has no complete explorer.

    Example:
        >>> from circuitry.explorer import export_explorer, exported_study
        >>> explorer = export_explorer(graphs, "runs/x/explorer")
        >>> exported_study("runs/x/explorer") == graphs.identity.key
        True
        >>> exported_study("runs/nothing") is None
        True
    """
    try:
        return read_about(Path(folder))["study"]
    except InputError:
        return None
