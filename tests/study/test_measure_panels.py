"""Panels of measures."""

import pandas as pd

from experiments.study.measure_charts import measure_panels


def test_a_panel_for_each_case_and_a_point_for_each_measure() -> None:
    rows = [(m, c, "s", 0.25 * i, 0.5, 4) for i, (m, c) in enumerate((m, c) for m in "ab" for c in ("one", "two"))]
    table = pd.DataFrame(rows, columns=["measure", "case", "statistic", "value", "guessing", "n"])
    figure = measure_panels(table, title="Measures")
    assert figure.layout.title.text == "Measures"
    assert [list(trace.x) for trace in figure.data] == [[0.5, 0.0], [0.75, 0.25]]
    assert [list(trace.y) for trace in figure.data] == [["b", "a"]] * 2
    assert {note.text for note in figure.layout.annotations} >= {"one", "two"}
