"""Units kept, gated and patched, latents and their errors too, by hand, by hooks and by finite differences."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from circuitry import (
    AttributionGraph,
    Encoder,
    Task,
    Work,
    class_logit,
    in_feature_basis,
    left_rule,
    mean_baseline,
)
from circuitry.bases import in_components
from circuitry.encoder import Counterfactual, Stage
from circuitry.gates import Gated, Patch, UnitsUnderGates, patched
from circuitry.gates.patches import PatchValue
from circuitry.interventions import (
    FaithfulnessCurve,
    circuit_of,
    kept_embeddings,
    measure_circuits,
)
from tests.support.assert_same import assert_same
from tests.support.feature_bases import (
    attribute,
    clean_by_hand,
    decode_by_hand,
    setting,
)
from tests.support.towers import make_tower
from tests.support.work import QUIET


def hand_worked() -> Encoder:
    """Input [B,3,1,1] -> first: (x0, x1, x2) -> second: (u0 u1, u2) -> embedding: (v0 + v1, 1)."""
    stages = (
        Stage("first", lambda x: x.flatten(1), 1),
        Stage("second", lambda u: torch.stack([u[:, 0] * u[:, 1], u[:, 2]], 1), 1),
        Stage("embedding", lambda v: torch.stack([v.sum(1), torch.ones(len(v))], 1), 1),
    )
    return Encoder(LINEAR, stages, (1, 1))


LINEAR = nn.Linear(1, 1)
IMAGES = torch.tensor([[2.0, 3, 5], [1, 1, 0]])[:, :, None, None]


def first(e: Tensor) -> Tensor:
    return e[:, 0]


def by_hand(images: Tensor = IMAGES, **given: Any) -> Task:
    return Task(hand_worked(), images, first, work=QUIET, **given)


@pytest.mark.parametrize(
    ("circuit", "expected"),
    [
        ({"first": [0, 1], "second": [0]}, [6, 1]),
        ({"first": [2], "second": [1]}, [5, 0]),
        (
            {"first": [0], "second": [0, 1]},
            [0, 0],
        ),  # without u1 the product is gone, kept or not
        ({"first": [0, 1, 2]}, [11, 1]),
        ({"first": [True, True, False], "second": 0}, [6, 1]),
        ({"first": [0, 1, 2], "embedding": [1]}, [0, 0]),
        ({}, [11, 1]),
    ],
)
def test_hand_worked_circuits(circuit: Any, expected: list[int]) -> None:
    assert (
        kept_embeddings(by_hand(), [circuit_of(by_hand(), circuit)])[0, :, 0].tolist()
        == expected
    )


def test_circuits_that_begin_alike() -> None:
    chosen = [([0, 1], [0]), ([0, 1], [1]), ([2], [1]), ([0, 1], [0])]
    circuits = [
        circuit_of(by_hand(), {"first": units, "second": later})
        for units, later in chosen
    ]
    found = kept_embeddings(by_hand(), circuits)
    assert found[:, :, 0].tolist() == [[6, 1], [0, 0], [5, 0], [6, 1]]


SITES = ("act3", "layer2.0", "layer4.0", "attnpool")


@pytest.mark.parametrize(
    "each", [False, True], ids=["one baseline", "one for every image"]
)
def test_hard_gates_are_kept_circuits(resnet: nn.Module, each: bool) -> None:
    encoder = Encoder.from_tower(resnet.double())
    images, other = (
        torch.randn(3, 3, 64, 64).double(),
        torch.randn(3, 3, 64, 64).double(),
    )
    baseline = other if each else mean_baseline(encoder, other)
    task = Task(encoder, images, first, baseline=baseline, sites=SITES, work=QUIET)
    with task.running(gradients=True), torch.no_grad():
        runs = UnitsUnderGates(task)
        gates = (torch.rand(runs.n_gates) < 0.5).double()
        found = runs.run(gates)
        assert_same(runs.embeddings, encoder(images), 0.1)
        assert_same(runs.run(gates, torch.tensor([2, 0])), found[[2, 0]], 0.1)
    ones = np.ones(runs.n_gates)
    circuits = [
        circuit_of(task, runs.chosen(kept, ones))
        for kept in (gates.bool().numpy(), ones > 0)
    ]
    together = kept_embeddings(task, circuits)
    assert_same(found, together[0], 0.1)
    assert_same(together[1], runs.embeddings, 0.1)
    small = replace(task, work=Work(progress=False, memory_gib=1e-9))
    assert_same(kept_embeddings(small, circuits), together, 0.1)


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_gradients_of_gates_are_finite_differences(name: str) -> None:
    encoder = Encoder.from_tower(make_tower(name).double())
    task = Task(
        encoder, torch.randn(2, 3, *encoder.image_size).double(), first, work=QUIET
    )
    with task.running(gradients=True):
        runs = UnitsUnderGates(task)
        check_gradient(
            runs,
            0.3 + 0.6 * torch.rand(runs.n_gates).double(),
            torch.arange(runs.n_gates),
        )


def check_gradient(runs: Gated[Any], at: Tensor, places: Tensor) -> None:
    """Compare gradients of the embeddings, times random weights, with finite differences, where they are largest."""
    weights = torch.randn_like(runs.embeddings)

    def value(gates: Tensor) -> Tensor:
        return (runs.run(gates) * weights).sum()

    gates = at.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(gates), [gates])
    places = places[gradient[places].abs().topk(min(10, len(places))).indices]
    step, differences = 1e-5, []
    for i in places.tolist():
        moved = partial(torch.index_add, at, 0, torch.tensor([i]))
        up, down = (
            value(moved(torch.tensor([sign * step]).double())) for sign in (1.0, -1.0)
        )
        differences.append(float((up - down).detach()) / (2 * step))
    assert_same(gradient[places], differences, 1e-6, rtol=1e-4)


def test_gates_leave_alone_what_is_carried() -> None:
    encoder = in_components(Encoder.from_tower(make_tower("timm-vit").double()))
    images, sites = torch.randn(4, 3, *encoder.image_size).double(), encoder.sites[2:-1]
    task = Task(
        encoder, images, first, baseline=images.flip(0), sites=sites, work=QUIET
    )
    with task.running(gradients=True), torch.no_grad():
        runs = UnitsUnderGates(task)
        assert runs.n_gates == 2 + 64 + 2 + 64
        gates = torch.ones(runs.n_gates)
        assert_same(runs.run(gates), encoder(images), 0.1)
        gates[2:66] = 0
        _, cache = encoder.run_with_cache(images)
        _, theirs = encoder.run_with_cache(images.flip(0))
        x = encoder.carry(
            sites[1], encoder.units_of(sites[1], theirs[sites[1]]), cache[sites[1]]
        )
        assert_same(runs.run(gates), encoder(x, start=sites[1]), 0.1)


def test_only_latents_are_nodes(tmp_path: Path) -> None:
    plain, saes, images, weights = setting("resnet", "relu")
    features = in_feature_basis(plain, saes)
    graph = attribute(features, images, weights, size=1.0, rule=left_rule(1))
    for site, sae in saes.items():
        assert sorted(graph.kept_units[site]) == list(range(sae.n_features))
        assert graph.error_scores[site].shape == (sae.d,)
        assert graph.n_units(site) == sae.n_features + sae.d
    assert graph.n_units("act1") == 4
    assert f"{next(iter(saes))}/0" in graph.circuit().graph
    graph.save(tmp_path / "graph")
    stored = AttributionGraph.load(tmp_path / "graph")
    assert stored.error_scores.keys() == saes.keys()
    assert all(
        np.array_equal(stored.error_scores[site], graph.error_scores[site])
        for site in saes
    )
    # Sites that were not asked for have no scores.
    some = attribute(
        features, images, weights, rule=left_rule(1), sites=("act1", "layer4.0")
    )
    assert (list(some.node_scores), list(some.error_scores)) == (
        ["act1", "layer4.0"],
        [],
    )


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_circuits_with_and_without_error(name: str) -> None:
    plain, saes, images, _ = setting(name, "relu")
    features = in_feature_basis(plain, saes)
    site, sae = next(iter(saes.items()))
    kept = [1, 4, 6]
    latents, error, beside = clean_by_hand(plain, sae, images, site)
    alone = torch.zeros_like(latents)
    alone[..., kept] = latents[..., kept]

    def embedded(x: Tensor) -> Tensor:
        with torch.no_grad():
            embedding: Tensor = plain(x.movedim(-1, plain.unit_dim(site)), start=site)
        return embedding

    task = Task(features, images, lambda e: e[:, 0], work=QUIET)
    circuit = circuit_of(task, {site: kept})
    found = kept_embeddings(
        task, [circuit, replace(circuit, keep_error=True), circuit_of(task, {})]
    )
    decoded = decode_by_hand(sae, alone, beside)
    expected = [embedded(decoded), embedded(decoded + error), plain(images)]
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_a_measured_circuit_keeps_the_error_where_told() -> None:
    plain, saes, images, weights = setting("vit", "relu")
    features = in_feature_basis(plain, saes)
    graph = attribute(features, images, weights, size=1.0, rule=left_rule(1))
    task = Task(features, images, class_logit(weights, 1), work=QUIET)

    def curve(keep_error: bool) -> FaithfulnessCurve:
        kept = replace(graph.circuit(None), keep_error=keep_error)
        return measure_circuits(task, [kept])

    with_error = curve(True)
    without = curve(False)
    assert np.array_equal(with_error.kept[0, 0], with_error.full[0])
    assert with_error.full[0] == pytest.approx(without.full[0])
    assert without.kept[0, 0] != pytest.approx(without.full[0])
    with torch.no_grad():
        whole = class_logit(weights, 1)(plain(images))
    assert without.full[0] == pytest.approx(whole.numpy())


def encoder_and_images(tower: nn.Module, n: int = 3) -> tuple[Encoder, Tensor]:
    encoder = Encoder.from_tower(tower)
    return encoder, torch.randn(n, 3, *encoder.image_size)


def hooks_left(encoder: Encoder) -> int:
    return sum(
        len(point.fwd_hooks) + len(point._forward_hooks)
        for point in encoder.hook_dict.values()
    )


@torch.no_grad()
def test_a_patch_equals_a_hook_written_by_hand(any_tower: nn.Module) -> None:
    encoder, images = encoder_and_images(any_tower)
    others = torch.randn_like(images)
    means = mean_baseline(encoder, [others])
    _, cache = encoder.run_with_cache(others)
    _, cache_of_one = encoder.run_with_cache(
        others[1:2]
    )  # by itself: another batch size rounds differently
    for site in (encoder.sites[1], encoder.sites[-2], encoder.sites[-1]):
        dim = encoder.unit_dim(site)
        # Each kind of value, and what the hook puts at units 2 and 3 for it.
        there, mean = cache[site], means.values[site]
        kinds: list[tuple[PatchValue, Callable[[Tensor], Tensor]]] = [
            (0, torch.zeros_like),
            (1.5, partial(torch.full_like, fill_value=1.5)),
            (means, mean.expand_as),
            (Counterfactual(others), there.expand_as),
            (Counterfactual(others[1:2]), cache_of_one[site].expand_as),
            (there.roll(1, 0), there.roll(1, 0).expand_as),
            (lambda a: 2 * a + 1, lambda a: 2 * a + 1),
        ]
        for value, by_hand in kinds:

            def hook(
                a: Tensor,
                hook: object,
                by_hand: Callable[[Tensor], Tensor] = by_hand,
                dim: int = dim,
            ) -> Tensor:
                out, new = a.clone(), by_hand(a)
                for unit in (2, 3):
                    out.select(dim, unit).copy_(new.select(dim, unit))
                return out

            expected = encoder.run_with_hooks(images, fwd_hooks=[(site, hook)])
            with patched(encoder, [Patch(site, value, units=[2, 3])]):
                assert torch.equal(encoder(images), expected)
            assert not torch.equal(expected, encoder(images))


@torch.no_grad()
def test_positions_count_row_by_row(resnet: nn.Module) -> None:
    encoder, images = encoder_and_images(resnet)
    with patched(
        encoder, [Patch("layer1.0", 7.0, units=[4, 1], positions=np.array([0, 16 + 3]))]
    ):
        a = encoder(images, stop="layer1.0")
    clean = encoder(images, stop="layer1.0")
    expected = clean.clone()
    for unit in (1, 4):
        expected[:, unit, 0, 0] = expected[:, unit, 1, 3] = 7
    assert clean.shape[2:] == (16, 16)
    assert torch.equal(a, expected)
    vit, images = encoder_and_images(make_tower("vit"))
    with patched(vit, [Patch("ln_pre", -1.0, positions=[0])]):
        a = vit(images, stop="ln_pre")
    assert torch.equal(a[:, 0], torch.full_like(a[:, 0], -1))
    assert torch.equal(a[:, 1:], vit(images, stop="ln_pre")[:, 1:])
    swin, images = encoder_and_images(make_tower("swin"))
    site = "trunk.patch_embed"  # [B, 8, 8, units]
    with patched(swin, [Patch(site, 5, units=[2], positions=[8 + 3])]):
        a = swin(images, stop=site)
    different = (a != swin(images, stop=site)).nonzero()
    assert different.tolist() == [[i, 1, 3, 2] for i in range(3)]
    with patched(
        resnet_encoder := Encoder.from_tower(resnet),
        [Patch("attnpool", 5.0, units=[1], positions=[0])],
    ):
        assert torch.equal(
            resnet_encoder(torch.randn(2, 3, 64, 64))[:, 1], torch.tensor([5.0, 5.0])
        )


@torch.no_grad()
def test_several_patches_at_once_in_whole_and_partial_runs(resnet: nn.Module) -> None:
    encoder, images = encoder_and_images(resnet)
    patches = [
        Patch("layer1.0", 0.0, units=[1]),
        Patch("layer1.0", lambda a: a + 10, units=[2, 3]),
        Patch("layer1.0", 9.0, units=[2], positions=[]),
        Patch("layer3.0", 1.0, positions=[5]),
    ]

    def first(a: Tensor, hook: object) -> Tensor:
        a = a.clone()
        a[:, 1] = 0
        a[:, 2:4] += 10
        return a

    def second(a: Tensor, hook: object) -> Tensor:
        a = a.clone()
        a[:, :, 1, 1] = 1
        return a

    expected = encoder.run_with_hooks(
        images, fwd_hooks=[("layer1.0", first), ("layer3.0", second)]
    )
    start = encoder(images, stop="layer1.0")
    with patched(encoder, patches):
        assert torch.equal(encoder(images), expected)
        assert torch.equal(encoder(start, start="layer1.0"), expected)
        embedding, cache = encoder.run_with_cache(
            images
        )  # the other uses of hooks go on working inside
        assert torch.equal(embedding, expected)
        assert torch.equal(cache["layer1.0"], first(start, None))
        assert torch.equal(encoder(images), expected)
    assert hooks_left(encoder) == 0


TOWER = make_tower("resnet")


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_a_patch_never_changes_an_earlier_site(data: st.DataObject) -> None:
    encoder, images = encoder_and_images(TOWER, n=2)
    index = data.draw(st.integers(0, len(encoder.sites) - 1))
    site = encoder.sites[index]
    with torch.no_grad():
        _, clean = encoder.run_with_cache(images)
        units = data.draw(
            st.lists(st.integers(0, clean[site].shape[1] - 1), min_size=1, unique=True)
        )
        with patched(encoder, [Patch(site, 100.0, units=units)]):
            _, cache = encoder.run_with_cache(images)
    for earlier in encoder.sites[:index]:
        assert torch.equal(cache[earlier], clean[earlier])
    others = sorted(set(range(clean[site].shape[1])) - set(units))
    assert torch.equal(cache[site][:, others], clean[site][:, others])
    assert (cache[site][:, units] == 100).all()


def test_gradients_pass_around_the_patch(resnet: nn.Module) -> None:
    encoder, images = encoder_and_images(resnet)
    x = encoder(images, stop="layer4.0").requires_grad_()
    with patched(encoder, [Patch("layer4.0", 0.0, units=[3])]):
        (gradient,) = torch.autograd.grad(encoder(x, start="layer4.0").sum(), x)
    assert gradient[:, 3].abs().max() == 0
    assert gradient[:, 4].abs().max() > 0


def test_circuits_that_begin_alike_are_one_run_up_to_where_they_part() -> None:
    task, rows = by_hand(), dict[str, int]()

    def counted(stage: Stage) -> Stage:
        def run(x: Tensor) -> Tensor:
            rows[stage.site] = len(x)
            return stage.run(x)

        return replace(stage, run=run)

    task.encoder.stages = tuple(map(counted, task.encoder.stages))
    chosen = [([0, 1], [0]), ([0, 1], [1]), ([2], [1]), ([0, 1], [0])]
    found = kept_embeddings(
        task,
        [
            circuit_of(by_hand(), {"first": units, "second": later})
            for units, later in chosen
        ],
    )
    assert found[:, :, 0].tolist() == [[6, 1], [0, 0], [5, 0], [6, 1]]
    assert rows == {"first": 2, "second": 2 * 2, "embedding": 3 * 2}  # two images
