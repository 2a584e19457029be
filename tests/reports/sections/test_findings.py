"""The answers at the top of reports, on tables worked out by hand."""

from dataclasses import replace

import pandas as pd

from circuitry.comparison.order_stability import ORDERS
from circuitry.interventions.transfer_tables import OTHER, OWN
from circuitry.reports.sections.findings import (
    class_or_domain,
    how_much_shared,
    kept_beats_random,
    own_circuits_lead,
    structure_predicts,
    what_changes,
    what_is_read_off,
    which_differs,
)
from circuitry.study.sections.relations import relation_findings
from tests.comparison.similarities import similarities
from tests.reports.sections.test_compared import edges, table


def test_how_much_is_shared_says_the_ratio_with_its_interval() -> None:
    comparison = similarities()
    claim, certainty, refutation = how_much_shared(comparison)
    mean, (low, high) = comparison.mean_ratio()
    assert f"{mean:.2f} [{low:.2f}, {high:.2f}] of what two samples of one domain share" in claim
    ratios = comparison.ratios()
    assert abs(mean - ratios["value"].mean()) < 1e-12  # three pairs: the mean of ratios
    assert f"{int((ratios['high'] < 1).sum())} of 3 intervals lie below 1" in certainty
    assert "about this trained model" in certainty
    assert "Another checkpoint" in refutation


def test_a_ratio_whose_interval_reaches_one_cannot_be_told() -> None:
    # Domains of which one is a copy of the other: parts of both are as alike as parts of one.
    comparison = similarities()
    parts = comparison.parts
    same = parts[(parts["domain_a"] == "d0") & (parts["domain_b"] == "d0") & (parts["class_a"] == parts["class_b"])]
    both = pd.concat([same, same.rename(columns={"part_a": "part_b", "part_b": "part_a"})])
    copies = [same.assign(domain_a="d1", domain_b="d1"), both.assign(domain_b="d1")]
    values = comparison.values.query("domain_a == 'd0' and domain_b == 'd1'")
    twice = replace(comparison, values=values, parts=pd.concat([same, *copies]), groups={})
    assert how_much_shared(twice).claim.startswith(
        "Whether two domains share less than two samples of one domain cannot be told: they share 1.00"
    )


def test_pairs_above_their_ceiling_do_not_count_as_below() -> None:
    comparison = similarities(10, ("u",))
    assert "3 pairs lie below their ceiling" in how_much_shared(comparison).certainty
    parts = comparison.parts
    more = parts["value"] + 0.9 * (parts["domain_a"] != parts["domain_b"])
    above = replace(comparison, parts=parts.assign(value=more))
    assert (above.ceiling_tests()["p_holm"] < 0.05).all()
    assert "0 pairs lie below their ceiling" in how_much_shared(above).certainty


def test_without_parts_of_two_domains_there_is_no_ratio() -> None:
    claim, certainty, _ = how_much_shared(edges())
    assert "edge Jaccard index of 0.467; how much that is of what could be shared cannot be told" in claim
    assert "two parts of the same images 0.733" in certainty


def test_the_domain_that_differs_is_named_where_tests_tell_it_apart() -> None:
    # Pairs clipart-real, clipart-sketch, real-sketch; sketch is lowest in each of 16 classes, by nearly the same.
    values = {f"c{i}": [0.8 + i / 1000, 0.2, 0.1 - i / 2000] for i in range(16)}
    claim, certainty, refutation = which_differs(replace(edges(), values=table(values), groups={}))
    assert claim.startswith("sketch is least like the other domains (edge Jaccard index 0.148 [")
    assert "2 of 2 differences from sketch have a corrected p below 0.05 (Holm), about this trained model." in certainty
    assert refutation.startswith("Another checkpoint")


