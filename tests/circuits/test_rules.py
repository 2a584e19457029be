"""Quadrature rules, their errors on a network whose integrals are known, and their cost."""

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from circuitry import Encoder, attribute, class_logit
from circuitry.bases import ResidualStream, in_components, in_feature_basis
from circuitry.circuits import (
    AttributionSettings,
    QuadratureRule,
    gauss_legendre_rule,
    gauss_radau_rule,
    left_rule,
    midpoint_rule,
    parse_rule,
    relative_error,
)
from circuitry.circuits.tower_defaults import (
    CHANNELS,
    DEFAULT_SIZES,
    default_sites,
    kind_of,
    with_rules,
)
from circuitry.encoder import OperationCounter, Stage, Task
from circuitry.encoder.tensor_batches import Images
from experiments.operations import count_operations
from tests.support.feature_bases import setting
from tests.support.towers import make_tower
from tests.support.work import AS_STUDIED, QUIET


def cubing() -> Encoder:
    """Image [B,3,1,1] -> the same -> its cube: by the path to zero a unit x has the effect -x^3."""
    stages = (
        Stage("hidden", lambda x: x.flatten(1), 1),
        Stage("cube", lambda x: x**3, 1),
    )
    return Encoder(nn.Linear(1, 1), stages, (1, 1))


def test_all_sites_are_scored_where_none_computes() -> None:
    linear = Encoder(
        nn.Linear(1, 1), (Stage("flat", lambda x: x.flatten(1), 1),), (1, 1)
    )
    assert default_sites(linear, "global") == linear.sites


def total(embedding: Tensor) -> Tensor:
    return embedding.sum(1)


def image() -> Tensor:
    return torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1)


def errors(
    images: Images, rule: str, kind: str, reference: str = "gauss-legendre-3"
) -> dict[str, float]:
    task = Task(cubing(), images, total, work=QUIET)
    table = relative_error(task, [rule], reference, AttributionSettings(size=1.0))
    return dict(table[table["kind"] == kind].set_index("place")["error"])


def test_errors_by_hand() -> None:
    # Of 3 (1 - t)^2, whose integral is 1, one midpoint gives 3/4 and two give 15/16: the same share of every unit.
    # Gauss-Legendre with two points is exact for it.
    one, two = (
        errors(image(), f"midpoint-{n}", "nodes", "gauss-legendre-2") for n in (1, 2)
    )
    assert one == pytest.approx({"input": 1 / 4, "hidden": 1 / 4, "cube": 0}, abs=1e-6)
    assert two == pytest.approx(
        {"input": 1 / 16, "hidden": 1 / 16, "cube": 0}, abs=1e-6
    )
    assert errors(2 * image(), "midpoint-1", "nodes")["hidden"] == pytest.approx(
        1 / 4
    )  # a share, whatever the scale
    assert errors(image(), "midpoint-1", "kept alike") == {
        "input": 1.0,
        "hidden": 1.0,
        "cube": 1.0,
    }


def test_errors_of_edges_by_hand() -> None:
    # The gap of a unit is (x^3 ((1-t)^3 - 1))^2: of its derivative 6 s^5 - 6 s^2 by s = 1 - t, whose integral is -1,
    # the midpoint s = 1/2 gives 3/16 - 3/2 = -21/16.
    assert errors(image(), "midpoint-1", "edges") == pytest.approx(
        {"hidden->cube": 5 / 16}, abs=1e-6
    )


def test_attribution_has_one_default(caplog: pytest.LogCaptureFixture) -> None:
    encoder = Encoder.from_tower(make_tower("vit"))
    run = partial(
        attribute,
        encoder,
        torch.randn(1, 3, 32, 32),
        total,
        sites=["proj"],
        progress=False,
        **AS_STUDIED,
    )
    run(baseline="zero")
    assert not caplog.text
    graph = run()
    assert "layer norms" in caplog.text
    assert graph.settings["baseline"] == "zero"
    assert (
        graph.settings["node_rule"]
        == AttributionSettings().node_rule.name
        == "midpoint-10"
    )


@pytest.mark.parametrize(
    ("tower", "kind", "rules"),
    [
        ("resnet", "batch norms", ("midpoint-5", "gauss-radau-3")),
        ("efficientnet", "depthwise convolutions", ("midpoint-15", "gauss-radau-3")),
        ("vit", "layer norms", ("gauss-radau-3", "midpoint-3")),
    ],
)
def test_a_folder_has_the_rules_of_its_kind_of_tower(
    tower: str, kind: str, rules: tuple[str, str]
) -> None:
    encoder = Encoder.from_tower(make_tower(tower))
    assert kind_of(encoder.tower) == kind
    found = with_rules(AttributionSettings(), encoder)
    assert (found.node_rule.name, found.resolved_edge_rule.name) == rules
    given = AttributionSettings(0.3, rule=left_rule(2))
    assert with_rules(given, encoder) == given
    own = with_rules(AttributionSettings(edge_rule=midpoint_rule(7)), encoder)
    assert (own.node_rule.name, own.resolved_edge_rule.name) == (rules[0], "midpoint-7")
    assert found.size == CHANNELS
    assert (
        with_rules(AttributionSettings(), in_components(encoder)).size
        == DEFAULT_SIZES[kind]
    )
    if tower == "vit":  # through a stream edges have one gradient
        assert with_rules(
            AttributionSettings(), in_components(encoder)
        ).resolved_edge_rule == left_rule(1)


