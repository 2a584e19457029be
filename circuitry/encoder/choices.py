"""Names of metrics and baselines for command lines. Does not import torch."""

METRIC_NAMES = ("logit", "margin")
BASELINE_NAMES = (
    "zero",
    "mean-position",
    "mean-unit",
    "other-domains",
    "counterfactual",
)
