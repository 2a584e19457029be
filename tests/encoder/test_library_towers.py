"""Towers of transformers, timm and torchvision, against what each itself says of images."""

from collections.abc import Callable
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from circuitry import (
    Encoder,
    InputError,
    Task,
    attribute,
    class_logit,
    in_components,
    left_rule,
)
from circuitry.bases import ResidualStream, site_named
from circuitry.circuits import attribute_components, direct_effects
from circuitry.encoder import Chain, adapters, linked_stages, register_architecture
from circuitry.encoder.chain import Link
from circuitry.encoder.unit_maps import map_grid
from tests.support.assert_same import assert_same
from tests.support.library_towers import NETS, TRANSFORMERS, library_tower
from tests.support.oracles import brute_force_nodes
from tests.support.towers import randomise
from tests.support.work import AS_STUDIED

VITS = (*TRANSFORMERS, "timm-vit", "torchvision-vit")
OUTPUTS = ("out_proj", "o_proj", "output.dense", "proj")
SECOND_LAYERS = ("fc2", "down_proj", "weights_out", "3")


def images_and_weight(
    encoder: Encoder, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    images = torch.randn(2, 3, *encoder.image_size, dtype=dtype)
    with torch.no_grad():
        width = encoder(images[:1]).shape[-1]
    return images, F.normalize(torch.randn(2, width, dtype=dtype), dim=-1)


@pytest.mark.parametrize("name", [*TRANSFORMERS, *NETS])
def test_a_chain_is_bit_equal_to_the_tower_and_to_its_own_partial_runs(
    name: str,
) -> None:
    tower, own = library_tower(name)
    encoder = Encoder.from_tower(tower)
    images = torch.randn(2, 3, *encoder.image_size)
    with torch.no_grad():
        embedding, cache = encoder.run_with_cache(images)
        assert torch.equal(embedding, own(images))
        assert tuple(cache) == encoder.sites
        for site in encoder.sites[:: max(1, len(encoder.sites) // 4)]:
            assert torch.equal(encoder(cache[site], start=site), embedding)
    assert all(
        isinstance(tower.get_submodule(site), nn.Module) for site in encoder.sites[1:]
    )


def last_block(encoder: Encoder) -> tuple[str, Any]:
    site = encoder.sites[-2]
    return site, encoder.tower.get_submodule(site)


def layer(block: Any, names: tuple[str, ...], within: tuple[str, ...]) -> nn.Module:
    found = [
        m
        for path, m in block.named_modules()
        if path.startswith(within) and path.endswith(names)
    ]
    return [m for m in found if isinstance(m, nn.Linear)][-1]


@pytest.mark.parametrize("name", [name for name in VITS if name != "torchvision-vit"])
def test_a_head_and_a_layer_of_neurons_are_what_the_towers_own_layers_read(
    name: str,
) -> None:
    tower, own = library_tower(name)
    encoder = in_components(Encoder.from_tower(tower.double()))
    images, _ = images_and_weight(encoder)
    site, block = last_block(Encoder.from_tower(tower))
    attention = layer(block, OUTPUTS, ("self_attn", "attention", "attn"))
    neurons = layer(block, SECOND_LAYERS, ("mlp",))

    def without_first_head(_: object, given: tuple[Tensor]) -> Tensor:
        z = given[0].clone()
        z[..., : z.shape[-1] // 2] = 0
        return z

    def no_head(z: Tensor, hook: object) -> Tensor:
        z = z.clone()
        z[:, :, 0] = 0
        return z

    with torch.no_grad():
        assert_same(encoder(images), own(images), at_least=0.1)
        with attention.register_forward_pre_hook(without_first_head):
            expected = own(images)
        found = encoder.run_with_hooks(
            images, fwd_hooks=[("blocks.1.attn.hook_z", no_head)]
        )
        assert_same(found, expected, at_least=0.1)
        with neurons.register_forward_pre_hook(
            lambda _, given: torch.zeros_like(given[0])
        ):
            expected = own(images)
        found = encoder.run_with_hooks(
            images, fwd_hooks=[("blocks.1.mlp.hook_post", lambda x, hook: 0 * x)]
        )
        assert_same(found, expected, at_least=0.1)
    assert site.rpartition(".")[2] == "1"


@pytest.mark.parametrize("name", ["siglip", "dinov3-gated"])
def test_an_edge_that_is_cut_is_what_the_tower_says_without_the_layer(
    name: str,
) -> None:
    tower, own = library_tower(name)
    encoder = Encoder.from_tower(tower.double())
    images, weights = images_and_weight(encoder)
    metric = class_logit(weights, 0)
    edges = attribute_components(Task(encoder, images, metric), method="cuts").edges
    neurons = layer(last_block(encoder)[1], SECOND_LAYERS, ("mlp",))
    with torch.no_grad():
        clean = metric(own(images))
        with neurons.register_forward_pre_hook(
            lambda _, given: torch.zeros_like(given[0])
        ):
            cut = metric(own(images))
    assert_same(
        edges.scores["blocks.1.mlp", "embedding"].item(),
        (clean - cut).mean().item(),
        at_least=1e-4,
    )


LINEAR = [name for name in VITS if name not in ("siglip",)]
"""All but the one that pools by attention."""


@pytest.mark.parametrize("name", LINEAR)
def test_direct_effects_add_up_to_the_towers_own_logit(name: str) -> None:
    tower, own = library_tower(name)
    encoder = Encoder.from_tower(tower.double())
    images, weights = images_and_weight(encoder)
    found = direct_effects(ResidualStream.of(encoder), images, weights[0])
    with torch.no_grad():
        logits = F.normalize(own(images), dim=-1) @ weights[0]
    assert_same(found.effects.sum(1) + found.rest, logits, at_least=1e-3)


SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}


@pytest.fixture(scope="module")
def twins() -> tuple[Encoder, Encoder]:
    """A tower of transformers, and open_clip's with the same weights."""
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        **SIZES, image_size=32, patch_size=8, projection_dim=16, hidden_act="quick_gelu"
    )
    ours: Any = (
        CLIPVisionModelWithProjection(config).double().eval().requires_grad_(False)
    )
    randomise(ours)
    for parameter in ours.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.2)
    vision = {
        "image_size": 32,
        "patch_size": 8,
        "width": 32,
        "layers": 2,
        "head_width": 16,
        "mlp_ratio": 1.5,
    }
    text = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
    other: Any = open_clip.model.CLIP(
        embed_dim=16, vision_cfg=vision, text_cfg=text, quick_gelu=True
    ).visual
    other.double().eval().requires_grad_(False)
    model = ours.vision_model
    state = {
        "class_embedding": model.embeddings.class_embedding,
        "positional_embedding": model.embeddings.position_embedding.weight,
        "conv1.weight": model.embeddings.patch_embedding.weight,
        "proj": ours.visual_projection.weight.T,
    }
    pairs = [("ln_pre", model.pre_layrnorm), ("ln_post", model.post_layernorm)]
    for i, block in enumerate(model.encoder.layers):
        path, attn = f"transformer.resblocks.{i}", block.self_attn
        for kind in ("weight", "bias"):
            three = [
                getattr(proj, kind) for proj in (attn.q_proj, attn.k_proj, attn.v_proj)
            ]
            state[f"{path}.attn.in_proj_{kind}"] = torch.cat(three)
        pairs += [
            (f"{path}.attn.out_proj", attn.out_proj),
            (f"{path}.ln_1", block.layer_norm1),
        ]
        pairs += [
            (f"{path}.ln_2", block.layer_norm2),
            (f"{path}.mlp.c_fc", block.mlp.fc1),
        ]
        pairs += [(f"{path}.mlp.c_proj", block.mlp.fc2)]
    state |= {
        f"{name}.{kind}": getattr(module, kind)
        for name, module in pairs
        for kind in ("weight", "bias")
    }
    other.load_state_dict(state)
    return Encoder.from_tower(ours), Encoder.from_tower(other)


def test_transformers_and_open_clip_with_the_same_weights_have_the_same_graph(
    twins: tuple[Encoder, Encoder],
) -> None:
    images, weights = images_and_weight(twins[0])
    metric = class_logit(weights, 0)
    for read in (lambda encoder: encoder, in_components):
        ours, theirs = (
            attribute(read(encoder), images, metric, progress=False, **AS_STUDIED)
            for encoder in twins
        )
        names = dict(zip(ours.sites, theirs.sites, strict=True))
        nodes = {names[site]: scores for site, scores in ours.node_scores.items()}
        assert_same(nodes, dict(theirs.node_scores), at_least=1e-4, rtol=1e-6)
        assert [v.tolist() for v in ours.kept_units.values()] == [
            v.tolist() for v in theirs.kept_units.values()
        ]
        scores = {(names[a], names[b]): v for (a, b), v in ours.edge_scores.items()}
        assert_same(scores, dict(theirs.edge_scores), at_least=1e-9, rtol=1e-6)
    ours, theirs = (
        attribute_components(Task(encoder, images, metric)) for encoder in twins
    )
    assert_same(
        dict(ours.edges.scores), dict(theirs.edges.scores), at_least=1e-9, rtol=1e-6
    )
    found, expected = (
        direct_effects(ResidualStream.of(encoder), images, weights[0])
        for encoder in twins
    )
    assert found.writers == expected.writers
    for name in ("effects", "rest", "logits"):
        assert_same(
            getattr(found, name), getattr(expected, name), at_least=1e-5, rtol=1e-6
        )


def test_tokens_are_named_as_they_lie() -> None:
    names = ("siglip", "dinov2-registers", "dinov3")
    encoders = {name: Encoder.from_tower(library_tower(name)[0]) for name in names}
    grids = {name: encoder.token_grid for name, encoder in encoders.items()}
    assert [len(grids[name].first) for name in names] == [0, 4, 3]
    for name, grid in grids.items():
        encoder = encoders[name]
        with torch.no_grad():
            stream = encoder(torch.randn(1, 3, 32, 32), stop=encoder.sites[1])
        assert stream.shape[1] == len(grid) == len(grid.first) + 16


class Forked(nn.Module):
    """A network whose third layer also reads the first's output, as U-shaped networks do."""

    def __init__(self, forks: bool, again: bool = False, more: bool = False) -> None:
        super().__init__()
        self.first, self.second, self.third = (
            nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)
        )
        self.forks, self.again, self.more = forks, again, more

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y: Tensor = self.second(x)
        y = self.second(y) if self.again else y
        y = self.third(y + x if self.forks else y)
        return y + 1 if self.more else y


