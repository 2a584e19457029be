"""A folder of circuits by (class, domain), from an extraction or found in any other way. No torch."""

import os
from collections.abc import Container, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from circuitry.circuits.budgets import GLOBAL
from circuitry.circuits.graph import PIXELS, AttributionGraph, Circuit
from circuitry.comparison.table import read_named_table, write_named_table
from circuitry.data.domains import ImageRecord
from circuitry.data.folds import Key as Key
from circuitry.data.images import image_listing
from circuitry.runs.arguments import checked
from circuitry.runs.arrays import read_arrays, write_arrays
from circuitry.runs.errors import InputError, UnknownNameError, naming_damage
from circuitry.runs.identity import OF_MODEL, Identity
from circuitry.runs.jobs import Job, JobFolder
from circuitry.runs.manifest import NAME, check_folder, read_manifest
from circuitry.runs.provenance import digest, versions

EXTRACTION_FORMAT = "circuitry extraction 7"
"""Name and version of the folder's format."""

FOLD_EDGES = "circuitry edges of folds 1"
"""Name and version of the format of `write_fold_edges`."""

LESIONS = "lesions.csv"
"""File beside own parts: the model's losses without each of them, a table of `lesion`."""
LESIONS_JOB = ("lesions",)
"""Job whose record has the checksum of that file."""
WHOLE = "all"
"""Name of a job's file with the graph of all images; each fold of the images has a file of its own."""
EDGES = "edges"
"""Name of a job's file with the scores of that graph's edges on each fold."""

_ALWAYS_ASKED = ("seed", "classes", "metric", "texts", "baseline")
_ASKED = (*_ALWAYS_ASKED, "metric_code", "n_others")
"""Entries of a folder's identity that `named` copies into the settings of each graph."""
_NEEDED = ("model", "weights", "modules", "n_images", *_ALWAYS_ASKED)
"""Entries that the identity of any folder of circuits has."""
_FEW = 12


