"""Edges and components of transformers against oracles that share no code: paper, captum, TransformerLens' ViT."""

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LayerGradientXActivation, LayerIntegratedGradients
from torch import Tensor

from circuitry.bases import ResidualStream, in_components
from circuitry.bases.components import BLOCK_POINTS, PATTERN_POINTS
from circuitry.circuits import attribute, cut_effects, gauss_legendre_rule, left_rule
from circuitry.encoder import Encoder, Task
from circuitry.gates import Edges
from circuitry.interventions import kept_embeddings
from tests.support.circuits import circuit_with
from tests.support.metrics import product
from tests.support.micro_transformer import IMAGE, metric, micro_tower, scaling_tower
from tests.support.stream_scores import edge_scores, of_edges, place_of, run_stream
from tests.support.towers import make_tower
from tests.support.work import AS_STUDIED, QUIET

LN3 = math.log(3)


# Writers, beyond a baseline of zero, write: the embedding (1, 0), (1, 1); head 0 (0, 4) and head 1 (3, 0) at both
# tokens; the MLP (4, 0), (3, 0).
#
# Gradients, at both tokens where not said otherwise:
#   embedding (1, 2);  MLP, whose n0 is on and n1 off, (2, -1);  so behind attention (3, 1)
#   head 0 writes b: 1 by z; a value counts 1/2 for each of two tokens, 1 by v; so (2, 4)
#   head 1 writes a: 3 by z; by v 3 * 2 * 1/4 and 3 * 2 * 3/4; so (0, 6) and (0, 18)
#   its scores: 3 A (v - z), that is 3/4 (0 - 3) = -9/4 and 9/4 (4 - 3) = 9/4 for each query
#   by q: 9/4 times k = b of token 2, 9/4; so (9/4 ln 3, 0)
#   by k: -9/4 and 9/4 times q = ln 3, for two queries; so (0, -9/2 ln 3) and (0, 9/2 ln 3)
#
# Exact: 33 minus the metric without the edge.
#   embed -> q or k of head 1: z = 2. Streams (3, 4), (3, 5), n0 = 2, 1, n1 = 0, 0: metric 5 + 4 + 2 * 9 = 27
#   embed -> v of head 0: z = 0. Streams (4, 0), (4, 1), n0 = 8, 7: metric 12 + 11 + 2 * 1 = 25
#   embed -> v of head 1: z = 0. Streams (1, 4), (1, 5), n0 off, n1 = 1, 2: metric 1 + 1 + 2 (7 + 11) = 38
#   embed -> MLP: it reads (3, 4) twice, n0 = 2, 2: metric 6 + 6 + 2 * 9 = 30
#   head 0 -> MLP: it reads (4, 0), (4, 1), n0 = 8, 7: metric 12 + 11 + 2 * 9 = 41
#   head 1 -> MLP: it reads (1, 4), (1, 5), n0 off, n1 = 1, 2: metric 4 + 4 + 2 (7 + 11) = 44
ON_PAPER = {  # edge: (score, exact)
    ("embed", "blocks.0.attn.0.q"): (0, 0),
    ("embed", "blocks.0.attn.0.k"): (0, 0),
    ("embed", "blocks.0.attn.0.v"): (2 + 6, 33 - 25),
    ("embed", "blocks.0.attn.1.q"): (9 / 2 * LN3, 33 - 27),
    ("embed", "blocks.0.attn.1.k"): (9 / 2 * LN3, 33 - 27),
    ("embed", "blocks.0.attn.1.v"): (0 + 18, 33 - 38),
    ("embed", "blocks.0.mlp"): (2 + 1, 33 - 30),
    ("embed", "embedding"): (1 + 3, 4),
    ("blocks.0.attn.0", "blocks.0.mlp"): (-4 - 4, 33 - 41),
    ("blocks.0.attn.0", "embedding"): (8 + 8, 16),
    ("blocks.0.attn.1", "blocks.0.mlp"): (6 + 6, 33 - 44),
    ("blocks.0.attn.1", "embedding"): (3 + 3, 6),
    ("blocks.0.mlp", "embedding"): (4 + 3, 7),
}


def test_scores_of_edges_are_those_worked_on_paper() -> None:
    stream = ResidualStream.of(Encoder.from_tower(micro_tower()))
    found = of_edges(edge_scores(stream, IMAGE, metric))
    assert found == pytest.approx(
        {edge: score for edge, (score, _) in ON_PAPER.items()}, abs=1e-12
    )


