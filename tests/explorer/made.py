"""A small study without a model: random circuits, a comparison, curves and cards, with names that attack a page."""

import base64
import io
import json
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from circuitry import (
    AttributionGraph,
    CausalChecks,
    Circuit,
    Clip,
    DomainFolder,
    GraphFolder,
    InputError,
    extract,
    left_rule,
)
from circuitry.cards import (
    CardFolder,
    CardImage,
    TopImages,
    UnitCard,
    UnitName,
    WordCheck,
)
from circuitry.cards.card_folder import ActivationTable
from circuitry.circuits.graph_folder import (
    EXTRACTION_FORMAT,
    WHOLE,
    graph_file,
    write_fold_edges,
)
from circuitry.data import ImageRecord
from circuitry.interventions import CheckSettings, FaithfulnessCurve
from circuitry.runs import claim
from tests.circuits.test_measures import SITES, random_graph
from tests.support.noise_images import write_noise
from tests.support.work import QUIET

INNER = SITES[1:]

ATTACK = "\"><img src=x onerror=alert('1')>&amp;\n שלום"
"""A class that closes an attribute and brings an image, a new line and letters that run to the left."""
CLASSES = (ATTACK, "cat", "=cmd|fish")
DOMAINS = ("real", "sketch", "<script>alert(2)<script>")
UNITS = 30
MADE = {
    "model": "tiny",
    "weights": "0",
    "modules": "0",
    "baseline": "zero",
    "metric": "logit",
}


def make_graphs(
    folder: Path, classes: Sequence[str] = CLASSES, domains: Sequence[str] = DOMAINS
) -> GraphFolder:
    """Write circuits of three sites on all images and on two folds; the last class lacks the last domain."""
    jobs = [
        (c, d) for c in classes for d in domains if (c, d) != (classes[-1], domains[-1])
    ]
    for seed, (name, domain) in enumerate(jobs):
        whole = random_graph(seed, name, domain, units=UNITS, fraction=0.2)
        whole.save(graph_file(folder, name, domain, WHOLE))
        edges = {}
        for fold in range(2):
            made = random_graph(
                100 * (fold + 1) + seed, name, domain, units=UNITS, fraction=0.2
            )
            made.save(graph_file(folder, name, domain, fold))
        for pair, scores in whole.edge_scores.items():
            edges[pair] = np.stack([scores + 0.2, scores - 0.2])
        write_fold_edges(graph_file(folder, name, domain, "edges"), edges, range(2))
    config = MADE | {"n_folds": 2, "size": 0.2}
    claim(folder, EXTRACTION_FORMAT, config, jobs=jobs)
    return GraphFolder(folder)


def write_alone(graph: AttributionGraph, folder: Path) -> GraphFolder:
    """Write the circuit of a graph as one that was found alone."""
    key = ("cat", "real")
    made = dict.fromkeys(("texts", "classes"), "") | MADE | {"n_images": 1, "seed": 0}
    record = ImageRecord(folder / "0.png", "real/cat/0.png", "real", "cat")
    return GraphFolder.write(
        folder, {key: Circuit(graph, graph.kept_units)}, made, {key: [record]}
    )


def make_curve(class_name: str, domain: str, **changes: Any) -> FaithfulnessCurve:
    """A curve at 10 and 20 % of the units; the larger circuit keeps half of the lead of the model."""
    own = np.array([True] * 4 + [False] * 4)
    noise = np.linspace(-0.01, 0.01, 8)
    full = np.where(own, 1.0, 0.0) + noise
    empty = np.zeros(8)
    known: dict[str, Any] = {
        "kept": np.stack([0 * full, 0.5 * full, full])[None],
        "complement": np.stack([full, 0.5 * full, 0 * full])[None],
        "random": np.stack(
            [np.stack([0.01 * k * full, 0.02 * k * full, full]) for k in (1, 2)]
        )[None],
        "foreign": np.zeros((1, 0, 3, 8)),
        "sizes": (0.1, 0.2, 1.0),
        "ranking": "absolute",
        "n_units": (9, 18, 90),
        "full": full[None],
        "empty": empty[None],
        "own": own,
        "group": np.zeros(8, np.int64),
        "class_name": class_name,
        "domain": domain,
        "settings": {
            "sites": list(INNER),
            "baseline": "zero",
            "seed": 0,
            "keep_error": False,
        },
    }
    return FaithfulnessCurve(**(known | changes))


def found_in(clip: Clip, root: Path, baseline: str = "zero") -> CausalChecks:
    """Circuits of two classes in a domain, found on two images each, and checks on two others."""
    images = DomainFolder(write_noise(root / "images", ["real"], ["axe", "cat"], 4))
    rules: dict[str, Any] = {"rule": left_rule(1), "edge_rule": left_rule(1)}
    given = rules | {"sites": clip.encoder.sites[-2:], "texts": ["a {}."]}
    extract(
        clip,
        images,
        root / "graphs",
        n_images=2,
        work=QUIET,
        baseline=baseline,
        **given,
    )
    return CausalChecks(
        clip,
        images,
        GraphFolder(root / "graphs"),
        CheckSettings(n_images=2, n_others=1),
    )


