"""Numbers of the page on whether the numbers can be trusted."""

import math
from itertools import product

from experiments.pages.tables import (
    Interval,
    Span,
    alike,
    made_with,
    one,
    only,
    rows,
    span,
    supported,
    table,
)

import pandas as pd

# Do intervals cover the truth?
COVERAGE = "trust/coverage"
n_classes = span(table(COVERAGE)["n_classes"])
covered = span(rows(COVERAGE, degrees="Satterthwaite")["coverage"])
n_studies = made_with("trust")["draws"]
skewed = span(rows("trust/skewed", shares="skewed")["coverage"])
even = span(rows("trust/skewed", shares="even")["coverage"])
by_degrees = table(COVERAGE).groupby(["degrees", "of"])["coverage"].agg(span)
satterthwaite = by_degrees["Satterthwaite"]
conservative = by_degrees["min(n1, n2) - 1"]
# How often does a test find what is not there?
ERRORS = "trust/family_wise_error"
LEVEL = 0.05
ONE_MODEL = "models differ, one is tested"
N_MODELS = (8, 12)
SEVERAL = list(map("models differ, over {}".format, N_MODELS))


def false_alarms(case: str | list[str]) -> Span:
    """Return how often a test finds a difference where there is none, over the settings of simulated cases."""
    return span(rows(ERRORS, case=case)["error"])


one_model = false_alarms(ONE_MODEL)
several_models = false_alarms(SEVERAL)
families = false_alarms("families of 4, drawn together")
classes_alone = false_alarms("classes alone")
single_classes = false_alarms("families of 4, taken for single classes")
mantel = span(table("trust/mantel")["mantel"])
independent_pairs = span(table("trust/mantel")["pairs as independent"])
six_domains = one(ERRORS, "error", case=ONE_MODEL, domains=6)
three_domains = one(ERRORS, "error", case=ONE_MODEL, domains=3)
# A standard deviation of the logarithm of noise over models: half of OFFSET in simulate_trust.
noise_factor = math.exp(0.25)

# Is the ratio to the ceiling right?
by_domains = table("trust/ratio").pivot(
    index="noise", columns="domains", values="ratio"
)
ratios = by_domains.reindex(["low", "middle", "high"]).to_dict("list")
identical = span(ratios["identical"])
unrelated = alike(ratios["unrelated"])
# Which measures of similarity are worth reporting?
SIX = [
    "node_overlap",
    "edge_jaccard",
    "wl_kernel",
    "spearman",
    "cosine",
    "edge_spearman",
]
measures = table("measures/measures").pivot(
    index="measure", columns="case", values="value"
)
fresh = measures["fresh images"]
fresh_six = span(fresh[SIX])
elsewhere = measures["another domain"]
best = supported("best", elsewhere.idxmax() == "spearman")
guessing = alike(rows("measures/measures", case="another domain")["guessing"], 6)
wrong_order = measures[["units permuted", "noise"]]
wrong_six = span(wrong_order.loc[SIX].to_numpy().ravel())
wrong_depth = span(wrong_order.loc["depth_bias"])

# Which rule of quadrature is enough?
MODELS = ["toy", "emoji", "efficientnet", "vit-mean-position"]


def promised(folder: str, kind: str) -> "pd.Series[float]":
    """Return the row of a chosen rule: its promise, and what was measured."""
    return only(f"rules/{folder}/promise", kind=kind)


def measured(folder: str, kind: str) -> Interval:
    """Return the error of a chosen rule that many points found on other circuits, with its interval."""
    return Interval(*promised(folder, kind)[["measured", "low", "high"]])


def n_points(folder: str) -> int:
    """Return the number of points of the integral that errors are measured against."""
    return int(made_with(f"rules/{folder}")["reference"].removeprefix("midpoint-"))


promises = pd.concat(table(f"rules/{folder}/promise") for folder in MODELS)
n_rules = len(promises)
asked = alike(promises["asked"], 1)
# Costs are relative to the rule of the study.
cheap = promises[promises["cost"] < 1]
n_cheap = len(cheap)
cheap_cost = span(cheap["cost"])
cheap_error = span(cheap["measured"])
passing = promises[promises["measured"] > promises["promised"]]
n_passing = len(passing)
# A rule passes its promise where the error is larger; the interval then has to hold the promise.
within = supported("within its interval", (passing["low"] < passing["promised"]).all())
study_error = promises["error of the study's rule"]
n_study_worse = (study_error > promises["measured"]).sum()
points_toy = n_points("toy")
points_efficientnet = n_points("efficientnet")
points_vit = n_points("vit-mean-position")


promise = {}
errors = {}
for folder, kind in product(MODELS, ("nodes", "edges")):
    promise[f"{folder} {kind}"] = promised(folder, kind)
    errors[f"{folder} {kind}"] = measured(folder, kind)
chosen = only("rules/toy/rules", kind="nodes", rule=promise["toy nodes"]["rule"])
worst = chosen["worst"]
more_than = supported(
    "more than",
    chosen["worst at"] == "act1" and worst > errors["toy nodes"].value,
)
checkpoint = made_with("rules/vit-zero")["checkpoint"]
epochs = checkpoint.split("epoch_")[1].removesuffix(".pt")
references = promise["vit-mean-position nodes"]["references differ"]
references_zero = promised("vit-zero", "nodes")["references differ"]
rule_of_zero = promised("vit-zero", "edges")["rule"]
zero_nodes = measured("vit-zero", "nodes")
zero_edges = measured("vit-zero", "edges")
points_zero = n_points("vit-zero")