RULES = (left_rule, midpoint_rule, gauss_legendre_rule, gauss_radau_rule)


def integral(rule: QuadratureRule, power: int) -> float:
    return sum(w * t**power for t, w in zip(rule.points, rule.weights, strict=True))


@given(st.sampled_from(RULES), st.integers(1, 30))
def test_rules_integrate_constants_and_converge_on_powers(
    rule: object, points: int
) -> None:
    made = rule(points)  # type: ignore[operator]
    assert len(made.points) == points
    assert integral(made, 0) == pytest.approx(1)
    assert abs(integral(made, 2) - 1 / 3) <= 0.5 / points


@pytest.mark.parametrize("points", [1, 2, 5])
def test_gauss_legendre_is_exact_up_to_degree_2n_minus_1(points: int) -> None:
    rule = gauss_legendre_rule(points)
    for power in range(2 * points):
        assert integral(rule, power) == pytest.approx(1 / (power + 1))
    assert integral(rule, 2 * points) != pytest.approx(1 / (2 * points + 1), abs=1e-6)


@pytest.mark.parametrize("points", [1, 2, 5])
def test_gauss_radau_starts_at_zero_and_is_exact_up_to_degree_2n_minus_2(
    points: int,
) -> None:
    rule = gauss_radau_rule(points)
    assert rule.points[0] == 0
    for power in range(2 * points - 1):
        assert integral(rule, power) == pytest.approx(1 / (power + 1))
    assert integral(rule, 2 * points - 1) != pytest.approx(1 / (2 * points), abs=1e-6)


def test_two_gauss_radau_points_by_hand() -> None:
    rule = gauss_radau_rule(2)
    assert rule.points == pytest.approx((0, 2 / 3))
    assert rule.weights == pytest.approx((1 / 4, 3 / 4))


def test_the_study_rule_starts_at_the_clean_activation_and_never_reaches_the_baseline() -> (
    None
):
    assert left_rule(4).points == (0, 0.25, 0.5, 0.75)
    assert midpoint_rule(2).points == (0.25, 0.75)


@pytest.mark.parametrize(
    "name", ["left-10", "midpoint-4", "gauss-legendre-8", "gauss-radau-5"]
)
def test_names_are_parsed_back(name: str) -> None:
    assert parse_rule(name).name == name


def two_layers() -> Encoder:
    """Input [B,3,1,2] -> 5 units -> 2: forward 2 (6 x 5) = 60, then 2 (5 x 2) = 20 operations an image."""
    first, last = torch.randn(6, 5), torch.randn(5, 2)
    stages = (
        Stage("hidden", lambda x: x.flatten(1) @ first, 1),
        Stage("out", lambda x: x @ last, 1),
    )
    return Encoder(nn.Linear(1, 1), stages, (1, 2))


def summed(embedding: Tensor) -> Tensor:
    return embedding.sum(1)


@pytest.mark.parametrize("points", [1, 3])
def test_operations_by_hand(points: int) -> None:
    settings = AttributionSettings(rule=midpoint_rule(points), size=0.4, **AS_STUDIED)
    found = count_operations(two_layers(), summed, settings)
    # Nodes: one clean run, one run from the baseline of each site, and for each point forward and backward.
    assert found.nodes == 80 + (80 + 20) + points * 2 * (80 + 20)
    # Edges from 2 of 5 hidden units to 1 of 2: a clean run, then the last stage forward and once backward.
    assert found.edges == 80 + points * (20 + 20)


@pytest.mark.parametrize("units", ["latents", "components"])
def test_an_attribution_takes_what_is_counted(units: str) -> None:
    if units == "latents":
        plain, saes, _, weights = setting("resnet", "relu")
        encoder = in_feature_basis(plain, saes)
    else:
        encoder, weights = (
            ResidualStream.of(Encoder.from_tower(make_tower("vit"))).components,
            torch.eye(16),
        )
    metric = class_logit(weights, 1)
    settings = AttributionSettings(rule=midpoint_rule(2), size=0.2, **AS_STUDIED)
    image = torch.randn(1, 3, *encoder.image_size, dtype=encoder.dtype)
    found = count_operations(encoder, metric, settings)
    with OperationCounter() as answers_to_noise:
        assert encoder.identity
    with OperationCounter() as counter:
        attribute(
            encoder,
            image,
            metric,
            settings.size,
            settings.rule,
            progress=False,
            **AS_STUDIED,
        )
    assert found.nodes + found.edges == counter.total - answers_to_noise.total
    assert min(found) > 0
