"""Numbers that reports state of curves, against tables worked out on paper."""

import pandas as pd
import pytest

from circuitry.interventions.curves import areas_by_domain, mean_over_depth, nearest_to_a_tenth
from tests.reports.sections.test_interventions import curves_of


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
