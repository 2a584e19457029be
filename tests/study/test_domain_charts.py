"""Domains are ordered by likeness, and panels hold the numbers of their tables."""

import numpy as np
import pandas as pd

from experiments.study.domain_charts import cluster_order, similarity_panels


def test_domains_that_relate_alike_stand_side_by_side() -> None:
    names = ["clipart", "painting", "quickdraw", "real", "sketch"]
    near = np.array([0, 5, 0.2, 5.1, 0.1])
    far = pd.DataFrame(np.abs(near[:, None] - near), names, names)
    order = cluster_order(far)
    assert {*order[:3]} == {"clipart", "quickdraw", "sketch"}
    assert cluster_order(1 - far) == order  # whether large means far or alike
    unknown = far.mask(far == far.loc["clipart", "real"])
    assert cluster_order(unknown) == names
    two = ["real", "clipart"]
    assert cluster_order(far.loc[two, two]) == two


def test_panels_hold_each_measure_and_group() -> None:
    rows = [
        ("cosine", "all", "real", "sketch", 0.5),
        ("cosine", "all", "clipart", "real", 0.25),
        ("cosine", "seen", "real", "sketch", 0.75),
    ]
    columns = ["measure", "group", "domain_a", "domain_b", "value"]
    figure = similarity_panels(
        pd.DataFrame(rows, columns=columns),
        title="t",
        groups={"all": "all classes", "seen": "seen classes"},
        first="real",
    )
    every, seen = figure.data
    assert list(every.x) == list(seen.y) == ["real", "clipart", "sketch"]
    np.testing.assert_array_equal(every.z[0], [np.nan, 0.25, 0.5])
    assert (every.zmax, seen.z[0][2]) == (0.75, 0.75)
