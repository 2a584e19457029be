"""A graph of another model, metric or text weights is measured nowhere; another class's may be, as a control."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

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
from circuitry.circuits.comparable import OWN_STYLE
from circuitry.encoder import Baseline, Stage, class_margin
from circuitry.interventions import (
    AblationSettings,
    ClassScorer,
    check_attribution,
    interchange,
    measure_circuits,
    transfer_circuits,
)
from circuitry.interventions.pixels import circuit_pixels
from tests.support.work import QUIET

torch.manual_seed(0)


def encoder() -> Encoder:
    tower = nn.Linear(3, 3)
    stages = Stage("u", lambda x: tower(x.flatten(1)).relu(), 1), Stage("embedding", torch.exp, 1)
    return Encoder(tower, stages, (1, 1))


ENCODERS = [encoder(), encoder()]
IMAGES = torch.rand(4, 3, 1, 1)
WEIGHTS = nn.functional.normalize(torch.randn(3, 3), dim=1)
SKETCHED = nn.functional.normalize(WEIGHTS + 0.3, dim=1)
"""As by the texts of another domain."""
FEW = AblationSettings(fractions=(0.5,), random_draws=1)


def task(place: int = 0, weights: Tensor = WEIGHTS, label: int = 0, make: Any = class_logit, **given: Any) -> Task:
    return Task(ENCODERS[place], IMAGES, make(weights, label), work=QUIET, **given)


def graph(weights: Tensor = WEIGHTS, label: int = 0) -> AttributionGraph:
    metric = class_logit(weights, label)
    return attribute(ENCODERS[0], IMAGES, metric, 0.4, left_rule(1), sites=["u", "embedding"], progress=False)


def moved(function: Any) -> Callable[[Task, AttributionGraph], object]:
    scorer = ClassScorer(WEIGHTS, {"cat": 0})
    return lambda one, found: function({("cat", "photo"): one}, {("cat", "photo"): found.circuit(None)}, scorer)


DOORS: dict[str, Callable[[Task, AttributionGraph], object]] = {
    "curve": lambda one, found: faithfulness_curve(one, found, FEW),
    "circuits": lambda one, found: measure_circuits(one, [found.circuit(None)], FEW),
    "judge": lambda one, found: judge_circuit(one, found.circuit(None), minimality=False),
    "attribution": lambda one, found: check_attribution(one, found, top=1, random=1),
    "transfer": moved(transfer_circuits),
    "interchange": moved(interchange),
    "pixels": lambda one, found: circuit_pixels(one, found.circuit(None)),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("given", "named"),
    [
        (task(place=1), "model_digest"),
        (task(make=class_margin), "'logit'.*'margin'"),
        (task(weights=SKETCHED), "text weights"),
        (task(weights=SKETCHED, label=1), "text weights"),
    ],
)
def test_another_model_metric_and_texts_are_refused(door: str, given: Task, named: str) -> None:
    with pytest.raises(InputError, match=named):
        DOORS[door](given, graph())


@pytest.mark.parametrize("door", DOORS)
def test_what_differs_on_purpose_is_taken(door: str) -> None:
    found = graph()
    DOORS[door](task(), found)
    DOORS[door](task(weights=WEIGHTS[:2]), found)  # of which the logit has the same row
    DOORS[door](task(weights=SKETCHED), replace(found, settings={}))  # it does not say
    control, ends = task(label=1), Baseline("ones", {"u": torch.ones(1, 3), "embedding": torch.ones(1, 3)})
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
    graphs = {("cat", domain): graph(own) for domain, own in weights.items()}
    scorer = ClassScorer(weights, {"cat": 0})
    for function in (transfer_circuits, interchange):
        circuits = {key: one.circuit(None) for key, one in graphs.items()}
        assert len(function(tasks, circuits, scorer)) == 4
        with pytest.raises(InputError, match="text weights"):
            function(tasks, {("cat", "photo"): circuits["cat", "sketch"]}, scorer)
    sketched = graphs["cat", "sketch"]
    own_style = replace(sketched, settings=sketched.settings | {"texts": OWN_STYLE})
    faithfulness_curve(tasks["cat", "photo"], own_style, FEW)
    with pytest.raises(InputError, match="text weights"):
        check_attribution(tasks["cat", "photo"], own_style)