class MadeCards(CardFolder):
    def __init__(self, graphs: GraphFolder) -> None:
        self.graphs = graphs
        self.domains = graphs.domains
        self.manifest = {"config": {"circuits": graphs.manifest["config_hash"]}}
        keys = [(c, d, k) for c, d in graphs for k in range(3)]
        found = (
            CardImage(f"{i:016x}", f"{d}/{c}/{k}.png", d, c, k == 0, str(k))
            for i, (c, d, k) in enumerate(keys)
        )
        self.images = {image.id: image for image in found}
        self.words = WordCheck("tiny", 0.5, {}, 0.25, 8, True)
        held = {
            (s, int(u))
            for key in graphs
            for s in INNER
            for u in graphs[key].kept_units[s]
        }
        self._units = {
            site: sorted(unit for s, unit in held if s == site) for site in INNER
        }
        self.sites = INNER

    def thumbnail(self, image_id: str) -> bytes:
        content = io.BytesIO()
        Image.new("RGB", (96, 96), (int(image_id, 16) * 9 % 256, 120, 90)).save(
            content, "WEBP"
        )
        return content.getvalue()

    def activations(self, domain: str) -> ActivationTable:
        ids = tuple(
            name for name, image in self.images.items() if image.domain == domain
        )
        values = np.add.outer(np.arange(1, len(ids) + 1), np.arange(len(self.units())))
        return ids, values.astype(np.float32)

    def card(self, site: str, unit: int) -> UnitCard:
        classes = self.graphs.classes
        domains = self.graphs.domains
        effects = np.full((len(classes), len(domains)), np.nan)
        kept = np.zeros(effects.shape, bool)
        for i, j in np.ndindex(*effects.shape):
            if (key := (classes[i], domains[j])) in self.graphs:
                graph = self.graphs[key]
                effects[i, j] = graph.node_scores[site][unit]
                kept[i, j] = unit in graph.kept_units[site]
        heat = np.arange(8, dtype=np.uint8).reshape(2, 2, 2) * 30
        images = {d: self.activations(d)[0][:2] for d in domains}
        top = {
            d: TopImages(ids, np.array([2.0, 1.0], np.float32), heat)
            for d, ids in images.items()
        }
        return UnitCard(
            site=site,
            unit=unit,
            kind="channel",
            classes=classes,
            domains=domains,
            top={"activation": top, "effect": top},
            heat_scale=2.0,
            bin_edges=np.linspace(0, 2, 5),
            counts=np.full((len(domains), 4), 3),
            effects=effects,
            kept=kept,
            exact={
                "zero": np.where(kept, -effects, np.nan),
                "mean": np.where(kept, effects, np.nan),
            },
            attributed_like="zero",
            name=self._name(unit),
        )

    def _name(self, unit: int) -> UnitName | None:
        if unit % 2:
            return None
        return UnitName(
            words=("<b>stripes</b>", str(unit)),
            weights=(1.0, 0.5),
            correlation=0.4,
            auprc=0.3,
            by_domain={domain: (0.4, float("nan")) for domain in self.graphs.domains},
            runner_up="dots",
            runner_up_correlation=0.2,
            chance=0.5 if unit % 4 else 0.1,
            style=False,
            references={"class": ("cat", 0.1)},
        )


class Answering:
    """A model that was made up; an image is what its file says."""

    def effects(
        self, class_name: str, units: Sequence[str], by: str
    ) -> dict[str, dict[str, float]]:
        if by == "one":
            raise InputError(
                f"A unit is replaced by zero or a mean, but {by} was given."
            )
        return {
            f"<i>{class_name}": {
                "effect": -0.25 * len(units),
                "metric": 0.5,
                "images": 6,
            }
        }

    def look(self, content: bytes) -> dict[str, Any]:
        said = content.decode()
        if said == "damaged":
            raise InputError("The image is damaged.")
        return {
            "said": [f"<i>{said}: 'cat' (75%)", "After removing 2 units: 0.5"],
            "effects": {"a/1": 0.5, "b/2": 0.9, "c/3": 0.1, "nowhere/1": 0.7},
        }


def unpack(script: str) -> tuple[str, dict[str, Any], dict[str, np.ndarray]]:
    """Read a script of data as the page does: key, header and arrays."""
    found = re.fullmatch(r"circuitry\.load\((.*)\);\n", script)
    assert found is not None
    key, header, packed = json.loads(f"[{found[1]}]")
    content = zlib.decompress(base64.b64decode(packed)) if packed else b""
    arrays = {}
    offset = 0
    for name, kind, shape, factor in header.pop("arrays"):
        size = int(kind[1:])
        length = int(np.prod(shape))
        mixed = np.frombuffer(content, np.uint8, size * length, offset).reshape(
            size, length
        )
        array = np.frombuffer(mixed.T.tobytes(), np.dtype(f"<{kind}")).reshape(shape)
        offset += size * length
        arrays[name] = array if factor is None else array.astype(np.float64) * factor
    return key, header, arrays