class GraphFolder(Mapping[Key, AttributionGraph]):
    """Map (class, domain) to the graph of its circuit, read from a folder at each access.

    The folder of an unfinished extraction has the graphs that are done.

    Args:
        path: The folder that was given to `extract` or to `write`.

    Example:
        >>> graphs = circuitry.GraphFolder("runs/x")
        >>> len(graphs), graphs.classes, graphs.domains
        (4, ('clock', 'cup'), ('real', 'sketch'))
        >>> strongest = graphs["clock", "sketch"].kept_units["layer3.0"]
    """

    HOW_TO_GET: ClassVar = "open one with GraphFolder(path)"

    @checked
    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        # Absolute, for the process may change its working folder before a graph is read.
        self._place = self.path.absolute()
        check_folder(self.path)
        self.manifest = read_manifest(self.path, EXTRACTION_FORMAT)
        with naming_damage(self.path / NAME):
            self._folder = JobFolder.made(self._place, self.manifest)
            # A dictionary without values is a set in the order of the jobs.
            self._keys: dict[Key, None] = {}
            for class_name, domain in self._folder.jobs:
                if self.file(class_name, domain).is_file():
                    self._keys[class_name, domain] = None

    @classmethod
    @checked
    def write(
        cls,
        path: str | os.PathLike[str],
        circuits: Mapping[Key, Circuit],
        identity: Mapping[str, Any],
        images: Mapping[Key, Sequence[ImageRecord]],
    ) -> "GraphFolder":
        """Write circuits, found in any way, as a folder that cards, the explorer, checks and comparisons read.

        The kept units of a graph are those of its circuit, strongest first. Its edges are those of the circuit, else of
        its source; there may be none, and there are no folds of images.

        Args:
            path: The folder; one with other circuits is refused.
            circuits: By (class, domain).
            identity: Model, classes, metric, texts, baseline, number and seed of images, by the names of
                `FolderWork.identity`; further entries are kept, too.
            images: By (class, domain) the images that the search looked at, of the class and of other classes.

        Example:
            >>> work = FolderWork(clip, folder, FolderSettings(n_images=2))
            >>> key = ("clock", "real")
            >>> records = folder.select(*key, 2)
            >>> circuit = circuitry.find_circuit(work.task(key, work.read(records)), size=0.1)
            >>> GraphFolder.write("runs/found", {key: circuit}, work.identity, {key: records})
            GraphFolder('runs/found': 1 of 1 circuits, 1 classes, 1 domains, model rn-tiny)
        """
        if lacking := [name for name in _NEEDED if name not in identity]:
            raise InputError(
                f"The identity of circuits lacks {', '.join(lacking)}: give FolderWork(...).identity."
            )
        graphs = {key: _as_graph(circuit) for key, circuit in circuits.items()}
        largest_size = _check_to_write(graphs, images)
        folder = Path(path)
        first = next(iter(graphs.values()))
        # The digest of all units tells folders apart whose circuits were found in other ways by the same settings.
        units = [[*key, one.to_pandas().to_csv()] for key, one in circuits.items()]
        facts = {
            "sites": list(first.sites),
            "budget": first.settings["budget"],
            "n_folds": 0,
            "size": largest_size,
            "circuits": digest(units),
        }
        records = set[ImageRecord]().union(*images.values())
        listing = image_listing(sorted(records, key=lambda record: record.relative))
        jobs = JobFolder(
            folder,
            EXTRACTION_FORMAT,
            {**identity, **facts},
            list(graphs),
            {"images": listing},
        )
        for key, graph in graphs.items():
            own = list[ImageRecord]()
            others = list[ImageRecord]()
            for record in images[key]:
                of_class = record.class_name == key[0]
                (own if of_class else others).append(record)
            complete = named(graph, key, WHOLE, Identity(identity), own, others)
            jobs.seal(key, complete.save, graph_file(folder, *key, WHOLE))
        return cls(folder)

    def without(self, keys: Container[Key]) -> "GraphFolder":
        """Return the folder without some classes in domains."""
        # A copy shares the manifest and the records of jobs, which nobody changes.
        narrowed = copy(self)
        narrowed._keys = {key: None for key in self if key not in keys}
        return narrowed

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes that have a circuit, in the order of the extraction."""
        return tuple(dict.fromkeys(class_name for class_name, _ in self._keys))

    @property
    def domains(self) -> tuple[str, ...]:
        """Domains that have a circuit, in the order of the extraction."""
        return tuple(dict.fromkeys(domain for _, domain in self._keys))

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration in the manifest, with long lists cut short."""
        settings: dict[str, Any] = _shortened(self.manifest["config"])
        return settings

    @property
    def identity(self) -> Identity:
        """Everything that shaped the circuits. Cards, curves and comparisons name their circuits by its key."""
        return Identity(self.manifest["config"])

    @property
    def n_folds(self) -> int:
        """Number of folds that the images of a (class, domain) are cut into; fewer images leave some folds empty."""
        return int(self.manifest["config"]["n_folds"])

    @cached_property
    def lesions(self) -> pd.DataFrame | None:
        """The model's losses without each circuit, a table of `lesion`; None unless circuits are own parts."""
        path = self._place / LESIONS
        if not path.is_file():
            return None
        return read_named_table(self._whole(LESIONS_JOB, path))

    def write_lesions(self, lesions: pd.DataFrame) -> None:
        """Write the model's losses without each circuit."""
        self._folder.seal(
            LESIONS_JOB,
            lambda path: write_named_table(path, lesions),
            self._place / LESIONS,
        )

    def _whole(self, job: Job, path: Path) -> Path:
        """Return the path of a file; raise `InputError` for a file that differs from the record of its job."""
        # Without a record there is nothing to compare with.
        return self._folder.whole(job, path) if self._folder.has_record(job) else path

    def file(self, class_name: str, domain: str, fold: int | str = WHOLE) -> Path:
        """Return the path of a graph file; ``fold`` is the number of a fold, or ``all``."""
        if not isinstance(fold, str) and fold not in range(self.n_folds):
            raise InputError(
                f"The images of {self.path} are cut into {self.n_folds} folds, but {fold!r} was given."
            )
        return graph_file(self._place, class_name, domain, fold)

    def folds(self, class_name: str, domain: str) -> dict[int, AttributionGraph]:
        """Return the graphs of the folds of the images by number; folds without images are absent.

        Equal numbers mean the same items in all domains of a class, see `circuitry.data.fold_numbers`.
        """
        self._check((class_name, domain))
        graphs = {}
        for fold in range(self.n_folds):
            if self.file(class_name, domain, fold).is_file():
                graphs[fold] = self._loaded(class_name, domain, fold)
        return graphs

    def fold_edges(
        self, class_name: str, domain: str
    ) -> dict[tuple[str, str], np.ndarray]:
        """Return the scores [folds, kept downstream, kept upstream] that each fold gives the edges of the graph.

        By (upstream, downstream) site, folds in the order of `folds`.
        """
        self._check((class_name, domain))
        path = self._whole((class_name, domain), self.file(class_name, domain, EDGES))
        _, by_name = read_arrays(path, FOLD_EDGES, "file of edges")
        by_pair = {}
        for name, scores in by_name.items():
            upstream, downstream = name.split("->")
            by_pair[upstream, downstream] = scores
        return by_pair

    def __getitem__(self, key: Key) -> AttributionGraph:
        self._check(key)
        return self._loaded(*key, WHOLE)

    def _loaded(
        self, class_name: str, domain: str, fold: int | str
    ) -> AttributionGraph:
        """Return the graph in a file; raise `InputError` if it is of another search, or of another fold."""
        file = self.file(class_name, domain, fold)
        graph = AttributionGraph.load(file)
        held = (graph.class_name, graph.domain, graph.settings.get("fold", fold))
        if held != (class_name, domain, fold):
            raise InputError(
                f"{file} is in the place of {class_name} in {domain} ({fold}), but holds a graph of {held[0]} in "
                f"{held[1]} ({held[2]}): run what made the folder again, which makes it again."
            )
        title = f"the graph of {graph.title} in {file}"
        self.identity.check(
            graph.settings, f"the folder {self.path}", title, (*OF_MODEL, *_ASKED)
        )
        # The checksum last: it only says that a file differs, the checks before say in what.
        self._whole((class_name, domain), file)
        return graph

    def _check(self, key: Key) -> None:
        if key not in self._keys:
            raise UnknownNameError(
                f"There is no circuit of {key!r} in {self.path}: keys are (class, domain), with the classes "
                f"{_shortened(list(self.classes))} and the domains {_shortened(list(self.domains))}."
            )

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return (
            f"GraphFolder({str(self.path)!r}: {len(self)} of {len(self.manifest['jobs'])} circuits, "
            f"{len(self.classes)} classes, {len(self.domains)} domains, model {self.manifest['config'].get('model')})"
        )


