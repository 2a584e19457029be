"""The chart of cost against quality holds what the table says."""

import numpy as np
import pandas as pd

from experiments.study.measure_charts import cost_against_quality

VALUES = {"seconds": (2.0, 30.0), "size for 0.8, kept": (0.9, 0.4), "size for 0.8, random": (1.0, 0.95)}
SUMMARY = pd.DataFrame(
    [
        {"setting": setting, "method": m, "what": what, "value": v, "low": v - 0.1, "high": v + 0.1}
        for setting in ("zero, logit", "mean, margin")
        for what, values in VALUES.items()
        for m, v in zip(("gradient", "learned"), values, strict=True)
    ]
)


def test_a_point_for_each_method_and_its_random_units_in_a_panel_for_each_setting() -> None:
    figure = cost_against_quality(SUMMARY)
    points = [trace for trace in figure.data if trace.x[0] is not None]
    drawn = {(trace.xaxis, float(trace.x[0]), float(trace.y[0])) for trace in points}
    assert drawn == {
        (axis, cost, height)
        for axis in ("x", "x2")
        for what in ("size for 0.8, kept", "size for 0.8, random")
        for cost, height in zip(VALUES["seconds"], VALUES[what], strict=True)
    }
    bars = {float(trace.y[0]): bool(trace.error_y.visible) for trace in points}
    assert bars == {0.9: True, 0.4: True, 1.0: False, 0.95: False}
    np.testing.assert_allclose(points[-1].error_y.array, 0.1)
    assert {trace.name for trace in figure.data if trace.showlegend} == {"gradient", "learned", "random units"}
