"""Edges between heads and neurons: sums of what `score_edges` finds, exact cuts, neurons apart, unequal counts."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from timm.models.vitamin import GeGluMlp
from torch import Tensor, nn

from circuitry.bases import ResidualStream, in_components, joined_sites
from circuitry.bases.gated_reading import DirectPaths
from circuitry.circuits import attribute, left_rule, midpoint_rule, score_edges
from circuitry.circuits.chain_edges import reader_edges
from circuitry.circuits.quadrature import QuadratureRule
from circuitry.circuits.stream_edges import attributed, unit_edges
from circuitry.circuits.unit_gradients import unit_gradients
from circuitry.encoder import Encoder, OperationCounter, Task
from circuitry.encoder.tensor_batches import bytes_per_image, rows_that_fit
from circuitry.gates.edge_gates import gated_chain
from circuitry.runs import InputError, Work
from tests.support.assert_same import assert_same
from tests.support.metrics import product as metric
from tests.support.metrics import product as total
from tests.support.stream_scores import edge_scores, place_of, run_stream
from tests.support.stream_scores import opened as opened_stream
from tests.support.towers import make_tower
from tests.support.work import AS_STUDIED, QUIET


def opened(name: str = "timm-vit") -> tuple[Encoder, Tensor]:
    stream, images = opened_stream(name)
    return stream.components, images


def test_completeness_is_the_mean_over_images_although_each_carries_its_own_stream() -> (
    None
):
    encoder, images = opened()
    settings: dict[str, Any] = {
        "size": 0.2,
        "rule": left_rule(2),
        "progress": False,
        **AS_STUDIED,
    }
    found = attribute(encoder, images, metric, **settings).completeness
    singles = [
        attribute(encoder, image[None], metric, **settings).completeness
        for image in images
    ]
    for site, whole in found.items():
        assert whole == pytest.approx(
            tuple(np.mean([one[site] for one in singles], 0))
        ), site
    apart = {round(one["trunk.blocks.0.attn"].metric_difference, 6) for one in singles}
    assert len(apart) == len(images)


@pytest.mark.parametrize(
    "name",
    ["vit", "timm-vit", "vit-average-pooling", "vit-attentional-pooling", "gated"],
)
def test_units_of_a_site_add_up_to_the_edges_of_components(name: str) -> None:
    encoder, images = opened(name)
    rule, other = (
        midpoint_rule(2),
        images.roll(1, 0) * 0.7 + 0.1,
    )  # swapped pairs would cancel
    graph = attribute(
        encoder, images, metric, 1.0, rule, other, edge_rule=rule, progress=False
    )
    stream = ResidualStream.of(encoder)
    found = edge_scores(stream, images, metric, baseline=other, rule=rule)
    assert set(graph.edge_scores) == set(combinations(graph.inner_sites, 2))
    sites, sums, cuts = (
        [*stream.sites, graph.sites[-1]],
        dict[Any, float](),
        dict[Any, float](),
    )
    for (up, down), scores in graph.edge_scores.items():
        by_writer = {"embed": scores.sum(1)} if up == sites[0] else {}
        block, kind = divmod(sites.index(up) - 1, 2)
        if block >= 0 and kind:
            by_writer[f"blocks.{block}.mlp"] = scores.sum(1)
        elif block >= 0:
            by_writer |= {
                f"blocks.{block}.attn.{h}": scores[:, i]
                for i, h in enumerate(graph.kept_units[up])
            }
        block, kind = divmod(sites.index(down) - 1, 2)
        for writer, column in by_writer.items():
            w = found.writers.index(writer)
            if down == sites[-1]:
                expected = {"embedding": column.sum()}
            elif kind:
                expected = {f"blocks.{block}.mlp": column.sum()}
            else:
                expected = {
                    f"blocks.{block}.attn.{h}": column[i]
                    for i, h in enumerate(graph.kept_units[down])
                }
            for reader, value in expected.items():
                rows = [
                    i
                    for i, one in enumerate(found.readers)
                    if one in (reader, *(f"{reader}.{p}" for p in "qkv"))
                ]
                sums[writer, reader], cuts[writer, reader] = (
                    value,
                    found.scores[rows, w].sum(),
                )
    assert_same(list(sums.values()), list(cuts.values()), at_least=1e-3, rtol=1e-8)


@pytest.mark.parametrize("name", ["timm-vit", "gated"])
def test_an_edge_between_two_neurons_is_the_derivative_of_a_hook_on_the_modules(
    name: str,
) -> None:
    encoder, images = opened(name)
    tower: Any = encoder.tower
    first, second = tower.trunk.blocks[0].mlp, tower.trunk.blocks[1]
    graph = attribute(encoder, images, metric, 0.1, left_rule(1), progress=False)
    up, down = "trunk.blocks.0.mlp", "trunk.blocks.1.mlp"
    activations: list[Tensor] = []
    with first.fc2.register_forward_pre_hook(
        lambda _, inputs: activations.append(inputs[0])
    ):
        tower(images)
    for column, n in enumerate(graph.kept_units[up][:3]):
        wrote = activations[0][..., n : n + 1] * first.fc2.weight[:, n]
        for row, m in enumerate(graph.kept_units[down][:3]):
            amount = torch.zeros((), dtype=torch.float64, requires_grad=True)
            value = metric(
                _without(tower, images, second, amount * wrote, int(m))
            ).mean()
            (slope,) = torch.autograd.grad(value, amount)
            assert graph.edge_scores[up, down][row, column] == pytest.approx(
                -float(slope), rel=1e-8
            )


def _without(
    tower: Any, images: Tensor, block: Any, change: Tensor, neuron: int
) -> Tensor:
    """The embedding where one neuron of a block reads a stream without ``change``."""
    streams: list[Tensor] = []

    def one_neuron(_: object, inputs: tuple[Tensor]) -> tuple[Tensor]:
        only = torch.arange(inputs[0].shape[-1]) == neuron
        pre = block.mlp.fc1(block.norm2.forward(streams[0] - change))
        gate, value = pre.tensor_split(
            [inputs[0].shape[-1]], -1
        )  # a gated neuron has a value, others the gate alone
        post = block.mlp.act.forward(gate)
        return (
            torch.where(only, post * value if value.shape[-1] else post, inputs[0]),
        )

    handles = [
        block.norm2.register_forward_pre_hook(
            lambda _, inputs: streams.append(inputs[0])
        )
    ]
    handles.append(block.mlp.fc2.register_forward_pre_hook(one_neuron))
    found: Tensor = tower(images)
    for handle in handles:
        handle.remove()
    return found


def test_where_norms_lie_between_exact_readers_score_edges_of_any_two_sites() -> None:
    encoder = in_components(Encoder.from_tower(make_tower("norms").double()))
    images = torch.randn(2, 3, *encoder.image_size, dtype=torch.float64)
    settings: dict[str, Any] = {
        "size": 0.1,
        "baseline": images.flip(0),
        "progress": False,
    }
    found, exact = (
        attribute(encoder, images, metric, edges=name, **settings)
        for name in (None, "cuts")
    )
    assert (
        list(found.edge_scores)
        == list(combinations(found.inner_sites, 2))
        == list(exact.edge_scores)
    )
    scores, cuts = (one.edges.to_pandas()["score"] for one in (found, exact))
    assert float(stats.spearmanr(scores, cuts).statistic) > 0.8


@pytest.mark.parametrize("name", ["vit", "gated"])
def test_exact_readers_of_a_chain_are_those_of_the_stream_where_all_adds_up(
    name: str,
) -> None:
    encoder, images = opened(name)
    task = Task(
        encoder, images, metric, baseline=images.roll(1, 0) * 0.7 + 0.1, work=QUIET
    )
    units = {site: np.array([1, 0]) for site in encoder.sites[-6:]}
    with task.running(gradients=True):
        found = reader_edges(task, units, left_rule(1))
    expected = score_edges(task, units, method="exact-readers").scores
    assert found.keys() == expected.keys()
    # Into heads a chain moves queries, keys and values together, where the stream sums what each does.
    pairs = [(up, down) for up, down in found if not down.endswith("attn")]
    ours, theirs = (
        np.stack([scores[pair] for pair in pairs]) for scores in (found, expected)
    )
    assert_same(ours, theirs, at_least=1e-4)


def test_some_sites_alone_have_the_same_edges_between_them() -> None:
    encoder, images = opened()
    whole = attribute(encoder, images, metric, 1.0, left_rule(1), progress=False)
    sites = ("trunk.blocks.0.attn", "trunk.blocks.1.mlp")
    some = attribute(
        encoder, images, metric, 1.0, left_rule(1), sites=sites, progress=False
    )
    assert list(some.edge_scores) == [sites]
    np.testing.assert_allclose(some.edge_scores[sites], whole.edge_scores[sites])


def test_the_method_cuts_is_runs_without_one_edge_and_exact_readers_rank_nearest_to_it() -> (
    None
):
    encoder, images = opened()
    settings: dict[str, Any] = {
        "size": 0.1,
        "baseline": images.roll(1, 0) * 0.7 + 0.1,
        "progress": False,
    }
    methods = ("cuts", "exact-readers", "gradient")
    found = {
        name: attribute(encoder, images, metric, edges=name, **settings)
        for name in methods
    }
    exact = found["cuts"]
    stream = ResidualStream.of(encoder, exact.kept_units)
    up, down = "trunk.blocks.0.attn", "trunk.blocks.1.attn"
    head, reader = exact.kept_units[up][0], exact.kept_units[down][0]
    keep = stream.edges.clone()
    for port in "qkv":
        keep[
            place_of(stream, f"blocks.0.attn.{head}", f"blocks.1.attn.{reader}.{port}")
        ] = False
    with torch.no_grad():
        cut = (
            metric(encoder.tower(images))
            - metric(run_stream(stream, images, keep, settings["baseline"]))
        ).mean()
    assert_same(exact.edge_scores[up, down][0, 0], cut, at_least=1e-4, rtol=1e-8)
    cuts, *others = (one.edges.to_pandas()["score"] for one in found.values())
    readers, plain = (float(stats.spearmanr(cuts, one).statistic) for one in others)
    assert readers > 0.8
    assert readers > plain - 0.02


RULE = left_rule(2)


@pytest.mark.parametrize(("tower", "components"), [("resnet", False), ("vit", True)])
def test_edges_are_those_between_the_same_units_of_all(
    tower: str, components: bool
) -> None:
    encoder = Encoder.from_tower(make_tower(tower).double())
    encoder = in_components(encoder) if components else encoder
    images = torch.randn(1, 3, *encoder.image_size, dtype=torch.float64)
    sites = encoder.sites[-4:]
    shared: dict[str, Any] = {
        "rule": RULE,
        "sites": sites,
        "baseline": "zero",
        "progress": False,
    }
    every = attribute(encoder, images, total, 1.0, **shared)
    n_units, order = sum(map(len, every.node_scores.values())), every.kept_units
    cuts = [
        attribute(encoder, images, total, k / n_units, budget="global", **shared)
        for k in (2, 8)
    ]
    assert min(map(len, cuts[0].kept_units.values())) == 0
    for cut in cuts:
        assert set(cut.edge_scores) == set(every.edge_scores)
        places = {
            site: np.argsort(order[site])[units]
            for site, units in cut.kept_units.items()
        }
        expected = {
            pair: every.edge_scores[pair][np.ix_(places[pair[1]], places[pair[0]])]
            for pair in cut.edge_scores
        }
        found, by_all = (
            np.concatenate([s.ravel() for s in scores.values()])
            for scores in (cut.edge_scores, expected)
        )
        if len(found):
            assert_same(found, by_all, at_least=1e-12)
    assert len(found)


APART = {"trunk.blocks.0.mlp": [5, 2], "trunk.blocks.1.mlp": [0]}
EVERYWHERE = {"trunk.norm_pre": [3, 0], **APART, "head": [1]}
"""Dimensions of the stream before the blocks and units of the embedding, too."""


def opened_apart(
    gated: bool = False, units: Any = APART
) -> tuple[Any, ResidualStream, Tensor]:
    tower: Any = make_tower("timm-vit").double()
    for block in tower.trunk.blocks if gated else ():
        block.mlp = GeGluMlp(16, 8).double().requires_grad_(False)
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    return tower, ResidualStream.of(Encoder.from_tower(tower), units), images


def test_neurons_are_named_and_what_all_write_adds_up_to_the_stream() -> None:
    tower, stream, images = opened_apart()
    names = [str(one) for one in stream.writers]
    assert names[3:6] == ["blocks.0.mlp.5", "blocks.0.mlp.2", "blocks.0.mlp"]
    assert [str(one) for one in stream.readers][6:9] == names[3:6]
    row, _ = place_of(stream, "blocks.0.mlp.2", "blocks.1.mlp.0")
    assert not stream.edges[row, names.index("blocks.1.mlp")]
    with torch.no_grad():
        _, seen = stream.components.run_with_cache(images)
        biases = sum(sum(stream.biases(i)) for i in range(2))
        torch.testing.assert_close(
            stream.written(seen).sum(0) + biases, seen["blocks.1.hook_resid_post"]
        )
        torch.testing.assert_close(
            run_stream(stream, images, stream.edges, images.flip(0)), tower(images)
        )


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("units", [APART, EVERYWHERE], ids=["neurons", "everywhere"])
def test_scores_are_derivatives_of_exact_cuts_and_add_up_to_those_of_whole_components(
    gated: bool, units: Any
) -> None:
    tower, stream, images = opened_apart(gated, units)
    keep = stream.edges.double().requires_grad_()
    (slope,) = torch.autograd.grad(
        metric(run_stream(stream, images, keep, images.flip(0))).mean(), keep
    )
    found = edge_scores(stream, images, metric, baseline=images.flip(0))
    expected = torch.where(stream.edges, slope, torch.nan)
    assert_same(found.scores, expected, at_least=1e-2, rtol=1e-7)
    whole = edge_scores(
        ResidualStream.of(Encoder.from_tower(tower)),
        images,
        metric,
        baseline=images.flip(0),
    )
    into = [whole.readers.index(together(name)) for name in found.readers]
    out_of = [whole.writers.index(together(name)) for name in found.writers]
    total = np.zeros_like(whole.scores)
    np.add.at(total, np.ix_(into, out_of), np.nan_to_num(found.scores))
    assert_same(total, np.nan_to_num(whole.scores), at_least=1e-2, rtol=1e-8)


def together(name: str) -> str:
    """The whole component that one of its units belongs to."""
    first, *rest = name.split(".")
    return (
        name
        if first == "blocks" and ".mlp." not in name
        else ".".join([first, *rest[:2]] if rest[1:] else [first])
    )


def test_exact_readers_know_neurons_apart() -> None:
    tower, _, images = opened_apart()
    tower.trunk.norm = nn.Identity()
    stream = ResidualStream.of(Encoder.from_tower(tower), EVERYWHERE)
    found = edge_scores(
        stream, images, lambda e: e[:, 0] - e[:, 1], method="exact-readers"
    )
    with torch.no_grad():
        edges = [
            ("blocks.0.mlp.2", r)
            for r in ("blocks.1.mlp.0", "blocks.1.mlp", "embedding.1", "embedding")
        ]
        for writer, reader in [
            *edges,
            ("embed.3", "embedding.1"),
            ("embed", "blocks.1.mlp"),
        ]:
            row, column = place_of(stream, writer, reader)
            keep = stream.edges.clone()
            keep[row, column] = False
            change = (tower(images) - run_stream(stream, images, keep)).mean(0)
            assert found.scores[row, column] == pytest.approx(
                float(change[0] - change[1]), rel=1e-8
            )


def test_neurons_of_a_graph_are_apart_and_bad_ones_are_told() -> None:
    tower, _, images = opened_apart()
    encoder = Encoder.from_tower(tower)
    graph = attribute(
        in_components(encoder),
        images,
        metric,
        0.05,
        midpoint_rule(1),
        progress=False,
        **AS_STUDIED,
    )
    stream = ResidualStream.of(encoder, graph.kept_units)
    assert [len(stream.apart[f"trunk.blocks.{i}.mlp"]) for i in range(2)] == [4, 4]
    assert stream.apart["trunk.blocks.0.mlp"] == tuple(
        graph.kept_units["trunk.blocks.0.mlp"]
    )
    for wrong in ([64], [-1], [3, 3]):
        with pytest.raises(InputError, match=r"trunk.blocks.1.mlp.* 0 to 63"):
            ResidualStream.of(encoder, {"trunk.blocks.1.mlp": wrong})


def test_a_node_is_the_sum_of_its_edges_to_all_later_readers() -> None:
    encoder, images = opened()
    graph = attribute(encoder, images, metric, 1.0, left_rule(1), progress=False)
    for site in graph.inner_sites[:-1]:
        total: Any = sum(
            scores.sum(0) for (up, _), scores in graph.edge_scores.items() if up == site
        )
        assert_same(
            total,
            graph.node_scores[site][graph.kept_units[site]],
            at_least=1e-3,
            rtol=1e-8,
        )


@pytest.mark.parametrize(
    "name", ["vit", "timm-vit", "vit-attentional-pooling", "gated"]
)
@pytest.mark.parametrize("rule", [left_rule(2), midpoint_rule(2)])
@pytest.mark.parametrize("hooked", [False, True])
def test_scores_of_some_units_are_those_by_gradients_of_the_whole_stream(
    name: str, rule: QuadratureRule, hooked: bool
) -> None:
    encoder, images = opened(name)
    baseline = images.roll(1, 0) * 0.7 + 0.1
    task = Task(encoder, images, metric, baseline=baseline, work=QUIET)
    units = {site: np.array([1, 3, 0]) for site in encoder.sites[1:]}
    for site in encoder.sites[1:]:
        if site.endswith("attn"):
            units[site] = np.array([1, 0])
    units[encoder.sites[3]] = np.zeros(0, int)

    def smaller(x: Tensor, hook: Any) -> Tensor:
        return 0.3 * x

    hooks = [(encoder.sites[1], smaller), (encoder.sites[2], smaller)]
    with encoder.hooks(hooks if hooked else []), task.running(gradients=True):
        found = unit_gradients(task, units, rule)
        expected = unit_edges(attributed, task, units, rule)
    assert list(found) == list(expected)
    for pair, scores in expected.items():
        np.testing.assert_allclose(found[pair], scores, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rule", [left_rule(1), midpoint_rule(1)])
def test_batches_leave_room_for_what_is_held_beside_a_run(rule: QuadratureRule) -> None:
    encoder, images = opened()
    sizes = list[int]()

    def seen(embeddings: Tensor) -> Tensor:
        sizes.append(len(embeddings))
        return metric(embeddings)

    cache: Any = encoder.run_with_cache(images[:1])[1]
    of_run = bytes_per_image(encoder)
    # The clean activation, the baseline and the change of each site; the pre-activations with their gradients.
    held = 3 * sum(cache[site].nbytes for site in encoder.sites[1:-1])
    held += 2 * sum(cache["pre", block].nbytes for block in range(2))
    gib = 6 * (of_run + held) / 2**30
    work = Work(progress=False, memory_gib=gib)
    task = Task(encoder, images[:1].repeat(50, 1, 1, 1), seen, work=work)
    units = {site: np.array([1, 0]) for site in encoder.sites[1:]}
    with task.running(gradients=True):
        unit_gradients(task, units, rule)
    assert rows_that_fit(encoder, gib) > 6 >= max(sizes) > 1


@pytest.mark.parametrize("closes", [0, 1])
def test_rows_that_close_no_unit_of_a_site_read_it_as_it_is(closes: int) -> None:
    encoder = in_components(Encoder.from_tower(make_tower("resnet").double()))
    images = torch.randn(2, 3, *encoder.image_size, dtype=torch.float64)
    clean = encoder.read_unhooked(images, encoder.sites[1:])
    ends = {site: torch.zeros_like(x) for site, x in clean.items()}
    gates = dict[str, Tensor]()
    # As many rows as images: a result without rows would be taken for one with rows.
    for number, site in enumerate(("layer2.0.avgpool", "layer2.1.act2")):
        gates[site] = torch.ones(2, encoder.n_units(site, clean[site])).bool()
        if number == closes:
            gates[site][[0, 1], [3, 2]] = False
    closed = {site: (~gate).any(0).nonzero()[:, 0] for site, gate in gates.items()}
    paths = DirectPaths(encoder, clean, ends)
    with encoder.running():
        whole = dict(paths.read(gates))
        narrow = dict(paths.read(gates, closed))
    assert list(narrow) == list(whole)
    for site, units in whole.items():
        torch.testing.assert_close(narrow[site], units)


def test_cuts_are_the_same_in_runs_of_one_row() -> None:
    encoder = in_components(Encoder.from_tower(make_tower("resnet").double()))
    images = torch.randn(2, 3, *encoder.image_size, dtype=torch.float64)
    units = {site: np.array([0]) for site in encoder.sites[6:12]}
    scores = list[np.ndarray]()
    for memory_gib in (1.0, 1e-4):
        work = Work(progress=False, memory_gib=memory_gib)
        task = Task(encoder, images, metric, work=work)
        edges = score_edges(task, units, method="cuts")
        scores.append(np.concatenate([*edges.scores.values()]))
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-9, atol=1e-15)


def test_gated_runs_compute_no_units_of_the_sites_in_between() -> None:
    encoder = in_components(Encoder.from_tower(make_tower("resnet")))
    tower: Any = encoder.tower
    images = torch.randn(2, 3, *encoder.image_size)
    first, last = "layer2.0.downsample", "layer3.0.downsample"
    sites = encoder.sites[encoder.position(first) : encoder.position(last) + 1]
    clean = encoder.read_unhooked(images, encoder.sites[1:])
    ends = {site: torch.zeros_like(x) for site, x in clean.items()}
    edges = gated_chain(encoder, sites, rows=100)
    gates = torch.ones(edges.size(last), edges.size(first)).bool()
    gates[range(3), range(3)] = False
    with encoder.running():
        with OperationCounter() as plain:
            edges.run(clean[first], ends, {})
        with OperationCounter() as gated:
            edges.run(clean[first], ends, {(first, last): gates})
        with OperationCounter() as expected:
            # What both blocks add to the stream, and the projection of the stream under each of the four rows.
            tower.layer2[0].conv3(clean["layer2.0.avgpool"][:, :16])
            stream = tower.layer2[1].conv3(clean["layer2.1.act2"][:, :16])
            tower.layer3[0].downsample(stream.repeat(4, 1, 1, 1))
    assert gated.total - plain.total == expected.total


@pytest.mark.parametrize(("name", "most"), [("resnet", 3.5), ("efficientnet", 3.1)])
def test_edges_of_a_few_units_of_a_cnn_cost_little_more_than_their_gradient(
    name: str, most: float
) -> None:
    encoder = in_components(Encoder.from_tower(make_tower(name)))
    images = torch.randn(2, 3, *encoder.image_size)
    task = Task(encoder, images, metric, work=QUIET)
    units = {site: np.array([0, 2]) for site in encoder.sites[1:-1]}
    joined_sites(encoder, encoder.sites)
    with task.running(gradients=True):
        with OperationCounter() as forward:
            encoder(images)
        with OperationCounter() as edges:
            reader_edges(task, units, left_rule(1))
    # Steps that compute all units, or add all units to the stream, would cost more.
    assert edges.total < most * forward.total