LAYERS = ["first", "second", "third"]


@pytest.fixture
def own_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "_READERS", dict(adapters._READERS))


@pytest.mark.usefixtures("own_readers")
def test_a_chain_is_given_by_names_or_by_a_registered_reader() -> None:
    tower, images = Forked(False).eval(), torch.randn(1, 3, 8, 8)

    def read(net: nn.Module) -> Chain | None:
        return (
            Chain(tuple(linked_stages(net, LAYERS)), (8, 8))
            if isinstance(net, Forked)
            else None
        )

    with pytest.raises(InputError, match="Forked"):
        Encoder.from_tower(tower)
    register_architecture("Forked", read)
    with torch.no_grad():
        for encoder in (
            Encoder.from_tower(tower),
            Encoder.from_stages(tower, ["first", ("second", "third")], (8, 8)),
        ):
            assert encoder.sites[-1] == "third"
            assert torch.equal(encoder(images), tower(images))
    with pytest.raises(InputError, match=r"'fourth'.*first, second, third"):
        Encoder.from_stages(tower, ["fourth"], (8, 8))


@pytest.mark.usefixtures("own_readers")
def test_the_newest_reader_is_asked_first() -> None:
    def reading(*links: Link) -> Callable[[nn.Module], Chain | None]:
        def read(net: nn.Module) -> Chain | None:
            if not isinstance(net, Forked):
                return None
            return Chain(tuple(linked_stages(net, links)), (8, 8))

        return read

    tower = Forked(False).eval()
    register_architecture("apart", reading(*LAYERS))
    register_architecture("together", reading("first", ("second", "third")))
    assert Encoder.from_tower(tower).sites == ("input", "first", "third")
    register_architecture("apart", reading(*LAYERS))
    assert Encoder.from_tower(tower).sites == ("input", *LAYERS)


