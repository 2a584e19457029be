"""The choice of a quadrature rule: errors on a network whose integrals are known, and in a run."""

import json
import logging
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from circuitry import Clip, DomainFolder, Encoder, InputError, attribute, class_logit
from circuitry.circuits import (
    AttributionSettings,
    RuleErrors,
    describe_rule,
    extract,
    gauss_legendre_rule,
    left_rule,
    midpoint_rule,
    rule_of_run,
)
from circuitry.circuits.rule_choice import cheapest_rule
from circuitry.circuits.rule_of_run import spread
from circuitry.encoder import Stage, Task
from circuitry.encoder.tensor_batches import Images
from tests.support.towers import make_tower
from tests.support.work import QUIET

CUBES = (midpoint_rule(1), midpoint_rule(2), gauss_legendre_rule(2))


def cubing() -> Encoder:
    """Image [B,3,1,1] -> the same -> its cube: by the path to zero a unit x has the effect -x^3."""
    stages = (Stage("hidden", lambda x: x.flatten(1), 1), Stage("cube", lambda x: x**3, 1))
    return Encoder(nn.Linear(1, 1), stages, (1, 1))


def total(embedding: Tensor) -> Tensor:
    return embedding.sum(1)


def image() -> Tensor:
    return torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1)


def asked(images: Images) -> Task:
    return Task(cubing(), images, total, work=QUIET)


def exactly() -> RuleErrors:
    return RuleErrors(asked(image()), reference=gauss_legendre_rule(3))


def test_errors_by_hand() -> None:
    errors = RuleErrors(asked(image()), reference=gauss_legendre_rule(2))  # exact for the integral of 3 x^2
    # Of 3 (1 - t)^2, whose integral is 1, one midpoint gives 3/4 and two give 15/16: the same share of every unit.
    assert errors.nodes(midpoint_rule(1)) == pytest.approx({"input": 1 / 4, "hidden": 1 / 4, "cube": 0}, abs=1e-6)
    assert errors.nodes(midpoint_rule(2)) == pytest.approx({"input": 1 / 16, "hidden": 1 / 16, "cube": 0}, abs=1e-6)
    assert errors.n_images == 1
    assert errors.compare_nodes(midpoint_rule(1))[1] == {"input": 1.0, "hidden": 1.0, "cube": 1.0}


def test_images_that_come_once_are_all_measured() -> None:
    images = torch.arange(12.0).reshape(4, 3, 1, 1)
    once = RuleErrors(asked(iter(torch.split(images, 1))), reference=gauss_legendre_rule(2))
    whole = RuleErrors(asked(images), reference=gauss_legendre_rule(2))
    assert once.asked_at == whole.asked_at  # which looks at the first batch alone
    assert once.nodes(midpoint_rule(1)) == pytest.approx(whole.nodes(midpoint_rule(1)))
    assert once.n_images == 4


def test_errors_of_edges_by_hand() -> None:
    errors = RuleErrors(asked(image()), AttributionSettings(node_fraction=1.0), gauss_legendre_rule(3))
    # The gap of a unit is (x^3 ((1-t)^3 - 1))^2: of its derivative 6 s^5 - 6 s^2 by s = 1 - t, whose integral is -1,
    # the midpoint s = 1/2 gives 3/16 - 3/2 = -21/16.
    assert errors.edges(midpoint_rule(1)) == pytest.approx({"hidden->cube": 5 / 16}, abs=1e-6)


@pytest.mark.parametrize(("error", "chosen"), [(0.2, "midpoint-1"), (0.1, "midpoint-2"), (0.01, "gauss-legendre-2")])
def test_the_first_rule_that_keeps_the_error_is_chosen(error: float, chosen: str) -> None:
    found = cheapest_rule([exactly()], error, CUBES)
    assert found.nodes.rule.name == chosen
    assert found.nodes.mean <= error
    assert found.nodes.cost == pytest.approx(found.nodes.rule.n_runs / 9)  # the study's left-10 has t = 0 for nothing


