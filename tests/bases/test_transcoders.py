"""MLPs in the latents of transcoders and autoencoders: outputs, scores, edges and patches, against hooks on the tower.

The hooks read what an MLP of open_clip reads (behind its norm) and put another output in the place of its own. A
transcoder is computed by its formula.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import circuitry
from circuitry import (
    Encoder,
    InputError,
    Task,
    class_logit,
    in_components,
    in_feature_basis,
)
from circuitry.bases import ResidualStream, SparseAutoencoder, Transcoder
from circuitry.circuits import attribute_components, gauss_legendre_rule, score_edges
from circuitry.encoder import Baseline
from tests.support.assert_same import assert_same
from tests.support.feature_bases import (
    beside_by_hand,
    decode_by_hand,
    encode_by_hand,
    make_sae,
)
from tests.support.towers import make_tower
from tests.support.work import AS_STUDIED, QUIET

SITES = ("transformer.resblocks.0.mlp", "transformer.resblocks.1.mlp")
D, TOKENS = 32, 17
KINDS = (
    "transcoder",
    "skip",
    "layer-normed skip",
    "jumprelu",
    "topk",
    "of the class token",
    "autoencoder",
)


def made(kind: str) -> SparseAutoencoder:
    if kind == "autoencoder":
        return make_sae(D)
    basis = make_sae(
        D,
        "layer-normed"
        if "normed" in kind
        else kind
        if kind in ("jumprelu", "topk")
        else "relu",
    )
    values = {
        name: getattr(basis, name)
        for name in ("w_enc", "b_enc", "w_dec", "b_dec", "activation", "threshold", "k")
    }
    skip = torch.randn(D, D, dtype=torch.double) / D**0.5 if "skip" in kind else None
    return Transcoder(
        **values, normalised=basis.normalised, subtract_decoder_bias=False, w_skip=skip,
        tokens="class" if kind == "of the class token" else "all",
    )  # fmt: skip


@dataclass
class Setting:
    """A tower, dictionaries of both of its MLPs, and what its hooks see."""

    tower: Any
    plain: Encoder
    encoder: Encoder
    saes: dict[str, SparseAutoencoder]
    images: Tensor
    weights: Tensor

    def metric(self, embedding: Tensor) -> Any:
        return class_logit(self.weights, 1)(embedding)

    def mlp(self, block: int) -> tuple[Any, Any]:
        layers = self.tower.transformer.resblocks[block]
        return layers.ln_2, layers.mlp

    def seen(self, block: int) -> tuple[Tensor, Tensor]:
        _, mlp = self.mlp(block)
        kept: list[Tensor] = []
        with (
            mlp.register_forward_hook(
                lambda module, inputs, out: kept.extend([inputs[0], out])
            ),
            torch.no_grad(),
        ):
            self.tower(self.images)
        return kept[0], kept[1]

    def pieces(
        self, block: int, read: Tensor, out: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Latents, error and what stands beside them, by the formulas."""
        sae = self.saes[SITES[block]]
        encoded = read if isinstance(sae, Transcoder) else out
        latents, beside = encode_by_hand(sae, encoded), beside_by_hand(sae, encoded)
        if sae.tokens == "class":
            acts = (torch.arange(TOKENS) == 0).to(read)[:, None]
            latents, beside = latents * acts, acts.expand(len(read), -1, -1)
        skip = getattr(sae, "w_skip", None)
        if skip is not None:
            scale = beside[..., :1] if sae.normalised else 1.0
            beside = torch.cat(
                [beside, scale * torch.einsum("bpd,md->bpm", encoded, skip)], -1
            )
        return latents, out - self.written(block, latents, beside), beside

    def written(self, block: int, latents: Tensor, beside: Tensor) -> Tensor:
        """What latents and what stands beside them add to the stream."""
        sae = self.saes[SITES[block]]
        if sae.tokens == "class":
            return torch.einsum("bpf,fd->bpd", latents, sae.w_dec) + beside * sae.b_dec
        skip = beside[..., -D:] if getattr(sae, "w_skip", None) is not None else 0.0
        return decode_by_hand(sae, latents, beside) + skip

    def writing(self, block: int, out: Tensor) -> Any:
        """Within the block an MLP writes something else."""
        return self.mlp(block)[1].register_forward_hook(lambda *_: out)

    def value(self, block: int, out: Tensor) -> Any:
        with self.writing(block, out):
            return self.metric(self.tower(self.images)).sum()


