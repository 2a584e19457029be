"""Write the explorer of a folder of circuits: a page and its data, to open from disk or from any web host. No torch.

    index.html             the page, with all of its code
    data/index.js          classes, domains, sites; comparisons, measured cuts, names of units
    data/class/<n>.js      the circuits of a class, in all domains and on parts of the images
    data/site/<n>.js       effects of each unit of a site in all circuits
    data/cards/<n>.js      cards of the units of a site
    data/images/<n>.js     unseen images of a class
    data/direct/<n>.js     components' contributions to embeddings of a class; data/words.js: vectors of words
    thumbnails/<id>.webp

The page reads a file when it needs it. Names are in the data alone; files are called by numbers.
"""

import json
import logging
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from circuitry.cards.card_folder import CardFolder
from circuitry.circuits.budgets import SAME_SHARE
from circuitry.circuits.graph import AttributionGraph
from circuitry.circuits.graph_folder import GraphFolder
from circuitry.circuits.methods import CONTRAST
from circuitry.comparison.comparison import Comparison
from circuitry.comparison.lesion_reading import KNOWN
from circuitry.explorer.card_files import pack_cards
from circuitry.explorer.circuit_files import UnitTally, class_series
from circuitry.explorer.explorer_settings import ExplorerSettings
from circuitry.explorer.overview import (
    describe_comparison,
    describe_curves,
    describe_lesions,
    lesions_of,
    tested_cells,
)
from circuitry.explorer.packing import EXPLORER_FORMAT, pack_script
from circuitry.explorer.template import render_page
from circuitry.explorer.view_files import ModelView, pack_view
from circuitry.interventions.curves import FaithfulnessCurve
from circuitry.reports.figures.style import MARKS
from circuitry.reports.run_pages import REPORT_PAGE
from circuitry.runs.errors import InputError
from circuitry.runs.files import LOCK, TORN, make_folder, whole_file
from circuitry.runs.given import checked
from circuitry.runs.manifest import NAME, check_format, write_json
from circuitry.runs.provenance import digest, versions

INDEX_PAGE = "index.html"
"""The page, which is written when its data are complete."""
MOST_BYTES = 64 << 20
"""An export that is larger says so."""

_MADE_BY = {
    "cards": "cards --circuits",
    "comparisons": "compare --out",
    "curves": "check --circuits",
    "answers": "explore --circuits",
}

log = logging.getLogger(__name__)


class Exported(NamedTuple):
    """The page that `export_explorer` wrote, and its sizes; as text, the line that a command prints."""

    page: Path  #: The page to open.
    n_bytes: dict[str, int]
    """Size by kind of file: the page, index, class, site, cards, images, thumbnails."""

    def __str__(self) -> str:
        return f"explorer: {self.page} ({sum(self.n_bytes.values()) / 2**20:.1f} MiB)"


