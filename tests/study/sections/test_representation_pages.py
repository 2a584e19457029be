"""Tables of CKA become comparisons."""

import pandas as pd
import pytest

from circuitry.comparison import FOLDS
from experiments.representations.similarity import RepresentationSimilarity

SITES = {"layer1.0": (0.2, 0.4, 0.1, 0.6), "act1": (0.5, 0.9, 0.3, 0.8)}
"""In the encoder's order, not the alphabet's: CKA of clipart-real, clipart-sketch and real-sketch, and the ceiling."""


def test_each_kernel_is_a_comparison_with_the_intervals_of_the_jackknife() -> None:
    pairs, domains, folds = [], [], []
    for site, (cr, cs, rs, ceiling) in SITES.items():
        for kernel, shift in (("linear", 0.0), ("rbf", 0.05)):
            for a, b, value in (
                ("clipart", "real", cr),
                ("clipart", "sketch", cs),
                ("real", "sketch", rs),
            ):
                pairs.append(
                    (
                        site,
                        a,
                        b,
                        kernel,
                        value + shift,
                        0.0,
                        1.0,
                        0.0,
                        0.2 - value / 10,
                        7,
                    )
                )
            for d, v in {
                "clipart": (cr + cs) / 2,
                "real": (cr + rs) / 2,
                "sketch": (cs + rs) / 2,
            }.items():
                domains.append((site, d, kernel, v + shift, v - 0.1, v + 0.1, 0.01, 7))
                folds += [
                    ("all", "all", d, d, 0, 1 + i, site, ceiling + e, kernel)
                    for i, e in enumerate((0.1, -0.1))
                ]
    statistics = ["kernel", "value", "low", "high", "null_mean"]
    similarity = RepresentationSimilarity(
        pd.DataFrame(
            pairs,
            columns=["site", "domain_a", "domain_b", *statistics, "p", "n_classes"],
        ),
        pd.DataFrame(domains, columns=["site", "domain", *statistics, "n_classes"]),
        pd.DataFrame(columns=["site", "domain", *statistics, "n_classes"]),
    )
    found = similarity.comparisons(pd.DataFrame(folds, columns=[*FOLDS, "kernel"]))
    assert list(found) == ["linear", "rbf"]
    rbf = found["rbf"]
    assert (rbf.measure, rbf.sites, rbf.n_classes) == ("cka_rbf", tuple(SITES), 7)
    expected = similarity.domains.query("kernel == 'rbf'").drop(columns="kernel")
    pd.testing.assert_frame_equal(rbf.over_depth(), expected)
    assert (
        rbf.values["p"].tolist()
        == similarity.pairs.query("kernel == 'rbf'")["p"].tolist()
    )
    assert rbf.at("act1").matrix().loc["clipart", "sketch"] == pytest.approx(0.95)
    assert rbf.at("act1").ceilings.set_index("domain")["value"][
        "real"
    ] == pytest.approx(0.8)
    assert rbf.chance["value"].tolist() == pytest.approx([0.01, 0.01])
    assert similarity.comparisons()["linear"].ceilings.empty
