"""Circuits by every method, the sites that count, and tests of a circuit, on networks with a known answer."""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from circuitry import (
    AttributionGraph,
    Encoder,
    Task,
    attribute,
    class_logit,
    faithfulness_curve,
    in_components,
    left_rule,
)
from circuitry.circuits import METHODS, MaskSettings
from circuitry.circuits.methods import CONTRAST, ITERATIVE
from circuitry.circuits.tower_defaults import default_size
from circuitry.encoder import Stage, counted_sites, site_roles
from circuitry.interventions import (
    AblationSettings,
    find_circuit,
    judge_circuit,
    measure_circuits,
    propose_circuits,
)
from circuitry.interventions.finding_circuits import _smallest_that_reaches
from experiments.judging.planted import PlantedCircuit, planted_convolution
from tests.support.assert_same import assert_same
from tests.support.towers import make_tower
from tests.support.work import QUIET

SHORT = MaskSettings(steps=60, batch_size=8)
TOWER = nn.Linear(1, 1)
"""What stands behind stages that are functions alone."""
QUICK = AblationSettings(random_draws=2)


def additive(seed: int = 0) -> Encoder:
    """Ten units whose sum, with weights of different size, is the metric: they do not interact."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(10, 3, generator=generator)
    scale = torch.logspace(-2, 0, 10)[torch.randperm(10, generator=generator)]
    stages = (
        Stage("units", lambda x: scale * (x.flatten(1) @ mix.T).relu(), 1),
        Stage("sum", lambda u: u.sum(1, keepdim=True), 1),
    )
    return Encoder(nn.Linear(1, 1), stages, (1, 1))


def test_without_interaction_masks_and_rankings_agree() -> None:
    encoder, images = (
        additive(),
        torch.rand(32, 3, 1, 1, generator=torch.Generator().manual_seed(1)) + 0.2,
    )
    task = Task(encoder, images, lambda e: e[:, 0], sites=["units"], work=QUIET)
    masks = MaskSettings(steps=150, batch_size=32)
    found = {
        method: find_circuit(task, method=method, size=0.4, masks=masks)
        for method in METHODS
        if method != CONTRAST
    }
    kept = {method: set(one.units["units"].tolist()) for method, one in found.items()}
    assert all(units == kept["patching"] for units in kept.values())


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_circuit_that_the_rest_of_the_package_takes(
    resnet: nn.Module, method: str
) -> None:
    encoder, images, others = (
        Encoder.from_tower(resnet),
        torch.randn(3, 3, 64, 64) + 2,
        torch.randn(3, 3, 64, 64) - 2,
    )
    with encoder.running():  # texts of two classes that it tells apart
        own, other = (
            nn.functional.normalize(encoder(some), dim=-1).mean(0)
            for some in (images, others)
        )
    apart, middle = own - other, own + other
    apart = nn.functional.normalize(
        apart - (apart @ middle) / (middle @ middle) * middle, dim=0
    )
    metric = class_logit(torch.stack([-apart, apart]), 1)
    task = Task(
        encoder,
        images,
        metric,
        others=others,
        sites=["layer3.0", "layer4.0"],
        work=QUIET,
    )
    found = find_circuit(
        task, method=method, size=0.25, masks=MaskSettings(steps=6, batch_size=4)
    )
    n_units = sum(len(scores) for scores in found.source.node_scores.values())
    assert found.size == pytest.approx(0.25, abs=2 / n_units)
    assert found.source.settings["method"] == method
    assert (found.source.importance is None) == METHODS[method].effects
    assert found.source.settings | task.identity == found.source.settings
    curve = faithfulness_curve(
        task, found.source, AblationSettings(sizes=(0.5,), random_draws=1)
    )
    assert curve.kept.shape[1:] == (1, 6)


@dataclass(frozen=True)
class FakeCircuit:
    size: float
    count: float
    made_with: dict[str, Any] = field(default_factory=dict)


@pytest.mark.usefixtures("unchecked")
def test_a_selectivity_that_is_unknown_reaches_nothing() -> None:
    def propose(sizes: Sequence[float]) -> list[Any]:
        return [FakeCircuit(size, 1000 * size) for size in sizes]

    def measure(circuit: Any) -> float:
        return math.nan if circuit.size < 0.3 else circuit.size

    found: Any = _smallest_that_reaches(0.5, propose, measure)
    assert found.size >= 0.5
    assert "note" not in found.made_with


def test_a_selectivity_is_reached_or_the_best_is_returned() -> None:
    planted = planted_convolution(noise=0.0)
    images, others = (
        planted.images(8, 1) + torch.tensor([1.0, 0, 0])[:, None, None],
        planted.images(8, 2),
    )
    task = Task(planted.encoder, images, planted.metric, others=others, work=QUIET)
    found = find_circuit(task, method="patching", selectivity=0.9)
    assert "note" not in found.made_with
    reached = [
        size for size, selectivity in found.made_with["tried"] if selectivity >= 0.9
    ]
    assert found.size == min(reached)
    missed = find_circuit(task, method="gradient", selectivity=1.5)
    assert "4 sizes" in missed.made_with["note"]
    assert "1.5" in missed.made_with["note"]
    sizes, selectivities = np.transpose(missed.made_with["tried"])
    assert sizes.tolist() == sorted(sizes)
    assert missed.size == sizes[selectivities.argmax()]
    assert measure_circuits(task, [missed], QUICK).selectivity == pytest.approx(
        selectivities.max()
    )


@pytest.mark.parametrize("method", ["gradient", "learned"])
def test_circuits_of_several_sizes_come_from_one_search_in_the_order_asked(
    method: str,
) -> None:
    planted = planted_convolution()
    task = Task(planted.encoder, planted.images(4, 0), planted.metric, work=QUIET)
    circuits = propose_circuits(
        task, [0.2, 0.8, 0.5], method=method, masks=MaskSettings(steps=6)
    )
    assert [one.count for one in circuits] == [
        4,
        16,
        10,
    ]  # of 20 units, in one cut over all sites
    assert len({one.source.ranked_by["conv1"].tobytes() for one in circuits}) == 1


def test_fisher_scores_are_squared_changes_of_the_answers_of_both_sides() -> None:
    encoder, own, others = additive(3), torch.rand(6, 3, 1, 1), torch.rand(2, 3, 1, 1)
    task = Task(
        encoder, own, lambda e: e[:, 0], others=others, sites=["units"], work=QUIET
    )
    found = find_circuit(task, method="fisher", size=0.5)
    # Each unit's activation is what its gate changes; every image's answer has a random factor.
    changes = encoder(torch.cat([own, others]), stop="units").numpy().astype(float)
    factors = torch.randn(8, 1, generator=torch.Generator().manual_seed(0)).numpy()
    squares = (factors * changes) ** 2
    expected = (squares[:6].mean(0) + squares[6:].mean(0)) / 2
    assert found.source.importance is not None
    assert_same(found.source.importance["units"], expected, at_least=1e-3)
    # Effects are those on the images of the class; on the way to zero each unit falls in proportion.
    assert_same(found.source.node_scores["units"], changes[:6].mean(0), at_least=1e-3)
    assert found.units["units"].tolist() == np.argsort(-expected)[:5].tolist()


@pytest.mark.parametrize("method", ["gradient", "fisher"])
def test_a_ranking_is_cut_once_over_all_sites(method: str) -> None:
    planted = planted_convolution()
    task = Task(planted.encoder, planted.images(4, 0), planted.metric, work=QUIET)
    found = find_circuit(task, method=method, size=0.5)
    scores = found.source.ranked_by.values()
    first = np.argsort(-np.abs(np.concatenate([*scores])), kind="stable")[
        : sum(map(len, scores)) // 2
    ]
    expected = np.histogram(first, np.cumsum([0, *map(len, scores)]))[0].tolist()
    assert [len(units) for units in found.units.values()] == expected
    assert found.source.settings["budget"] == "global"


Run = Callable[[Tensor], Tensor]


def chain(*stages: tuple[str, Run]) -> Task:
    """A chain of stages on images [B, 3, 8, 8] with the channels as units."""
    encoder = Encoder(
        nn.Linear(1, 1), [Stage(site, run, 1) for site, run in stages], (8, 8)
    )
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
    roles = {
        "conv": "counted",
        "pool": "repeat",
        "mixed": "readout",
        "scaled": "readout",
        "embedding": "readout",
    }
    assert site_roles(task.encoder) == {"input": "image", **roles}
    assert counted_sites(task.encoder) == ("conv",)


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
    task = chain(
        ("units", lambda x: x.mean((2, 3)) @ first.T),
        ("embedding", lambda x: end(x) @ last),
    )
    assert site_roles(task.encoder)["units"] == role


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_towers_count_what_computes(kind: str) -> None:
    encoder = Encoder.from_tower(make_tower(kind))
    counted = counted_sites(encoder)
    assert encoder.sites[1] in counted
    assert not {"input", encoder.sites[-1]} & {*counted}
    if (
        kind == "vit"
    ):  # the stream of the last block reaches the embedding through a norm alone
        assert counted == encoder.sites[1:-2]
        heads = in_components(encoder)
        roles = site_roles(heads)
        assert [site for site in heads.sites if roles[site] == "readout"] == list(
            heads.sites[-2:]
        )


PLANTED = planted_convolution(noise=0.0)


def graph_of(
    kept: dict[str, Any], planted: PlantedCircuit = PLANTED
) -> AttributionGraph:
    graph = attribute(
        planted.encoder,
        planted.images(4, 0),
        planted.metric,
        0.5,
        left_rule(1),
        progress=False,
    )
    units = {site: np.array(some, dtype=np.int64) for site, some in kept.items()}
    return replace(
        graph, kept_units={"input": np.zeros(0, np.int64)} | units, edge_scores={}
    )


def task_of(planted: PlantedCircuit = PLANTED, **given: Any) -> Task:
    return Task(
        planted.encoder, planted.images(12, 1), planted.metric, work=QUIET, **given
    )


def test_the_planted_circuit_passes() -> None:
    rows = judge_circuit(task_of(), graph_of(PLANTED.nodes).circuit(None)).set_index(
        "test"
    )
    assert list(rows.index) == [
        "circuit",
        "complement",
        "sufficiency",
        "necessity",
        "minimality (units)",
    ]
    assert rows.loc["circuit", "value"] == pytest.approx(1, abs=1e-5)
    assert rows.loc["complement", "value"] == pytest.approx(0, abs=1e-5)
    assert rows.loc["sufficiency", "value"] == 1
    assert rows.loc["sufficiency", "p"] == pytest.approx(stats.binom.sf(39, 40, 0.9))
    # A random circuit may hold the one unit of the head that matters, too; taken away, nothing is left either.
    assert rows["value"].astype(float).between(0.5, 1)["necessity"]
    assert not rows.loc["necessity", "holds"]
    assert rows["holds"].drop("necessity").all()


def test_a_wrong_circuit_fails_and_a_unit_without_effect_is_found() -> None:
    wrong = graph_of({"conv1": (2, 3), "conv2": (2, 3), "head": (1,)})
    assert not judge_circuit(task_of(), wrong.circuit(None))["holds"].any()
    with_one_more = graph_of({**PLANTED.nodes, "conv1": (0, 1, 2)})
    table = judge_circuit(task_of(), with_one_more.circuit(None)).set_index("test")
    assert table.loc["minimality (units)", "value"] == pytest.approx(5 / 6)
    assert not table.loc["minimality (units)", "holds"]
    without = judge_circuit(
        task_of(), with_one_more.circuit(None), minimality=False
    ).set_index("test")
    assert without.equals(table.drop("minimality (units)"))


def test_edges_and_images_of_other_classes() -> None:
    graph = attribute(
        PLANTED.encoder, PLANTED.images(4, 0), PLANTED.metric, 0.25, progress=False
    )
    bright = PLANTED.images(8, 1) + torch.tensor([1.0, 0, 0])[:, None, None]
    task = replace(task_of(), images=bright, others=PLANTED.images(8, 2))
    table = judge_circuit(task, graph.circuit(1)).set_index("test")
    assert (table["measure"] == "selectivity").all()
    assert table.loc["circuit", "value"] == pytest.approx(1, abs=1e-4)
    assert (
        table.loc["minimality (edges)", "n"] == graph.circuit(1).graph.number_of_edges()
    )


def test_a_circuit_may_keep_no_unit_of_a_site() -> None:
    graph = attribute(
        PLANTED.encoder,
        PLANTED.images(4, 0),
        PLANTED.metric,
        0.3,
        budget="global",
        progress=False,
    )
    empty = graph_of(
        {
            site: [] if site == "conv1" else units
            for site, units in graph.kept_units.items()
        }
    )
    assert len({len(units) for units in graph.kept_units.values()}) > 1
    assert judge_circuit(task_of(), graph.circuit(None))["value"].notna().all()
    table = judge_circuit(task_of(), empty.circuit(None)).set_index("test")
    assert table.loc["circuit", "value"] == pytest.approx(
        0, abs=1e-5
    )  # conv1 is at its baseline
    assert not table.loc["sufficiency", "holds"]


def judged_weights(weights: Tensor, kept: list[int]) -> pd.DataFrame:
    """Judge some of the units that bring their weight of a number of the image to the metric: 2 or 3, of others 1."""
    stages = (
        Stage("units", lambda x: x[:, 0].flatten(1) * weights, 1),
        Stage("embedding", lambda u: u.sum(1, keepdim=True), 1),
    )
    encoder = Encoder(torch.nn.Linear(1, 1), stages, (1, 1))
    images, others = (
        torch.tensor(numbers)[:, None, None, None].expand(-1, 3, 1, 1)
        for numbers in ([2.0, 3.0, 2.0], [1.0, 1.0])
    )
    task = Task(
        encoder, images, lambda e: e[:, 0], sites=["units"], others=others, work=QUIET
    )
    scores = {"input": np.zeros(1), "units": weights.numpy()}
    graph = AttributionGraph(
        tuple(scores), scores, {}, 1, kept_units={"units": np.array(kept)}
    )
    return judge_circuit(task, graph.circuit(None), minimality=False).set_index("test")


def test_what_random_units_reach_does_not_hold() -> None:
    # Of 20 equal units any six recover 0.3.
    table = judged_weights(torch.ones(20), list(range(6)))
    assert table[["value", "low", "random_low", "random_high"]].to_numpy()[
        0
    ] == pytest.approx([0.3] * 4)
    assert table[["random_low", "random_high"]].to_numpy()[3] == pytest.approx(
        [0.7] * 2
    )
    assert not table["holds"].any()


@pytest.mark.parametrize(
    ("weight", "holds"),
    [(0.07, [False] * 4), (0.5, [True, False] * 2), (0.75, [True] * 4)],
)
def test_better_than_random_is_not_yet_sufficient(
    weight: float, holds: list[bool]
) -> None:
    # One of 5,000 units; random ones do nothing.
    table = judged_weights(torch.tensor([weight, 1 - weight] + [0.0] * 4998), [0])
    assert table[["value", "random_low", "random_high"]].to_numpy()[0] == pytest.approx(
        [weight, 0, 0]
    )
    assert table["p"].tolist()[2:] == pytest.approx(
        [stats.binom.sf(39, 40, 0.9)] * 2
    )  # below 0.05
    assert table["holds"].tolist() == holds


def two_things(label: int, others: bool = True, shift: float = 0.0) -> Task:
    """Four images of a thing that the first of two units answers to, and of one that the second answers to.

    They are other images by a shift of a channel that no unit sees.
    """
    stages = (
        Stage("units", lambda x: x.flatten(1)[:, :2], 1),
        Stage("embedding", lambda u: u + 0.1, 1),
    )
    images, of_another = (
        torch.tensor([some] * 4)[:, :, None, None]
        for some in ([4.0, 1, 3], [1.0, 4, 3])
    )
    images[:, 0] += torch.arange(4.0)[:, None, None]
    images[:, 2] += shift
    of_another[:, 2] += shift
    return Task(
        Encoder(TOWER, stages, (1, 1)),
        images,
        class_logit(torch.eye(2), label),
        others=of_another if others else None,
        baseline="mean-position" if others else "zero",
        work=QUIET,
    )


def test_by_default_a_circuit_is_found_as_the_command_finds_it() -> None:
    task = two_things(0)
    found = find_circuit(task)
    assert (
        found.source.settings["method"]
        == ITERATIVE
        == inspect.signature(find_circuit).parameters["method"].default
    )
    named = find_circuit(task, method=ITERATIVE, size=default_size(task.encoder))
    assert {site: units.tolist() for site, units in found.units.items()} == {
        site: units.tolist() for site, units in named.units.items()
    }
    assert propose_circuits(task, [0.5])[0].source.settings["method"] == ITERATIVE


def test_a_circuit_without_others_says_what_ranks_and_where_units_are_put(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = find_circuit(two_things(0, others=False), size=0.5)
    assert found.source.settings["method"] == "gradient"
    ranked, put = caplog.messages
    assert all(word in ranked for word in ("gradient", "iterative-fisher", "others="))
    assert all(word in put for word in ("'zero'", "others=", "baseline="))
    caplog.clear()
    find_circuit(two_things(0), size=0.5)
    assert not caplog.messages


def test_shares_of_no_lead_are_nan_with_the_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found_on, first, second = (
        two_things(0),
        two_things(0, shift=0.1),
        two_things(1, shift=0.1),
    )
    circuit = find_circuit(found_on, size=0.5)

    def judged(task: Task) -> Any:
        return judge_circuit(task, circuit).set_index("test")["value"]["circuit"]

    assert judged(first) > 0
    assert not caplog.messages
    assert np.isnan(judged(second))
    (told,) = caplog.messages
    assert all(
        word in told
        for word in ("selectivity", "no better than the baseline", "label 0", "label 1")
    )
