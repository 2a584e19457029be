"""Gated runs against ablated runs, by hand, and the gradient of the gates against finite differences."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from circuitry import Encoder, InputError, mean_baseline
from circuitry.interventions import GatedRuns, ablated_embeddings
from circuitry.models import in_components
from tests.support.towers import make_tower
from tests.support.work import QUIET


@pytest.fixture
def encoder(resnet: nn.Module) -> Encoder:
    return Encoder.from_tower(resnet.double())


SITES = ["act3", "layer2.0", "layer4.0", "attnpool"]


def test_open_and_closed_gates_are_ablated_runs(encoder: Encoder) -> None:
    images = torch.randn(3, 3, 64, 64).double()
    baseline = mean_baseline(encoder, torch.randn(4, 3, 64, 64).double())
    with encoder.frozen():
        runs = GatedRuns(encoder, images, SITES, baseline)
        gates = {site: (torch.rand(n) < 0.5).double() for site, n in runs.n_units.items()}
        found = runs.run(gates)
        assert torch.allclose(runs.embeddings, encoder(images), atol=1e-12)
        assert torch.allclose(runs.run(gates, torch.tensor([2, 0])), found[[2, 0]], atol=1e-12)
    kept = {site: gate.bool().numpy() for site, gate in gates.items()}
    expected = ablated_embeddings(encoder, images, [kept], baseline=baseline, work=QUIET)[0]
    assert torch.allclose(found, expected, atol=1e-12)


def test_a_baseline_for_every_image_goes_with_its_image(encoder: Encoder) -> None:
    images, other = torch.randn(3, 3, 64, 64).double(), torch.randn(3, 3, 64, 64).double()
    with encoder.frozen():
        runs = GatedRuns(encoder, images, SITES, other)
        closed = {site: torch.zeros(n).double() for site, n in runs.n_units.items()}
        assert torch.allclose(runs.run(closed, torch.tensor([1])), encoder(other[1:2]), atol=1e-12)
        with pytest.raises(InputError, match="has 2 activations at site 'input' for at least 3 images"):
            GatedRuns(encoder, images, SITES, other[:2])
        with pytest.raises(InputError, match="at least one image, but there were none"):
            GatedRuns(encoder, images[:0], SITES, "zero")


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_gradients_of_gates_are_finite_differences(name: str) -> None:
    encoder = Encoder.from_tower(make_tower(name).double())
    sites = list(encoder.sites[1:])
    with encoder.frozen():
        runs = GatedRuns(encoder, torch.randn(2, 3, *encoder.image_size).double(), sites, "zero")
        sizes = [runs.n_units[site] for site in sites]
        weights = torch.randn_like(runs.embeddings)

        def value(gates: Tensor) -> Tensor:
            parts = torch.split(gates, sizes)
            return (runs.run(dict(zip(sites, parts, strict=True))) * weights).sum()

        gates = (0.3 + 0.6 * torch.rand(sum(sizes))).double().requires_grad_()
        (gradient,) = torch.autograd.grad(value(gates), [gates])
        step = 1e-5
        for i in torch.randperm(len(gates))[:25].tolist():
            moved = partial(torch.index_add, gates.detach(), 0, torch.tensor([i]))
            up, down = (value(moved(torch.tensor([sign * step]).double())) for sign in (1.0, -1.0))
            assert float(gradient[i]) == pytest.approx(float(up - down) / (2 * step), rel=1e-4, abs=1e-7)


def test_gates_leave_alone_what_is_carried() -> None:
    encoder = in_components(Encoder.from_tower(make_tower("timm-vit").double()))
    torch.manual_seed(1)
    images, sites = torch.randn(4, 3, *encoder.image_size).double(), encoder.sites[2:-1]
    with encoder.frozen(), torch.no_grad():
        runs = GatedRuns(encoder, images, sites, images.flip(0))
        assert runs.n_units == dict(zip(sites, (2, 64, 2, 64), strict=True))
        ones = {site: torch.ones(n) for site, n in runs.n_units.items()}
        torch.testing.assert_close(runs.run(ones), encoder(images))
        only = runs.run({sites[1]: torch.zeros(64)})
        _, cache = encoder.run_with_cache(images)
        _, theirs = encoder.run_with_cache(images.flip(0))
        x = encoder.carry(sites[1], encoder.units_of(sites[1], theirs[sites[1]]), cache[sites[1]])
        torch.testing.assert_close(only, encoder(x, start=sites[1]))