def setting(kind: str, n: int = 3) -> Setting:
    tower: Any = make_tower("vit").double()
    plain = Encoder.from_tower(tower)
    torch.manual_seed(3)
    saes = {site: made(kind) for site in SITES}
    images = torch.randn(n, 3, 32, 32, dtype=torch.double)
    weights = F.normalize(torch.randn(4, 16, dtype=torch.double), dim=-1)
    return Setting(
        tower,
        plain,
        in_feature_basis(in_components(plain), saes),
        saes,
        images,
        weights,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_are_those_of_the_tower(kind: str) -> None:
    case = setting(kind)
    encoder, heads = case.encoder, in_components(case.plain)
    assert encoder.sites == heads.sites
    assert encoder.basis == {site: sae.identity for site, sae in case.saes.items()}
    with torch.no_grad():
        embedding, cache = encoder.run_with_cache(case.images)
        torch.testing.assert_close(
            embedding, case.plain(case.images), rtol=1e-10, atol=1e-10
        )
        for block, site in enumerate(SITES):
            latents, error, beside = case.pieces(block, *case.seen(block))
            n = latents.shape[-1]
            assert 0 < (latents != 0).sum() < latents.numel()
            units = encoder.units_of(site, cache[site])
            torch.testing.assert_close(
                units, torch.cat([latents, error, beside], -1), rtol=1e-9, atol=1e-9
            )
            assert encoder.error_units[site] == range(n, units.shape[-1])
            torch.testing.assert_close(
                encoder(cache[site], start=site), embedding, rtol=1e-10, atol=1e-10
            )
        assert {"blocks.0.attn.hook_pattern", "blocks.1.mlp.hook_post"} <= cache.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_integrals_of_hooks_and_sum_to_the_effect_of_the_mlp(
    kind: str,
) -> None:
    """The path of latents, error and what stands beside them is one of the MLP's output."""
    case, rule = setting(kind), gauss_legendre_rule(3)
    graph = circuitry.attribute(
        case.encoder,
        case.images,
        case.metric,
        0.1,
        rule,
        sites=SITES,
        progress=False,
        **AS_STUDIED,
    )
    for block, site in enumerate(SITES):
        latents, error, beside = case.pieces(block, *case.seen(block))
        effects: list[Any] = [0.0, 0.0, 0.0]
        along = 0.0
        for t, weight in zip(rule.points, rule.weights, strict=True):
            moved = [
                ((1 - t) * piece).requires_grad_() for piece in (latents, error, beside)
            ]
            out = case.written(block, moved[0], moved[2]) + moved[1]
            gradients = torch.autograd.grad(
                case.value(block, out), moved, allow_unused=True
            )
            for i, (piece, gradient) in enumerate(
                zip((latents, error, beside), gradients, strict=True)
            ):
                effects[i] += weight * piece * (0 if gradient is None else gradient)
            # The same path as one of the output, from what it is to what is left of it.
            whole = case.written(block, latents, beside) + error
            left = case.written(block, 0 * latents, 0 * beside)
            at = (whole + t * (left - whole)).requires_grad_()
            (by_out,) = torch.autograd.grad(case.value(block, at), at)
            along -= weight * float((by_out * (left - whole)).sum()) / len(case.images)
        found = [
            effect.sum((0, 1)).detach().numpy() / len(case.images) for effect in effects
        ]
        assert_same(graph.node_scores[site], found[0], 1e-5)
        assert_same(graph.error_scores[site], np.concatenate(found[1:]), 1e-5)
        total = graph.node_scores[site].sum() + graph.error_scores[site].sum()
        assert_same(total, along, 1e-4, rtol=1e-9)


@pytest.mark.parametrize(
    "kind", ["skip", "layer-normed skip", "topk", "of the class token"]
)
def test_cut_edges_are_runs_in_which_one_latent_reads_another_stream(kind: str) -> None:
    case, site = setting(kind), SITES[1]
    others = torch.randn_like(case.images)
    heads = "transformer.resblocks.0.attn"
    places = (heads, SITES[0], site)
    task = Task(
        case.encoder,
        case.images,
        case.metric,
        baseline=others,
        sites=places,
        work=QUIET,
    )
    latents, error, beside = case.pieces(1, *case.seen(1))
    alive = latents.abs().sum((0, 1)).topk(2).indices.tolist()
    kept = {heads: np.array([0, 1]), SITES[0]: np.array([1, 3]), site: np.array(alive)}
    found = score_edges(task, kept, method="cuts").scores
    clean, ends = (case.encoder.run_with_cache(x)[1] for x in (case.images, others))
    norm, mlp = case.mlp(1)
    read, _ = case.seen(1)
    stream = case.encoder.carry(site, clean[site], clean[site])[..., -D:]
    torch.testing.assert_close(norm(stream), read)
    weights = ResidualStream.of(case.encoder).write_weights[0]
    with torch.no_grad():
        for up, units in ((heads, (0, 1)), (SITES[0], (1, 3))):
            for column, unit in enumerate(units):
                move = clean[up][:, :, unit] - ends[up][:, :, unit]
                if up == heads:
                    written = move @ weights[unit]
                else:
                    move = clean[up][..., unit] - ends[up][..., unit]
                    written = move[..., None] * case.saes[up].w_dec[unit]
                other = norm(stream - written)
                cut, _, _ = case.pieces(1, other, mlp(other))
                for row, latent in enumerate(alive):
                    mixed = latents.clone()
                    mixed[..., latent] = cut[..., latent]
                    out = case.written(1, mixed, beside) + error
                    whole = case.written(1, latents, beside) + error
                    expected = float(case.value(1, whole) - case.value(1, out)) / len(
                        case.images
                    )
                    assert found[up, site][row, column] == pytest.approx(
                        expected, rel=1e-6, abs=1e-10
                    )
    assert np.abs(found[heads, site]).max() > 1e-6


@pytest.mark.parametrize("kind", ["layer-normed skip", "topk"])
def test_other_edges_are_cuts_to_first_order(kind: str) -> None:
    case = setting(kind, n=2)
    with torch.no_grad():
        runs = [
            case.encoder.run_with_cache(x)[1]
            for x in (case.images, torch.randn_like(case.images))
        ]
    clean, ends = ({site: cache[site] for site in case.encoder.sites} for cache in runs)
    near = Baseline(
        "near",
        {site: clean[site] + 1e-6 * (ends[site] - clean[site]) for site in clean},
    )
    cuts, *others = (
        circuitry.attribute(
            case.encoder, case.images, case.metric, baseline=near, size=0.02, edges=method,
            rule=circuitry.left_rule(1), sites=case.encoder.sites[2:], progress=False, **AS_STUDIED,
        ).edge_scores
        for method in ("cuts", "gradient", "exact-readers")
    )  # fmt: skip
    for found in others:
        assert_same(found, cuts, 1e-11, rtol=1e-3, atol=1e-14)


@pytest.mark.parametrize("kind", ["layer-normed skip", "of the class token"])
def test_edges_of_whole_mlps_are_those_of_their_neurons(kind: str) -> None:
    case, others = setting(kind), torch.randn(3, 3, 32, 32, dtype=torch.double)
    found, expected = (
        attribute_components(
            Task(encoder, case.images, case.metric, baseline=others, work=QUIET)
        )
        for encoder in (case.encoder, case.plain)
    )
    assert_same(found.node_scores, expected.node_scores, 1e-5)
    assert found.edge_scores.keys() == expected.edge_scores.keys()
    mine, theirs = (
        np.concatenate([e.ravel() for e in graph.edge_scores.values()])
        for graph in (found, expected)
    )
    assert_same(mine, theirs, 1e-4, rtol=1e-9)


def test_one_mlp_after_another_and_beside_neurons() -> None:
    case = setting("transcoder")
    heads = in_components(case.plain)
    one = in_feature_basis(heads, {"blocks.1.hook_mlp_out": case.saes[SITES[1]]})
    assert list(one.error_units) == [SITES[1]]
    both = in_feature_basis(one, {SITES[0]: case.saes[SITES[0]]})
    with torch.no_grad():
        for site in case.encoder.sites:
            assert torch.equal(
                both(case.images, stop=site), case.encoder(case.images, stop=site)
            )
    features = in_feature_basis(heads, {"embedding": make_sae(16)})
    assert list(features.basis) == ["proj"]
    assert features.points.keys() == heads.points.keys()
    with pytest.raises(InputError, match="proj"):
        in_feature_basis(features, {SITES[0]: case.saes[SITES[0]]})
    everything = in_feature_basis(heads, {"embedding": make_sae(16), **case.saes})
    torch.testing.assert_close(
        everything(case.images), case.plain(case.images), rtol=1e-9, atol=1e-9
    )


def test_bad_input_is_refused() -> None:
    case = setting("transcoder")
    heads, transcoder = in_components(case.plain), case.saes[SITES[0]]
    narrow = make_sae(16)
    for encoder, saes, words in (
        (
            case.plain,
            {"blocks.0.hook_mlp_out": transcoder},
            r"in_components\(\).*--units components",
        ),
        (
            case.plain,
            {"transformer.resblocks.0": transcoder},
            "transcoder .*'transformer.resblocks.0'",
        ),
        (
            case.plain,
            {"proj": replace(narrow, site="blocks.0.hook_resid_post")},
            r"'proj'.*'blocks\.0\.hook_resid",
        ),
        (heads, {"transformer.resblocks.0": make_sae(D)}, r"clip\.encoder"),
        (heads, {SITES[0]: narrow}, "32 .*16"),
        (case.encoder, {SITES[0]: transcoder}, "already"),
        (
            case.plain,
            {"transformer.resblock.1": make_sae(D)},
            "transformer.resblocks.1",
        ),
        (
            case.plain,
            {"proj": replace(narrow, tokens="class")},
            r"class tokens of 17.*\[1, 16\]",
        ),
        (
            Encoder.from_tower(make_tower("swin")),
            {"trunk.patch_embed": replace(narrow, tokens="class")},
            "Tokens",
        ),
    ):
        with pytest.raises(InputError, match=words):
            in_feature_basis(encoder, saes)
