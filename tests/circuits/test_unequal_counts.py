"""Circuits of a global budget, whose sites keep unequal numbers of units, some of them none."""

from typing import Any

import numpy as np
import pytest
import torch

from circuitry import Encoder, attribute, left_rule
from circuitry.bases import in_components
from tests.support.assert_same import assert_same
from tests.support.metrics import product as total
from tests.support.towers import make_tower

RULE = left_rule(2)


@pytest.mark.parametrize(("tower", "components"), [("resnet", False), ("vit", True)])
def test_edges_are_those_between_the_same_units_of_all(tower: str, components: bool) -> None:
    encoder = Encoder.from_tower(make_tower(tower).double())
    encoder = in_components(encoder) if components else encoder
    images = torch.randn(1, 3, *encoder.image_size, dtype=torch.float64)
    sites = encoder.sites[-4:]
    shared: dict[str, Any] = {"rule": RULE, "sites": sites, "baseline": "zero", "progress": False}
    every = attribute(encoder, images, total, 1.0, **shared)
    n_units, order = sum(map(len, every.node_scores.values())), every.kept_units
    cuts = [attribute(encoder, images, total, k / n_units, budget="global", **shared) for k in (2, 8)]
    assert min(map(len, cuts[0].kept_units.values())) == 0
    for cut in cuts:
        assert set(cut.edge_scores) == set(every.edge_scores)
        places = {site: np.argsort(order[site])[units] for site, units in cut.kept_units.items()}
        expected = {pair: every.edge_scores[pair][np.ix_(places[pair[1]], places[pair[0]])] for pair in cut.edge_scores}
        found, by_all = (np.concatenate([s.ravel() for s in scores.values()]) for scores in (cut.edge_scores, expected))
        if len(found):
            assert_same(found, by_all, at_least=1e-12)
    assert len(found)