def test_a_tower_by_its_stages_has_sites_but_no_blocks() -> None:
    encoder = Encoder.from_stages(Forked(False).eval(), LAYERS, (8, 8))
    assert site_named(encoder, "embedding") == "third"
    maps = torch.randn(1, 3, 64)
    assert_same(
        map_grid(encoder, "first", maps), maps.reshape(1, 3, 8, 8), at_least=0.1
    )
    for read in (in_components, ResidualStream.of, lambda one: one.token_grid):
        with pytest.raises(InputError, match=r"Forked.*register_architecture"):
            read(encoder)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"forks": True}, r"Forked.*forks before third.*second"),
        ({"forks": False, "again": True}, r"Forked.*second 2 times"),
        ({"forks": False, "more": True}, r"Forked.*behind third"),
    ],
)
def test_a_tower_that_is_no_chain_is_refused_with_the_place(
    options: dict[str, bool], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        Encoder.from_stages(Forked(**options).eval(), LAYERS, (8, 8))


@pytest.mark.parametrize(
    "name",
    ["clip", "siglip", "dinov3-gated", "timm-mobilenet", "torchvision-efficientnet"],
)
def test_nodes_equal_brute_force(name: str) -> None:
    encoder = Encoder.from_tower(library_tower(name)[0].double())
    images, weights = images_and_weight(encoder)
    site = encoder.sites[2]
    metric = class_logit(weights, 1)
    graph = attribute(
        encoder,
        images,
        metric,
        sites=[site],
        rule=left_rule(2),
        progress=False,
        **AS_STUDIED,
    )
    assert_same(
        graph.node_scores[site],
        brute_force_nodes(encoder, images, weights, site, 2),
        at_least=1e-6,
    )