def test_where_no_rule_keeps_the_error_the_last_one_is_taken_and_a_line_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        found = cheapest_rule([exactly()], 0.01, CUBES[:2])
    assert found.nodes.rule.name == "midpoint-2"
    assert not found.keeps
    sentence = (
        "error of the scores by midpoint-2 is 0.031 in the mean over sites (input left aside: no node, or the integral "
        "diverges), but above 0.01 at hidden"
    )
    assert sentence in caplog.text


@pytest.mark.parametrize(
    ("end", "promised"), [("zero", False), (torch.tensor([3.0, 1.0, 2.0]).reshape(1, 3, 1, 1), True)]
)
def test_no_error_is_promised_where_references_disagree(
    end: str | Tensor, promised: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Of x / |x| the effect of a unit on the way to zero grows as 1 / (1 - t): its integral has no bound."""
    normed = Stage("sum", lambda x: x + nn.functional.normalize(x, dim=1), 1)
    encoder = Encoder(nn.Linear(1, 1), (Stage("hidden", lambda x: x.flatten(1), 1), normed), (1, 1))
    task = Task(encoder, image(), lambda out: out @ torch.tensor([1.0, 0.0, -1.0]), baseline=end, work=QUIET)
    with caplog.at_level(logging.WARNING):
        found = cheapest_rule([RuleErrors(task, AttributionSettings(node_fraction=1.0))], 0.2)
    settings = {"node_rule": found.nodes.rule.name, "edge_rule": found.edges.rule.name, "rule_choice": found.as_dict()}
    assert (found.promises, found.keeps) == (promised, promised)
    assert (found.nodes.references_differ > 0.1) is not promised
    for sentence in (caplog.text, describe_rule(settings)):
        assert ("No error of the scores is promised" in sentence) is not promised
    assert ("against midpoint-40" in describe_rule(settings)) is promised


def test_an_error_that_is_not_positive_is_refused() -> None:
    with pytest.raises(InputError, match=r"positive number as error, but -1\.0 "):
        cheapest_rule([exactly()], -1.0)


def test_several_circuits_count_by_their_mean() -> None:
    exact = gauss_legendre_rule(3)
    circuits = [RuleErrors(asked(image() * scale), reference=exact) for scale in (1, 2)]
    found = cheapest_rule(circuits, 0.3, CUBES)
    assert (found.n_circuits, found.n_images) == (2, 2)
    assert found.nodes.errors["hidden"] == pytest.approx(1 / 4)  # a share, whatever the scale


@pytest.mark.parametrize(
    ("name", "diverging"),
    [("resnet", {"attnpool"}), ("clip-efficientnet", {"head"}), ("efficientnet", {"bn2", "global_pool", "classifier"})],
)
def test_no_error_is_asked_for_where_a_cosine_does_not_converge(name: str, diverging: set[str]) -> None:
    """Through pooling and a layer whose bias is zero it diverges as at the embedding itself; a bias ends that."""
    encoder = Encoder.from_tower(make_tower(name))
    errors = RuleErrors(Task(encoder, torch.randn(2, 3, *encoder.image_size), class_logit(torch.randn(3, 16), 0)))
    assert set(encoder.sites) - set(errors.asked_at) == {"input", *diverging}


def test_the_promise_holds_against_many_points() -> None:
    encoder = Encoder.from_tower(make_tower("resnet").double())
    images, metric = torch.randn(1, 3, 64, 64).double(), class_logit(torch.randn(3, 16).double(), 0)
    task = Task(encoder, images, metric, sites=("layer2.0", "layer2.1", "layer3.0"))
    found = cheapest_rule([RuleErrors(task)], 0.1)
    by_many = RuleErrors(task, reference=midpoint_rule(200))
    measured = by_many.nodes(found.nodes.rule)
    assert np.mean([measured[site] for site in found.nodes.asked_at]) == pytest.approx(found.nodes.mean, abs=0.02)
    assert found.keeps


def test_attribution_has_one_default(caplog: pytest.LogCaptureFixture) -> None:
    encoder = Encoder.from_tower(make_tower("vit"))
    run = partial(attribute, encoder, torch.randn(1, 3, 32, 32), total, sites=["proj"], progress=False)
    run(baseline="zero")
    assert not caplog.text
    graph = run()
    assert "layer norms" in caplog.text
    assert graph.settings["baseline"] == "zero"
    assert graph.settings["node_rule"] == AttributionSettings().node_rule.name == "midpoint-10"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> DomainFolder:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for place in ("real/cat/0", "real/cat/1", "sketch/cat/0"):
        path = folder / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, size=(64, 64, 3), dtype=np.uint8)).save(path)
    return DomainFolder(folder, split=None)


@pytest.fixture
def choosing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Choose from few points."""

    def few(circuits: list[RuleErrors], error: float) -> object:
        return cheapest_rule(circuits, error, (midpoint_rule(2), midpoint_rule(3)))

    monkeypatch.setattr(rule_of_run, "cheapest_rule", few)


@pytest.mark.usefixtures("choosing")
def test_a_run_chooses_once_and_every_graph_says_so(
    clip: Clip, images: DomainFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = partial(extract, clip, images, tmp_path / "out", texts=["a {}."], sites=("layer3.0", "layer4.0"))
    graphs = run(rule_error=9.0)
    choice = json.loads((tmp_path / "out" / "rule.json").read_text())
    del choice["checksum"]
    assert choice["nodes"]["rule"] == "midpoint-2"
    assert graphs.manifest["config"]["rule_choice"] == choice
    for graph in graphs.values():
        assert graph.settings["node_rule"] == "midpoint-2"
        assert graph.settings["rule_choice"] == choice
        assert "error of the rule" in repr(graph)
    assert "Paths are integrated by midpoint-2. On " in describe_rule(graphs.manifest["config"])

    def never(*_: object) -> object:
        raise AssertionError("the rule was chosen twice")

    monkeypatch.setattr(rule_of_run, "cheapest_rule", never)
    assert len(run(rule_error=9.0)) == 2
    with pytest.raises(InputError, match=r"of 9, but 0\.5"):
        run(rule_error=0.5)
    (tmp_path / "out" / "rule.json").write_text("{")
    with pytest.raises(InputError, match=r"rule\.json is damaged"):
        run(rule_error=9.0)


@pytest.mark.usefixtures("choosing")
def test_a_rule_that_is_given_is_not_measured(clip: Clip, images: DomainFolder, tmp_path: Path) -> None:
    graphs = extract(clip, images, tmp_path / "out", n_images=1, rule=left_rule(1), texts=["a {}."])
    assert not (tmp_path / "out" / "rule.json").exists()
    sentence = "Paths are integrated by left-1; its error on this model was not measured."
    assert describe_rule(next(iter(graphs.values())).settings) == sentence


def test_few_circuits_are_of_different_classes_and_domains() -> None:
    keys = [(c, d) for c in "abc" for d in "xy"]
    assert spread(keys, 3) == [("a", "x"), ("b", "y"), ("a", "y")]
    assert spread(keys[:1], 4) == keys[:1]
    assert spread([], 4) == spread([]) == []
    many = [(c, d) for c in "abcdefgh" for d in "uvwxyz"]
    assert spread(many) == list(zip("abcdef", "uvwxyz", strict=True))  # one in every domain
    assert len(spread([(c, d) for c in "abcdefgh" for d in "xy"])) == 4
    for classes, domains in (("abc", "xy"), ("abcd", "x"), ("abcd", "xyz"), ("abcdef", "x")):
        found = spread([(c, d) for c in classes for d in domains])
        assert len(set(found)) == 4  # although the step shares a factor with the number of circuits
        assert {domain for _, domain in found} == set(domains)
    assert len(spread(keys, 9)) == 6
