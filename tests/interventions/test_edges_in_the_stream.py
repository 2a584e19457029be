"""Edges of heads, neurons and whole MLPs as causes: against a tower written out by hand, and whatever takes them."""

from dataclasses import replace
from functools import cache
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from circuitry.interventions.edge_sets import EdgeSet, count_edges, no_edges, random_edges
from circuitry.interventions.edge_wires import Chain
from torch import Tensor

from circuitry.circuits import AttributionGraph, attribute, left_rule, score_edges, stream_graph
from circuitry.circuits.graph import BETWEEN_POSITIONS
from circuitry.interventions import (
    AblationSettings,
    JudgementSettings,
    MaskSettings,
    ablated_embeddings,
    cut_each,
    cut_effects,
    cut_embeddings,
    edges_among,
    faithfulness_curve,
    find_circuit,
    judge_circuit,
    learn_edges,
    measure_edges,
    strongest_edge_sets,
    take_edges,
)
from circuitry.models import Encoder, ResidualStream
from circuitry.models.encoder import clean_activations
from circuitry.runs import InputError, Work
from tests.support.towers import make_tower
from tests.support.work import QUIET


def metric(embedding: Tensor) -> Tensor:
    return embedding[:, 0] * embedding[:, 1] + embedding[:, 2]


@cache
def opened(name: str = "timm-vit") -> tuple[ResidualStream, Tensor]:
    encoder = Encoder.from_tower(make_tower(name).double())
    generator = torch.Generator().manual_seed(1)
    return ResidualStream.of(encoder), torch.randn(4, 3, *encoder.image_size, generator=generator).double()


@cache
def graphs() -> dict[str, AttributionGraph]:
    """Graphs of the same images: heads and neurons, heads and MLPs, and those with the ports of heads apart."""
    stream, images = opened()
    found = score_edges(stream, images[:2], metric)
    fine = attribute(stream.components, images[:2], metric, 0.2, left_rule(1), progress=False)
    return {"neurons": fine, "MLPs": stream_graph(found), "ports": stream_graph(found, ports=True)}


KINDS = ("neurons", "MLPs", "ports")


def by_hand(tower: Any, images: Tensor, other: Tensor, edges: EdgeSet) -> Tensor:
    """A timm ViT of two blocks of heads of 8, unit by unit, with plain loops over all earlier units.

    The values of units are [image, position, ...]; a unit reads the baseline's stream and what its kept edges change.
    """
    trunk, start = tower.trunk, "trunk.norm_pre"
    clean, base = (trunk._pos_embed(trunk.patch_embed(x)) for x in (images, other))

    def write(site: str, unit: int, value: Tensor) -> Tensor:
        if site == start:
            alone = torch.zeros_like(clean)
            alone[..., unit] = value
            return alone
        block = trunk.blocks[int(site.split(".")[2])]
        if site.endswith("attn"):
            out: Tensor = value @ block.attn.proj.weight[:, 8 * unit : 8 * unit + 8].T
        else:
            out = value[..., None] * block.mlp.fc2.weight[:, unit]
        return out

    values = {start: [clean[..., u] for u in range(16)]}
    ends = {start: [base[..., u] for u in range(16)]}
    below = base

    def stream(site: str, unit: int) -> Tensor:
        x: Tensor = below
        for up, units in values.items():
            for u, value in enumerate(units):
                if (up, site) not in edges or edges[up, site][unit, u]:
                    x = x + write(up, u, value - ends[up][u])
        return x

    for i, block in enumerate(trunk.blocks):
        site = f"trunk.blocks.{i}.attn"

        def heads(read: Any, block: Any = block) -> list[Tensor]:
            found = []
            for h in range(2):
                q, k, v = (block.attn.qkv(block.norm1(read(h)))[..., 16 * p + 8 * h :][..., :8] for p in range(3))
                found.append(torch.softmax(q @ k.transpose(1, 2) * 8**-0.5, -1) @ v)
            return found

        z, z_base = heads(lambda h, s=site: stream(s, h)), heads(lambda h, x=below: x)
        below = below + block.attn.proj(torch.cat(z_base, -1))
        values[site], ends[site] = z, z_base
        site = f"trunk.blocks.{i}.mlp"
        post = [block.mlp.act(block.mlp.fc1(block.norm2(stream(site, n)))[..., n]) for n in range(64)]
        post_base = block.mlp.act(block.mlp.fc1(block.norm2(below)))
        below = below + block.mlp.fc2(post_base)
        values[site], ends[site] = post, list(post_base.unbind(-1))
    return torch.stack([tower.head(trunk.norm(stream("head", d))[:, 0])[:, d] for d in range(16)], -1)