@dataclass
class _Folder:
    """The folder that is being filled; it knows which files are new."""

    path: Path
    export: str
    sizes: dict[str, int] = field(default_factory=dict)
    written: set[Path] = field(default_factory=set)

    def script(
        self, key: str, header: Mapping[str, object], arrays: Mapping[str, np.ndarray]
    ) -> None:
        content = pack_script(key, self.export, header, arrays).encode()
        self.file(f"data/{key}.js", content, key.partition("/")[0])

    def file(self, name: str, content: bytes, kind: str) -> None:
        path = self.path / name
        make_folder(path.parent)
        path.write_bytes(
            content
        )  # an interrupted export has no page, which is written last
        self.written.add(path)
        self.sizes[kind] = self.sizes.get(kind, 0) + len(content)


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
) -> Exported:
    """Write the explorer of a folder of circuits.

    Args:
        graphs: The circuits; an extraction that is unfinished is shown as far as it is.
        out: Folder of the page; an earlier explorer there is replaced.
        comparisons: Ways into the circuits, from `compare_domains`.
        curves: Faithfulness curves of the circuits, which the page shows beside its cuts.
        model: Predictions and direct effects on words, from `view_model`.

    Raises:
        InputError: for a folder without circuits, cards of other circuits, and an output folder with other files.

    Example:
        >>> graphs = GraphFolder("runs/x/circuits")
        >>> print(export_explorer(graphs, "runs/x/explorer", comparisons=compare_domains(graphs)))
    """
    if not graphs:
        raise InputError(
            f"There is no circuit to explore in {graphs.path}: let the extraction find one."
        )
    _check_of(graphs, "cards", [] if cards is None else [cards.manifest["config"]])
    _check_of(
        graphs, "comparisons", [one.about for one in (comparisons or {}).values()]
    )
    _check_of(
        graphs,
        "answers",
        []
        if model is None or model.circuits is None
        else [{"circuits": model.circuits}],
    )
    _check_of(graphs, "curves", [one.settings for one in curves])
    target = Path(out)
    _check_free(target)
    make_folder(target)
    first = graphs[next(iter(graphs))]
    header = _describe(graphs, first, settings)
    header["report"] = (
        f"../{REPORT_PAGE}"
        if (target.resolve().parent / REPORT_PAGE).is_file()
        else None
    )
    header["comparisons"] = [
        describe_comparison(one) for one in (comparisons or {}).values()
    ]
    if (lesions := graphs.lesions) is not None:
        header["comparisons"] = [describe_lesions(lesions)]
        header |= {"tested": tested_cells(lesions), "known": KNOWN}
        if (
            "share" in lesions
        ):  # as it was asked for: of 1,104 units 1 % are 12, which are 1.1 %
            header["nodeFraction"] = float(lesions["share"].iloc[0])
    header["curves"] = describe_curves(curves, first.inner_sites, str(header["budget"]))
    of_units = (
        None if cards is None else cards.manifest["config"],
        None if model is None else model.digest,
    )
    export = digest([header, list(graphs), of_units, repr(settings), versions()])
    folder = _Folder(target, export)
    (target / INDEX_PAGE).unlink(
        missing_ok=True
    )  # a page is there when its data are complete
    about = {"study": header["study"], "title": header["title"], "export": export}
    write_json(target / NAME, {"format": EXPLORER_FORMAT, **about})
    tally = _write_classes(folder, graphs, first, settings)
    for place, site in enumerate(tally.sizes):
        folder.script(f"site/{place}", {"site": site}, tally.site_arrays(site))
    if cards is not None:
        most = settings.images_per_list, settings.held_out_images
        header |= pack_cards(folder.script, folder.file, cards, tally, model, *most)
    if model is not None:
        header |= pack_view(folder.script, model, graphs.classes)
    counts = {
        f"counts/{place}": tally.counts(site) for place, site in enumerate(tally.sizes)
    }
    folder.script("index", header, counts)
    for old in [*target.glob("data/**/*.js"), *target.glob("thumbnails/*.webp")]:
        if old not in folder.written:
            old.unlink()
    page = render_page(str(header["title"])).encode()
    with whole_file(target / INDEX_PAGE) as temporary:
        temporary.write_bytes(page)
    folder.sizes["page"] = len(page)
    if sum(folder.sizes.values()) > MOST_BYTES:
        log.warning(
            "The explorer has more than %d MiB: fewer images in each list, or twins=False, make it smaller.",
            MOST_BYTES >> 20,
        )
    return Exported(target / INDEX_PAGE, folder.sizes)


def _check_of(
    graphs: GraphFolder, what: str, shaped_by: Iterable[Mapping[str, Any]]
) -> None:
    """Raise `InputError` for cards, comparisons or curves of other circuits, or of another model."""
    ours = graphs.identity
    for one in shaped_by:
        ours.check(one, f"the circuits in {graphs.path}", f"the {what}")
        if one.get("circuits", ours.key) != ours.key:
            raise InputError(
                f"The {what} given are of the circuits with digest {one['circuits']}, but those in {graphs.path} have "
                f"{ours.key}: make them of these with circuitry {_MADE_BY[what]} {shlex.quote(str(graphs.path))}."
            )


