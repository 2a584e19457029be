"""Numbers of the page on the edges that make a circuit."""

import re
from typing import NamedTuple

from experiments.pages.rendering import filled
from experiments.pages.scoreboard import (
    at,
    by_class,
    n_counted,
    pair,
    spread,
    whole_right,
)
from experiments.pages.tables import (
    alike,
    made_with,
    one,
    rows,
    significance,
    span,
    table,
)

# How many edges recover the answers?
FOLDER = "toy_vit_edges"
SHARE = 0.4
RECOVERED = 0.8
FOR_ANSWERS = "size for 0.8 kl recovered, kept"
METHODS = {
    "exact cuts": "exact",
    "gradient": "gradient",
    "path": "path",
    "AtP\\*": "atp-star",
    "RelP": "relp",
}


def recovered(method: str, edges: str = "kept") -> float:
    return at(FOLDER, method, SHARE)["kl recovered"][edges]


n_edges = n_counted(FOLDER)
n_classes = len(by_class(FOLDER, "learned", FOR_ANSWERS))
by_masks = recovered("learned")
by_exact_cuts = recovered("exact")
by_gradient = recovered("gradient")
WITH_RANDOM = ["gradient", "path", "atp-star", "relp", "learned"]
by_random = alike(recovered(method, "random") for method in WITH_RANDOM)
p_of_exact = pair(FOLDER, "exact", "learned", FOR_ANSWERS).p
exact_significant = significance(p_of_exact)
masks = spread(FOLDER, "learned", FOR_ANSWERS)


def row_of_needs(words: str) -> str:
    """Return a row: the share of edges of the median class, and how much more than masks a method needs."""
    method = METHODS[words]
    against = pair(FOLDER, method, "learned", FOR_ANSWERS)
    return filled(
        "| {} | {:.0%} | {:+d} points, more in {} of {} | {:.3f} |",
        words,
        spread(FOLDER, method, FOR_ANSWERS).median,
        against.points,
        against.more,
        n_classes,
        against.p,
    )


needs = "\n".join(row_of_needs(words) for words in METHODS)
random_needs = alike(
    spread(FOLDER, method, "size for 0.8 kl recovered, random").median
    for method in WITH_RANDOM[:4]
)
right = whole_right(FOLDER)
least_p = 2 / 2**n_classes

# Do scores find planted edges?
planted = rows("scoreboard/toy/planted", kind="edge").set_index(["network", "site"])
SITES = [
    ("convolution", "conv2"),
    ("convolution", "head"),
    ("attention", "attention"),
    ("attention", "mlp"),
    ("attention", "head"),
]


def aurocs(method: str) -> list[float]:
    """Return how well a method ranks planted edges, by site."""
    return list(planted[planted["method"] == method].loc[SITES, "auroc"])


by_site = "\n".join(
    filled(f"| {words} |" + " {:.2f} |" * len(SITES), *aurocs(method))
    for words, method in {
        "path, left rule": "left 10",
        "path, Gauss-Radau rule": "Gauss-Radau 5",
        "path, midpoint rule": "midpoint 10",
        "gradient x activation": "gradient x activation",
        "learned masks, planted": "learned masks",
        "edge cuts": "edge cuts",
    }.items()
)
PATHS = ["left 10", "Gauss-Radau 5", "midpoint 10", "gradient x activation"]
into_attention = span(aurocs(method)[2] for method in PATHS)
in_attention = planted.loc["attention"]
by_cuts_and_masks = alike(
    in_attention[in_attention["method"].isin(["edge cuts", "learned masks"])]["auroc"]
)
gradient_alone = alike(aurocs("gradient x activation"))


# Which score of edges is nearest to exact cuts?
class Agreement(NamedTuple):
    """Rank correlation with exact cuts, by baseline, and seconds."""

    counterfactual: float
    mean: float
    seconds: float


def agreement(method: str) -> Agreement:
    name = "edges/agreement"
    asked = {"edges": "all", "method": method}
    return Agreement(
        one(name, "spearman", baseline="counterfactual", **asked),
        one(name, "spearman", baseline="mean", **asked),
        one(name, "seconds", baseline="counterfactual", **asked),
    )


exact_readers = agreement("exact readers")
plain = agreement("plain")
n_cut = alike(rows("edges/agreement", edges="all")["n_edges"], 0)
n_circuits = made_with("edges")["n_circuits"]
agreements = "\n".join(
    filled("| {} | {:.2f} | {:.2f} | {:.2f} |", words, *agreement(method))
    for words, method in {
        "exact readers": "exact readers",
        "exact softmax": "exact softmax",
        "AtP\\*": "AtP*",
        "plain attribution": "plain",
        "RelP with patterns": "RelP with patterns",
        "gradient dropping": "gradient dropping",
        "along activations": "5 points of activations",
        "RelP": "RelP",
        "along the input": "5 points of the input",
    }.items()
)
GRAPHS = "edges-graphs/graphs"
n_graph_edges = alike(table(GRAPHS)["n_edges"], 0)
graphs_with = made_with("edges-graphs")
graph_share = graphs_with["graph_fraction"]
(epochs,) = re.findall(r"epoch_(\d+)", graphs_with["checkpoint"])
n_graph_circuits = graphs_with["n_circuits"]
graphs_exact = span(rows(GRAPHS, method="exact-readers")["spearman"])
graphs_plain = span(rows(GRAPHS, method="gradient")["spearman"])