def graph_file(folder: Path, class_name: str, domain: str, fold: int | str) -> Path:
    """Return the path of a file of an extraction: the graph of a fold or of all images, or the edges of each fold."""
    name = fold if isinstance(fold, str) else f"fold-{fold}"
    return folder / "graphs" / class_name / f"{domain}.{name}.safetensors"


def named(
    graph: AttributionGraph,
    key: Key,
    fold: int | str,
    identity: Identity,
    own: Sequence[ImageRecord],
    others: Sequence[ImageRecord],
) -> AttributionGraph:
    """Return a graph with its class and domain, everything that made it, and the images that it was made of."""
    # The name of the metric as the task had it, which the identity's name of the question replaces.
    ready_metric = graph.settings.get("metric", identity["metric"])
    settings = graph.settings | {"ready_metric": ready_metric}
    for name in (*OF_MODEL, *_ASKED):
        if name in identity:
            settings[name] = identity[name]
    settings["fold"] = fold
    # A named baseline is made again from its name; its digest may differ by another machine's rounding.
    if "baseline_digest" not in identity:
        settings.pop("baseline_digest", None)
    provenance = {
        "model": identity["model"],
        "versions": versions(),
        "images": [record.relative for record in own],
        "others": [record.relative for record in others],
    }
    # Graphs of earlier versions carry no digests.
    if PIXELS in graph.provenance:
        provenance[PIXELS] = graph.provenance[PIXELS]
    class_name, domain = key
    return replace(
        graph,
        class_name=class_name,
        domain=domain,
        settings=settings,
        provenance=provenance,
    )


def _check_to_write(
    graphs: Mapping[Key, AttributionGraph], images: Mapping[Key, Sequence[ImageRecord]]
) -> float:
    """Refuse graphs without kept units or without images; return the largest share of kept units."""
    largest = 0.0
    for key, graph in graphs.items():
        size = graph.circuit(None).size
        if not size or not images.get(key):
            raise _no_circuits(f"that of {' in '.join(key)} lacks one of them")
        largest = max(largest, size)
    if not graphs:
        raise _no_circuits("there is none")
    return largest


def _no_circuits(given: str) -> InputError:
    return InputError(
        f"A folder is of circuits with units, and of the images that found them, but {given}: add it."
    )


def _as_graph(circuit: Circuit) -> AttributionGraph:
    """Return the scores behind a circuit as a graph that keeps its units, strongest first, with its edges."""
    source = circuit.source
    kept = dict[str, np.ndarray]()
    for site in source.sites:
        units = circuit.units.get(site, np.zeros(0, np.int64))
        # A circuit may list its units in any order, a graph lists the strongest first.
        order = np.argsort(-np.abs(source.ranked_by[site][units]), kind="stable")
        kept[site] = units[order]
    # onto: rows and columns follow the new order, and edges of other units are dropped.
    edges = (circuit.edges or circuit.scored_edges).onto(kept)
    settings = {"budget": GLOBAL} | source.settings
    return replace(source, settings=settings).keeping(kept, edges.scores)


def write_fold_edges(
    path: Path, edges: Mapping[tuple[str, str], np.ndarray], folds: Sequence[int]
) -> None:
    """Write the scores [folds, kept downstream, kept upstream] that each fold gives the edges of the graph."""
    arrays = {f"{up}->{down}": scores for (up, down), scores in edges.items()}
    write_arrays(path, FOLD_EDGES, {"folds": list(folds)}, arrays)


def _shortened(value: Any) -> Any:
    """Return a value of a manifest with the first three entries and the length of each long list."""
    if isinstance(value, dict):
        return {name: _shortened(inner) for name, inner in value.items()}
    if isinstance(value, list) and len(value) > _FEW:
        return f"{', '.join(map(str, value[:3]))}, ... ({len(value)})"
    return value
