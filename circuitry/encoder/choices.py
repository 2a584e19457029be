"""Names of metrics and of baselines, for command lines, which do not import torch."""

METRIC_NAMES = ("logit", "margin")
BASELINE_NAMES = (
    "zero",
    "mean-position",
    "mean-unit",
    "other-domains",
    "counterfactual",
)
