"""Claims about scores of edges, and cost."""

import re
from functools import partial

from tests.support.committed_tables import (
    Numbers,
    alike,
    made_with,
    one,
    rows,
    span,
    table,
)


def threads(way: str) -> list[float]:
    """Return the seconds of a circuit on quiet cores and beside two busy processes."""
    return list(
        rows("benchmarks/threads/threads", way=way)[
            ["seconds, quiet", "seconds, 2 busy"]
        ].iloc[0]
    )


def nearest(method: str) -> list[float]:
    """Return the rank correlation of an edge score with exact cuts, by baseline, and the seconds it takes."""
    ends = ("counterfactual", "mean")
    found = [
        one("edges/agreement", "spearman", edges="all", method=method, baseline=end)
        for end in ends
    ]
    return [
        *found,
        one("edges/agreement", "seconds", edges="all", method=method, baseline=ends[0]),
    ]


GRAPHS = "edges-graphs/graphs"

CLAIMS: dict[str, Numbers] = {
    "Those of one RN50 take {:.1f} TFLOP an image with the study's rule, {:.1f} with midpoint-10: {:.0f} and {:.0f} "
    "hours on one "
    "A100": lambda: [
        number
        for column in ("TFLOP an image", "GPU hours")
        for number in table("benchmarks/scale/study").set_index("rule")[column][
            ["left-10", "midpoint-10"]
        ]
    ],
    "assume that {:.0f} % of the {} TFLOP/s": lambda: [
        100 * made_with("benchmarks/scale")["gpu_fraction"],
        made_with("benchmarks/scale")["gpu_tflops"],
    ],
    "The study has {} classes, {} domains and {} images of each": lambda: [
        345,
        6,
        int(alike(table("benchmarks/scale/study")["images"], 0)) // 345 // 6,
    ],
    "default takes {:.2f} s for a circuit that takes {:.2f} s on quiet cores; the setting of the scripts takes {:.2f} "
    "s": (
        lambda: [
            *threads("threads that spin")[::-1],
            threads("threads that wait briefly")[1],
        ]
    ),
    "tiny ResNet on {} images": lambda: [made_with("benchmarks/threads")["images"][0]],
    **{
        f"| {words} | {{:.2f}} | {{:.2f}} |": partial(threads, way)
        for words, way in (
            ("two that spin, PyTorch's default on Linux", "threads that spin"),
            ("two that wait briefly, as scripts set them", "threads that wait briefly"),
            ("two that wait passively", "threads that wait passively"),
            ("one", "one thread"),
            (
                "one in each of two processes, as in the quickstart",
                "a process a core, one thread each",
            ),
        )
    },
    "Of the {:,.0f} edges between the strongest {} % of the units of that ViT after {} epochs, in {} circuits and "
    "with two "
    "baselines, the rank correlation with exact cuts is {:.3f} to {:.3f} by exact readers and {:.3f} to {:.3f} by one "
    "gradient. "
    "One gradient takes {:.2f} s where exact readers take {:.2f} s": lambda: [
        alike(table(GRAPHS)["n_edges"], 6),
        round(100 * made_with("edges-graphs")["graph_fraction"]),
        re.findall(r"epoch_(\d+)", made_with("edges-graphs")["checkpoint"])[0],
        made_with("edges-graphs")["n_circuits"],
        *(
            end
            for method in ("exact-readers", "gradient")
            for end in span(rows(GRAPHS, method=method)["spearman"])
        ),
        *(nearest(method)[2] for method in ("plain", "exact readers")),
    ],
    "their rank correlation with exact cuts is {:.2f} with counterfactual images and {:.2f} with the mean "
    "baseline.": lambda: nearest("exact readers")[:2],
    "The {} edges of a ViT of four layers, trained on drawn images, were cut one by one in {} circuits": lambda: [
        int(alike(rows("edges/agreement", edges="all")["n_edges"], 0)),
        made_with("edges")["n_circuits"],
    ],
    **{
        f"| {named} | {{:.2f}} | {{:.2f}} | {{:.2f}} |": partial(nearest, method)
        for named, method in {
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
    },
}