def test_two_classes_cannot_tell_which_domain_differs() -> None:
    claim, certainty, _ = which_differs(edges())
    assert claim == (
        "Which domain is least like the others cannot be told: clipart has the lowest mean edge Jaccard index "
        "(0.325 [0.007, 0.643]), but is told apart from 0 of 2 others."
    )
    assert certainty.endswith("about this trained model; none can be, with as few classes.")
    far = which_differs(replace(edges(), alike=False)).claim
    assert far.startswith("Which domain is farthest from the others cannot be told: real has the highest mean")


def test_the_order_under_other_settings_is_told() -> None:
    rows = [
        ("default", "", 1.0, 1.0, "clipart", "real", 3),
        ("baseline", "mean-position", -0.5, 0.5, "real", "clipart", 3),
        ("rule", "left-10", 1.0, 1.0, "clipart", "real", 3),
    ]
    refutation = which_differs(edges(), pd.DataFrame(rows, columns=list(ORDERS))).refutation
    assert refutation.startswith(
        "Other settings: under 2 of them the order of the domains has a rank correlation of -0.50 (baseline "
        "mean-position) to +1.00 (rule left-10) with this one, and another domain takes this one's place under 1 "
        "(baseline mean-position: real)."
    )


def test_class_and_domain_effects_are_told_or_not() -> None:
    comparison = similarities()
    effects = comparison.class_by_domain().set_index("what")
    finding = class_or_domain(comparison)
    assert finding is not None
    assert f"Being of one class makes alike by {effects['value']['class effect']:.3f} [" in finding.claim
    assert "p 0.031 and" in finding.certainty  # of six classes, 2 / 2^6 at least
    assert class_or_domain(edges()) is None


def curves(kept: tuple[float, float, float], random: tuple[float, float, float]) -> pd.DataFrame:
    rows = [("real", name, 0.1, *values) for name, values in (("kept", kept), ("random", random))]
    return pd.DataFrame(rows, columns=["domain", "circuit", "fraction", "value", "low", "high"])


def test_circuits_beat_random_units_where_intervals_do_not_meet() -> None:
    finding = kept_beats_random(curves((0.8, 0.7, 0.9), (0.1, 0.0, 0.2)), "faithfulness", 0.1)
    assert finding is not None
    assert finding.claim == (
        "With 10% of the units kept at all sites, circuits reach a faithfulness of 0.80 to 0.80 by domain, random "
        "units 0.10 to 0.10."
    )
    assert finding.certainty.startswith("In 1 of 1 domains the 95 % intervals over images do not meet")
    unclear = kept_beats_random(curves((0.8, 0.1, 0.9), (0.1, 0.0, 0.2)), "faithfulness", 0.1)
    assert unclear is not None
    assert unclear.claim.startswith("Whether circuits do better than random units cannot be told.")
    nan = (float("nan"),) * 3
    assert kept_beats_random(curves(nan, nan), "selectivity", 0.1) is None


def test_own_circuits_lead_at_the_sites_where_intervals_do_not_meet() -> None:
    rows = [
        *((OWN, "conv", 0.8, 0.7, 0.9), (OTHER, "conv", 0.4, 0.3, 0.5)),
        *((OWN, "head", 0.6, 0.4, 0.8), (OTHER, "head", 0.5, 0.3, 0.7)),
    ]
    depth = pd.DataFrame(rows, columns=["domain", "site", "value", "low", "high"])
    finding = own_circuits_lead(depth, "selectivity")
    assert finding is not None
    assert finding.claim.endswith(
        "do worse than a domain's own: selectivity 0.45 against 0.70, mean over 2 sites kept one at a time."
    )
    assert "At 1 of 2 sites" in finding.certainty
    assert "+0.40 at conv and +0.10 at head" in finding.certainty
    head = own_circuits_lead(depth[depth["site"] == "head"], "selectivity")
    assert head is not None
    assert "cannot be told" in head.claim
    assert own_circuits_lead(depth.assign(value=float("nan")), "selectivity") is None