def test_cut_edges_of_neurons_are_a_tower_written_out_by_hand() -> None:
    stream, images = opened()
    rng, other = np.random.default_rng(0), images.flip(0)
    sizes = dict(zip((*stream.sites, "head"), (16, 2, 64, 2, 64, 16), strict=True))
    edges = {(up, down): rng.random((sizes[down], sizes[up])) < 0.4 for up, down in combinations(sizes, 2)}
    del edges["trunk.norm_pre", "trunk.blocks.1.mlp"]  # of a pair that is not there all are kept
    with torch.no_grad():
        expected = by_hand(stream.encoder.tower, images[:2], other[:2], edges)
    found = cut_embeddings(stream.components, images[:2], [edges], baseline=other[:2], work=QUIET)[0]
    torch.testing.assert_close(found, expected)
    parts = cut_embeddings(stream.components, images, [edges], baseline=other, work=Work(memory_gib=1e-9))[0]
    torch.testing.assert_close(parts[:2], expected)


def test_in_a_chain_of_heads_and_neurons_all_edges_past_the_next_site_are_open() -> None:
    """Where edges run in the stream, too, both are one number."""
    stream, images = opened()
    rng, other = np.random.default_rng(0), images.flip(0)
    sizes = dict(zip((*stream.sites, "head"), (16, 2, 64, 2, 64, 16), strict=True))
    edges = {(up, down): rng.random((sizes[down], sizes[up])) < 0.4 for up, down in pairwise(sizes)}
    expected = cut_embeddings(stream.components, images, [edges], baseline=other, work=QUIET)[0]
    gates = {pair: torch.from_numpy(mask) for pair, mask in edges.items()}
    clean, ends = (clean_activations(stream.components, x, tuple(sizes)) for x in (images, other))
    with torch.no_grad():
        found = Chain(stream.components, tuple(sizes)).run(clean[stream.sites[0]], ends, gates, 100)
    torch.testing.assert_close(found, expected)


def as_matrix(stream: ResidualStream, edges: set[tuple[str, str]]) -> Tensor:
    """Return edges between nodes as readers and writers; a port whose way into its head is cut reads nothing."""
    keep = torch.zeros_like(stream.edges)
    for tail, node in edges:
        (up, u), (down, d) = (name.split("/") for name in (tail, node))
        if up[-1] in "qkv":
            continue
        site, _, port = down.rpartition(".")
        apart = {"attn": [f"{down}.{d}.{p}" for p in "qkv"], **{p: [f"{site}.{d}.{p}"] for p in "qkv"}}
        for reader in apart.get(port, [down]):
            writer = f"{up}.{u}" if up.endswith("attn") else up
            keep[stream.edge(writer, reader)] = ".attn." not in down or (f"{down}/{d}", f"{site}/{d}") in edges
    return keep


@pytest.mark.parametrize("kind", ["MLPs", "ports"])
def test_edges_of_a_stream_graph_are_those_of_its_readers_and_writers(kind: str) -> None:
    stream, images = opened()
    circuit = graphs()[kind].circuit(2)
    keep = as_matrix(stream, set(circuit.graph.edges))
    found = cut_embeddings(stream.components, images, [take_edges(circuit)], work=QUIET)[0]
    with torch.no_grad():
        torch.testing.assert_close(found, stream.run(images, keep))
    assert 0 < keep.sum() < stream.edges.sum()


def test_cutting_each_edge_is_one_number_by_two_routes() -> None:
    """Between neighbouring sites the stream is the chain: only what one unit reads is changed."""
    stream, images = opened()
    _, heads, mlp, *_ = stream.sites
    chain = cut_effects(stream.components, images, metric, {heads: [0, 1], mlp: [5, 9]}, work=QUIET)[heads, mlp]
    edges = no_edges(graphs()["neurons"])
    edges[heads, mlp][[5, 9]] = True
    exact = cut_each(stream.components, images, metric, edges, work=QUIET)
    np.testing.assert_allclose(exact[heads, mlp][[5, 9]], chain)
    assert sum(int((~np.isnan(effects)).sum()) for effects in exact.values()) == 4


def test_the_edges_of_a_circuit_that_was_searched_run_between_any_two_of_its_sites() -> None:
    stream, images = opened()
    found = find_circuit(stream.components, images, metric, method="gradient", size=0.1).graph
    edges = edges_among(found)
    assert set(edges) == set(combinations(found.inner_sites, 2))
    learned = learn_edges(stream.components, images, metric, edges, [0.5], MaskSettings(steps=2), work=QUIET)
    assert count_edges(learned.sets[0]) == round(0.5 * count_edges(edges))


