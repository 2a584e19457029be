"""Transfer and interchange on a network whose circuits are known, and the numbers that reports state of them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from circuitry import AttributionGraph, Circuit, Encoder, InputError, Task, class_logit
from circuitry.comparison.one_site_reading import (
    OTHER_CIRCUITS,
    OWN_CIRCUIT,
    lead_of_own_circuits,
    mean_over_depth,
)
from circuitry.encoder import Baseline, Stage
from circuitry.interventions import (
    compare_transfer,
    interchange,
    transfer_against_similarity,
    transfer_circuits,
    transfer_matrix,
    transfer_over_depth,
)
from circuitry.interventions.curves import areas_by_domain
from circuitry.interventions.transfer_tables import (
    transfer_comparisons,
    transfer_correlations,
)
from tests.reports.sections.test_interventions import SIMILARITY, curves_of, transfers
from tests.support.circuits import curve_of
from tests.support.differences import assert_same_differences, rounding_of
from tests.support.work import QUIET


def encoder() -> Encoder:
    """Input [B,3,1,1] = units of site `u`; embedding (u0 + u1, u2): class 0 is the first axis, class 1 the second."""
    stages = (
        Stage("u", lambda x: x.flatten(1), 1),
        Stage("embedding", lambda u: torch.stack([u[:, 0] + u[:, 1], u[:, 2]], 1), 1),
    )
    return Encoder(nn.Linear(1, 1), stages, (1, 1))


def circuit(units: list[int], embedding: tuple[int, ...] = (0, 1)) -> Circuit:
    scores = {"input": np.zeros(3), "u": np.zeros(3), "embedding": np.zeros(2)}
    kept = {
        "input": np.array([0]),
        "u": np.array(units, int),
        "embedding": np.array(embedding, int),
    }
    return AttributionGraph(tuple(scores), scores, {}, 1, kept_units=kept).circuit(None)


def pixels(*values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float)[:, :, None, None]


PAIRS = [
    ("photo", "photo"),
    ("sketch", "photo"),
    ("photo", "sketch"),
    ("sketch", "sketch"),
]
"""Domains of the circuit and of the images."""
WEIGHTS = torch.eye(2)
# The class shows as u0 in photos and as u1 in sketches; u2 speaks for the other class.
IMAGES = {
    ("cat", "photo"): pixels((4.0, 0, 3), (4, 0, 3)),
    ("cat", "sketch"): pixels((0.0, 4, 3), (0, 4, 3), (0, 3, 4)),
}
CIRCUITS = {("cat", "photo"): circuit([0, 2]), ("cat", "sketch"): circuit([1, 2])}


def tasks(
    images: dict[tuple[str, str], Tensor] = IMAGES,
    weights: dict[str, Tensor] | None = None,
    others: dict[tuple[str, str], Tensor] | None = None,
    **given: Any,
) -> dict[tuple[str, str], Task]:
    found = {}
    for key, own in images.items():
        metric = class_logit(WEIGHTS if weights is None else weights[key[1]], 0)
        found[key] = Task(
            encoder(),
            own,
            metric,
            others=None if others is None else others[key],
            work=QUIET,
            **given,
        )
    return found


def cells(table: pd.DataFrame, column: str) -> dict[tuple[str, str], object]:
    keys = zip(table["circuit_domain"], table["image_domain"], strict=True)
    return dict(zip(keys, table[column], strict=True))


def test_circuits_of_other_sizes_and_without_units_transfer() -> None:
    circuits = {("cat", "photo"): circuit([0, 1, 2]), ("cat", "sketch"): circuit([])}
    table = transfer_circuits(tasks(), circuits)
    assert cells(table, "faithfulness") == dict(zip(PAIRS, (1, 0, 1, 0), strict=True))
    moved = interchange(tasks(), circuits)
    assert cells(moved, "change")["sketch", "photo"] == pytest.approx(
        cells(moved, "random_change")["sketch", "photo"]
    )


def test_hand_worked_transfer() -> None:
    table = transfer_circuits(tasks(), CIRCUITS)
    # Cosines 4/5 in photos, (4/5 + 4/5 + 3/5) / 3 in sketches; with the other domain's circuit only u2 is left: 0.
    assert cells(table, "faithfulness") == dict(zip(PAIRS, (1, 0, 0, 1), strict=True))
    assert cells(table, "accuracy")["sketch", "sketch"] == pytest.approx(2 / 3)
    assert cells(table, "accuracy")["photo", "photo"] == 1
    assert cells(table, "accuracy")["photo", "sketch"] == 0
    assert cells(table, "full_metric")["photo", "sketch"] == pytest.approx(11 / 15)
    assert set(table["empty_metric"]) == {0}
    assert table["n_images"].tolist() == [2, 2, 3, 3]
    matrix = transfer_matrix(table)
    assert matrix.to_numpy().tolist() == [[1, 0], [0, 1]]
    assert (matrix.index.name, matrix.columns.name) == ("circuit of", "images of")
    assert transfer_matrix(table, "n_images").loc["photo", "sketch"] == 3


def test_hand_worked_interchange() -> None:
    images = {
        ("cat", "photo"): pixels((3.0, 0, 4)),
        ("cat", "sketch"): pixels((0.0, 4, 3), (0, 4, 3)),
    }
    alone = {("cat", "photo"): circuit([0], ()), ("cat", "sketch"): circuit([1], ())}
    table = interchange(tasks(images), alone)
    change = cells(table, "change")
    assert change["photo", "photo"] == 0  # a single image has no other partner
    assert change["sketch", "sketch"] == pytest.approx(
        0, abs=rounding_of([1])
    )  # cosines
    # u1 = 4 put into the photo (3, 0, 4): cosine 7 / sqrt(65) for 3/5; u0 = 3 into the sketch: 7 / sqrt(58) for 4/5.
    moved = [change["sketch", "photo"], change["photo", "sketch"]]
    assert_same_differences(moved, [7 / 65**0.5 - 0.6, 7 / 58**0.5 - 0.8], of=[1])
    assert cells(table, "full_accuracy")["sketch", "photo"] == 0
    assert cells(table, "accuracy")["sketch", "photo"] == 1
    pd.testing.assert_frame_equal(table, interchange(tasks(images), alone))
    controls = [
        interchange(tasks(images), alone, seed=seed)["random_change"]
        for seed in range(8)
    ]
    assert len({tuple(c.round(6)) for c in controls}) > 1


def test_no_lead_and_missing_pairs() -> None:
    # A baseline that is better at the class than the images are.
    better = Baseline(
        "better",
        {"u": torch.tensor([[1.0, 1, 0]]), "embedding": torch.tensor([[1.0, 0]])},
    )
    table = transfer_circuits(tasks(baseline=better), CIRCUITS)
    assert table["faithfulness"].isna().all()
    assert (
        table["reason"]
        .str.startswith("the model does no better than the baseline: 0.8 against 1")
        .iloc[0]
    )
    only_photos = {("cat", "photo"): IMAGES["cat", "photo"]}
    assert len(transfer_circuits(tasks(only_photos), CIRCUITS)) == 2
    pairs = interchange(tasks(only_photos), CIRCUITS)
    assert pairs["circuit_domain"].tolist() == ["photo"]
    dogs = {("dog", "photo"): pixels((1, 1, 1))}
    with pytest.raises(InputError, match="there is none"):
        transfer_circuits(tasks(dogs), CIRCUITS)


def square(values: list[list[float]]) -> pd.DataFrame:
    names = ["a", "b", "c"]
    return pd.DataFrame(values, index=names, columns=names)


def test_rank_correlation_with_similarity() -> None:
    nan = float("nan")
    similarity = square([[nan, 0.1, 0.2], [0.1, nan, 0.3], [0.2, 0.3, nan]])
    one_way = square(
        [[1, 0.0, 0.9], [0.6, 1, 0.9], [0.1, 0.9, 1]]
    )  # both ways: ab 0.3, ac 0.5, bc 0.9
    rho, _, points = transfer_against_similarity(one_way, similarity)
    assert rho == pytest.approx(1)
    assert points["transfer"].tolist() == pytest.approx([0.3, 0.5, 0.9])
    assert points["similarity"].tolist() == [0.1, 0.2, 0.3]
    flat = square([[1, 0.5, 0.5], [0.5, 1, 0.5], [0.5, 0.5, 1]])
    assert np.isnan(transfer_against_similarity(flat, similarity)[0])
    with pytest.raises(InputError, match="a, b, c and of a, b"):
        transfer_against_similarity(flat, similarity.iloc[:2, :2])
    with pytest.raises(InputError, match=r"'reason'.*faithfulness, metric"):
        transfer_matrix(transfer_circuits(tasks(), CIRCUITS), "reason")


def test_images_of_other_classes() -> None:
    others = {
        ("cat", "photo"): pixels((0.0, 0, 5)),
        ("cat", "sketch"): pixels((0.0, 4, 0), (0, 0, 5)),
    }
    table = transfer_circuits(tasks(others=others), CIRCUITS)
    assert cells(table, "other_metric")["photo", "photo"] == 0
    assert cells(table, "other_metric")["sketch", "sketch"] == pytest.approx(0.5)
    assert (
        cells(table, "other_accuracy")["sketch", "sketch"] == 0.5
    )  # (0, 4, 0) is taken for the class
    assert cells(table, "other_full_accuracy")["sketch", "photo"] == 0
    selectivity = transfer_matrix(table, "selectivity")
    assert selectivity.loc["photo", "photo"] == pytest.approx(0.8 / 0.8)
    assert selectivity.loc["sketch", "sketch"] == pytest.approx(1)
    assert selectivity.loc["sketch", "photo"] == 0
    last = transfer_circuits(tasks(others=others, sites=["embedding"]), CIRCUITS)
    assert transfer_matrix(last).to_numpy().tolist() == [
        [1, 1],
        [1, 1],
    ]  # both keep the whole embedding
    both = pd.concat([table.assign(sites="u"), table.assign(sites="all")])
    depth = transfer_over_depth(both)
    assert depth[["domain", "site", "value"]].to_numpy().tolist() == [
        [OWN_CIRCUIT, "u", pytest.approx(1)],
        [OTHER_CIRCUITS, "u", 0],
    ]
    assert depth["n_classes"].tolist() == [1, 1]
    assert depth["low"].isna().all()
    two = pd.concat(
        [both, both.assign(**{"class": "dog"}, metric=0.0, other_metric=0.0)]
    )
    assert transfer_over_depth(two)["value"].tolist() == pytest.approx([0.5, 0])
    bands = transfer_over_depth(two).iloc[0]
    assert (bands["low"], bands["high"]) == (0, pytest.approx(1))
    with pytest.raises(InputError, match="'selectivity'"):
        transfer_matrix(table.drop(columns="other_metric"), "selectivity")


def test_a_weak_class_does_not_dominate() -> None:
    row = {
        "circuit_domain": "a",
        "image_domain": "a",
        "empty_metric": 0.0,
        "reason": "",
        "faithfulness": 0.0,
    }
    table = pd.DataFrame(
        [
            row | {"class": "x", "metric": 0.8, "full_metric": 0.8},
            row | {"class": "y", "metric": 0.1, "full_metric": 0.01},
        ]
    )
    assert transfer_matrix(table).loc["a", "a"] == pytest.approx(
        0.9 / 0.81
    )  # not the mean of 1 and 10


def test_a_baseline_has_one_image_for_all_or_one_for_every_image_and_other() -> None:
    expected = transfer_circuits(tasks(), CIRCUITS)
    one = tasks(baseline=pixels((0, 0, 0)))
    pd.testing.assert_frame_equal(transfer_circuits(one, CIRCUITS), expected)
    key = ("cat", "photo")
    baseline, photos = pixels((0, 1, 0), (0, 0, 0), (4, 0, 3)), {key: IMAGES[key]}
    table = transfer_circuits(
        tasks(photos, others={key: pixels((0, 4, 3))}, baseline=baseline), CIRCUITS
    )
    # Of the photos (4, 0, 3) with u0 and u2 kept: u0 + u1 is 5 and 4, of the other (0, 4, 3) it is 0; then
    # all of the embedding is kept.
    assert table["metric"][0] == pytest.approx((5 / 34**0.5 + 4 / 5) / 2)
    assert table["other_metric"][0] == 0
    with pytest.raises(InputError, match=r"3 activations.*'input'.*2 images"):
        transfer_circuits(tasks(photos, baseline=baseline), CIRCUITS)


def test_texts_go_by_the_domain_of_the_images() -> None:
    weights = {"photo": WEIGHTS, "sketch": WEIGHTS.flip(0)}
    plain = cells(transfer_circuits(tasks(), CIRCUITS), "full_metric")
    found = cells(transfer_circuits(tasks(weights=weights), CIRCUITS), "full_metric")
    assert found["sketch", "photo"] == plain["sketch", "photo"] == pytest.approx(4 / 5)
    assert found["photo", "sketch"] == pytest.approx(10 / 15)


def table() -> pd.DataFrame:
    """Two classes in two domains, at a site and at all; a circuit's metric depends on both domains and the class."""
    rows = []
    for sites, shift in (("all", 0.0), ("u", 0.25)):
        for i, circuit in enumerate("ab"):
            for j, images in enumerate("ab"):
                for class_name, lead in (("x", 0.8), ("y", 0.01)):
                    metric = lead * (1 - 0.5 * abs(i - j) - 0.1 * i + shift)
                    rows.append(
                        (
                            class_name,
                            circuit,
                            images,
                            sites,
                            metric,
                            lead,
                            0.0,
                            metric / lead,
                        )
                    )
    metrics = ["metric", "full_metric", "empty_metric", "faithfulness"]
    columns = ["class", "circuit_domain", "image_domain", "sites", *metrics]
    return pd.DataFrame(rows, columns=columns)