def test_cuts_of_edges_are_those_worked_on_paper() -> None:
    stream = ResidualStream.of(Encoder.from_tower(micro_tower()))
    matrix = edge_scores(stream, IMAGE, metric, "cuts")
    assert of_edges(matrix) == pytest.approx(
        {edge: exact for edge, (_, exact) in ON_PAPER.items()}, abs=1e-12
    )
    # Head 0 writes b at both tokens: without it streams are (4, 0) and (4, 1), n0 = 8, 7, the metric 12 + 11 + 2.
    assert matrix.out_of[1] == pytest.approx(33 - 25)
    assert matrix.into[-1] == pytest.approx(
        33
    )  # the embedding of nothing: the metric is 0
    assert metric(stream.encoder(IMAGE)).item() == pytest.approx(33)
    found = {}
    for edge in ON_PAPER:
        keep = stream.edges.clone()
        keep[place_of(stream, *edge)] = False
        found[edge] = 33 - metric(run_stream(stream, IMAGE, keep)).item()
    assert found == pytest.approx(
        {edge: exact for edge, (_, exact) in ON_PAPER.items()}, abs=1e-12
    )


def test_edges_that_carry_other_images_are_the_numbers_of_auto_circuits_micro_model() -> (
    None
):
    # A block makes (5a, 7b) of (a, b), two make (25a, 49b). The image is (-1, -1); edges that are cut carry (1, 1).
    #   head 0.1 -> embedding: (3, 4) for (-3, -4), so (6, 8) more
    #   head 0.0 -> head 1.1: (1, 2) for (-1, -2), so (2, 4) more times (3, 4): (6, 16)
    #   embed -> head 0.0: it writes (2, 4) more, and by head 1.0 (2, 8); by head 1.1 (6, 16), unless that edge is cut
    cuts = [
        ("blocks.0.attn", "embedding", 0, 1),
        ("blocks.0.attn", "blocks.1.attn", 1, 0),
    ]
    cuts.append(("embed", "blocks.0.attn", 0, 0))
    heads, one = np.arange(2), np.arange(1)
    units = {
        "embed": one,
        "blocks.0.attn": heads,
        "blocks.1.attn": heads,
        "embedding": one,
    }
    circuits = []
    for n in range(len(cuts) + 1):
        edges = Edges.between(units, combinations(units, 2))
        for up, down, reader, writer in cuts[:n]:
            edges.scores[up, down][reader, writer] = np.nan
        circuits.append(circuit_with(edges))
    image = torch.full(
        (1, 3, 1, 2), -0.5, dtype=torch.float64
    )  # half of it in each token, which are summed
    encoder = ResidualStream.of(Encoder.from_tower(scaling_tower())).components
    task = Task(encoder, image, metric, baseline=-image, work=QUIET)
    found = kept_embeddings(task, [*circuits, circuits[0].nothing()])[:, 0]
    np.testing.assert_allclose(
        found, [[-25, -49], [-19, -41], [-13, -25], [-9, -13], [25, 49]]
    )
    exact = cut_effects(task, Edges.between(units, combinations(units, 2))).scores
    alone = [exact[up, down][reader, writer] for up, down, reader, writer in cuts]
    assert alone == pytest.approx([-6 - 2 * 8, -6 - 2 * 16, -10 - 2 * 28])


def timm_vit() -> tuple[Any, Tensor]:
    tower = make_tower("timm-vit").double()
    return tower, torch.randn(3, 3, 32, 32, dtype=torch.float64)


def test_heads_neurons_and_mlps_equal_captums_gradient_times_activation() -> None:
    tower, images = timm_vit()
    encoder = in_components(Encoder.from_tower(tower))
    graph = attribute(encoder, images, product, 1.0, left_rule(1), progress=False)
    writers = np.nansum(
        edge_scores(ResidualStream.of(encoder), images, product).scores, 0
    )  # [embed, heads, MLP, ...]
    for i, block in enumerate(tower.trunk.blocks):
        z, neurons = (
            LayerGradientXActivation(lambda x: product(tower(x)), module)
            .attribute(images, attribute_to_layer_input=True)
            .sum(1)
            .mean(0)
            .detach()
            .numpy()
            for module in (block.attn.proj, block.mlp.fc2)
        )
        heads = z.reshape(2, 8).sum(1)
        np.testing.assert_allclose(
            graph.node_scores[f"trunk.blocks.{i}.attn"], heads, rtol=1e-9, atol=1e-14
        )
        np.testing.assert_allclose(
            graph.node_scores[f"trunk.blocks.{i}.mlp"], neurons, rtol=1e-9, atol=1e-14
        )
        np.testing.assert_allclose(
            writers[1 + 3 * i : 4 + 3 * i],
            [*heads, neurons.sum()],
            rtol=1e-9,
            atol=1e-14,
        )


