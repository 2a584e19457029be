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
from circuitry.data.images import image_listing
from circuitry.data.parts import Key as Key
from circuitry.runs.arrays import read_arrays, write_arrays
from circuitry.runs.errors import InputError, UnknownNameError, naming_damage
from circuitry.runs.given import checked
from circuitry.runs.identity import OF_MODEL, Identity
from circuitry.runs.jobs import Job, JobFolder
from circuitry.runs.manifest import NAME, check_folder, read_manifest
from circuitry.runs.provenance import digest, versions

EXTRACTION_FORMAT = "circuitry extraction 6"
"""Name and version of the folder's format."""

PART_EDGES = "circuitry edges of parts 1"
"""Name and version of the format of `write_part_edges`."""

LESIONS = "lesions.csv"
"""File beside own parts: what the model loses without each, a table of `lesion`."""
LESIONS_JOB = ("lesions",)
"""Job whose record has the checksum of that file."""
WHOLE, EDGES = "all", "edges"
"""Files of a job beside one for each part: the graph of all images, and the scores of its edges on each part."""

_ALWAYS_ASKED = ("seed", "classes", "metric", "texts", "baseline")
_ASKED = (*_ALWAYS_ASKED, "metric_code", "n_others")
"""What made circuits: `named` takes it over into the settings of a graph."""
_NEEDED = ("model", "weights", "modules", "n_images", *_ALWAYS_ASKED)
"""What a folder of circuits says in any case."""
_FEW = 12