def test_a_comparison_of_transfer_is_its_matrix_at_each_site() -> None:
    found = compare_transfer(table())
    assert (found.measure, found.sites, found.alike) == (
        "transfer_faithfulness",
        ("u",),
        True,
    )
    pd.testing.assert_frame_equal(
        found.matrix(), transfer_matrix(table().query("sites == 'u'"))
    )
    there, back = found.matrix().to_numpy()[[0, 1], [1, 0]]
    assert there != back
    assert found.about == {"n_classes": 2}


def test_all_sites_at_once_are_a_comparison_of_their_own() -> None:
    whole = table().query("sites == 'all'")
    found = compare_transfer(whole)
    assert found.sites == ()
    pd.testing.assert_frame_equal(found.matrix(), transfer_matrix(whole))
    pd.testing.assert_frame_equal(
        compare_transfer(whole.drop(columns="sites")).matrix(), found.matrix()
    )
    own = found.matrix(normalise=True)
    assert own.loc["a", "b"] == pytest.approx(
        0.5 / 0.9
    )  # of what b's own circuits reach on images of b
    assert (own.loc["a", "a"], own.loc["b", "b"]) == (1, 1)


def test_a_pair_without_lead_is_absent() -> None:
    whole = table().query("sites == 'all'")
    weak = whole.assign(
        full_metric=whole["full_metric"].where(whole["image_domain"] == "a", 0.0)
    )
    found = compare_transfer(weak)
    assert set(found.values["domain_b"]) == {"a"}
    assert found.matrix()["b"].isna().all()