def test_heads_along_a_path_equal_captums_layer_integrated_gradients() -> None:
    tower, images = timm_vit()
    encoder = in_components(Encoder.from_tower(tower))
    graph = attribute(
        encoder,
        images,
        product,
        1.0,
        gauss_legendre_rule(5),
        progress=False,
        **AS_STUDIED,
    )
    proj = tower.trunk.blocks[1].attn.proj
    with torch.no_grad():
        _, cache = encoder.run_with_cache(images)
    entry = torch.nn.Identity()

    def from_heads(z: Tensor) -> Tensor:
        with proj.register_forward_pre_hook(
            lambda _, inputs: (entry(z).repeat(len(inputs[0]) // len(z), 1, 1),)
        ):
            return product(tower(images.repeat(len(z) // len(images), 1, 1, 1)))

    z = cache["blocks.1.attn.hook_z"].flatten(2)
    effect = LayerIntegratedGradients(from_heads, entry).attribute(
        z, baselines=torch.zeros_like(z), n_steps=5, method="gausslegendre"
    )
    heads = effect.reshape(3, 17, 2, 8).sum((1, 3)).mean(0).detach().numpy()
    np.testing.assert_allclose(
        graph.node_scores["trunk.blocks.1.attn"], heads, rtol=1e-6
    )


MODULES = (
    ("head.0.", "classifier."),
    ("trunk.norm.", "vit.layernorm."),
    ("trunk.patch_embed.proj", "vit.embeddings.patch_embeddings.projection"),
    ("trunk.cls_token", "vit.embeddings.cls_token"),
    ("trunk.pos_embed", "vit.embeddings.position_embeddings"),
    ("trunk.blocks", "vit.layers"),
    ("norm1", "layernorm_before"),
    ("norm2", "layernorm_after"),
    ("attn.proj", "attention.o_proj"),
)
"""Names of timm's modules and transformers'."""


def transformer_lens_vit(tower: Any) -> Any:
    pytest.importorskip(
        "transformer_lens.model_bridge.supported_architectures.vit",
        reason="TransformerLens has no ViT",
    )
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    transformers: Any = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        layer_norm_eps=1e-6,
        image_size=32,
        patch_size=8,
        num_labels=16,
    )
    weights: dict[str, Tensor] = {}
    for name, value in tower.state_dict().items():
        for old, new in MODULES:
            name = name.replace(old, new)
        if "attn.qkv" in name:
            for port, rows in zip("qkv", value.chunk(3), strict=True):
                weights[name.replace("attn.qkv", f"attention.{port}_proj")] = rows
        else:
            weights[name] = value
    model = transformers.ViTForImageClassification(config).double().eval()
    model.load_state_dict(weights)
    return build_bridge_from_module(
        model, "ViTForImageClassification", hf_config=config
    )


def test_transformer_lens_own_vit_has_the_same_values_at_the_hook_points_of_the_same_name() -> (
    None
):
    tower, images = timm_vit()
    with torch.no_grad():
        _, ours = in_components(Encoder.from_tower(tower)).run_with_cache(images)
        _, theirs = transformer_lens_vit(tower).run_with_cache(images)
    # Its patterns are hidden in the fused kernel; with the plain one its point for scores shows patterns.
    for name in (
        f"blocks.{i}.{point}"
        for i in range(2)
        for point in BLOCK_POINTS
        if point not in PATTERN_POINTS
    ):
        torch.testing.assert_close(
            ours[name], theirs[name], rtol=1e-9, atol=1e-12, msg=name
        )


def test_edges_into_blocks_and_mlps_are_the_attribution_of_transformer_lens_own_vit() -> (
    None
):
    tower, images = timm_vit()
    bridge = transformer_lens_vit(tower)
    from transformer_lens.tools.analysis.attribution_patching import (
        cache_activation_and_gradient,
    )

    readers = {"embedding": "ln_final.hook_in"}
    for i in range(2):
        readers |= {
            f"blocks.{i}.attn": f"blocks.{i}.ln1.hook_in",
            f"blocks.{i}.mlp": f"blocks.{i}.ln2.hook_in",
        }
    points = ["hook_embed"] + [
        f"blocks.{i}.{w}" for i in range(2) for w in ("attn.hook_z", "hook_mlp_out")
    ]
    here, there = (
        cache_activation_and_gradient(
            bridge,
            x,
            lambda e: product(e).mean(),
            names_filter=[*points, *readers.values()],
        )
        for x in (images, images.flip(0))
    )
    change = {
        point: here.activations[point] - there.activations[point] for point in points
    }
    moved = {"embed": change["hook_embed"]}
    for i, block in enumerate(tower.trunk.blocks):
        out, z = (
            block.attn.proj.weight.reshape(16, 2, 8),
            change[f"blocks.{i}.attn.hook_z"],
        )
        moved |= {f"blocks.{i}.attn.{h}": z[:, :, h] @ out[:, h].T for h in range(2)}
        moved[f"blocks.{i}.mlp"] = change[f"blocks.{i}.hook_mlp_out"]
    found: dict[tuple[str, str], float] = {}
    stream = ResidualStream.of(Encoder.from_tower(tower))
    for (writer, reader), score in of_edges(
        edge_scores(stream, images, product, baseline=images.flip(0))
    ).items():
        together = writer, ".".join(reader.split(".")[:3])
        found[together] = found.get(together, 0) + score
    expected = {
        (w, r): (moved[w] * here.gradients[readers[r]]).sum().item() for w, r in found
    }
    assert len(found) == 5 + 2 * 4 + 3 + 2 * 2 + 1
    assert found == pytest.approx(expected, rel=1e-8)
