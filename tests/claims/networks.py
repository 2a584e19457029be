"""Claims about real networks, and cost."""

from functools import partial

from tests.support.committed_tables import Numbers, alike, one, rows, span, table

OVER_MODELS = "real_networks/over_models"


def shared_edges(domain: str) -> list[float]:
    return list(rows("real_networks/domains_by_model", measure="edge_jaccard", domain=domain)["value"])


def edge_ratios(domain_a: str, domain_b: str) -> list[float]:
    pair = {"domain_a": domain_a, "domain_b": domain_b}
    return list(rows("real_networks/pairs_by_model", measure="edge_jaccard", **pair)["value"])


def agree(measure: str) -> list[float]:
    return list(rows("real_networks/agreement", measure=measure)["correlation"])


THREADS = "benchmarks/threads/threads"

CLAIMS: dict[str, Numbers] = {
    "takes {:.1f} TFLOP an image with its rule and {:.1f} with midpoint-10": lambda: table(
        "benchmarks/scale/study"
    ).set_index("rule")["TFLOP an image"][["left-10", "midpoint-10"]],
    "{:.0f} and {:.0f} hours on one GPU": lambda: table("benchmarks/scale/study").set_index("rule")["GPU hours"][
        ["left-10", "midpoint-10"]
    ],
    **{
        f"| {words} | {{:.2f}} | {{:.2f}} |": partial(
            lambda way: rows(THREADS, way=way)[["seconds, quiet", "seconds, 2 busy"]].iloc[0], way
        )
        for words, way in (
            ("two that spin, PyTorch's default on Linux", "threads that spin"),
            ("two that wait briefly, as scripts set them", "threads that wait briefly"),
            ("two that wait passively", "threads that wait passively"),
            ("one", "one thread"),
            ("one in each of two processes, as in the quickstart", "a process a core, one thread each"),
        )
    },
    "the {:.0f} edges between the strongest 3 % of the units": lambda: [
        alike(table("edges-graphs/graphs")["n_edges"], 6)
    ],
    "exact cuts {:.3f} to {:.3f} by exact readers, {:.3f} to {:.3f} by one gradient": lambda: (
        bound
        for method in ("exact-readers", "gradient")
        for bound in span(rows("edges-graphs/graphs", method=method)["spearman"])
    ),
    "In all three networks photographs share the least with the other styles, by units and by edges "
    "(edges {:.3f}, {:.3f}, {:.3f}; clip art {:.3f} to {:.3f})": lambda: (
        *shared_edges("photo"),
        *span(shared_edges("clipart")),
    ),
    "the least alike ({:.2f}, {:.2f}, {:.2f} of the ceiling), and clip art and shaded emoji the most by edges "
    "({:.2f}, {:.2f}, {:.2f})": lambda: (*edge_ratios("photo", "sketch"), *edge_ratios("clipart", "noto")),
    "agrees by edges {:.2f}, {:.2f}, {:.2f} and by units {:.2f}, {:.2f}, {:.2f}": lambda: (
        *agree("edge_jaccard"),
        *agree("node_overlap"),
    ),
    "Clip art shares {:.3f} [{:.3f}, {:.3f}] more of its edges with the others than photographs do, but three "
    "networks can give no p below {:.2f}": lambda: (
        one(OVER_MODELS, column, measure="edge_jaccard", domain_a="clipart", domain_b="photo")
        for column in ("difference", "low", "high", "p")
    ),
    "photographs {:.0f} to {:.0f} %, clip art {:.0f} to {:.0f} %, emoji {:.0f} to {:.0f} %, outlines {:.0f} to "
    "{:.0f} %": lambda: (
        number
        for domain in ("photo", "clipart", "noto", "sketch")
        for number in span(100 * rows("real_networks/accuracy", domain=domain)["accuracy"])
    ),
}
