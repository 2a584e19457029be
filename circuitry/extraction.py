"""Circuits of every (class, domain) of a data set, as a folder of graph files.

1. the selection of images and everything else that shapes a number go into ``manifest.json``;
2. each (class, domain) is one job: load its images, attribute all of them and each of two halves (the halves'
   circuits give the noise ceiling), write three graph files, each whole or not at all;
3. a second run skips what is there; another configuration on the same folder is refused.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from circuitry.attribution import AttributionSettings, attribute_halves
from circuitry.circuit import AttributionGraph
from circuitry.clip import Clip
from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.data.images import load_batches
from circuitry.errors import InputError
from circuitry.manifest import claim, read_manifest
from circuitry.metrics import class_logit
from circuitry.provenance import digest, versions, weights_digest
from circuitry.templates import as_patterns, default_templates

FORMAT = "circuitry extraction 1"
_WHOLE, _HALVES = "all", ("half-0", "half-1")

log = logging.getLogger(__name__)


class GraphFolder(Mapping[tuple[str, str], AttributionGraph]):
    """The graphs of a finished or unfinished extraction: (class, domain) -> graph, read when asked for.

    Example:
        >>> graphs = GraphFolder("runs/x")
        >>> graphs["cat", "sketch"].kept_units["layer4.0"]
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not (self.path / "manifest.json").is_file():
            raise InputError(f"{self.path} is no folder of graphs (it has no manifest.json): make one with extract().")
        self.manifest = read_manifest(self.path, FORMAT)
        self._keys = tuple(
            (class_name, domain)
            for class_name, domain in self.manifest["jobs"]
            if self.file(class_name, domain).is_file()
        )

    def file(self, class_name: str, domain: str, part: str = _WHOLE) -> Path:
        """Return the path of a graph file."""
        return self.path / "graphs" / class_name / f"{domain}.{part}.safetensors"

    def __getitem__(self, key: tuple[str, str]) -> AttributionGraph:
        if key not in self._keys:
            raise KeyError(key)
        return AttributionGraph.load(self.file(*key))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def halves(self) -> Iterator[tuple[AttributionGraph, AttributionGraph]]:
        """Yield the pair of half-graphs of every (class, domain) that has at least two images."""
        for class_name, domain in self._keys:
            first, second = (self.file(class_name, domain, part) for part in _HALVES)
            if first.is_file() and second.is_file():
                yield AttributionGraph.load(first), AttributionGraph.load(second)


def extract(
    clip: Clip,
    images: DomainFolder,
    out: str | os.PathLike[str],
    classes: Sequence[str] | None = None,
    domains: Sequence[str] | None = None,
    n_images: int = 50,
    seed: int = 0,
    *,
    settings: AttributionSettings | None = None,
    templates: Sequence[str] | None = None,
    strict: bool = False,
    progress: bool = True,
) -> GraphFolder:
    """Attribute every (class, domain) and write the graphs into a folder; what is there is kept.

    Args:
        clip: The model; see `load_clip`.
        images: The images, sorted by domain and class.
        out: Folder of the graphs.
        classes: A subset of the classes. Text weights are made for all classes of the data in any case.
        domains: A subset of the domains.
        n_images: Images per (class, domain), chosen by ``seed``; all where there are fewer. They are held in
            memory for the length of one job.
        seed: Seed of the choice.
        settings: How to attribute; the study's setting unless told.
        templates: Prompt templates of the text weights; see `Clip.text_weights`.
        strict: Stop at an image that cannot be read, instead of leaving it out with a line in the log.
        progress: Show a bar over jobs.

    Raises:
        InputError: for unknown classes or domains, a folder made with another configuration (with the
            difference), and what `attribute` raises.

    Example:
        >>> graphs = extract(clip, DomainFolder("DomainNet"), "runs/rn50", n_images=50)
        >>> compare(graphs, measure="node_overlap")
    """
    settings = settings or AttributionSettings()
    if n_images < 1:
        raise InputError(f"A circuit needs at least one image, but n_images={n_images} was given.")
    selection = {
        (class_name, domain): images.select(class_name, domain, n_images, seed)
        for class_name in (images.classes if classes is None else classes)
        for domain in (images.domains if domains is None else domains)
    }
    patterns = default_templates() if templates is None else as_patterns(templates)
    config = _config(clip, images, selection, n_images, seed, settings, patterns)
    claim(Path(out), FORMAT, config, jobs=[list(key) for key in selection])
    graphs = GraphFolder(out)
    todo = [key for key in selection if key not in graphs]
    if not todo:
        return graphs
    weights = clip.text_weights(images.all_classes, patterns)
    provenance = {"model": clip.name, "model_digest": clip.digest, "seed": seed, "versions": versions()}
    for class_name, domain in tqdm(todo, desc="circuits", unit="job", disable=not progress):
        loaded = _load(clip, selection[class_name, domain], f"{class_name} in {domain}", strict)
        if loaded is None:
            continue
        metric = class_logit(weights, images.label(class_name))
        whole, halves = attribute_halves(clip.encoder, loaded, metric, settings, progress=False)
        made = {**dict(zip(_HALVES, halves or (), strict=False)), _WHOLE: whole}
        for part, graph in made.items():  # the whole comes last: where it is, the halves are
            named = replace(graph, class_name=class_name, domain=domain, provenance=provenance)
            named.save(graphs.file(class_name, domain, part))
    return GraphFolder(out)


def _load(clip: Clip, records: Sequence[ImageRecord], what: str, strict: bool) -> Tensor | None:
    skipped: list[str] = []
    batches = load_batches(
        [record.path for record in records],
        clip.preprocess,
        batch_size=64,
        strict=strict,
        on_skip=lambda _, reason: skipped.append(reason),
    )
    loaded = list(batches)
    if skipped:
        log.warning("%s: %d images left out, first: %s", what, len(skipped), skipped[0])
    if not loaded:
        log.warning("%s: no images, so no circuit", what)
        return None
    return torch.cat(loaded)


def _config(
    clip: Clip,
    images: DomainFolder,
    selection: Mapping[tuple[str, str], Sequence[ImageRecord]],
    n_images: int,
    seed: int,
    settings: AttributionSettings,
    patterns: Sequence[str],
) -> dict[str, Any]:
    """Everything that shapes a number, in plain values."""
    listing = [[*key, [record.relative for record in records]] for key, records in selection.items()]
    return {
        "model": clip.name,
        "model_digest": clip.digest,
        "classes": digest(images.all_classes),
        "images": digest(listing),
        "n_images": n_images,
        "seed": seed,
        "templates": digest(patterns),
        "baseline_digest": weights_digest(settings.resolved_baseline.values),
        "sites": list(settings.sites or clip.encoder.sites),
        **settings.described(),
    }