def test_structure_predicts_transfer_only_when_corrected_p_says_so() -> None:
    rows = [("conv", 0.9, 0.001, 0.004, 15), ("head", 0.2, 0.5, 0.5, 15)]
    names = ["sites", *(f"selectivity: {name}" for name in ("rho", "p", "p (Holm)")), "pairs"]
    found = pd.DataFrame(rows, columns=names)
    finding = structure_predicts(found, "selectivity")
    assert finding is not None
    assert finding.claim.startswith("What circuits share in structure goes with how they transfer: rank correlation of")
    assert "selectivity +0.90 at conv, over 15 pairs" in finding.claim
    assert "1 of 2 rows below 0.05. About this trained model." in finding.certainty
    unclear = structure_predicts(found.iloc[1:], "selectivity")
    assert unclear is not None
    assert unclear.claim.startswith(
        "Whether what circuits share in structure predicts how they transfer cannot be told"
    )
    assert structure_predicts(found.iloc[:0], "selectivity") is None


def test_probes_are_told_at_the_last_site_and_against_the_first() -> None:
    rows = [
        *(("input", "class", 0.2, 0.1, 0.3, 0.25), ("input", "domain", 0.9, 0.8, 1.0, 0.5)),
        *(("head", "class", 0.8, 0.7, 0.9, 0.25), ("head", "domain", 0.6, 0.5, 0.7, 0.5)),
    ]
    finding = what_is_read_off(pd.DataFrame(rows, columns=["site", "target", "value", "low", "high", "chance"]))
    assert finding.claim == (
        "At head a linear probe reads off the class 0.80 [0.70, 0.90], the domain 0.60 [0.50, 0.70] (balanced "
        "accuracy)."
    )
    assert "guessing: the class 0.25, the domain 0.50; at input: the class 0.20 [0.10, 0.30]" in finding.certainty


def test_a_change_whose_interval_holds_zero_has_no_direction() -> None:
    rows = [("distance", "sketch", -0.5, -0.7, -0.3, 16), ("accuracy", "sketch", 0.1, -0.1, 0.3, 16)]
    change = pd.DataFrame(rows, columns=["measure", "domain", "difference", "low", "high", "n_classes"])
    finding = what_changes(change, "standard", "aligned", "sketch", ["distance", "accuracy"])
    assert finding.claim == (
        "From standard to aligned, sketch changes by: distance -0.50 [-0.70, -0.30], accuracy +0.10 [-0.10, +0.30] "
        "(which way cannot be told)."
    )


def test_relations_over_models_are_told_only_with_enough_of_them() -> None:
    row = {"what": "overlap", "with": "alone", "rho": 0.9, "low": 0.6, "high": 1.0, "least": 0.8, "most": 0.95}
    row |= {"p": 0.001, "p_holm": 0.01, "partial": 0.5, "partial_p": 0.04, "given": "in_domain", "n_models": 12}
    row |= {"note": "", "about": "over 12 models"}
    names = {"overlap": "node overlap", "shift": "shift score"}
    told, nothing = relation_findings(pd.DataFrame([row]), names, "alone", [["overlap"], ["shift"]])
    assert told.claim == (
        "node overlap goes with alone accuracy: rank correlation +0.90 [+0.60, +1.00] for node overlap, over 12 models."
    )
    assert "without one of them +0.80 to +0.95" in told.certainty
    assert "Given in domain: +0.50 (p 0.04)." in told.certainty
    assert nothing.claim == "Whether shift score goes with alone accuracy cannot be told."
    assert nothing.certainty.endswith("over the 12 models with both numbers: one of the two does not vary over them.")
    few = row | {"p_holm": 0.4, "n_models": 4, "note": "cannot be significant with 4 models"}
    (unclear,) = relation_findings(pd.DataFrame([few]), names, "alone", [["overlap"]])
    assert unclear.claim.startswith("Whether node overlap goes with alone accuracy cannot be told")
    assert "cannot be significant with 4 models" in unclear.certainty
    for changed, words in (
        ({"partial": float("nan")}, "Given in domain: unknown."),
        ({"given": ""}, "Nothing is taken"),
    ):
        (finding,) = relation_findings(pd.DataFrame([row | changed]), names, "alone", [["overlap"]])
        assert words in finding.certainty
