"""The folder of graphs that an extraction leaves: circuits by (class, domain). No torch."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from circuitry.circuits.graph import AttributionGraph
from circuitry.data.parts import Key as Key
from circuitry.runs.arrays import read_arrays, write_arrays
from circuitry.runs.errors import InputError, naming_damage
from circuitry.runs.given import checked
from circuitry.runs.manifest import NAME, read_manifest

EXTRACTION_FORMAT = "circuitry extraction 4"
"""Name and version of the folder's format."""

PART_EDGES = "circuitry edges of parts 1"
"""Name and version of the format of `write_part_edges`."""

WHOLE, EDGES = "all", "edges"
"""Files of a job beside one for each part: the graph of all images, and the scores of its edges on each part."""

_FEW = 12


class GraphFolder(Mapping[Key, AttributionGraph]):
    """The graphs of a finished or unfinished extraction: (class, domain) -> graph, read at each access.

    Args:
        path: The folder that was given to `extract`.

    Example:
        >>> graphs = GraphFolder("runs/x")
        >>> graphs["cat", "sketch"].kept_units["layer4.0"]
    """

    HOW_TO_GET: ClassVar = "open one with GraphFolder(path)"

    @checked
    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not (self.path / NAME).is_file():
            raise InputError(_no_folder(self.path))
        self.manifest = read_manifest(self.path, EXTRACTION_FORMAT)
        with naming_damage(self.path / NAME):
            jobs = [(str(class_name), str(domain)) for class_name, domain in self.manifest["jobs"]]
        self._keys = dict.fromkeys(job for job in jobs if self.file(*job).is_file())

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
        return {name: _shortened(value) for name, value in self.manifest["config"].items()}

    @property
    def n_parts(self) -> int:
        """Number of parts that the images of a (class, domain) are cut into; fewer images leave some parts empty."""
        return int(self.manifest["config"]["n_parts"])

    def file(self, class_name: str, domain: str, part: int | str = WHOLE) -> Path:
        """Return the path of a graph file; ``part`` is the number of a part, or ``all``."""
        return graph_file(self.path, class_name, domain, part)

    def image_names(self, class_name: str, domain: str) -> tuple[str, ...]:
        """Return the images that a circuit was found on, as paths below the root of the data."""
        self._check((class_name, domain))
        return tuple(self[class_name, domain].provenance["images"])

    def parts(self, class_name: str, domain: str) -> dict[int, AttributionGraph]:
        """Return the graphs of the parts of the images by number; parts without images are absent.

        Equal numbers mean the same items in all domains of a class, see `circuitry.data.part_numbers`.
        """
        self._check((class_name, domain))
        files = {part: self.file(class_name, domain, part) for part in range(self.n_parts)}
        return {part: _loaded(file, class_name, domain) for part, file in files.items() if file.is_file()}

    def part_edges(self, class_name: str, domain: str) -> dict[tuple[str, str], np.ndarray]:
        """Return the scores [parts, kept downstream, kept upstream] that each part gives the edges of the graph.

        By (upstream, downstream) site, parts in the order of `parts`.
        """
        self._check((class_name, domain))
        path = self.file(class_name, domain, EDGES)
        _, found = read_arrays(path, PART_EDGES, "file of edges")
        return {(name.split("->")[0], name.split("->")[1]): scores for name, scores in found.items()}

    def __getitem__(self, key: Key) -> AttributionGraph:
        if key not in self._keys:
            raise KeyError(self._unknown(key))
        return _loaded(self.file(*key), *key)

    def _check(self, key: Key) -> None:
        if key not in self._keys:
            raise InputError(self._unknown(key))

    def _unknown(self, key: Key) -> str:
        return (
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


def _loaded(file: Path, class_name: str, domain: str) -> AttributionGraph:
    """Return the graph in a file; raise `InputError` if its class or domain is not the one in the file's name."""
    graph = AttributionGraph.load(file)
    if (graph.class_name, graph.domain) != (class_name, domain):
        raise InputError(
            f"{file} is in the place of {class_name} in {domain}, but holds a graph of {graph.class_name} in "
            f"{graph.domain}: run what made the folder again, which makes it again."
        )
    return graph


def write_part_edges(path: Path, edges: Mapping[tuple[str, str], np.ndarray], parts: Sequence[int]) -> None:
    """Write the scores [parts, kept downstream, kept upstream] that each part gives the edges of the graph."""
    arrays = {f"{up}->{down}": scores for (up, down), scores in edges.items()}
    write_arrays(path, PART_EDGES, {"parts": list(parts)}, arrays)


def _no_folder(path: Path) -> str:
    if not path.is_dir():
        return f"There is no folder of graphs at {path}: make one with circuitry compare, or extract() in Python."
    below = sorted(child for child in path.iterdir() if (child / "graphs").is_dir() and (child / NAME).is_file())
    if below:
        return f"{path} has no {NAME}, but {below[0]} has: give that folder."
    return f"{path} is no folder of graphs (it has no {NAME}): make one with circuitry compare, or extract()."


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shortened(inner) for name, inner in value.items()}
    if isinstance(value, list) and len(value) > _FEW:
        return f"{', '.join(map(str, value[:3]))}, ... ({len(value)})"
    return value
