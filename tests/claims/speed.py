"""Claims about speed and scale."""

from functools import partial

import numpy as np

from tests.support.committed_tables import Numbers, comparison, one, rows, table


def faster(scores: str, model: str = "RN50") -> float:
    return one("benchmarks/attribution/speed", "ratio", model=model, scores=scores)


def timed(model: str, scores: str) -> list[object]:
    """Return a row of the table of speed, the difference as it is written there."""
    named = {"model": model, "scores": scores}
    (row,) = rows("benchmarks/attribution/speed", **named).drop(columns=list(named)).to_numpy()
    return [*row[:-1], f"{row[-1]:.1e}".replace("e-0", "e-")]


def growing(what: str, column: str) -> list[float]:
    return list(rows("benchmarks/scale/growth", **{"what grows": what})[column])


def growths(*columns: str) -> list[list[float]]:
    return [list(np.divide(found[1:], found[:-1])) for found in (growing("sites", column) for column in columns)]


def rated(what: str) -> float:
    return one("benchmarks/scale/rates", "GFLOP/s", what=what)


def stream_edges(folder: str) -> list[float]:
    """Return edges, passes of the tower, what 5 points cost beside, and the peak of memory of a transformer."""
    (row,) = table(f"benchmarks/{folder}/speed").to_dict("records")
    return [row[column] for column in ("edges", "scores / pass", "5 points / scores", "peak GiB")]


def single(name: str, *columns: str) -> list[float]:
    (row,) = table(name).to_dict("records")
    return [row[column] for column in columns]


CLAIMS: dict[str, Numbers] = {
    "edges cost in proportion to images ({:.1f}, {:.1f} and {:.1f} s for {}, {} and {}) and to kept units "
    "({:.1f}, {:.1f} and {:.1f} s for {:.0f}, {:.0f} and {:.0f} %). Nodes cost {:.1f} s and {:.1f} s an image "
    "({:.1f}, {:.1f} and {:.1f} s), and grow {} than the number of sites: {:.1f}, {:.1f} and {:.1f} s for the "
    "last {:.0f}, {:.0f} and all {:.0f}, so twice the sites take {:.1f} times as long": lambda: (
        *growing("images", "edge seconds"),
        *growing("images", "images"),
        *growing("share of units", "edge seconds"),
        *(100 * share for share in growing("share of units", "value")),
        *np.polyfit(growing("images", "images"), growing("images", "node seconds"), 1)[::-1],
        *growing("images", "node seconds"),
        {"above": "faster"}[comparison(*growths("node seconds", "value"))],
        *growing("sites", "node seconds"),
        *growing("sites", "value"),
        growths("node seconds")[0][-1],
    ),
    "The edge pass reaches {:.0f} %, the node pass {:.0f} % of the {:.0f} GFLOP/s": lambda: (
        *(100 * rated(what) / rated("matrix products") for what in ("edge", "node")),
        rated("matrix products"),
    ),
    "compared in {:.0f} s by five measures, within {:.1f} GiB": lambda: single(
        "benchmarks/similarity/similarity", "seconds", "peak GiB"
    ),
    "all {:,} edges between the heads and MLPs of a ViT-B/32 on 8 images take {:.1f} forward-backward passes of "
    "the tower, with 5 points {:.1f} times that, within {:.1f} GiB": lambda: stream_edges("edges"),
    "the {:,} edges of a ViT-L/14 on 2 images (`--models ViT-L-14 --images-at-once 2`) {:.1f} passes within "
    "{:.1f} GiB": lambda: [stream_edges("edges-large")[i] for i in (0, 1, 3)],
    "{:,} listed images are subsampled and merged with {:,} base lines in {:.0f} s of the processor, peak memory "
    "{:.1f} GiB": lambda: single(
        "benchmarks/mixtures/mixture", "images listed", "base lines", "CPU seconds", "peak GiB"
    ),
    "at {:.2f} of the speed of open_clip's trainer by hand ({:.0f} images/s)": lambda: single(
        "benchmarks/training/train_clip", "of the trainer by hand", "images per second"
    ),
    "scores all RN50 nodes {:.0f} times as fast as the study's site path ({:.2f} against {:.1f} s)": lambda: (
        faster("nodes, path of the image against study"),
        *timed("RN50", "nodes, path of the image against study")[1::-1],
    ),
    **{
        f"| {written} |": partial(timed, model, scores)
        for model, scores, written in (
            ("RN50", "nodes", "RN50, 224 px | nodes | {:.1f} s | {:.1f} s | {:.1f} | {}"),
            ("RN50", "edges", "RN50, 224 px | edges | {:.0f} s | {:.1f} s | {:.0f} | {}"),
            (
                *("RN50", "nodes, gauss-radau-5"),
                "RN50, 224 px | nodes, Gauss-Radau 5 | {:.1f} s | {:.1f} s | {:.1f} | another rule",
            ),
            (
                *("RN50", "edges, gauss-radau-4"),
                "RN50, 224 px | edges, Gauss-Radau 4 | {:.0f} s | {:.1f} s | {:.0f} | another rule",
            ),
            ("rn-tiny", "nodes", "rn-tiny, 64 px | nodes | {:.2f} s | {:.2f} s | {:.1f} | {}"),
            ("rn-tiny", "edges", "rn-tiny, 64 px | edges | {:.2f} s | {:.2f} s | {:.0f} | {}"),
            (
                *("rn-tiny", "patching"),
                "rn-tiny, 64 px | exact patching of all 823 units, 16 images | {:.1f} s | {:.2f} s | {:.1f} | {}",
            ),
        )
    },
}
