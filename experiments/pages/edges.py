"""Numbers of the page on the edges that make a circuit."""

import re

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
METHODS = ["exact", "gradient", "path", "atp-star", "relp"]


def recovered(method: str, edges: str = "kept") -> float:
    """Return how much of the answers edges of the share recover: those that a method keeps, or random edges."""
    return at(FOLDER, method, SHARE)["kl recovered"][edges]


n_edges = n_counted(FOLDER)
n_classes = len(by_class(FOLDER, "learned", FOR_ANSWERS))
by_masks = recovered("learned")
by_exact_cuts = recovered("exact")
by_gradient = recovered("gradient")
# Random edges were measured beside each of these methods; all give one number.
WITH_RANDOM = ["gradient", "path", "atp-star", "relp", "learned"]
by_random = alike(recovered(method, "random") for method in WITH_RANDOM)
masks = spread(FOLDER, "learned", FOR_ANSWERS)


needs = {}
shares = {}
for ranking in METHODS:
    needs[ranking] = pair(FOLDER, ranking, "learned", FOR_ANSWERS)
    shares[ranking] = spread(FOLDER, ranking, FOR_ANSWERS).median
p_of_exact = needs["exact"].p
exact_significant = significance(p_of_exact)
random_needs = alike(
    spread(FOLDER, method, "size for 0.8 kl recovered, random").median
    for method in WITH_RANDOM[:4]
)
right = whole_right(FOLDER)
# The least p of Wilcoxon's test: the differences of all classes have one sign.
least_p = 2 / 2**n_classes

# Do scores find planted edges?
planted = rows("scoreboard/toy/planted", kind="edge")
SITES = [
    ("convolution", "conv2"),
    ("convolution", "head"),
    ("attention", "attention"),
    ("attention", "mlp"),
    ("attention", "head"),
]
by_site = planted.pivot(index=["network", "site"], columns="method", values="auroc")
aurocs = by_site.reindex(SITES).to_dict("list")
PATHS = ["left 10", "Gauss-Radau 5", "midpoint 10", "gradient x activation"]
into_attention = span(aurocs[method][2] for method in PATHS)
by_cuts_and_masks = alike(
    rows(
        "scoreboard/toy/planted",
        network="attention",
        kind="edge",
        method=["edge cuts", "learned masks"],
    )["auroc"]
)
gradient_alone = alike(aurocs["gradient x activation"])


# Which score of edges is nearest to exact cuts?
agreement = rows("edges/agreement", edges="all").set_index(["method", "baseline"])
correlations = agreement["spearman"].unstack()
with_counterfactual = correlations["counterfactual"]
with_mean = correlations["mean"]
seconds = agreement["seconds"].unstack()["counterfactual"]
n_cut = alike(rows("edges/agreement", edges="all")["n_edges"], 0)
n_circuits = made_with("edges")["n_circuits"]
GRAPHS = "edges-graphs/graphs"
n_graph_edges = alike(table(GRAPHS)["n_edges"], 0)
graphs_with = made_with("edges-graphs")
graph_share = graphs_with["graph_fraction"]
# The name of the checkpoint is the only record of how long the ViT was trained.
(epochs,) = re.findall(r"epoch_(\d+)", graphs_with["checkpoint"])
n_graph_circuits = graphs_with["n_circuits"]
graphs_exact = span(rows(GRAPHS, method="exact-readers")["spearman"])
graphs_plain = span(rows(GRAPHS, method="gradient")["spearman"])
