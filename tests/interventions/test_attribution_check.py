"""Attribution against patching: exact where it must be, honest where it is not."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from circuitry import Encoder, InputError, Task, attribute, class_logit, left_rule, mean_baseline, midpoint_rule
from circuitry.bases import in_feature_basis
from circuitry.interventions import AttributionCheck, check_attribution, compare_rules
from tests.interventions.test_patching import linear_encoder
from tests.support.feature_bases import setting
from tests.support.towers import make_tower
from tests.support.work import QUIET


def third(e: Tensor) -> Tensor:
    return e[:, 2]


def test_a_linear_network_correlates_perfectly() -> None:
    encoder = linear_encoder()
    images = torch.randn(3, 3, 6, 6)
    graph = attribute(encoder, images, third, rule=left_rule(1), progress=False)
    check = check_attribution(Task(encoder, images, third, work=QUIET), graph, top=3, random=4)
    assert check.points["exact"].to_numpy() == pytest.approx(check.points["attributed"].to_numpy())
    table = check.to_pandas().set_index(["site", "sample"])
    assert table.loc[("first", "top"), "pearson"] == pytest.approx(1)
    assert table.loc[("second", "random"), "spearman"] == pytest.approx(1)
    assert table.loc[("first", "random"), "n_units"] == 4
    top = check.points.query("site == 'first' and top")["unit"]
    assert set(top) == set(np.argsort(-np.abs(graph.node_scores["first"]))[:3])


def test_hand_worked_scores_across_sites() -> None:
    rows = [
        ("input", 0, 9.0, 9.0, True),
        ("early", 0, 4.0, 1.0, True),
        ("early", 1, -4.0, -3.0, True),
        ("early", 2, 9.0, 9.0, False),
        ("late", 0, 1.0, 2.0, True),
        ("late", 1, 0.0, 0.0, True),
        ("late", 2, 1.0, -6.0, True),
    ]
    points = pd.DataFrame(rows, columns=["site", "unit", "attributed", "exact", "random"]).assign(top=True)
    found = AttributionCheck(points).across_sites()
    expected = {"site": ["early", "late"], "n_units": [2, 3], "exact_per_score": [0.5, 4.0]}
    expected |= {"strongest_by_score": [1, 0], "strongest_by_exact": [0, 1]}  # one unit of five
    assert found.to_dict("list") == expected


def test_samples_are_seeded_and_more_points_agree_better() -> None:
    encoder = Encoder.from_tower(make_tower("resnet"))
    images = torch.randn(3, 3, 64, 64)
    metric = class_logit(F.normalize(torch.randn(3, 16), dim=-1), 1)
    baseline = mean_baseline(encoder, [torch.randn(4, 3, 64, 64)])
    sites = ["layer2.0", "layer4.0"]
    graph = attribute(encoder, images, metric, rule=midpoint_rule(10), baseline=baseline, sites=sites, progress=False)
    task = Task(encoder, images, metric, baseline=baseline, work=QUIET)
    one, same = (check_attribution(task, graph, top=5, random=10) for _ in range(2))
    pd.testing.assert_frame_equal(one.points, same.points)
    assert one.points.groupby("site")[["top", "random"]].sum().to_numpy().tolist() == [[5, 10], [5, 10]]
    assert one.to_pandas()["pearson"].min() > 0.5
    with pytest.raises(InputError, match=r"'mean-position'.*'zero'"):
        check_attribution(Task(encoder, images, metric, work=QUIET), graph)
    with pytest.raises(InputError, match="top=0 and random=0"):
        check_attribution(task, graph, top=0, random=0)


def test_correlation_of_known_points() -> None:
    points = pd.DataFrame(
        {"site": "a", "unit": range(4), "top": [True, True, False, False], "random": True}
        | {"attributed": [0.0, 1, 2, 3], "exact": [0.0, 1, 4, 9]}
    )
    table = AttributionCheck(points).to_pandas()
    assert table["n_units"].tolist() == [2, 4]
    assert np.isnan(table["pearson"][0])
    # x - 1.5 = -1.5 -0.5 0.5 1.5 (sum of squares 5), y - 3.5 = -3.5 -2.5 0.5 5.5 (49): 15 / sqrt(245).
    assert table["pearson"][1] == pytest.approx(15 / 245**0.5)
    assert table["spearman"][1] == pytest.approx(1)


def test_rules_are_compared_with_every_unit_patched() -> None:
    encoder = linear_encoder()
    images = torch.randn(3, 3, 6, 6)
    rules = {"one": left_rule(1), "two": midpoint_rule(2)}
    table = compare_rules(Task(encoder, images, third, work=QUIET), rules)
    assert table["rule"].unique().tolist() == ["one", "two"]
    assert set(table["sample"]) == {"all", "top"}
    assert table[table["n_units"] > 2]["pearson"].to_numpy() == pytest.approx(1)  # a linear network


def test_in_a_feature_basis_the_nodes_are_latents_alone() -> None:
    plain, saes, images, weights = setting("resnet", "relu", n=2)
    encoder, site = in_feature_basis(plain, saes), plain.sites[-1]
    metric, n_latents = class_logit(weights, 1), saes[site].n_features
    task = Task(encoder, images, metric, sites=[site], work=QUIET)
    graph = attribute(encoder, images, metric, rule=left_rule(2), sites=[site], progress=False)
    points = check_attribution(task, graph, top=n_latents, random=n_latents).points
    assert points["unit"].tolist() == list(range(n_latents))
    latent = int(np.argmax(np.abs(points["exact"])))
    with torch.no_grad():
        activation = encoder(images, stop=site)
        without = activation.clone()
        without[:, latent] = 0
        lost = metric(encoder(activation, start=site)) - metric(encoder(without, start=site))
    assert points["exact"][latent] == pytest.approx(float(lost.mean()))
    table = compare_rules(task, {"left 2": left_rule(2)}).set_index("sample")
    assert table.loc["all", "n_units"] == n_latents
    expected = np.corrcoef(points["attributed"], points["exact"])[0, 1]
    assert table.loc["all", "pearson"] == pytest.approx(expected)
