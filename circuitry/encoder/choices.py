"""Names of metrics and of baselines. No torch."""

METRIC_NAMES = ("logit", "margin")
BASELINE_NAMES = (
    "zero",
    "mean-position",
    "mean-unit",
    "other-domains",
    "counterfactual",
)
