"""Circuits found in any way, written as a folder."""

from pathlib import Path

import numpy as np
import pytest

from circuitry import Circuit, GraphFolder, InputError, compare
from circuitry.data import ImageRecord
from circuitry.gates import Edges
from tests.circuits.test_graph import small_graph

MADE = {
    "model": "tiny",
    "weights": "0",
    "modules": "0",
    "n_images": 2,
    "seed": 0,
    "classes": ["axe", "cat"],
    "metric": "logit",
    "texts": "pooled",
    "baseline": "zero",
}


def test_circuits_found_in_any_way_become_a_folder(tmp_path: Path) -> None:
    source = small_graph(kept_units={}, edge_scores={})
    units = {"conv": np.array([3, 1]), "head": np.array([0, 1])}
    edges = Edges(units, {("conv", "head"): np.array([[0.5, np.nan], [0.25, 2.0]])})
    circuits = {
        ("cat", "photo"): Circuit(source, units, edges),
        ("cat", "clipart"): Circuit(source, {"head": units["head"]}),
    }
    images = {
        key: [
            ImageRecord(
                tmp_path / f"{name}.png", f"{key[1]}/{name}/0.png", key[1], name
            )
            for name in ("cat", "axe")
        ]
        for key in circuits
    }
    written = GraphFolder.write(tmp_path / "x", circuits, MADE, images)
    graph = written["cat", "photo"]
    assert {site: kept.tolist() for site, kept in graph.kept_units.items()} == {
        "input": [],
        "conv": [1, 3],
        "head": [1, 0],
    }
    assert graph.edge_scores["conv", "head"].tolist() == [[2.0, 0.25], [0.0, 0.5]]
    assert (
        graph.provenance.items()
        >= {"images": ["photo/cat/0.png"], "others": ["photo/axe/0.png"]}.items()
    )
    alone = written["cat", "clipart"]
    assert {site: kept.tolist() for site, kept in alone.kept_units.items()} == {
        "input": [],
        "conv": [],
        "head": [1, 0],
    }
    assert not alone.edge_scores
    assert not written.folds("cat", "photo")
    assert written.manifest["config"]["size"] == 4 / 7
    overlap = compare(written, measure="node_overlap").set_index("site")["value"]
    assert overlap["head"] == 1.0
    with pytest.raises(InputError, match="another configuration"):
        GraphFolder.write(
            tmp_path / "x", {("cat", "photo"): circuits["cat", "clipart"]}, MADE, images
        )


@pytest.mark.parametrize(
    ("units", "made", "images", "says"),
    [
        ({"conv": np.array([], int)}, MADE, 1, "cat in photo lacks"),
        ({"conv": np.array([1])}, MADE, 0, "cat in photo lacks"),
        ({"conv": np.array([1])}, {"model": "tiny"}, 1, "weights.*FolderWork"),
        (None, MADE, 1, "there is none"),
    ],
)
def test_a_folder_is_of_circuits_with_units_and_images(
    units: dict[str, np.ndarray] | None,
    made: dict[str, object],
    images: int,
    says: str,
    tmp_path: Path,
) -> None:
    key, record = (
        ("cat", "photo"),
        ImageRecord(tmp_path / "0.png", "photo/cat/0.png", "photo", "cat"),
    )
    circuits = (
        {}
        if units is None
        else {key: Circuit(small_graph(kept_units={}, edge_scores={}), units)}
    )
    with pytest.raises(InputError, match=says):
        GraphFolder.write(tmp_path / "x", circuits, made, {key: [record] * images})
    assert not (tmp_path / "x").exists()
