"""Edges of a CNN with skips, against the net written out for each of its readers."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from circuitry import Encoder, Task, attribute, judge_circuit
from circuitry.circuits import Edges, cut_effects, score_edges
from circuitry.encoder import Stage
from circuitry.interventions import MaskSettings, circuit_of, judgement, kept_embeddings, learn_masks
from tests.support.assert_same import assert_same
from tests.support.circuits import circuit_by, circuit_with
from tests.support.metrics import product as metric
from tests.support.work import QUIET

SIZES = {"stem": 4, "one": 6, "two": 5, "three": 3, "embedding": 4}
JOINED = [("stem", "one"), ("stem", "two"), ("stem", "three"), ("one", "two"), ("one", "three"), ("two", "three")]
JOINED.append(("three", "embedding"))


class Net(nn.Module):
    """A stem, a block with a skip, one whose skip is a convolution, and a convolution without a skip."""

    def __init__(self) -> None:
        super().__init__()
        shapes = {"stem": (4, 3), "in1": (6, 4), "out1": (4, 6), "in2": (5, 4), "out2": (3, 5), "short": (3, 4)}
        shapes |= {"in3": (3, 3), "head": (4, 3)}
        self.convs = nn.ModuleDict({name: nn.Conv2d(b, a, 3, padding=1) for name, (a, b) in shapes.items()})

    def read(self, name: str, x: Tensor) -> Tensor:
        return self.convs[name](x).relu()

    def write(self, name: str, units: Tensor, past: Tensor) -> Tensor:
        return (past + self.convs[name](units)).relu()

    def end(self, units: Tensor) -> Tensor:
        return self.convs["head"](units).mean((2, 3))


def chain(net: Net) -> Encoder:
    """Sites [units | x], [units | shortcut], and two that carry nothing."""

    def two(x: Tensor) -> Tensor:
        y = net.write("out1", x[:, :6], x[:, 6:])
        return torch.cat([net.read("in2", y), net.convs["short"](y)], 1)

    stages = (
        Stage("stem", lambda x: net.read("stem", x), 1),
        Stage("one", lambda x: torch.cat([net.read("in1", x), x], 1), 1, carried=range(6, 10)),
        Stage("two", two, 1, carried=range(5, 8)),
        Stage("three", lambda x: net.read("in3", net.write("out2", x[:, :5], x[:, 5:])), 1),
        Stage("embedding", net.end, 1),
    )
    return Encoder(net, stages, (6, 6))


def written_out(net: Net, images: Tensor, other: Tensor, masks: dict[Any, np.ndarray]) -> dict[str, Tensor]:
    """Return the units by site, each computed alone from all that it reads."""

    def run(image: Tensor, ends: dict[str, Tensor] | None) -> dict[str, Tensor]:
        found = {"stem": net.read("stem", image)}

        def seen(up: str, down: str, d: int) -> Tensor:
            if ends is None or (up, down) not in masks:
                return found[up]
            return torch.where(torch.from_numpy(masks[up, down][d])[:, None, None], found[up], ends[up])

        def stream(down: str, d: int) -> Tensor:
            return net.write("out1", seen("one", down, d), seen("stem", down, d))

        def third(d: int) -> Tensor:
            return net.write("out2", seen("two", "three", d), net.convs["short"](stream("three", d)))

        found["one"] = torch.stack([net.read("in1", seen("stem", "one", d))[:, d] for d in range(6)], 1)
        found["two"] = torch.stack([net.read("in2", stream("two", d))[:, d] for d in range(5)], 1)
        found["three"] = torch.stack([net.read("in3", third(d))[:, d] for d in range(3)], 1)
        return found | {"embedding": torch.stack([net.end(seen("three", "embedding", d))[:, d] for d in range(4)], 1)}

    return run(images, run(other, None))


def made() -> tuple[Net, Task, Tensor, Tensor]:
    torch.manual_seed(0)
    net = Net().double().eval().requires_grad_(False)
    images, other = torch.randn(2, 3, 3, 6, 6).double()
    return net, Task(chain(net), images, metric, baseline=other, work=QUIET), images, other


def closed(up: str, down: str, d: Any, u: Any) -> dict[Any, np.ndarray]:
    mask = np.ones((SIZES[down], SIZES[up]), dtype=bool)
    mask[d, u] = False
    return {(up, down): mask}


def everything(task: Task) -> Edges:
    assert task.encoder.pairs_of(SIZES) == JOINED
    return Edges.between({site: np.arange(n) for site, n in SIZES.items()}, JOINED)


def test_every_reader_sees_its_own_units_of_all_sites_that_the_skips_reach() -> None:
    net, task, images, other = made()
    rng = np.random.default_rng(0)
    masks = {(up, down): rng.random((SIZES[down], SIZES[up])) < 0.5 for up, down in JOINED}
    found = kept_embeddings(task, [circuit_by(masks), circuit_with(everything(task))])
    assert_same(found[0], written_out(net, images, other, masks)["embedding"], 0.1, rtol=1e-9)
    assert_same(found[1], written_out(net, images, other, {})["embedding"], 0.1, rtol=1e-9)


def test_cuts_and_exact_readers_are_those_of_the_net_written_out() -> None:
    net, task, images, other = made()
    exact, found = cut_effects(task, everything(task)).scores, score_edges(task, everything(task).units).scores
    clean = written_out(net, images, other, {})
    assert list(found) == JOINED
    for up, down in JOINED:
        expected, x = np.zeros((2, SIZES[down], SIZES[up])), clean[down].clone().requires_grad_()
        gradient = torch.autograd.grad(metric(rest(net, clean | {down: x}, down)).sum(), x)[0]
        for u in range(SIZES[up]):
            for d in range(SIZES[down]):
                cut = written_out(net, images, other, closed(up, down, d, u))
                expected[0, d, u] = (metric(clean["embedding"]) - metric(cut["embedding"])).mean()
                expected[1, d, u] = ((clean[down] - cut[down]) * gradient)[:, d].sum() / len(images)
        assert_same(exact[up, down], expected[0], 1e-5, rtol=1e-9)
        assert_same(found[up, down], expected[1], 1e-5, rtol=1e-6)


def rest(net: Net, x: dict[str, Tensor], site: str) -> Tensor:
    """Return the embedding from the units of a site, and what is carried past them."""
    y = net.write("out1", x["one"], x["stem"])
    two = net.read("in2", y) if site == "one" else x["two"]
    three = x["three"] if site == "three" else net.read("in3", net.write("out2", two, net.convs["short"](y)))
    return x["embedding"] if site == "embedding" else net.end(three)


def test_a_unit_without_edges_is_at_its_baseline() -> None:
    _, task, *_ = made()
    without = {up: [1] for up in SIZES if up != "embedding"}
    masks = {pair: mask for up, down in JOINED for pair, mask in closed(up, down, slice(None), without[up]).items()}
    units = {site: [u for u in range(n) if u != 1 or site == "embedding"] for site, n in SIZES.items()}
    assert_same(*(kept_embeddings(task, [one]) for one in (circuit_by(masks), circuit_of(task, units))), 0.1, rtol=1e-9)


def test_circuits_of_such_edges_are_cut_out_learned_and_judged(monkeypatch: Any) -> None:
    _, task, images, other = made()
    monkeypatch.setattr(judgement, "DRAWS", 3)
    graph = attribute(task.encoder, images, metric, 0.5, baseline=other, progress=False)
    assert graph.settings["edge_method"] == "exact-readers"
    assert list(graph.edge_scores) == JOINED
    circuit = graph.circuit(1)
    assert {(up.split("/")[0], down.split("/")[0]) for up, down in circuit.graph.edges} <= set(JOINED)
    assert circuit.its_edges.random(np.random.default_rng(0)).count == circuit.count
    learned = learn_masks(task, [0.5], MaskSettings(steps=3), among=circuit)
    assert learned.circuits[0].count == max(1, round(0.5 * circuit.count))
    assert "sufficiency (edges)" in set(judge_circuit(task, circuit)["test"])
