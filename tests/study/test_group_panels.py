"""Similarities by group of classes are drawn where their tables say."""

from itertools import combinations

import pandas as pd
import pytest

from circuitry.reports.figures import similarity_panels
from experiments.study.measure_charts import apart_panels, group_panel

DOMAINS = ("clipart", "quickdraw", "real")
GROUPS = ("all", "held-out", "others")


def test_every_measure_and_group_has_a_panel_with_photographs_first() -> None:
    values = {"edge_jaccard": 0.2, "wl_kernel_depth_3": 0.4}
    rows = [
        (measure, group, a, b, value + i / 10 + j / 100)
        for measure, value in values.items()
        for i, group in enumerate(GROUPS)
        for j, (a, b) in enumerate(combinations(DOMAINS, 2))
    ]
    figure = similarity_panels(
        pd.DataFrame(rows, columns=["measure", "group", "domain_a", "domain_b", "value"]),
        title="title",
        groups={name: group_panel(name) for name in GROUPS},
        first="real",
    )
    heats = [trace for trace in figure.data if trace.type == "heatmap"]
    assert len(heats) == 2 * 3
    assert list(heats[0].y) == ["real", "clipart", "quickdraw"]
    clipart_quickdraw, clipart_real, quickdraw_real = 0.2, 0.21, 0.22
    assert heats[0].z[0][1:].tolist() == pytest.approx([clipart_real, quickdraw_real])
    assert heats[0].z[2][:2].tolist() == pytest.approx([quickdraw_real, clipart_quickdraw])
    assert [heat.zmax for heat in heats] == pytest.approx([0.42] * 3 + [0.62] * 3)  # one scale for a measure
    titles = [note.text for note in figure.layout.annotations]
    assert "held-out classes (OOD)" in titles[1]
    assert "other classes (ID)" in titles[2]
    assert "Weisfeiler-Lehman kernel, depth 3" in titles[3]


def test_one_domain_and_the_others_are_two_lines_in_every_panel() -> None:
    lines = {"without quickdraw": 0.6, "quickdraw with the others": 0.3}
    rows = [
        (group_panel(group), line, site, value + i / 10, value, value + 0.2)
        for group in GROUPS
        for line, value in lines.items()
        for i, site in enumerate(("act1", "layer1.0"))
    ]
    table = pd.DataFrame(rows, columns=["panel", "domain", "site", "value", "low", "high"])
    figure = apart_panels(table, measure="overlap", title="title")
    drawn = [trace for trace in figure.data if trace.x[0] is not None]
    assert len(drawn) == 3 * 2
    assert [list(trace.y) for trace in drawn[:2]] == [pytest.approx([0.3, 0.4]), pytest.approx([0.6, 0.7])]
    assert [trace.name for trace in figure.data if trace.showlegend] == list(reversed(lines))
    assert list(figure.layout.xaxis.ticktext) == ["act1", "layer1.0"]
