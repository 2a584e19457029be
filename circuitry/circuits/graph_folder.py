"""A folder of circuits by (class, domain), which were made by an extraction or found in another way.

Does not import torch.
"""

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
"""Name of a file in a folder of own parts: the table of `lesion`, which says how the ablation of each part changes the
model's answers."""
LESIONS_JOB = ("lesions",)
"""Name of the job whose record holds the checksum of that file."""
WHOLE = "all"
"""Name of the file of a job with the graph of all images. The graph of each fold of the images has a file of its
own."""
EDGES = "edges"
"""Name of the file of a job with the scores of the edges of that graph on each fold."""

_ALWAYS_ASKED = ("seed", "classes", "metric", "texts", "baseline")
_ASKED = (*_ALWAYS_ASKED, "metric_code", "n_others")
"""Names of the entries of a folder's identity that `named` copies into the settings of each graph."""
_NEEDED = ("model", "weights", "modules", "n_images", *_ALWAYS_ASKED)
"""Names of the entries that the identity of every folder of circuits must have."""
_FEW = 12


class GraphFolder(Mapping[Key, AttributionGraph]):
    """A mapping from (class, domain) to the graph of its circuit. The graph is read from the folder at each access.

    If an extraction is not finished, the mapping has the graphs that are finished.

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
        # An absolute path, because the process may change its working folder before a graph is read.
        self._place = self.path.absolute()
        check_folder(self.path)
        self.manifest = read_manifest(self.path, EXTRACTION_FORMAT)
        with naming_damage(self.path / NAME):
            self._folder = JobFolder.made(self._place, self.manifest)
            # A dictionary whose values are not used: a set that keeps the order of the jobs.
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
        """Write circuits to a folder that cards, the explorer, checks and comparisons can read.

        The circuits may be found in any way. The folder has a graph for each circuit. The graph keeps the units of the
        circuit, strongest first. If the circuit has edges, the graph has the same edges. Otherwise the graph has the
        edges of the circuit's source, if the source has any. The folder has no graphs of folds of the images.

        Args:
            path: The folder. It must not contain other circuits.
            circuits: The circuits by (class, domain).
            identity: What the circuits depend on: model, classes, metric, texts, baseline, and number and seed of the
                images. The entries are named as in `FolderWork.identity`. Further entries are stored, too.
            images: The images of the class and of other classes that were used to find each circuit, by (class,
                domain).

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
        largest_size = 0.0
        units = list[list[str]]()
        facts = dict[str, Any]()
        # The circuits may be read from files at each access, because many of them need much memory.
        for key, circuit in circuits.items():
            graph = _as_graph(circuit)
            size = graph.circuit(None).size
            if not size or not images.get(key):
                raise _no_circuits(f"that of {' in '.join(key)} lacks one of them")
            largest_size = max(largest_size, size)
            units.append([*key, circuit.to_pandas().to_csv()])
            if not facts:
                facts["sites"] = list(graph.sites)
                facts["budget"] = graph.settings["budget"]
        if not units:
            raise _no_circuits("there is none")
        facts["n_folds"] = 0
        facts["size"] = largest_size
        # The digest of all units distinguishes folders whose circuits were found in different ways with the same
        # settings.
        facts["circuits"] = digest(units)
        folder = Path(path)
        records = set[ImageRecord]().union(*images.values())
        listing = image_listing(sorted(records, key=lambda record: record.relative))
        jobs = JobFolder(
            folder,
            EXTRACTION_FORMAT,
            {**identity, **facts},
            list(circuits),
            {"images": listing},
        )
        for key, circuit in circuits.items():
            own = list[ImageRecord]()
            others = list[ImageRecord]()
            for record in images[key]:
                of_class = record.class_name == key[0]
                (own if of_class else others).append(record)
            graph = _as_graph(circuit)
            complete = named(graph, key, WHOLE, Identity(identity), own, others)
            jobs.seal(key, complete.save, graph_file(folder, *key, WHOLE))
        return cls(folder)

    def without(self, keys: Container[Key]) -> "GraphFolder":
        """Return the same folder without the circuits of some (class, domain) pairs."""
        # The copy shares the manifest and the records of jobs, because these are never changed.
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
        """The configuration in the manifest, with long lists shortened."""
        settings: dict[str, Any] = _shortened(self.manifest["config"])
        return settings

    @property
    def identity(self) -> Identity:
        """Everything that the circuits depend on, such as model, images, settings and code.

        Cards, curves and comparisons refer to the circuits by the key of this identity.
        """
        return Identity(self.manifest["config"])

    @property
    def n_folds(self) -> int:
        """Number of folds that the images of a (class, domain) are cut into.

        If there are fewer images than folds, some folds are empty.
        """
        return int(self.manifest["config"]["n_folds"])

    @cached_property
    def lesions(self) -> pd.DataFrame | None:
        """The table of `lesion`: how the ablation of each circuit changes the model's answers.

        None if the folder has no such table; only a folder of own parts has one.
        """
        path = self._place / LESIONS
        if not path.is_file():
            return None
        return read_named_table(self._whole(LESIONS_JOB, path))

    def write_lesions(self, lesions: pd.DataFrame) -> None:
        """Write the table of `lesion`, which says how the ablation of each circuit changes the model's answers."""
        self._folder.seal(
            LESIONS_JOB,
            lambda path: write_named_table(path, lesions),
            self._place / LESIONS,
        )

    def _whole(self, job: Job, path: Path) -> Path:
        """Return the path of a file of a job; raise `InputError` if the file differs from the record of the job."""
        # If the job has no record, there is nothing to compare with.
        return self._folder.whole(job, path) if self._folder.has_record(job) else path

    def file(self, class_name: str, domain: str, fold: int | str = WHOLE) -> Path:
        """Return the path of a graph file; ``fold`` is the index of a fold, or ``all`` for the graph of all images."""
        if not isinstance(fold, str) and fold not in range(self.n_folds):
            raise InputError(
                f"The images of {self.path} are cut into {self.n_folds} folds, but {fold!r} was given."
            )
        return graph_file(self._place, class_name, domain, fold)

    def folds(self, class_name: str, domain: str) -> dict[int, AttributionGraph]:
        """Return the graphs of the folds of the images by the index of the fold; folds without images are absent.

        Folds with equal indices contain the same items in all domains of a class, see `circuitry.data.fold_numbers`.
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
        """Return the scores of the edges of the graph on each fold of the images.

        They are arrays [folds, kept downstream, kept upstream] by (upstream, downstream) pair of sites. Folds are in
        the order of `folds`.
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
        """Return the graph of a (class, domain) on a fold or on all images.

        Raise `InputError` if the file holds the graph of another class, domain or fold, if the graph was made with
        another model or settings than the folder, or if the file is damaged.
        """
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
        # The checksum is compared last. It only says that a file differs, while the other checks say in what.
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
    """Return the path of a file of an extraction.

    Args:
        folder: The folder of the extraction.
        class_name, domain: Class and domain of the circuit.
        fold: Index of a fold for the graph of the fold, `WHOLE` for the graph of all images, or `EDGES` for the scores
            of edges on each fold.
    """
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
    """Return a graph that names its class and domain, the settings of its folder, and its images.

    Args:
        graph: The graph.
        key: Class and domain.
        fold: Index of the fold that the graph was computed on, or `WHOLE` for all images.
        identity: Identity of the folder; some of its entries are copied into the settings of the graph.
        own: The images of the class.
        others: The images of other classes.
    """
    # The name of the metric in the task is stored separately, because the name in the identity replaces it.
    ready_metric = graph.settings.get("metric", identity["metric"])
    settings = graph.settings | {"ready_metric": ready_metric}
    for name in (*OF_MODEL, *_ASKED):
        if name in identity:
            settings[name] = identity[name]
    settings["fold"] = fold
    # A baseline with a name can be made again from the name. Its digest may differ by the rounding of another machine.
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