@pytest.mark.parametrize("kind", KINDS)
def test_all_edges_are_the_model_and_none_the_baseline(kind: str) -> None:
    stream, images = opened()
    graph, other = graphs()[kind], images.flip(0)
    sets = [*strongest_edge_sets(graph, [0.1]), {p: np.ones_like(m) for p, m in edges_among(graph).items()}]
    settings = AblationSettings(other, random_draws=1)
    curve = measure_edges(stream.components, images[:2], metric, graph, sets, settings, others=images[2:], work=QUIET)
    with torch.no_grad():
        np.testing.assert_allclose(curve.full, metric(stream.encoder(images)).numpy())
        np.testing.assert_allclose(curve.empty, metric(stream.encoder(other)).numpy())
    assert curve.faithfulness[-1] == pytest.approx(1)
    assert curve.completeness[-1] == pytest.approx(0)
    assert curve.n_units[0] == max(1, round(0.1 * sum(s.size for p, s in graph.edge_scores.items() if p in sets[0])))
    strengths = np.concatenate([np.abs(graph.edge_scores[p]).ravel() for p in sets[0]])
    kept = [
        abs(graph.edge_scores[up, down][np.ix_(graph.kept_units[down] == d, graph.kept_units[up] == u)].item())
        for (up, down), mask in sets[0].items()
        for d, u in np.argwhere(mask)
    ]
    assert sorted(kept) == sorted(strengths)[-curve.n_units[0] :]


def test_what_leads_from_a_port_into_its_own_head_is_no_edge() -> None:
    """Two blocks of two heads: each port is led to by 1 or 4 writers, the two MLPs and the embedding by 3, 6 and 7."""
    stream, images = opened()
    graph = graphs()["ports"]
    everything = edges_among(graph)
    into_ports, into_the_rest = 3 * 2 * (1 + 4), 3 + 6 + 7
    assert count_edges(everything) == into_ports + into_the_rest
    assert set(everything) == set(strongest_edge_sets(graph, [1.0])[0])
    circuit = graph.circuit(1)  # of the three ports of a head one leads on
    edges = take_edges(circuit)
    named = {(f"{up}/{u}", f"{down}/{d}") for (up, down), mask in edges.items() for d, u in np.argwhere(mask)}
    dead = {node for node, n in circuit.graph.out_degree() if n == 0 and node.split("/")[0][-1] in "qkv"}
    ports = {node for node in circuit.graph if node.split("/")[0][-1] in "qkv"}
    assert named == {edge for edge in circuit.graph.edges if edge[0] not in ports and edge[1] not in dead}
    assert dead & {node for _, node in circuit.graph.edges}
    curve = measure_edges(
        stream.components, images, metric, graph, [edges], AblationSettings(random_draws=3), work=QUIET
    )
    assert curve.fractions == (len(named) / (into_ports + into_the_rest),)
    drawn = random_edges(graph, edges, np.random.default_rng(0))
    assert set(drawn) == set(everything)
    assert count_edges(drawn) == len(named)


@pytest.mark.parametrize("ranking", ["absolute", "signed"])
def test_the_strongest_edges_are_ranked_by_strength_or_by_help(ranking: str) -> None:
    graph = graphs()["neurons"]
    scores = {
        (up, unit, down, other): graph.edge_scores[up, down][i, j]
        for up, down in graph.edge_scores
        for i, other in enumerate(graph.kept_units[down])
        for j, unit in enumerate(graph.kept_units[up])
    }
    order = sorted(scores, key=lambda edge: -(abs(scores[edge]) if ranking == "absolute" else scores[edge]))
    for fraction, chosen in zip((0.1, 0.5), strongest_edge_sets(graph, [0.1, 0.5], ranking), strict=True):
        found = {(up, u, down, d) for (up, down), mask in chosen.items() for d, u in np.argwhere(mask)}
        assert found == set(order[: round(fraction * len(order))])
    assert min(scores.values()) < 0 < max(scores.values())


def test_what_comes_later_has_no_part_in_what_comes_before() -> None:
    """With nothing of the second block read, it makes no difference what the second block reads."""
    stream, images = opened()
    rng = np.random.default_rng(0)
    sites = (*stream.sites, "head")
    whole = {pair: np.ones_like(mask) for pair, mask in edges_among(graphs()["neurons"]).items()}
    unread = {(up, down): mask & (up not in sites[3:5]) for (up, down), mask in whole.items()}
    other = {
        (up, down): mask & (rng.random(mask.shape) < 0.5 if down in sites[3:5] else True)
        for (up, down), mask in unread.items()
    }
    a, b, clean = cut_embeddings(stream.components, images, [unread, other, whole], work=QUIET)
    assert torch.equal(a, b)
    assert not torch.allclose(a, clean)
    with pytest.raises(InputError, match=r"Edges lead to a later site, but some from head to trunk.blocks.0.mlp were"):
        cut_embeddings(stream.components, images, [{("head", sites[2]): np.ones((64, 16), dtype=bool)}], work=QUIET)