def _check_free(target: Path) -> None:
    """Raise an `InputError` for a folder with something else in it."""
    path = target / NAME
    ours = path.is_file() and "circuitry explorer" in path.read_text(
        encoding="utf-8", errors="replace"
    )
    others = [one for one in target.glob("*") if not one.name.startswith((LOCK, TORN))]
    if others and not ours:
        first = path if path in others else others[0]
        raise InputError(
            f"{first} is of no explorer, which needs an empty folder: choose another one."
        )


def _write_classes(
    folder: _Folder,
    graphs: GraphFolder,
    first: AttributionGraph,
    settings: ExplorerSettings,
) -> UnitTally:
    """Write the circuits of every class, each read once, and return the units' effects in all of them."""
    tally, lesions = UnitTally(list(graphs)), graphs.lesions
    for place, class_name in enumerate(graphs.classes):
        headers, arrays = list[Mapping[str, object]](), dict[str, np.ndarray]()
        series = class_series(
            graphs,
            first.inner_sites,
            class_name,
            settings.edges_per_node,
            settings.twins,
        )
        for header, found, graph in series:
            arrays |= {f"{len(headers)}/{name}": array for name, array in found.items()}
            headers.append(header)
            if header["part"] is None:
                tally.add((class_name, str(header["domain"])), graph)
        lost = {} if lesions is None else {"lesions": lesions_of(lesions, class_name)}
        folder.script(
            f"class/{place}", {"class": class_name, "series": headers, **lost}, arrays
        )
    return tally


def _describe(
    graphs: GraphFolder, first: AttributionGraph, settings: ExplorerSettings
) -> dict[str, object]:
    """Return the entries of the index that the page needs before it reads a circuit."""
    sizes = {site: len(first.node_scores[site]) for site in first.inner_sites}
    made = {
        name: ", ".join(map(str, value))
        if isinstance(value, list | tuple)
        else str(value)
        for name, value in graphs.settings.items()
    }
    of_log_odds = first.settings.get("method") == CONTRAST
    return {
        "title": f"{'Circuits' if graphs.lesions is None else 'Own parts'} of {graphs.manifest['config']['model']}",
        "graphs": shlex.quote(graphs.path.as_posix()),
        "study": graphs.identity.key,
        "finished": [len(graphs), len(graphs.manifest["jobs"])],
        "classes": list(graphs.classes),
        "domains": list(graphs.domains),
        "marks": [
            list(MARKS[sorted(graphs.domains).index(domain) % len(MARKS)])
            for domain in graphs.domains
        ],
        "sites": [{"name": site, "units": size} for site, size in sizes.items()],
        "circuits": [
            [graphs.classes.index(name), graphs.domains.index(domain)]
            for name, domain in graphs
        ],
        "budget": first.settings.get("budget", SAME_SHARE),
        "nodeFraction": graphs.manifest["config"]["size"],
        "edgesPerNode": settings.edges_per_node,
        "scored": "the class's log-odds"
        if of_log_odds
        else f"the metric ({made.get('metric')})",
        "made": made | graphs.manifest["versions"],
    }


def read_about(folder: Path) -> dict[str, str]:
    """Return the digest of the circuits' settings (``study``), the ``title``, and the digest of the ``export``."""
    again = "export it again with circuitry explore"
    try:
        found = json.loads((folder / NAME).read_text(encoding="utf-8"))
        check_format(folder / NAME, found["format"], EXPLORER_FORMAT)
        about = {name: str(found[name]) for name in ("study", "title", "export")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"There is no explorer in {folder} ({error!r}): {again}."
        ) from error
    if not (folder / INDEX_PAGE).is_file() or not about["study"].isalnum():
        raise InputError(f"The explorer in {folder} is not complete: {again}.")
    return about


def exported_study(folder: str | PathLike[str]) -> str | None:
    """Return the digest of the circuits that the explorer in a folder shows; None without a complete explorer."""
    try:
        return read_about(Path(folder))["study"]
    except InputError:
        return None
