import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuitry import left_rule, midpoint_rule
from circuitry.circuits import QuadratureRule, gauss_legendre_rule, gauss_radau_rule, parse_rule

RULES = (left_rule, midpoint_rule, gauss_legendre_rule, gauss_radau_rule)


def integral(rule: QuadratureRule, power: int) -> float:
    return sum(w * t**power for t, w in zip(rule.points, rule.weights, strict=True))


@given(st.sampled_from(RULES), st.integers(1, 30))
def test_rules_integrate_constants_and_converge_on_powers(rule: object, points: int) -> None:
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
def test_gauss_radau_starts_at_zero_and_is_exact_up_to_degree_2n_minus_2(points: int) -> None:
    rule = gauss_radau_rule(points)
    assert rule.points[0] == 0
    for power in range(2 * points - 1):
        assert integral(rule, power) == pytest.approx(1 / (power + 1))
    assert integral(rule, 2 * points - 1) != pytest.approx(1 / (2 * points), abs=1e-6)


def test_two_gauss_radau_points_by_hand() -> None:
    rule = gauss_radau_rule(2)
    assert rule.points == pytest.approx((0, 2 / 3))
    assert rule.weights == pytest.approx((1 / 4, 3 / 4))


def test_the_study_rule_starts_at_the_clean_activation_and_never_reaches_the_baseline() -> None:
    assert left_rule(4).points == (0, 0.25, 0.5, 0.75)
    assert midpoint_rule(2).points == (0.25, 0.75)


@pytest.mark.parametrize("name", ["left-10", "midpoint-4", "gauss-legendre-8", "gauss-radau-5"])
def test_names_are_parsed_back(name: str) -> None:
    assert parse_rule(name).name == name