def test_units_of_heads_and_whole_mlps_are_ablated_as_in_heads_and_neurons() -> None:
    stream, images = opened()
    encoder, other = stream.components, images.flip(0)
    coarse: dict[str, list[int]] = {
        "embed": [0],
        "blocks.0.attn": [1],
        "blocks.0.mlp": [],
        "blocks.1.attn": [0],
        "blocks.1.mlp": [0],
    }
    fine: dict[str, list[int]] = dict(zip(stream.sites, ([*range(16)], [1], [], [0], [*range(64)]), strict=True))
    a, b = (ablated_embeddings(encoder, images, [units], baseline=other, work=QUIET) for units in (coarse, fine))
    torch.testing.assert_close(a, b)
    without_query = {**coarse, "blocks.1.attn.q": [1]}
    keep = stream.edges.clone()
    for writer in ("blocks.0.attn.0", "blocks.0.mlp", "blocks.1.attn.1"):
        keep[:, list(map(str, stream.writers)).index(writer)] = False
    keep[list(map(str, stream.readers)).index("blocks.1.attn.0.q")] = False
    found = ablated_embeddings(encoder, images, [without_query], work=QUIET)[0]
    with torch.no_grad():
        torch.testing.assert_close(found, stream.run(images, keep))
    settings = AblationSettings(other[:2], fractions=(0.5, 1.0))
    curve = faithfulness_curve(encoder, images[:2], metric, graphs()["MLPs"], settings)
    assert curve.faithfulness[-1] == pytest.approx(1)


@pytest.mark.parametrize("kind", ["neurons", "MLPs"])
def test_circuits_across_sites_are_judged_by_units_and_by_edges(kind: str) -> None:
    stream, images = opened()
    graph = graphs()[kind]
    graph = (
        graph
        if kind == "MLPs"
        else replace(
            graph,
            kept_units={s: u[:2] for s, u in graph.kept_units.items()},
            edge_scores={p: e[:2, :2] for p, e in graph.edge_scores.items()},
        )
    )
    circuit = graph.circuit(1)
    judgement = JudgementSettings(draws=5, share=0.5)
    table = judge_circuit(
        stream.components,
        images[:2],
        metric,
        graph,
        AblationSettings(images.flip(0)[:2]),
        judgement,
        circuit=circuit,
        work=QUIET,
    ).set_index("test")
    assert list(table.index) == [
        *("circuit", "complement", "sufficiency", "necessity", "minimality (units)"),
        *("circuit (edges)", "complement (edges)", "sufficiency (edges)", "necessity (edges)", "minimality (edges)"),
    ]
    assert table.loc["minimality (edges)", "n"] == circuit.graph.number_of_edges()
    alone = cut_embeddings(
        stream.components, images[:2], [take_edges(circuit), no_edges(graph)], baseline=images.flip(0)[:2], work=QUIET
    )
    kept, empty = (float(metric(e).mean()) for e in alone)
    with torch.no_grad():
        full = float(metric(stream.encoder(images[:2])).mean())
    assert table.loc["circuit (edges)", "value"] == pytest.approx((kept - empty) / (full - empty))


def test_what_does_not_fit_is_told() -> None:
    stream, images = opened()
    graph = graphs()["MLPs"]
    edges = take_edges(graph.circuit(1))
    with pytest.raises(InputError, match=r"lacks, blocks.0.attn, .* the one in heads and neurons \(in_components\)"):
        cut_embeddings(stream.encoder, images, [edges], work=QUIET)
    with pytest.raises(InputError, match=r"that of embed->blocks.0.mlp is \[2, 1\] where there are 1 and 1 units"):
        cut_embeddings(stream.components, images, [{("embed", "blocks.0.mlp"): np.ones((2, 1), bool)}], work=QUIET)
    with pytest.raises(InputError, match=r"There is no site 'blocks.7.mlp' in this residual stream"):
        ablated_embeddings(stream.components, images, [{"blocks.7.mlp": [0]}], work=QUIET)
    with pytest.raises(InputError, match="cut at all positions alike, but this graph keeps them apart"):
        no_edges(replace(graph, settings={"edges": BETWEEN_POSITIONS}))
    with pytest.raises(InputError, match="at least one image, but there were none"):
        cut_embeddings(stream.components, images[:0], [edges], work=QUIET)
    with pytest.raises(InputError, match="at least one set of edges, all between the same sites, but 0 kinds"):
        cut_embeddings(stream.components, images, [], work=QUIET)
    with pytest.raises(InputError, match=r"shares in \(0, 1\] of a graph's scored edges, but \[2.0\] was asked for of"):
        strongest_edge_sets(graph, [2.0])
