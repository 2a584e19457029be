"""Quadrature rules on [0, 1] for path integrals. A rule consists of points and weights.

Integrated gradients average a gradient along the straight line from the clean activation to the baseline. A point of
this line has a number from 0, the clean activation, to 1, the baseline. The rule says at which points the gradient is
evaluated. Sundararajan et al. 2017 (arXiv 1703.01365) use a Riemann sum. The study uses the left Riemann sum with ten
points.

Does not import torch.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, overload

import numpy as np

from circuitry.runs.arguments import between, checked
from circuitry.runs.errors import InputError

Points = Annotated[int, between("1 to 1000 points", 1, 1000, "give one such as 10")]


@checked
@dataclass(frozen=True)
class QuadratureRule:
    """Hold points in [0, 1] and their weights, which sum to one.

    Example:
        >>> trapezoid = circuitry.circuits.QuadratureRule("trapezoid-2", (0.0, 1.0), (0.5, 0.5))
        >>> graph = circuitry.attribute(encoder, images, metric, method="site-path", rule=trapezoid, progress=False)
    """

    HOW_TO_GET: ClassVar = (
        "make one with left_rule(10) and its like, or parse_rule('left-10')"
    )

    name: str
    """Name in tables and provenance, such as ``left-10``."""
    points: tuple[float, ...]
    """Where the gradient is taken: 0 is the clean activation, 1 the baseline."""
    weights: tuple[float, ...]
    """Weight of each point."""

    def __str__(self) -> str:
        return self.name

    def __post_init__(self) -> None:
        as_many = len(self.points) == len(self.weights)
        within = all(0 <= point <= 1 for point in self.points)
        # Not "> 1e-9", because a comparison with NaN is always false.
        sums_to_one = abs(sum(self.weights) - 1) <= 1e-9
        if not (as_many and within and sums_to_one):
            raise InputError(
                f"A quadrature rule needs points within [0, 1] and as many weights, which sum to 1, but {self.name!r} "
                f"has points {self.points} and weights {self.weights}."
            )


@checked
def left_rule(points: Points) -> QuadratureRule:
    """Return the left Riemann rule: t = 0, 1/n, ..., (n-1)/n. The study uses ten points.

    With one point the integral is the gradient times the difference of activations, which is attribution patching
    (arXiv 2310.10348).

    Example:
        >>> left_rule(4).points
        (0.0, 0.25, 0.5, 0.75)
        >>> attribute(encoder, images, metric, rule="left-4")    # the same by its name
    """
    places = tuple(k / points for k in range(points))
    return QuadratureRule(f"left-{points}", places, (1 / points,) * points)


@checked
def midpoint_rule(points: Points) -> QuadratureRule:
    """Return the midpoint rule: t = (k + 1/2)/n for k = 0, ..., n-1.

    Its error falls as 1/n^2, while the error of the left rule falls as 1/n. With few points it may still not be better
    than the left rule: `circuitry.circuits.relative_error` measures how many points a model needs.

    Example:
        >>> midpoint_rule(2).points
        (0.25, 0.75)
        >>> attribute(encoder, images, metric, rule="midpoint-2")    # the same by its name
    """
    places = tuple((k + 0.5) / points for k in range(points))
    return QuadratureRule(f"midpoint-{points}", places, (1 / points,) * points)


@checked
def gauss_legendre_rule(points: Points) -> QuadratureRule:
    """Return the Gauss-Legendre rule, which is exact for polynomials up to degree 2n - 1.

    A cosine logit may turn sharply near an embedding of zero, and then no polynomial approximates it well. In this case
    the midpoint rule is better for node scores.

    Example:
        >>> [round(point, 3) for point in circuitry.circuits.gauss_legendre_rule(2).points]
        [0.211, 0.789]
    """
    # numpy's rule is on [-1, 1], twice as long.
    x, w = np.polynomial.legendre.leggauss(points)
    return QuadratureRule(f"gauss-legendre-{points}", tuple((x + 1) / 2), tuple(w / 2))


@checked
def gauss_radau_rule(points: Points) -> QuadratureRule:
    """Return the Gauss-Radau rule whose first point is t = 0; it is exact for polynomials up to degree 2n - 2.

    The point t = 0 costs almost nothing: one backward pass gives the gradients at the clean activations of all sites,
    and the squared distance that scores the edges of chains (`chain_edges`) has gradient zero there. Like the
    Gauss-Legendre rule, it is inaccurate if a cosine logit turns sharply near zero.

    Example:
        >>> [round(point, 3) for point in circuitry.circuits.gauss_radau_rule(2).points]
        [0.0, 0.667]
    """
    # Imported here, because scipy takes as long to load as everything else together.
    from scipy.special import roots_jacobi

    # On [-1, 1] with the end point -1, the other points are the roots of the Jacobi polynomial for the weight 1 + x.
    # The weight of the end point is 2 / n^2. All weights are halved, because [0, 1] is half as long.
    places = [0.0]
    weights = [1 / points**2]
    if points > 1:
        x, w = roots_jacobi(points - 1, 0, 1)
        places += ((x + 1) / 2).tolist()
        weights += (w / (1 + x) / 2).tolist()
    return QuadratureRule(f"gauss-radau-{points}", tuple(places), tuple(weights))


_RULES = {
    "left": left_rule,
    "midpoint": midpoint_rule,
    "gauss-legendre": gauss_legendre_rule,
    "gauss-radau": gauss_radau_rule,
}
RULE_WORDS = "{" + ",".join(_RULES) + "}-N"
"""How the name of a rule is written, for help pages."""


def parse_rule(name: str) -> QuadratureRule:
    """Return the rule with a name ``kind-points``, such as ``left-10``, ``midpoint-4`` or ``gauss-legendre-8``.

    Example:
        >>> circuitry.circuits.parse_rule("midpoint-2").weights
        (0.5, 0.5)
    """
    # Split at the last hyphen, because names of kinds also contain hyphens.
    kind, _, points = name.rpartition("-")
    if kind not in _RULES or not points.isdecimal():
        examples = ", ".join(f"{known}-10" for known in _RULES)
        raise InputError(
            f"Unknown quadrature rule {name!r}: write a kind and a number of points, such as {examples}."
        )
    return _RULES[kind](int(points))


AnyRule = QuadratureRule | str
"""A rule or its name, which `parse_rule` reads."""


@overload
def as_rule(rule: AnyRule) -> QuadratureRule: ...
@overload
def as_rule(rule: AnyRule | None) -> QuadratureRule | None: ...
def as_rule(rule: AnyRule | None) -> QuadratureRule | None:
    """Return the rule with the given name. A `QuadratureRule` or None is returned unchanged."""
    return parse_rule(rule) if isinstance(rule, str) else rule