def _no_circuits(given: str) -> InputError:
    return InputError(
        f"A folder is of circuits with units, and of the images that found them, but {given}: add it."
    )


def _as_graph(circuit: Circuit) -> AttributionGraph:
    """Return a graph that keeps the units of a circuit, strongest first.

    A circuit is selected from scores, which are the source of the circuit. The graph has the scores of this source. If
    the circuit has edges, the graph has the same edges. Otherwise the graph has the edges of the source, if the source
    is a graph itself.
    """
    source = circuit.source
    kept = dict[str, np.ndarray]()
    for site in source.sites:
        units = circuit.units.get(site, np.zeros(0, np.int64))
        # A circuit may list its units in any order. A graph lists the strongest unit first.
        order = np.argsort(-np.abs(source.ranked_by[site][units]), kind="stable")
        kept[site] = units[order]
    # `onto` reorders rows and columns, and drops edges of other units.
    edges = (circuit.edges or circuit.scored_edges).onto(kept)
    settings = {"budget": GLOBAL} | source.settings
    return replace(source, settings=settings).keeping(kept, edges.scores)


def write_fold_edges(
    path: Path, edges: Mapping[tuple[str, str], np.ndarray], folds: Sequence[int]
) -> None:
    """Write the scores of the edges of a graph on each fold of its images.

    Args:
        path: The file.
        edges: Scores [folds, kept downstream, kept upstream] by (upstream, downstream) pair of sites.
        folds: Index of each fold.
    """
    arrays = {f"{up}->{down}": scores for (up, down), scores in edges.items()}
    write_arrays(path, FOLD_EDGES, {"folds": list(folds)}, arrays)


def _shortened(value: Any) -> Any:
    """Return a value of a manifest with each long list replaced by a text: its first three entries and its length."""
    if isinstance(value, dict):
        return {name: _shortened(inner) for name, inner in value.items()}
    if isinstance(value, list) and len(value) > _FEW:
        return f"{', '.join(map(str, value[:3]))}, ... ({len(value)})"
    return value
