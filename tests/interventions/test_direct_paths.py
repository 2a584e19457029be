"""Edges of a CNN with skips, against the net written out for each of its readers."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from circuitry import Encoder, Task, attribute, judge_circuit
from circuitry.bases import in_components, joined_sites
from circuitry.circuits import (
    MaskSettings,
    cut_effects,
    learn_masks,
    score_edges,
    score_units,
)
from circuitry.encoder import Stage
from circuitry.gates import Edges
from circuitry.interventions import circuit_of, judgement, kept_embeddings
from tests.support.assert_same import assert_same
from tests.support.circuits import circuit_by, circuit_with
from tests.support.metrics import product as metric
from tests.support.towers import make_tower
from tests.support.work import QUIET

CONVS = {
    "stem": (3, 4),
    "in1": (4, 6),
    "out1": (6, 4),
    "in2": (4, 5),
    "out2": (5, 3),
    "short": (4, 3),
}
SIZES = {"stem": 4, "one": 6, "two": 5, "three": 3, "embedding": 4}
JOINED = [
    ("stem", "one"),
    ("stem", "two"),
    ("stem", "three"),
    ("one", "two"),
    ("one", "three"),
    ("two", "three"),
]
JOINED.append(("three", "embedding"))
EVERY = Edges.between({site: np.arange(n) for site, n in SIZES.items()}, JOINED)
torch.manual_seed(0)
CONVS |= {"in3": (3, 3), "head": (3, 4)}
NET: Any = nn.ModuleDict(
    {name: nn.Conv2d(*sizes, 3, padding=1) for name, sizes in CONVS.items()}
)
NET.double().eval().requires_grad_(False)
IMAGES, OTHER = torch.randn(2, 3, 3, 6, 6).double()


def read(name: str, x: Tensor) -> Any:
    return NET[name](x).relu()


def write(name: str, units: Tensor, past: Tensor) -> Any:
    return (past + NET[name](units)).relu()


def head(units: Tensor) -> Any:
    return NET["head"](units).mean((2, 3))


def two(x: Tensor) -> Tensor:
    y = write("out1", x[:, :6], x[:, 6:])
    return torch.cat([read("in2", y), NET["short"](y)], 1)


STAGES = (  # a block with a skip, one whose skip is a convolution, and one without
    Stage("stem", lambda x: read("stem", x), 1),
    Stage("one", lambda x: torch.cat([read("in1", x), x], 1), 1, carried=range(6, 10)),
    Stage("two", two, 1, carried=range(5, 8)),
    Stage("three", lambda x: read("in3", write("out2", x[:, :5], x[:, 5:])), 1),
    Stage("embedding", head, 1),
)
TASK = Task(Encoder(NET, STAGES, (6, 6)), IMAGES, metric, baseline=OTHER, work=QUIET)


def written_out(masks: dict[Any, np.ndarray]) -> dict[str, Tensor]:
    """Return the units by site, each computed alone from all that it reads."""
    found, ends = dict[str, Tensor](), dict[str, Tensor]()

    def seen(up: str, down: str, d: int) -> Tensor:
        open_ = torch.from_numpy(
            masks.get((up, down), np.ones((9, SIZES[up]), bool))[d]
        )
        return torch.where(open_[:, None, None], found[up], ends.get(up, found[up]))

    def stream(down: str, d: int) -> Any:
        return write("out1", seen("one", down, d), seen("stem", down, d))

    def third(d: int) -> Any:
        return write("out2", seen("two", "three", d), NET["short"](stream("three", d)))

    for image in (OTHER, IMAGES):
        ends, found = found, {"stem": read("stem", image)}
        found["one"] = torch.stack(
            [read("in1", seen("stem", "one", d))[:, d] for d in range(6)], 1
        )
        found["two"] = torch.stack(
            [read("in2", stream("two", d))[:, d] for d in range(5)], 1
        )
        found["three"] = torch.stack([read("in3", third(d))[:, d] for d in range(3)], 1)
        found["embedding"] = torch.stack(
            [head(seen("three", "embedding", d))[:, d] for d in range(4)], 1
        )
    return found


def rest(x: dict[str, Tensor], site: str) -> Tensor:
    """Return the embedding from the units of a site, and what is carried past them."""
    y = write("out1", x["one"], x["stem"])
    units = read("in2", y) if site == "one" else x["two"]
    three = (
        x["three"]
        if site == "three"
        else read("in3", write("out2", units, NET["short"](y)))
    )
    return x["embedding"] if site == "embedding" else head(three)


def closed(up: str, down: str, d: Any, u: Any) -> dict[Any, np.ndarray]:
    mask = np.ones((SIZES[down], SIZES[up]), dtype=bool)
    mask[d, u] = False
    return {(up, down): mask}


def test_every_reader_sees_its_own_units_of_all_sites_that_the_skips_reach() -> None:
    assert joined_sites(TASK.encoder, list(SIZES)) == JOINED
    rng = np.random.default_rng(0)
    masks = {
        (up, down): rng.random((SIZES[down], SIZES[up])) < 0.5 for up, down in JOINED
    }
    found = kept_embeddings(TASK, [circuit_by(masks), circuit_with(EVERY)])
    assert_same(found[0], written_out(masks)["embedding"], 0.1, rtol=1e-9)
    assert_same(found[1], written_out({})["embedding"], 0.1, rtol=1e-9)


def test_cuts_and_exact_readers_are_those_of_the_net_written_out() -> None:
    exact, found, clean = (
        cut_effects(TASK, EVERY).scores,
        score_edges(TASK, EVERY.units).scores,
        written_out({}),
    )
    assert list(found) == JOINED
    for up, down in JOINED:
        expected, x = (
            np.zeros((2, SIZES[down], SIZES[up])),
            clean[down].clone().requires_grad_(),
        )
        gradient = torch.autograd.grad(metric(rest(clean | {down: x}, down)).sum(), x)[
            0
        ]
        for d, u in np.ndindex(SIZES[down], SIZES[up]):
            cut = written_out(closed(up, down, d, u))
            expected[0, d, u] = (
                metric(clean["embedding"]) - metric(cut["embedding"])
            ).mean()
            expected[1, d, u] = ((clean[down] - cut[down]) * gradient)[
                :, d
            ].sum() / len(IMAGES)
        assert_same(exact[up, down], expected[0], 1e-5, rtol=1e-9)
        assert_same(found[up, down], expected[1], 1e-5, rtol=1e-9)


@pytest.mark.parametrize(
    "name", ["", "resnet", "efficientnet", "convnext", "norms", "timm-vit"]
)
def test_units_without_edges_are_at_their_baseline_and_so_is_a_net_without_any(
    name: str,
) -> None:
    encoder = (
        in_components(Encoder.from_tower(make_tower(name).double()))
        if name
        else TASK.encoder
    )
    images, other = torch.randn(2, 2, 3, *encoder.image_size).double()
    task, rng = (
        Task(encoder, images, metric, baseline=other, work=QUIET),
        np.random.default_rng(0),
    )
    sites = encoder.sites[1:]
    sizes = {
        site: len(scores) for site, scores in score_units(task, "gradient").items()
    }
    kept = {
        site: rng.random(n) < 0.5 if site != sites[-1] else np.ones(n, bool)
        for site, n in sizes.items()
    }
    masks = {
        (up, down): np.tile(kept[up], (sizes[down], 1))
        for up, down in joined_sites(encoder, sites)
    }
    none = {pair: np.zeros_like(mask) for pair, mask in masks.items()}
    found, nothing = kept_embeddings(task, [circuit_by(masks), circuit_by(none)])
    assert_same(
        found, kept_embeddings(task, [circuit_of(task, kept)])[0], 1e-3, rtol=1e-9
    )
    assert_same(nothing, encoder(other), 1e-3, rtol=1e-9)


def test_a_projection_of_the_stream_is_read_by_what_comes_behind_its_block() -> None:
    encoder = in_components(Encoder.from_tower(make_tower("resnet")))
    names = (
        "layer2.0.act1",
        "layer2.0.downsample",
        "layer2.0.avgpool",
        "layer2.1.act1",
    )
    act, short, hidden, behind = names
    assert joined_sites(encoder, names) == [
        (act, hidden),
        (short, behind),
        (hidden, behind),
    ]


def test_circuits_of_such_edges_are_cut_out_learned_and_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(judgement, "DRAWS", 3)
    graph = attribute(TASK.encoder, IMAGES, metric, 0.5, baseline=OTHER, progress=False)
    assert (graph.settings["edge_method"], list(graph.edge_scores)) == (
        "exact-readers",
        JOINED,
    )
    circuit = graph.circuit(1)
    learned = learn_masks(TASK, [0.5], MaskSettings(steps=3), among=circuit)
    assert learned.circuits[0].count == round(0.5 * circuit.count)
    assert "sufficiency (edges)" in set(judge_circuit(TASK, circuit)["test"])
