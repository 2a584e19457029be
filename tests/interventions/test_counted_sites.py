"""Roles of sites on chains whose roles are known, and on towers of each kind."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from circuitry import Encoder, Task, in_components
from circuitry.encoder import Stage
from circuitry.interventions import counted_sites, site_roles
from tests.support.towers import make_tower
from tests.support.work import QUIET

Run = Callable[[Tensor], Tensor]


def chain(*stages: tuple[str, Run]) -> Task:
    """A chain of stages on images [B, 3, 8, 8] with the channels as units."""
    encoder = Encoder(nn.Linear(1, 1), [Stage(site, run, 1) for site, run in stages], (8, 8))
    images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return Task(encoder, images, lambda e: e[:, 0], work=QUIET)


def weights(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_pooled_channels_repeat_and_a_linear_end_reads_out() -> None:
    first, second, last = weights(12, 3, 3, 3), weights(16, 12), weights(16, 20)
    task = chain(
        ("conv", lambda x: torch.conv2d(x, first).relu()),
        ("pool", lambda x: x.mean((2, 3))),
        ("mixed", lambda x: (x @ second.T).tanh()),
        ("scaled", lambda x: 2 * x),
        ("embedding", lambda x: x @ last),
    )
    roles = {"conv": "counted", "pool": "repeat", "mixed": "readout", "scaled": "readout", "embedding": "readout"}
    assert site_roles(task) == {"input": "image", **roles}
    assert counted_sites(task) == ("conv",)


@pytest.mark.parametrize(
    ("end", "role"),
    [
        (lambda x: torch.layer_norm(x, (16,)), "readout"),  # one factor for an image
        (lambda x: nn.functional.normalize(x, dim=-1), "readout"),
        (lambda x: x.relu(), "readout"),  # each unit by itself
        (lambda x: (x @ weights(16, 16)).relu(), "counted"),
    ],
)
def test_a_norm_reads_out_and_a_nonlinearity_does_not(end: Run, role: str) -> None:
    first, last = weights(16, 3), weights(16, 20)
    task = chain(("units", lambda x: x.mean((2, 3)) @ first.T), ("embedding", lambda x: end(x) @ last))
    assert site_roles(task)["units"] == role


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_towers_count_what_computes(kind: str) -> None:
    encoder = Encoder.from_tower(make_tower(kind))
    task = Task(encoder, torch.randn(2, 3, *encoder.image_size), lambda e: e[:, 0], work=QUIET)
    counted = counted_sites(task)
    assert encoder.sites[1] in counted
    assert not {"input", encoder.sites[-1]} & {*counted}
    if kind == "vit":  # the stream of the last block reaches the embedding through a norm alone
        assert counted == encoder.sites[1:-2]
        heads = in_components(encoder)
        roles = site_roles(Task(heads, torch.randn(2, 3, *encoder.image_size), lambda e: e[:, 0], work=QUIET))
        assert [site for site in heads.sites if roles[site] == "readout"] == list(heads.sites[-2:])
