"""A transfer table as a comparison: directed, pooled over classes, site by site; and numbers that reports state."""

import pandas as pd
import pytest

from circuitry.interventions import compare_transfer, transfer_matrix
from circuitry.interventions.curves import areas_by_domain, mean_over_depth, nearest_to_a_tenth
from circuitry.interventions.transfer_tables import (
    OTHER,
    OWN,
    lead_of_own_circuits,
    transfer_comparisons,
    transfer_correlations,
)
from tests.reports.sections.test_interventions import SIMILARITY, curves_of, transfers


def table() -> pd.DataFrame:
    """Two classes in two domains, at a site and at all; a circuit's metric depends on both domains and the class."""
    rows = []
    for sites, shift in (("all", 0.0), ("u", 0.25)):
        for i, circuit in enumerate("ab"):
            for j, images in enumerate("ab"):
                for class_name, lead in (("x", 0.8), ("y", 0.01)):
                    metric = lead * (1 - 0.5 * abs(i - j) - 0.1 * i + shift)
                    rows.append((class_name, circuit, images, sites, metric, lead, 0.0, metric / lead))
    metrics = ["metric", "full_metric", "empty_metric", "faithfulness"]
    columns = ["class", "circuit_domain", "image_domain", "sites", *metrics]
    return pd.DataFrame(rows, columns=columns)


def test_a_comparison_of_transfer_is_its_matrix_at_each_site() -> None:
    found = compare_transfer(table())
    assert (found.measure, found.sites, found.alike) == ("transfer_faithfulness", ("u",), True)
    pd.testing.assert_frame_equal(found.matrix(), transfer_matrix(table().query("sites == 'u'")))
    there, back = found.matrix().to_numpy()[[0, 1], [1, 0]]
    assert there != back
    assert found.about == {"n_classes": 2}


def test_all_sites_at_once_are_a_comparison_of_their_own() -> None:
    whole = table().query("sites == 'all'")
    found = compare_transfer(whole)
    assert found.sites == ()
    pd.testing.assert_frame_equal(found.matrix(), transfer_matrix(whole))
    pd.testing.assert_frame_equal(compare_transfer(whole.drop(columns="sites")).matrix(), found.matrix())
    own = found.matrix(normalise=True)
    assert own.loc["a", "b"] == pytest.approx(0.5 / 0.9)  # of what b's own circuits reach on images of b
    assert (own.loc["a", "a"], own.loc["b", "b"]) == (1, 1)


def test_a_pair_without_lead_is_absent() -> None:
    whole = table().query("sites == 'all'")
    weak = whole.assign(full_metric=whole["full_metric"].where(whole["image_domain"] == "a", 0.0))
    found = compare_transfer(weak)
    assert set(found.values["domain_b"]) == {"a"}
    assert found.matrix()["b"].isna().all()


def test_leads_by_site() -> None:
    depth = [(OWN, "x", 0.5), (OTHER, "x", 0.75), (OWN, "y", 0.5), (OTHER, "y", 0.25), (OWN, "z", 0.5)]
    table = pd.DataFrame(depth, columns=["domain", "site", "value"])
    lead = lead_of_own_circuits(table.assign(low=table["value"] - 0.1, high=table["value"] + 0.1))
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
    assert correlations["selectivity: p"].tolist() == pytest.approx([1 / 3] * 3)  # all orders of three domains
    assert correlations["selectivity: p (Holm)"].tolist() == [1] * 3
    plain = transfer_correlations(table.drop(columns="other_metric"), SIMILARITY)
    assert list(plain) == ["sites", "faithfulness: rho", "faithfulness: p", "faithfulness: p (Holm)", "pairs"]


def test_transfer_is_a_comparison_where_the_model_has_a_lead() -> None:
    whole = table().assign(accuracy=0.5)
    assert {name: one.sites for name, one in transfer_comparisons(whole).items()} == {"transfer_faithfulness": ("u",)}
    assert transfer_comparisons(whole.query("sites == 'all'"))["transfer_faithfulness"].sites == ()
    assert transfer_comparisons(whole.assign(full_metric=0.0)) == transfer_comparisons(None) == {}


def test_the_size_that_is_spoken_of() -> None:
    assert nearest_to_a_tenth((0.001, 0.05, 0.2, 1.0)) == 0.05  # by ratio, the first among equals
    assert nearest_to_a_tenth((0.01, 0.12, 0.5)) == 0.12


def test_areas_are_of_their_ranking() -> None:
    table = areas_by_domain(curves_of(0.2)).set_index(["domain", "measure", "circuit"])
    # Between a tenth and all: CPR (0.75 + 1) / 2 * 0.9; CMD 0.25 / 2 * 0.9.
    assert table.loc[("real", "CPR", "kept"), "value"] == pytest.approx(1.75 / 2 * 0.9)
    assert table.loc[("real", "CMD", "kept"), "value"] == pytest.approx(0.25 / 2 * 0.9)
    assert set(zip(table.index.get_level_values("measure"), table["ranking"], strict=True)) == {
        ("CPR", "signed"),
        ("CMD", "absolute"),
    }
    signed = [curve for curve in curves_of(0.2) if curve.ranking == "signed"]
    assert set(areas_by_domain(signed)["measure"]) == {"CPR"}
    assert areas_by_domain([]).empty


def test_means_by_site() -> None:
    rows = [(d, s, c, v) for d, shift in (("a", 0), ("b", 0.2)) for s, c, v in (("y", "kept", shift), ("x", "kept", 1))]
    rows += [("a", "y", "random", 0.5), ("a", "x", "random", 0.0), ("a", "x", "complement", 9.0)]
    means = mean_over_depth(pd.DataFrame(rows, columns=["domain", "sites", "circuit", "value"]))
    assert means.index.tolist() == ["y", "x"]  # the order of the table
    assert means["kept"].tolist() == pytest.approx([0.1, 1])
    assert means["random"].tolist() == [0.5, 0]
