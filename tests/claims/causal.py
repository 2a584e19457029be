"""Claims about causal checks, edges and shared masks."""

from functools import partial
from typing import Any

from tests.claims.scoreboard import (
    n_counted,
    pair,
    significance,
    sizes,
    spread,
    values,
    whole_right,
)
from tests.support.committed_tables import Numbers, alike, one, rows, span

PLANTED = "scoreboard/toy/planted"
EDGES, ANSWERS = "toy_vit_edges", "size for 0.8 kl recovered, kept"
EDGE_SCORES = ["gradient", "path", "atp-star", "relp"]


def kept(measure: str, circuit: str) -> list[float]:
    return list(
        rows(f"faithfulness/{measure}_absolute", circuit=circuit, fraction=0.1)["value"]
    )


def at_site(site: str, circuit: str) -> float:
    return float(
        rows("faithfulness/selectivity_one_site", sites=site, circuit=circuit)[
            "value"
        ].mean()
    )


def edges_by(methods: list[str], what: str = ANSWERS) -> tuple[float, float]:
    """Return the span over methods of the median share of edges that recovers 0.8 of the answers, in percent."""
    return span(sizes(EDGES, method, what).median() for method in methods)


def sizes_by(method: str) -> list[Any]:
    """Return the share of edges that recovers 0.8 of the answers: points against masks, more in how many classes, p."""
    found = pair(EDGES, method, "learned", ANSWERS)
    return [
        sizes(EDGES, method, ANSWERS).median(),
        found[0],
        "more",
        found[3],
        len(sizes(EDGES, method, ANSWERS)),
        found[4],
    ]


def recovered(*methods: str) -> list[float]:
    return [values(EDGES, method, "kl recovered", "kept", 0.4)[0] for method in methods]


def random_edges() -> float:
    return alike(
        values(EDGES, method, "kl recovered", "random", 0.4)[0]
        for method in [*EDGE_SCORES, "learned"]
    )


def planted(method: str) -> list[float]:
    """Return how well a method finds planted edges, by site."""
    sites = [
        ("convolution", "conv2"),
        ("convolution", "head"),
        *(("attention", of) for of in ("attention", "mlp", "head")),
    ]
    return [
        one(PLANTED, "auroc", network=of, kind="edge", method=method, site=site)
        for of, site in sites
    ]


def into_attention() -> tuple[float, float]:
    methods = ["left 10", "Gauss-Radau 5", "midpoint 10", "gradient x activation"]
    found = rows(
        PLANTED, network="attention", kind="edge", site="attention", method=methods
    )
    return span(found["auroc"])


SITES = ("layer3.0", "layer4.0")

CLAIMS: dict[str, Numbers] = {
    "the {} % of the units with the {} scores reach a faithfulness of {:.2f} to {:.2f} by style, and a selectivity of "
    "{:.2f}": lambda: [
        10,
        "largest",
        *span(kept("faithfulness", "kept")),
        alike(kept("selectivity", "kept")),
    ],
    "circuits {:.2f}, random units {:.2f}; at `layer4.0`: {:.2f} and {:.2f}": lambda: [
        at_site(site, circuit) for site in SITES for circuit in ("kept", "random")
    ],
    "random units reach a faithfulness of {:.1f}": lambda: [
        alike(kept("faithfulness", "random"), 1)
    ],
    **{
        f"| `{site}` | {{:.2f}} | {{:.2f}} | {{:.2f}} |": partial(
            lambda of: [
                at_site(of, circuit) for circuit in ("kept", "random", "complement")
            ],
            site,
        )
        for site in SITES
    },
    "The units outside the circuit keep {:.2f} and {:.2f}": lambda: [
        at_site(site, "complement") for site in SITES
    ],
    "With {} % of the {} edges between heads and MLPs of the small ViT masks recover {:.2f} of the answers, exact "
    "cuts {:.2f}, the "
    "gradient "
    "{:.2f} and random edges {:.2f}. Against exact cuts the difference of sizes is {} (p {:.3f}).": lambda: [
        40,
        n_counted(EDGES),
        *recovered("learned", "exact", "gradient"),
        random_edges(),
        *(significance(sizes_by("exact")[-1]), sizes_by("exact")[-1]),
    ],
    "mean over {} classes with 95 % intervals. At {} %: learned {:.2f}, exact cuts {:.2f}, gradient {:.2f}, random "
    "edges "
    "{:.2f}": lambda: [
        len(sizes(EDGES, "learned", ANSWERS)),
        40,
        *recovered("learned", "exact", "gradient"),
        random_edges(),
    ],
    "edges that recover {} of the answers, of the median class; beside them how many points a method needs against "
    "masks, "
    "and in how many classes it needs {}:": lambda: [0.8, "more"],
    "| learned masks | {:.0f} % ({:.0f} to {:.0f} %) |": lambda: spread(
        EDGES, "learned", ANSWERS
    ),
    **{
        f"| {named} | {{:.0f}} % | {{:+d}} points, {{}} in {{}} of {{}} | {{:.3f}} |": partial(
            sizes_by, method
        )
        for named, method in {
            "exact cuts": "exact",
            "gradient": "gradient",
            "path": "path",
            "AtP\\*": "atp-star",
            "RelP": "relp",
        }.items()
    },
    "| random edges | {:.0f} % |": lambda: [
        alike(edges_by(EDGE_SCORES, ANSWERS.replace("kept", "random")), 0)
    ],
    "One model, {} classes, each in another style, the logit of the class. The whole model is right in {:.0f} % of "
    "these "
    "images. With {} classes Wilcoxon's test can give no p under {:.3f}": lambda: [
        len(sizes(EDGES, "learned", ANSWERS)),
        100 * whole_right(EDGES),
        len(sizes(EDGES, "learned", ANSWERS)),
        2 / 2 ** len(sizes(EDGES, "learned", ANSWERS)),
    ],
    "paths and the gradient rank the edges with an AUROC of {:.2f} to {:.2f} (0.5 is chance), cuts and learned masks "
    "with "
    "{:.1f}": lambda: (
        *into_attention(),
        alike(
            rows(
                PLANTED,
                network="attention",
                kind="edge",
                method=["edge cuts", "learned masks"],
            )["auroc"]
        ),
    ),
    "The gradient alone has {:.2f} at each site": lambda: [
        alike(planted("gradient x activation"))
    ],
    **{
        f"| {named} |" + " {:.2f} |" * 5: partial(planted, method)
        for named, method in {
            "path, left rule": "left 10",
            "path, Gauss-Radau rule": "Gauss-Radau 5",
            "path, midpoint rule": "midpoint 10",
            "gradient x activation": "gradient x activation",
            "learned masks, planted": "learned masks",
            "edge cuts": "edge cuts",
        }.items()
    },
}
