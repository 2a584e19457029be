"""Whatever ablation, patching, masks and tests of circuits cannot work with, and graphs of another model or metric."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from circuitry import (
    AttributionGraph,
    Encoder,
    InputError,
    Task,
    attribute,
    class_logit,
    faithfulness_curve,
    judge_circuit,
    left_rule,
)
from circuitry import circuits as c
from circuitry import gates as g
from circuitry import interventions as i
from circuitry.bases import ResidualStream, in_components
from circuitry.circuits import Circuit, attribute_components
from circuitry.circuits.comparable import OWN_STYLE
from circuitry.encoder import Baseline, Counterfactual, Stage, class_margin
from circuitry.gates import Edges
from circuitry.interventions import (
    AblationSettings,
    check_attribution,
    measure_circuits,
)
from experiments.judging.planted import planted_convolution
from tests.interventions.test_gated_units import IMAGES, by_hand
from tests.support.circuits import circuit_by, circuit_with
from tests.support.towers import make_tower
from tests.support.work import AS_STUDIED, QUIET

Call = Callable[[], object]
PLANTED, OTHER = planted_convolution(), planted_convolution(noise=0.1)
SOME = PLANTED.images(4, 0)
RESNET = Encoder.from_tower(make_tower("resnet"))
PIXELS = torch.randn(3, 3, 64, 64)
VIT = Encoder.from_tower(make_tower("timm-vit"))
SAME = SOME[:1].repeat(4, 1, 1, 1)


def first(embedding: Tensor) -> Tensor:
    return embedding[:, 0]


def planted(images: Any = SOME, **given: Any) -> Task:
    return Task(PLANTED.encoder, images, PLANTED.metric, work=QUIET, **given)


def graph(**settings: Any) -> AttributionGraph:
    asked = {"progress": False, **AS_STUDIED, **settings}
    return attribute(PLANTED.encoder, SOME, PLANTED.metric, 0.25, left_rule(1), **asked)


def curve(settings: Any = None, images: Tensor = IMAGES, **given: Any) -> object:
    scores = {
        site: np.ones(n) for site, n in (("input", 3), ("first", 3), ("second", 2))
    }
    found = AttributionGraph(tuple(scores), scores, {}, 1)
    return i.faithfulness_curve(
        by_hand(images, **given), found, i.AblationSettings(**(settings or {}))
    )


def kept(units: Any, **given: Any) -> object:
    return i.kept_embeddings(by_hand(**given), [i.circuit_of(by_hand(), units)])


def chain(**sizes: int) -> Edges:
    return Edges.between(
        {site: np.arange(n) for site, n in sizes.items()}, pairwise(sizes)
    )


def kept_edges(*edges: Edges) -> object:
    return i.kept_embeddings(by_hand(), [circuit_with(one) for one in edges])


def swept(given: dict[str, Any], **of_task: Any) -> object:
    asked: dict[str, Any] = {"images": PIXELS, "metric": first, "work": QUIET} | of_task
    return g.patch_effects(Task(RESNET, **asked), **given)


def run_patched(*patches: g.Patch) -> object:
    with g.patched(RESNET, patches):
        return RESNET(PIXELS)


def in_stream() -> Task:
    stream = ResidualStream.of(VIT)
    return Task(
        stream.components, torch.randn(2, 3, *VIT.image_size), first, work=QUIET
    )


def stream_circuit() -> Circuit:
    return attribute_components(
        Task(VIT, torch.randn(2, 3, *VIT.image_size), first, work=QUIET)
    ).circuit(3)


def harmful() -> Circuit:
    found = graph()
    return replace(
        found, edge_scores={pair: -np.abs(s) for pair, s in found.edge_scores.items()}
    ).circuit(3)


def another_model() -> Task:
    return Task(OTHER.encoder, SOME, OTHER.metric, work=QUIET)


def masks(sizes: list[float], images: Tensor = SOME, **given: Any) -> object:
    return c.learn_masks(planted(images), sizes, c.MaskSettings(steps=2), **given)


P = g.Patch
HAND = {"first": 3, "second": 2, "embedding": 2}
RUNS: list[tuple[Call, str]] = [
    (lambda: kept({"input": [0]}), "'input'"),
    (lambda: kept({"third": [0]}), "'third'"),
    (lambda: kept({"first": [0, 3]}), "'first'.*0 to 2.*3"),
    (lambda: kept({"first": [True, True]}), "'first'.*3.*2"),
    (lambda: kept({"first": [0]}, baseline=IMAGES[:1].expand(3, -1, -1, -1)), "3 activations.*2 images"),
    (lambda: kept({"first": [0]}, images=[]), "none"),
    (lambda: i.kept_embeddings(by_hand(), []), "at least one value as circuits"),
    (lambda: kept_edges(chain(first=4, second=2)), "'first'.*0 to 2.*3"),
    (lambda: kept_edges(chain(first=3, embedding=2)), "first->embedding"),
    (lambda: kept_edges(chain(first=3, third=2)), "third"),
    (lambda: kept_edges(chain(**HAND), chain(first=3, second=2)), "2 kinds"),
    (lambda: i.kept_embeddings(in_stream(), [circuit_by({("embed", "blocks.0.mlp"): np.ones((1, 2), dtype=bool)})]),
     r"'embed'.*0 to 0.*unit 1"),
    (lambda: i.kept_embeddings(in_stream(), [circuit_by({("head", "trunk.blocks.0.mlp"): np.ones((64, 16), bool)})]),
     r"head to trunk.blocks.0.mlp"),
    (lambda: i.circuit_of(in_stream(), {"blocks.7.mlp": [0]}), "'blocks.7.mlp'"),
    (lambda: i.kept_embeddings(Task(VIT, torch.zeros(2, 3, *VIT.image_size), first), [stream_circuit()]),
     r"blocks.0.*in_components"),
    (lambda: curve({"sizes": (0.5, 0.1)}), r"ascending.*\(0.5, 0.1\)"),
    (lambda: curve({"sizes": (0.5, 1.5)}), r"\(0, 1\].*1.5"),
    (lambda: curve(sites=["embedding"]), "embedding.*first, second"),
    (lambda: curve(images=IMAGES[:1], baseline=IMAGES), "2 activations.*'input'.*1 images"),
    (lambda: curve(others=[]), "at least one image"),
    (lambda: i.measure_circuits(by_hand(), []), "at least one value as circuits"),
]  # fmt: skip
PATCHES: list[tuple[Call, str]] = [
    (lambda: swept({"units": {"attnpool": [3, 16]}}), "'attnpool'.*0 to 15.*16"),
    (lambda: swept({"units": {"act9": [3]}}), "'act9'"),
    (lambda: swept({"units": {"attnpool": [3]}, "by": "site"}), "by='unit'.*'site'"),
    (lambda: swept({}, baseline=torch.zeros(2, 3, 64, 64)), "'input'.*3 images"),
    (lambda: swept({}, images=[]), "none"),
    (lambda: swept({}, metric=lambda e: e), r"\[3\].*\[3, 16\]"),
    (lambda: run_patched(P("act1", 0.0, units=[1, 2]), P("act1", 1.0, units=[2, 3], positions=[4])),
     "'act1', units 1, 2, all positions and the one at 'act1', units 2, 3, positions 4 do: separate"),
    (lambda: run_patched(P("act9", 0.0)), "no site 'act9'"),
    (lambda: run_patched(P("act1", 0.0, units=[1, 4, -1])), "has units 0 to 3, but 4, -1 was asked for"),
    (lambda: run_patched(P("act1", 0.0, positions=[1024])), "'act1' has positions 0 to 1023, but 1024 was asked for"),
    (lambda: run_patched(P("act1", Counterfactual(torch.zeros(2, 3, 64, 64)))), r"shape \[2, 4, 32, 32\].*\[3, 4, 32,"),
    (lambda: run_patched(P("act1", Baseline("two", {"act1": torch.zeros(2, 4, 32, 32)}))), "'two' has 2 activations"),
    (lambda: run_patched(P("act1", torch.zeros(3, 4, 8, 8))), r"has shape \[3, 4, 8, 8\]"),
    (lambda: run_patched(P("act1", lambda a: a.sum(1))), r"has shape \[3, 32, 32\]"),
    *((lambda u=units: P("act1", 0.0, units=u), "units") for units in ([1.7], float("nan"), [[1, 2]], ["a"], [None])),
]  # fmt: skip
SEARCH: list[tuple[Call, str]] = [
    (
        lambda: i.find_circuit(planted(), method="magic", size=0.5),
        "'site-path', .*'magic'",
    ),
    (
        lambda: i.find_circuit(planted(), size=0.5, selectivity=0.8),
        "size= and selectivity=",
    ),
    (lambda: i.find_circuit(planted(), selectivity=0.8), "others="),
    (
        lambda: i.find_circuit(planted(others=SOME), selectivity=80.0),
        r"\(0, 1.5\].*80.0",
    ),
    (
        lambda: i.find_circuit(
            planted(others=SOME), selectivity=0.8, method="gradient"
        ),
        "no better than the baseline",
    ),
    (lambda: i.find_circuit(planted(SOME[:0]), size=0.5), "at least one image"),
    (lambda: masks([]), "sizes"),
    (lambda: masks([0.5, 1.5]), "sizes"),
    (lambda: masks([0.5], SAME), "same for all"),
    (
        lambda: masks([0.5], among=circuit_with(chain(conv1=0, conv2=0))),
        "at least one edge",
    ),
    (lambda: i.judge_circuit(planted(), graph().circuit(None).nothing()), "units"),
    (lambda: i.judge_circuit(planted(), harmful()), "edges"),
    (lambda: i.judge_circuit(another_model(), graph().circuit(None)), "weights"),
    (
        lambda: i.judge_circuit(planted(baseline=SOME.flip(0)), graph().circuit(None)),
        "'zero'.*'counterfactual'",
    ),
]


@pytest.mark.parametrize(("call", "named"), [*RUNS, *PATCHES, *SEARCH])
def test_refusals(call: Call, named: str) -> None:
    with pytest.raises(InputError, match=named):
        call()
    assert not any(point.fwd_hooks for point in RESNET.hook_dict.values())


torch.manual_seed(0)


def encoder() -> Encoder:
    tower = nn.Linear(3, 3)
    stages = (
        Stage("u", lambda x: tower(x.flatten(1)).relu(), 1),
        Stage("embedding", torch.exp, 1),
    )
    return Encoder(tower, stages, (1, 1))


ENCODERS = [encoder(), encoder()]
RANDOM = torch.rand(4, 3, 1, 1)
WEIGHTS = nn.functional.normalize(torch.randn(3, 3), dim=1)
SKETCHED = nn.functional.normalize(WEIGHTS + 0.3, dim=1)
"""As by the texts of another domain."""
FEW = AblationSettings(sizes=(0.5,), random_draws=1)


def task(
    place: int = 0,
    weights: Tensor = WEIGHTS,
    label: int = 0,
    make: Any = class_logit,
    **given: Any,
) -> Task:
    return Task(ENCODERS[place], RANDOM, make(weights, label), work=QUIET, **given)


def graph_of_class(weights: Tensor = WEIGHTS, label: int = 0) -> AttributionGraph:
    metric = class_logit(weights, label)
    return attribute(
        ENCODERS[0],
        RANDOM,
        metric,
        0.4,
        left_rule(1),
        sites=["u", "embedding"],
        progress=False,
    )


DOORS: dict[str, Callable[[Task, AttributionGraph], object]] = {
    "curve": lambda one, found: faithfulness_curve(one, found, FEW),
    "circuits": lambda one, found: measure_circuits(one, [found.circuit(None)], FEW),
    "judge": lambda one, found: judge_circuit(
        one, found.circuit(None), minimality=False
    ),
    "attribution": lambda one, found: check_attribution(one, found, top=1, random=1),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("given", "named"),
    [
        (task(place=1), "weights"),
        (task(make=class_margin), "'logit'.*'margin'"),
        (task(weights=SKETCHED), "text weights"),
        (task(weights=SKETCHED, label=1), "text weights"),
    ],
)
def test_another_model_metric_and_texts_are_refused(
    door: str, given: Task, named: str
) -> None:
    with pytest.raises(InputError, match=named):
        DOORS[door](given, graph_of_class())


@pytest.mark.parametrize("door", DOORS)
def test_what_differs_on_purpose_is_taken(door: str) -> None:
    found = graph_of_class()
    DOORS[door](task(), found)
    DOORS[door](task(weights=WEIGHTS[:2]), found)  # of which the logit has the same row
    DOORS[door](task(weights=SKETCHED), replace(found, settings={}))  # it does not say
    control, ends = (
        task(label=1),
        Baseline("ones", {"u": torch.ones(1, 3), "embedding": torch.ones(1, 3)}),
    )
    other_baseline = task(baseline=ends)
    if door == "attribution":
        with pytest.raises(InputError, match="text weights"):
            DOORS[door](control, found)
    else:
        DOORS[door](control, found)
    if door in ("judge", "attribution"):
        with pytest.raises(InputError, match=r"'zero'.*'ones'"):
            DOORS[door](other_baseline, found)
    else:
        DOORS[door](other_baseline, found)


def test_circuits_move_between_domains_whose_texts_differ() -> None:
    weights = {"photo": WEIGHTS, "sketch": SKETCHED}
    tasks = {("cat", domain): task(weights=own) for domain, own in weights.items()}
    graphs = {("cat", domain): graph_of_class(own) for domain, own in weights.items()}
    sketched = graphs["cat", "sketch"]
    own_style = replace(sketched, settings=sketched.settings | {"texts": OWN_STYLE})
    faithfulness_curve(tasks["cat", "photo"], own_style, FEW)
    with pytest.raises(InputError, match="text weights"):
        check_attribution(tasks["cat", "photo"], own_style)


def test_a_circuit_of_components_on_the_tower_without_is_told_by_its_sites() -> None:
    channels = Encoder.from_tower(make_tower("vit"))
    images, others = torch.randn(2, 2, 3, *channels.image_size)
    metric = class_logit(torch.nn.functional.normalize(torch.randn(3, 16), dim=-1), 1)
    heads = Task(in_components(channels), images, metric, baseline=others, work=QUIET)
    circuit = i.circuit_of(heads, {"transformer.resblocks.0.attn": [1]})
    circuit = replace(
        circuit, source=replace(circuit.source, settings=dict(heads.identity))
    )
    assert len(i.kept_embeddings(heads, [circuit])) == 1
    for measure in (i.judge_circuit, lambda task, one: i.kept_embeddings(task, [one])):
        with pytest.raises(
            InputError, match=r"'transformer.resblocks.0.attn'.*in_components"
        ):
            measure(
                Task(channels, images, metric, baseline="zero", work=QUIET), circuit
            )
