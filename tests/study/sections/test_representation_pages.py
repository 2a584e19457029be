"""Tables of CKA become comparisons."""

import pandas as pd
import pytest

from circuitry.comparison import PARTS
from circuitry.representations import RepresentationSimilarity

SITES = ("layer1.0", "act1")  # in the encoder's order, which is not that of the alphabet
DOMAINS = ("clipart", "real", "sketch")


def similarity() -> RepresentationSimilarity:
    # Pairs: clipart-real, clipart-sketch, real-sketch.
    pair_values = {"layer1.0": (0.2, 0.4, 0.1), "act1": (0.5, 0.9, 0.3)}
    pairs, domains = [], []
    for site, (cr, cs, rs) in pair_values.items():
        for kernel, shift in (("linear", 0.0), ("rbf", 0.05)):
            for a, b, value in (("clipart", "real", cr), ("clipart", "sketch", cs), ("real", "sketch", rs)):
                p = 0.01 if value > 0.15 else 0.2
                pairs.append((site, a, b, kernel, value + shift, 0.0, 1.0, 0.0, p, 7))
            means = {"clipart": (cr + cs) / 2, "real": (cr + rs) / 2, "sketch": (cs + rs) / 2}
            domains += [(site, d, kernel, v + shift, v - 0.1, v + 0.1, 0.01, 7) for d, v in means.items()]
    statistics = ["kernel", "value", "low", "high", "null_mean"]
    return RepresentationSimilarity(
        pd.DataFrame(pairs, columns=["site", "domain_a", "domain_b", *statistics, "p", "n_classes"]),
        pd.DataFrame(domains, columns=["site", "domain", *statistics, "n_classes"]),
        pd.DataFrame(columns=["site", "domain", *statistics, "n_classes"]),
    )


def parts() -> pd.DataFrame:
    """Ceilings of 0.6 and 0.8, each the mean over two pairs of parts."""
    rows = [
        ("all", "all", d, d, 0, part, s, v + shift, k)
        for s, v in zip(SITES, (0.6, 0.8), strict=True)
        for d in DOMAINS
        for k in ("linear", "rbf")
        for part, shift in ((1, 0.1), (2, -0.1))
    ]
    return pd.DataFrame(rows, columns=[*PARTS, "kernel"])


def test_each_kernel_is_a_comparison_with_the_intervals_of_the_jackknife() -> None:
    found = similarity().comparisons(parts())
    assert list(found) == ["linear", "rbf"]
    rbf = found["rbf"]
    assert (rbf.measure, rbf.sites, rbf.n_classes) == ("cka_rbf", SITES, 7)
    expected = similarity().domains.query("kernel == 'rbf'").drop(columns="kernel")
    pd.testing.assert_frame_equal(rbf.over_depth(), expected)
    assert rbf.values["p"].tolist() == similarity().pairs.query("kernel == 'rbf'")["p"].tolist()
    matrix = rbf.at("act1").matrix()
    assert matrix.loc["clipart", "sketch"] == pytest.approx(0.95)
    assert rbf.at("act1").ceilings.set_index("domain")["value"]["real"] == pytest.approx(0.8)
    assert rbf.chance["value"].tolist() == pytest.approx([0.01, 0.01])
    assert similarity().comparisons()["linear"].ceilings.empty
