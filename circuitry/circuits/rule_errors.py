"""The errors of quadrature rules on one circuit, site by site, against a rule with many points."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch

from circuitry.circuits.budgets import strongest_units
from circuitry.circuits.circuit_settings import AttributionSettings
from circuitry.circuits.edge_methods import score_edges
from circuitry.circuits.nodes import node_effects, nodes_of
from circuitry.circuits.quadrature import QuadratureRule, gauss_legendre_rule, midpoint_rule
from circuitry.encoder.sites import INPUT
from circuitry.encoder.task import Task
from circuitry.encoder.tower_digest import check_same_weights
from circuitry.runs.given import checked

REFERENCE = midpoint_rule(40)
"""What is taken for exact: twice as many points as any candidate has."""
SECOND_REFERENCE = gauss_legendre_rule(40)
"""What the reference must agree with: as many points, much nearer to the ends of the path."""


class RuleErrors:
    """The errors of rules on one circuit, site by site.

    Args:
        task: What the circuit is of; all images take part.
        settings: Their share of units, rule of edges and precision are taken.
        reference: The rule that is taken for exact.

    Example:
        >>> errors = RuleErrors(Task(encoder, images, class_logit(weights, 0)))
        >>> errors.nodes(midpoint_rule(5))["layer3.0"]
    """

    @checked
    def __init__(
        self, task: Task, settings: AttributionSettings | None = None, reference: QuadratureRule = REFERENCE
    ) -> None:
        self.progress = task.work.progress
        self.task = replace(task, work=replace(task.work, progress=False))
        self.settings = settings or AttributionSettings()
        self.reference, self.n_images = reference, 0
        self._model = task.encoder.digest

    @checked
    def nodes(self, rule: QuadratureRule) -> dict[str, float]:
        """Return the relative error of a rule by site; sites without any effect are left out."""
        return self.compare_nodes(rule)[0]

    @checked
    def compare_nodes(self, rule: QuadratureRule) -> tuple[dict[str, float], dict[str, float]]:
        """Return `nodes`, and by site the share of the kept units that the reference keeps too."""
        scores, exact = self._score_nodes(rule), self._exact_nodes
        kept = self._keep(scores)
        alike = {site: float(np.isin(kept[site], units).mean()) for site, units in self._kept.items()}
        return _relative_errors(scores, exact), alike

    @checked
    def edges(self, rule: QuadratureRule) -> dict[str, float]:
        """Return the relative error of a rule by pair of sites, named ``upstream->downstream``."""
        return _relative_errors(self._score_edges(rule), self._exact_edges)

    @cached_property
    def asked_at(self) -> tuple[str, ...]:
        """Sites of nodes where the integral converges: not the image, nor where half of the path changes nothing."""
        task, sites = self.task, [site for site in self.task.sites if site != INPUT]
        with task.running():
            batch = next(task.batches())
            clean = batch.clean(sites)
            ends = batch.ends(clean)
            value = task.metric(task.encoder(batch.images))
            halves = {s: task.metric(task.encoder(clean[s].lerp(ends[s], 0.5), start=s)) for s in sites}
        rounding = 100 * torch.finfo(value.dtype).eps * float(value.abs().max())
        return tuple(site for site in sites if float((halves[site] - value).abs().max()) > rounding)

    @cached_property
    def _exact_nodes(self) -> dict[str, np.ndarray]:
        return self._score_nodes(self.reference)

    @cached_property
    def _kept(self) -> dict[str, np.ndarray]:
        return self._keep(self._exact_nodes)

    @cached_property
    def _exact_edges(self) -> dict[str, np.ndarray]:
        return self._score_edges(self.reference)

    def _keep(self, scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return strongest_units(scores, self.settings.node_fraction, self.settings.budget)

    def _score_nodes(self, rule: QuadratureRule) -> dict[str, np.ndarray]:
        with self._running():
            found = node_effects(self.task, rule, self.settings.autocast)
        self.n_images = found.n_images
        return nodes_of(self.task.encoder, found.scores)

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Run the task with gradients, as long as the model is that of the reference."""
        with self.task.running(gradients=True):
            check_same_weights(self._model, self.task.encoder.digest, "a reference of rules")
            yield

    def _score_edges(self, rule: QuadratureRule) -> dict[str, np.ndarray]:
        with self._running():
            found = score_edges(self.task, self._kept, method=self.settings.edges, rule=rule).scores
        return {f"{up}->{down}": scores for (up, down), scores in found.items()}


def _relative_errors(found: Mapping[str, np.ndarray], exact: Mapping[str, np.ndarray]) -> dict[str, float]:
    norms = {place: np.linalg.norm(scores) for place, scores in exact.items()}
    return {place: float(np.linalg.norm(found[place] - exact[place]) / norm) for place, norm in norms.items() if norm}