def test_leads_by_site() -> None:
    depth = [
        (OWN_CIRCUIT, "x", 0.5),
        (OTHER_CIRCUITS, "x", 0.75),
        (OWN_CIRCUIT, "y", 0.5),
        (OTHER_CIRCUITS, "y", 0.25),
        (OWN_CIRCUIT, "z", 0.5),
    ]
    table = pd.DataFrame(depth, columns=["domain", "site", "value"])
    lead = lead_of_own_circuits(
        table.assign(low=table["value"] - 0.1, high=table["value"] + 0.1)
    )
    assert lead is not None
    own, other, by_site, n_apart = lead
    assert list(by_site.items()) == [("y", 0.25), ("x", -0.25)]
    assert (own, other, n_apart) == (0.5, 0.5, 1)
    assert lead_of_own_circuits(table.assign(low=0.0, high=1.0).iloc[:1]) is None


def test_correlations_site_by_site() -> None:
    table = pd.concat([transfers("all", 0.0), transfers("a", 0.0), transfers("b", 0.1)])
    correlations = transfer_correlations(table, SIMILARITY)
    assert correlations["sites"].tolist() == ["all", "a", "b"]
    assert correlations["selectivity: rho"].tolist() == pytest.approx([1, 1, 1])
    assert correlations["selectivity: p"].tolist() == pytest.approx(
        [1 / 3] * 3
    )  # all orders of three domains
    assert correlations["selectivity: p (Holm)"].tolist() == [1] * 3
    plain = transfer_correlations(table.drop(columns="other_metric"), SIMILARITY)
    assert list(plain) == [
        "sites",
        "faithfulness: rho",
        "faithfulness: p",
        "faithfulness: p (Holm)",
        "pairs",
    ]


