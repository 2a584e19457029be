"""Claims about speed and scale."""

from functools import partial

import numpy as np

from tests.support.committed_tables import (
    Numbers,
    comparison,
    made_with,
    one,
    rows,
    table,
)


def timed(model: str, scores: str) -> list[object]:
    """Return a row of the table of speed, the difference as it is written there."""
    named = {"model": model, "scores": scores}
    (row,) = (
        rows("benchmarks/attribution/speed", **named)
        .drop(columns=list(named))
        .to_numpy()
    )
    return [*row[:-1], f"{row[-1]:.1e}".replace("e-0", "e-")]


def growing(what: str, column: str) -> list[float]:
    return list(rows("benchmarks/scale/growth", **{"what grows": what})[column])


def grown(what: str, column: str) -> list[float]:
    """Return three values of what grows, shares in percent, and seconds."""
    values = growing(what, "value")
    return [
        *(100 * value if what.startswith("share") else value for value in values),
        *growing(what, column),
    ]


def growths(*columns: str) -> list[list[float]]:
    return [
        list(np.divide(found[1:], found[:-1]))
        for found in (growing("sites", column) for column in columns)
    ]


def rated(what: str) -> float:
    return one("benchmarks/scale/rates", "GFLOP/s", what=what)


def stream_edges(folder: str) -> list[float]:
    """Return edges, passes of the tower, what 5 points cost beside, and the peak of memory of a transformer."""
    (row,) = table(f"benchmarks/{folder}/speed").to_dict("records")
    return [
        row[column]
        for column in ("edges", "scores / pass", "5 points / scores", "peak GiB")
    ]


def single(name: str, *columns: str) -> list[float]:
    (row,) = table(name).to_dict("records")
    return [row[column] for column in columns]


CLAIMS: dict[str, Numbers] = {
    "The edges of an RN50 take {:.1f} s instead of an extrapolated {:.0f} s, {:.0f} times as fast as forward and "
    "backward "
    "passes of the whole tower; its nodes are {:.1f} times as fast": lambda: [
        *(timed("RN50", "edges")[i] for i in (1, 0, 2)),
        timed("RN50", "nodes")[2],
    ],
    "the left rule with {} points, baseline zero, a tenth of the units, {} images": lambda: [
        10,
        made_with("benchmarks/attribution")["images"],
    ],
    "that of nodes grows {} {} the number of sites, by {:.1f} times for twice the sites": lambda: [
        *({"above": "faster"}[comparison(*growths("node seconds", "value"))], "than"),
        growths("node seconds")[0][-1],
    ],
    **{
        f"| {named} | {{:.0f}}, {{:.0f}}, {{:.0f}} | {{:.1f}}, {{:.1f}}, {{:.1f}} |": partial(
            grown, what, column
        )
        for named, what, column in (
            ("images, for edges", "images", "edge seconds"),
            ("images, for nodes", "images", "node seconds"),
            ("kept units in percent, for edges", "share of units", "edge seconds"),
            ("sites, for nodes", "sites", "node seconds"),
        )
    },
    "Nodes cost {:.1f} s, and {:.1f} s an image. The edge pass reaches {:.0f} %, the node pass {:.0f} % of the {:.0f} "
    "GFLOP/s": lambda: [
        *np.polyfit(growing("images", "images"), growing("images", "node seconds"), 1)[
            ::-1
        ],
        *(100 * rated(what) / rated("matrix products") for what in ("edge", "node")),
        rated("matrix products"),
    ],
    "The circuits of {} classes in {} domains are compared in {:.0f} s by five measures, within {:.1f} GiB.": lambda: [
        *(made_with("benchmarks/similarity")["classes"], 6),
        *single("benchmarks/similarity/similarity", "seconds", "peak GiB"),
    ],
    "of the size of an RN50's, whole and in {} parts": lambda: [
        made_with("benchmarks/similarity")["parts"]
    ],
    "The {:,} edges between the heads and MLPs of a ViT-B/32 on {} images, by one gradient, take {:.1f} "
    "forward-backward passes of the "
    "tower.": lambda: [
        stream_edges("edges")[0],
        made_with("benchmarks/edges")["images_at_once"],
        stream_edges("edges")[1],
    ],
    "With {} points they take {:.1f} times that, within {:.1f} GiB. The {:,} edges of a ViT-L/14 on {} images take "
    "{:.1f} "
    "passes, within {:.1f} GiB": lambda: [
        made_with("benchmarks/edges")["points"],
        *stream_edges("edges")[2:],
        stream_edges("edges-large")[0],
        made_with("benchmarks/edges-large")["images_at_once"],
        *(stream_edges("edges-large")[i] for i in (1, 3)),
    ],
    "Of {:,} listed images mixtures are drawn and merged with {:,} base lines in {:.0f} s of the processor; "
    "`train_clip` has "
    "{:.2f} of the speed": lambda: [
        *single(
            "benchmarks/mixtures/mixture", "images listed", "base lines", "CPU seconds"
        ),
        *single("benchmarks/training/train_clip", "of the trainer by hand"),
    ],
    "Mixtures need {:.1f} GiB at their peak. Training has {:.0f} images a second": lambda: [
        *single("benchmarks/mixtures/mixture", "peak GiB"),
        *single("benchmarks/training/train_clip", "images per second"),
    ],
    **{
        f"| {written} |": partial(timed, model, scores)
        for model, scores, written in (
            (
                "RN50",
                "nodes",
                "RN50, 224 px | nodes | {:.1f} s | {:.1f} s | {:.1f} | {}",
            ),
            (
                "RN50",
                "edges",
                "RN50, 224 px | edges | {:.0f} s | {:.1f} s | {:.0f} | {}",
            ),
            (
                *("RN50", "nodes, gauss-radau-5"),
                "RN50, 224 px | nodes, Gauss-Radau 5 | {:.1f} s | {:.1f} s | {:.1f} | another rule",
            ),
            (
                *("RN50", "edges, gauss-radau-4"),
                "RN50, 224 px | edges, Gauss-Radau 4 | {:.0f} s | {:.1f} s | {:.0f} | another rule",
            ),
            (
                "rn-tiny",
                "nodes",
                "rn-tiny, 64 px | nodes | {:.2f} s | {:.2f} s | {:.1f} | {}",
            ),
            (
                "rn-tiny",
                "edges",
                "rn-tiny, 64 px | edges | {:.2f} s | {:.2f} s | {:.0f} | {}",
            ),
            (
                *("rn-tiny", "patching"),
                "rn-tiny, 64 px | exact patching of each unit | {:.1f} s | {:.2f} s | {:.1f} | {}",
            ),
        )
    },
}
