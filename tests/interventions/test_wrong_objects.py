"""Objects taken for one another are refused in a sentence that names what was expected and what was given."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from circuitry import Clip, InputError, Task, attribute, class_logit, faithfulness_curve, left_rule
from circuitry.circuits import cut_effects
from circuitry.interventions import (
    AblationSettings,
    find_circuit,
    judge_circuit,
    kept_embeddings,
    learn_masks,
    measure_circuits,
    propose_circuits,
)
from tests.support.oracles import setting
from tests.support.towers import make_tower
from tests.support.work import QUIET

pytestmark = pytest.mark.usefixtures("unchecked")


ONE: Any = 0.3


@pytest.fixture
def given() -> Any:
    encoder, images, weights = setting(make_tower("resnet"), 2)
    metric = class_logit(weights, 0)
    graph = attribute(encoder, images, metric, rule=left_rule(1), progress=False)
    task = Task(encoder, images, metric, work=QUIET)
    return SimpleNamespace(task=task, graph=graph, circuit=graph.circuit(2))


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda g: faithfulness_curve(g.task, g.circuit), "AttributionGraph as graph.*Circuit"),
        (lambda g: judge_circuit(g.task, g.graph), "Circuit as circuit.*AttributionGraph"),
        (lambda g: measure_circuits(g.task, [g.circuit.edges]), "Circuit.*Edges"),
        (lambda g: faithfulness_curve(g.task.encoder, g.graph), "Task as task.*Encoder"),
        (lambda g: judge_circuit(g.task.encoder, g.circuit), "Task as task.*Encoder"),
        (lambda g: measure_circuits(g.task.encoder, [g.circuit]), "Task as task.*Encoder"),
        (lambda g: find_circuit(g.task.encoder, size=0.5), "Task as task.*Encoder"),
        (lambda g: propose_circuits(g.task.encoder, [0.5]), "Task as task.*Encoder"),
        (lambda g: kept_embeddings(g.task.encoder, [g.circuit]), "Task as task.*Encoder"),
        (lambda g: learn_masks(g.task.encoder, [0.3]), "Task as task.*Encoder"),
        (lambda g: cut_effects(g.task.encoder, g.circuit.edges), "Task as task.*Encoder"),
        (lambda g: cut_effects(g.task, g.circuit), "Edges as edges.*Circuit"),
        (lambda g: learn_masks(g.task, [0.3], among=g.graph), "Circuit as among.*AttributionGraph"),
        (lambda g: faithfulness_curve(g.task, g.graph, g.task.images), "AblationSettings as settings.*Tensor"),
        (lambda g: kept_embeddings(g.task, g.circuit), "list of circuits.*Circuit"),
        (lambda g: learn_masks(g.task, ONE), r"list of sizes.*0.3.*\[0.3\]"),
        (lambda g: propose_circuits(g.task, ONE), r"list of sizes.*0.3.*\[0.3\]"),
        (lambda g: AblationSettings(fractions=ONE), r"list of fractions.*0.3.*\[0.3\]"),
    ],
)
def test_refusals(given: Any, call: Callable[[Any], object], named: str) -> None:
    with pytest.raises(InputError, match=named):
        call(given)


def test_a_clip_is_no_encoder(clip: Clip) -> None:
    wrong: Any = clip
    with pytest.raises(InputError, match=r"clip.encoder.*Clip"):
        Task(wrong, [], lambda e: e[:, 0])
