"""Names of metrics and of baselines. No torch."""

from typing import Literal, get_args

MetricName = Literal["logit", "margin"]
BaselineName = Literal["zero", "mean-position", "mean-unit", "other-domains", "counterfactual"]
METRIC_NAMES, BASELINE_NAMES = get_args(MetricName), get_args(BaselineName)