def test_transfer_is_a_comparison_where_the_model_has_a_lead() -> None:
    whole = table().assign(accuracy=0.5)
    assert {name: one.sites for name, one in transfer_comparisons(whole).items()} == {
        "transfer_faithfulness": ("u",)
    }
    assert (
        transfer_comparisons(whole.query("sites == 'all'"))[
            "transfer_faithfulness"
        ].sites
        == ()
    )
    assert (
        transfer_comparisons(whole.assign(full_metric=0.0))
        == transfer_comparisons(None)
        == {}
    )


def test_the_size_that_is_spoken_of() -> None:
    curve = curve_of(np.ones((4, 2)), (0.001, 0.05, 0.2, 1.0))
    assert curve.size == 0.05  # a tenth, by ratio, the first among equals
    assert replace(curve, settings={"size": 0.3}).size == 0.2


def test_areas_are_of_their_ranking() -> None:
    table = areas_by_domain(curves_of(0.2)).set_index(["domain", "measure", "circuit"])
    # Between a tenth and all: CPR (0.75 + 1) / 2 * 0.9; CMD 0.25 / 2 * 0.9.
    assert table.loc[("real", "CPR", "kept"), "value"] == pytest.approx(1.75 / 2 * 0.9)
    assert table.loc[("real", "CMD", "kept"), "value"] == pytest.approx(0.25 / 2 * 0.9)
    assert set(
        zip(table.index.get_level_values("measure"), table["ranking"], strict=True)
    ) == {
        ("CPR", "signed"),
        ("CMD", "absolute"),
    }
    signed = [curve for curve in curves_of(0.2) if curve.ranking == "signed"]
    assert set(areas_by_domain(signed)["measure"]) == {"CPR"}
    assert areas_by_domain([]).empty


def test_means_by_site() -> None:
    rows = [
        (d, s, c, v)
        for d, shift in (("a", 0), ("b", 0.2))
        for s, c, v in (("y", "kept", shift), ("x", "kept", 1))
    ]
    rows += [
        ("a", "y", "random", 0.5),
        ("a", "x", "random", 0.0),
        ("a", "x", "complement", 9.0),
    ]
    means = mean_over_depth(
        pd.DataFrame(rows, columns=["domain", "sites", "circuit", "value"])
    )
    assert means.index.tolist() == ["y", "x"]  # the order of the table
    assert means["kept"].tolist() == pytest.approx([0.1, 1])
    assert means["random"].tolist() == [0.5, 0]


def test_a_metric_without_candidate_classes_has_no_accuracies() -> None:
    plain = {
        key: replace(task, metric=lambda e: e[:, 0]) for key, task in tasks().items()
    }
    for function in (transfer_circuits, interchange):
        assert function(plain, CIRCUITS)["accuracy"].isna().all()
