"""The scatter plot of scores holds the numbers that it is given."""

import pandas as pd

from circuitry.reports.figures import attribution_against_patching

UNITS = pd.DataFrame(
    {"site": ["a", "a", "b"], "unit": [3, 1, 0], "top": [True, False, True]}
    | {"attributed": [-1.0, 0.5, 2.0], "exact": [-2.0, 0.25, 1.0]}
)


def test_attribution_against_patching() -> None:
    correlations = pd.DataFrame(
        {
            "site": ["a", "a"],
            "sample": ["random", "top"],
            "pearson": [0.5, 1.0],
            "spearman": [0.25, 1.0],
        }
    )
    figure = attribution_against_patching(UNITS, ["a", "b"], correlations)
    line, points = figure.data[:2]
    assert (list(points.x), list(points.y)) == ([-1, 0.5], [-2, 0.25])
    assert list(points.marker.symbol) == ["circle", "circle-open"]
    assert list(line.x) == list(line.y) == [-2, 0.5]
    titles = [a.text for a in figure.layout.annotations]
    assert titles[0].startswith("a<br>")
    assert "r 0.50, ρ 0.25" in titles[0]
    assert titles[1] == "b<br>"
