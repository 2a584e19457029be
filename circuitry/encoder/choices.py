"""Names of metrics and baselines for command lines. This module does not import torch."""

METRIC_NAMES = ("logit", "margin")
BASELINE_NAMES = (
    "zero",
    "mean-position",
    "mean-unit",
    "other-domains",
    "counterfactual",
)
