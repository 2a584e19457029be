"""The direct readout, on networks whose products are worked out by hand, and on towers of real kinds."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from circuitry import Task, class_logit, in_components
from circuitry.circuits import score_units
from circuitry.circuits.direct_readout import last_writers
from circuitry.encoder import Encoder, Stage
from circuitry.interventions import find_circuit
from circuitry.runs import InputError
from tests.support.towers import make_tower
from tests.support.work import QUIET

WEIGHTS = torch.tensor([[2.0, 1.0, -3.0], [0.0, 5.0, 1.0]])
"""Weights of two answers, as numbers of three units."""


def linear_net() -> Encoder:
    """Three units that repeat the colours of an image of two pixels, of which the second counts ten times."""

    def answers(units: Tensor) -> Tensor:
        return (units @ torch.tensor([1.0, 10.0]))[:, :, 0] @ WEIGHTS.T

    stages = (
        Stage("early", lambda x: x, 1),
        Stage("late", lambda x: x.clone(), 1),
        Stage("answers", answers, 1),
    )
    return Encoder(nn.Linear(1, 1), stages, (1, 2))


def linear_task() -> Task:
    own = torch.tensor([[[1.0, 3.0], [2.0, 2.0], [0.0, 1.0]]])[:, :, None]
    others = torch.tensor([[[1.0, 1.0], [4.0, 0.0], [3.0, 0.0]]])[:, :, None]
    return Task(
        linear_net(),
        torch.cat([own, own + 2]),  # the mean is own + 1
        lambda embedding: embedding[:, 0],
        others=torch.cat([others, others - 2]),  # the mean is others - 1
        sites=["early", "late"],
        work=QUIET,
    )


def test_scores_are_the_weight_of_the_class_times_the_difference_of_activations() -> (
    None
):
    scores = score_units(linear_task(), "readout")
    # Own means (2, 4), (3, 3), (1, 2) less others' (0, 0), (3, -1), (2, -1), at positions that count 1 and 10.
    np.testing.assert_allclose(scores["late"], [2 * 42, 1 * 40, -3 * 29])
    np.testing.assert_array_equal(scores["early"], [0, 0, 0])


def test_the_most_positive_units_are_the_part() -> None:
    source = find_circuit(linear_task(), method="readout", size=0.5).source
    part = source.strongest(1 / 3, "signed", "global")
    assert {site: units.tolist() for site, units in part.units.items()} == {
        "early": [],
        "late": [0, 1],
    }


def test_without_others_there_is_no_direct_readout() -> None:
    with pytest.raises(InputError, match="has no others"):
        score_units(replace(linear_task(), others=None), "readout")


RESNET = ("layer4.0.act1", "layer4.0.downsample", "layer4.0.avgpool")


@pytest.mark.parametrize(
    ("name", "writers"),
    [
        # What only reads out does not count: here the neurons of the last block, and what follows.
        ("vit", ("transformer.resblocks.1.attn",)),
        ("efficientnet", ("blocks.2.0.se",)),
        ("resnet", RESNET),
    ],
)
def test_last_writers_are_the_units_of_the_last_block_that_count(
    name: str, writers: tuple[str, ...]
) -> None:
    encoder = in_components(Encoder.from_tower(make_tower(name)))
    task = Task(encoder, encoder.blank(), lambda embedding: embedding[:, 0], work=QUIET)
    assert last_writers(task) == writers


def test_among_chosen_sites_the_last_block_has_the_last_writers() -> None:
    encoder = in_components(Encoder.from_tower(make_tower("vit")))
    inside = [site for site in encoder.sites if "resblocks" in site]
    task = Task(
        encoder, encoder.blank(), lambda embedding: embedding[:, 0], sites=inside
    )
    last = ("transformer.resblocks.1.attn", "transformer.resblocks.1.mlp")
    assert last_writers(task) == last
    assert last_writers(replace(task, sites=tuple(inside[:-1]))) == last[:1]


def test_heads_are_scored_by_all_their_numbers() -> None:
    encoder = in_components(Encoder.from_tower(make_tower("vit")))
    generator = torch.Generator().manual_seed(0)
    own, others = torch.randn(2, 3, 3, *encoder.image_size, generator=generator)
    site = "transformer.resblocks.1.attn"
    task = Task(
        encoder,
        own,
        class_logit(torch.eye(len(encoder(own)[0])), 1),
        others=others,
        sites=[site],
        work=QUIET,
    )
    with encoder.running(gradients=True):
        clean = encoder(own, stop=site).detach().requires_grad_()
        value = task.metric(encoder(clean, start=site)).sum()
        (slopes,) = torch.autograd.grad(value, [clean])
        difference = clean.detach().mean(0) - encoder(others, stop=site).detach().mean(
            0
        )
    products = (slopes.mean(0) * difference)[:, :2]  # two heads, then the stream
    scores = score_units(task, "readout")[site]
    np.testing.assert_allclose(scores, products.sum((0, 2)), rtol=1e-4)
