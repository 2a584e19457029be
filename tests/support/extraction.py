"""Extractions from a tiny model and generated images."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from circuitry import (
    AttributionGraph,
    Clip,
    DomainFolder,
    GraphFolder,
    extract,
    left_rule,
)
from circuitry.questions import Extraction, ExtractionSettings
from tests.support.work import AS_STUDIED, QUIET

TEMPLATES = ["a {}."]
SETTINGS = {
    "rule": left_rule(2),
    "texts": TEMPLATES,
    "baseline": "zero",
    "leave_unseen": False,
    **AS_STUDIED,
}
COUNTS = {
    ("real", "axe"): 3,
    ("real", "cat"): 2,
    ("real", "fish"): 1,
    ("sketch", "axe"): 3,
    ("sketch", "cat"): 4,
}
"""Images of class in domain; there is no sketch of a fish, and one sketch of a cat is cut short."""

CUT = 2000
"""Bytes that are left of the broken image; no other has as many."""


def run(clip: Clip, root: Path, out: Path, **changes: object) -> GraphFolder:
    return extract(
        clip, DomainFolder(root), out, **({**SETTINGS, "work": QUIET} | changes)
    )


def planned(clip: Clip, root: Path, out: Path, **changes: object) -> Extraction:
    settings = ExtractionSettings(**SETTINGS)
    return Extraction(clip, DomainFolder(root), out, settings, **changes)  # type: ignore[arg-type]


def tensors(
    clip: Clip, root: Path, class_name: str, domain: str, n: int = 50, seed: int = 0
) -> Tensor:
    paths = [
        record.path for record in DomainFolder(root).select(class_name, domain, n, seed)
    ]
    return torch.stack(
        [
            clip.preprocess(Image.open(path))
            for path in paths
            if path.stat().st_size != CUT
        ]
    )


def assert_close(a: AttributionGraph, b: AttributionGraph) -> None:
    assert (a.sites, a.n_images) == (b.sites, b.n_images)
    for arrays in ("node_scores", "kept_units", "edge_scores"):
        for key, value in getattr(b, arrays).items():
            np.testing.assert_allclose(
                getattr(a, arrays)[key], value, rtol=1e-3, atol=1e-7, err_msg=str(key)
            )


def contents(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, byte for byte."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