class GraphFolder(Mapping[Key, AttributionGraph]):
    """Circuits with their graphs: (class, domain) -> graph, read at each access; of an extraction perhaps unfinished.

    Args:
        path: The folder that was given to `extract` or to `write`.

    Example:
        >>> graphs = GraphFolder("runs/x")
        >>> graphs["cat", "sketch"].kept_units["layer4.0"]
    """

    HOW_TO_GET: ClassVar = "open one with GraphFolder(path)"

    @checked
    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._place = (
            self.path.absolute()
        )  # where it stays when the process changes its working folder
        check_folder(self.path)
        self.manifest = read_manifest(self.path, EXTRACTION_FORMAT)
        with naming_damage(self.path / NAME):
            self._folder = JobFolder.made(self._place, self.manifest)
            jobs = [(class_name, domain) for class_name, domain in self._folder.jobs]
        self._keys = dict.fromkeys(job for job in jobs if self.file(*job).is_file())

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
        its source; there may be none, and there are no parts of images.

        Args:
            path: The folder; one with other circuits is refused.
            circuits: By (class, domain).
            identity: Model, classes, metric, texts, baseline, number and seed of images, as `FolderWork.identity` names
                them, and whatever else is to be told.
            images: By (class, domain) the images that the search looked at; those of other classes are its others.

        Example:
            >>> work, key = FolderWork(clip, images, FolderSettings(n_images=8)), ("cat", "photo")
            >>> records = images.select(*key, 8)
            >>> circuit = find_circuit(work.task(key, work.read(records)), size=0.1)
            >>> GraphFolder.write("runs/x/circuits", {key: circuit}, work.identity, {key: records})
        """
        if lacking := [name for name in _NEEDED if name not in identity]:
            raise InputError(
                f"The identity of circuits lacks {', '.join(lacking)}: give FolderWork(...).identity."
            )
        graphs = {key: _as_graph(one) for key, one in circuits.items()}
        sizes = [
            sum(map(len, graph.kept_units.values()))
            / sum(len(graph.node_scores[site]) for site in graph.inner_sites)
            for graph in graphs.values()
        ]
        without = [
            " in ".join(key)
            for key, size in zip(graphs, sizes, strict=True)
            if not (size and images.get(key))
        ]
        if without or not sizes:
            what = (
                f"but that of {without[0]} lacks one of them"
                if without
                else "but there is none"
            )
            raise InputError(
                f"A folder is of circuits with units, and of the images that found them, {what}: add it."
            )
        folder, first = Path(path), next(iter(graphs.values()))
        facts = {
            "sites": list(first.sites),
            "budget": first.settings["budget"],
            "n_parts": 0,
        }
        facts |= {"size": max(sizes)}
        facts["circuits"] = digest(
            [[*key, one.to_pandas().to_csv()] for key, one in circuits.items()]
        )
        records = sorted(
            {record for some in images.values() for record in some},
            key=lambda record: record.relative,
        )
        listings = {"images": image_listing(records)}
        jobs = JobFolder(
            folder, EXTRACTION_FORMAT, {**identity, **facts}, list(graphs), listings
        )
        for key, graph in graphs.items():
            own = [record for record in images[key] if record.class_name == key[0]]
            others = [record for record in images[key] if record.class_name != key[0]]
            told = named(graph, key, WHOLE, Identity(identity), own, others)
            jobs.seal(key, told.save, graph_file(folder, *key, WHOLE))
        return cls(folder)

    def without(self, keys: Container[Key]) -> "GraphFolder":
        """Return the folder without some classes in domains."""
        some = copy(self)
        some._keys = {key: None for key in self if key not in keys}
        return some

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
        return {
            name: _shortened(value) for name, value in self.manifest["config"].items()
        }

    @property
    def identity(self) -> Identity:
        """What shaped the circuits; by its key cards, curves and comparisons name the circuits that they are of."""
        return Identity(self.manifest["config"])

    @property
    def n_parts(self) -> int:
        """Number of parts that the images of a (class, domain) are cut into; fewer images leave some parts empty."""
        return int(self.manifest["config"]["n_parts"])

    @cached_property
    def lesions(self) -> pd.DataFrame | None:
        """What the model loses without each circuit, where they are own parts: a table of `lesion`."""
        path = self._place / LESIONS
        return (
            read_named_table(self._whole(LESIONS_JOB, path)) if path.is_file() else None
        )

    def write_lesions(self, lesions: pd.DataFrame) -> None:
        """Write what the model loses without each circuit."""
        self._folder.seal(
            LESIONS_JOB,
            lambda path: write_named_table(path, lesions),
            self._place / LESIONS,
        )

    def _whole(self, job: Job, path: Path) -> Path:
        """Return the path of a file; `InputError` for one that is not as its job left it, where there is a record."""
        return self._folder.whole(job, path) if self._folder.has_record(job) else path

    def file(self, class_name: str, domain: str, part: int | str = WHOLE) -> Path:
        """Return the path of a graph file; ``part`` is the number of a part, or ``all``."""
        if not isinstance(part, str) and part not in range(self.n_parts):
            raise InputError(
                f"The images of {self.path} are cut into {self.n_parts} parts, but {part!r} was given."
            )
        return graph_file(self._place, class_name, domain, part)

    def parts(self, class_name: str, domain: str) -> dict[int, AttributionGraph]:
        """Return the graphs of the parts of the images by number; parts without images are absent.

        Equal numbers mean the same items in all domains of a class, see `circuitry.data.part_numbers`.
        """
        self._check((class_name, domain))
        files = {
            part: self.file(class_name, domain, part) for part in range(self.n_parts)
        }
        return {
            part: self._loaded(class_name, domain, part)
            for part, file in files.items()
            if file.is_file()
        }

    def part_edges(
        self, class_name: str, domain: str
    ) -> dict[tuple[str, str], np.ndarray]:
        """Return the scores [parts, kept downstream, kept upstream] that each part gives the edges of the graph.

        By (upstream, downstream) site, parts in the order of `parts`.
        """
        self._check((class_name, domain))
        path = self._whole((class_name, domain), self.file(class_name, domain, EDGES))
        _, found = read_arrays(path, PART_EDGES, "file of edges")
        return {
            (name.split("->")[0], name.split("->")[1]): scores
            for name, scores in found.items()
        }

    def __getitem__(self, key: Key) -> AttributionGraph:
        self._check(key)
        return self._loaded(*key, WHOLE)

    def _loaded(
        self, class_name: str, domain: str, part: int | str
    ) -> AttributionGraph:
        """Return the graph in a file; raise `InputError` for one that another search, or another part, left there."""
        file = self.file(class_name, domain, part)
        graph = AttributionGraph.load(file)
        found = graph.class_name, graph.domain, graph.settings.get("part", part)
        if found != (class_name, domain, part):
            raise InputError(
                f"{file} is in the place of {class_name} in {domain} ({part}), but holds a graph of {found[0]} in "
                f"{found[1]} ({found[2]}): run what made the folder again, which makes it again."
            )
        title = f"the graph of {graph.title} in {file}"
        self.identity.check(
            graph.settings, f"the folder {self.path}", title, (*OF_MODEL, *_ASKED)
        )
        self._whole(
            (class_name, domain), file
        )  # last, for the checks before it say more
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


def graph_file(folder: Path, class_name: str, domain: str, part: int | str) -> Path:
    """Return the path of a file of an extraction: the graph of a part or of all images, or the edges of each part."""
    name = part if isinstance(part, str) else f"part-{part}"
    return folder / "graphs" / class_name / f"{domain}.{name}.safetensors"


def named(
    graph: AttributionGraph,
    key: Key,
    part: int | str,
    identity: Identity,
    own: Sequence[ImageRecord],
    others: Sequence[ImageRecord],
) -> AttributionGraph:
    """Return a graph with its class and domain, what made it, and the images that it was found on."""
    asked = {
        name: identity[name] for name in (*OF_MODEL, *_ASKED) if name in identity
    } | {"part": part}
    settings = (
        graph.settings
        | {"ready_metric": graph.settings.get("metric", identity["metric"])}
        | asked
    )
    if (
        "baseline_digest" not in identity
    ):  # its name says it all, whatever another machine's rounding does
        settings.pop("baseline_digest", None)
    provenance = {"model": identity["model"], "versions": versions()}
    looked_at = {
        "images": [r.relative for r in own],
        "others": [r.relative for r in others],
    }
    of_class, domain = key
    provenance |= looked_at | {
        name: graph.provenance[name] for name in (PIXELS,) if name in graph.provenance
    }
    return replace(
        graph,
        class_name=of_class,
        domain=domain,
        settings=settings,
        provenance=provenance,
    )


def _as_graph(circuit: Circuit) -> AttributionGraph:
    """Return the scores behind a circuit as a graph that keeps its units, strongest first, with its edges."""
    source = circuit.source
    kept = dict[str, np.ndarray]()
    for site in source.sites:
        units = circuit.units.get(site, np.zeros(0, np.int64))
        order = np.argsort(-np.abs(source.ranked_by[site][units]), kind="stable")
        kept[site] = units[order]
    edges = (circuit.edges or circuit.scored_edges).onto(kept)
    settings = {"budget": GLOBAL} | source.settings
    return replace(source, settings=settings).keeping(kept, edges.scores)


def write_part_edges(
    path: Path, edges: Mapping[tuple[str, str], np.ndarray], parts: Sequence[int]
) -> None:
    """Write the scores [parts, kept downstream, kept upstream] that each part gives the edges of the graph."""
    arrays = {f"{up}->{down}": scores for (up, down), scores in edges.items()}
    write_arrays(path, PART_EDGES, {"parts": list(parts)}, arrays)


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shortened(inner) for name, inner in value.items()}
    if isinstance(value, list) and len(value) > _FEW:
        return f"{', '.join(map(str, value[:3]))}, ... ({len(value)})"
    return value
