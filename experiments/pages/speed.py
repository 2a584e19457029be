"""Numbers of the page on speed and scale."""

from experiments.pages.rendering import filled
from experiments.pages.tables import alike, made_with, rows, said, table

import numpy as np
import pandas as pd


def only_row(name: str) -> "pd.Series[float]":
    """Return the row of a table that has one."""
    (number,) = table(name).index
    return table(name).loc[number]


# How much time do partial runs save?
timed = table("benchmarks/attribution/speed").set_index(["model", "scores"])
rn50_nodes = timed.loc["RN50", "nodes"]
rn50_edges = timed.loc["RN50", "edges"]
N_POINTS = 10
n_images = made_with("benchmarks/attribution")["images"]


def time_row(words: str, model: str, scores: str, form: str, other: str = "") -> str:
    """Return a row: seconds of the full tower and of the package, ratio, difference or why there is none."""
    tower, package, ratio, difference = timed.loc[model, scores]
    difference = f"{difference:.1e}".replace("e-0", "e-")
    return filled(f"| {words} | {form} |", tower, package, ratio, other or difference)


RULE = "another rule"
TENTHS = "{:.1f} s | {:.1f} s | {:.1f} | {}"
WHOLE = "{:.0f} s | {:.1f} s | {:.0f} | {}"
times = "\n".join(
    [
        time_row("RN50, 224 px | nodes", "RN50", "nodes", TENTHS),
        time_row("RN50, 224 px | edges", "RN50", "edges", WHOLE),
        time_row(
            "RN50, 224 px | nodes, Gauss-Radau 5",
            "RN50",
            "nodes, gauss-radau-5",
            TENTHS,
            RULE,
        ),
        time_row(
            "RN50, 224 px | edges, Gauss-Radau 4",
            "RN50",
            "edges, gauss-radau-4",
            WHOLE,
            RULE,
        ),
        time_row(
            "rn-tiny, 64 px | nodes",
            "rn-tiny",
            "nodes",
            "{:.2f} s | {:.2f} s | {:.1f} | {}",
        ),
        time_row(
            "rn-tiny, 64 px | edges",
            "rn-tiny",
            "edges",
            "{:.2f} s | {:.2f} s | {:.0f} | {}",
        ),
        time_row(
            "rn-tiny, 64 px | exact patching of each unit",
            "rn-tiny",
            "patching",
            "{:.1f} s | {:.2f} s | {:.1f} | {}",
        ),
    ]
)

# How does cost grow?
GROWTH = "benchmarks/scale/growth"
sites = rows(GROWTH, **{"what grows": "sites"})
times_sites = sites["value"].to_numpy()
times_nodes = sites["node seconds"].to_numpy()
growth_of_nodes = times_nodes[1:] / times_nodes[:-1]
growth_of_sites = times_sites[1:] / times_sites[:-1]
faster_than = said("faster than", (growth_of_nodes > growth_of_sites).all())
last_growth = growth_of_nodes[-1]
by_images = rows(GROWTH, **{"what grows": "images"})
an_image, fixed = np.polyfit(by_images["images"], by_images["node seconds"], 1)


def growth_row(words: str, what: str, seconds: str, scale: int = 1) -> str:
    """Return a row of what grows: its values, and seconds."""
    found = rows(GROWTH, **{"what grows": what})
    values = (scale * found["value"]).tolist()
    return filled("| {} | {:.0f} | {:.1f} |", words, values, found[seconds].tolist())


growth = "\n".join(
    [
        growth_row("images, for edges", "images", "edge seconds"),
        growth_row("images, for nodes", "images", "node seconds"),
        growth_row(
            "kept units in percent, for edges", "share of units", "edge seconds", 100
        ),
        growth_row("sites, for nodes", "sites", "node seconds"),
    ]
)
rates = table("benchmarks/scale/rates").set_index("what")["GFLOP/s"]
share_of_edges = rates["edge"] / rates["matrix products"]
share_of_nodes = rates["node"] / rates["matrix products"]

# What would the study's circuits cost?
study = table("benchmarks/scale/study").set_index("rule")
N_CLASSES = 345
N_DOMAINS = 6
n_each = alike(study["images"], 0) // N_CLASSES // N_DOMAINS
reached = made_with("benchmarks/scale")["gpu_fraction"]
tflops = made_with("benchmarks/scale")["gpu_tflops"]

# How long does it take to compare circuits?
compared = only_row("benchmarks/similarity/similarity")
compared_with = made_with("benchmarks/similarity")

# What do threads cost on a shared machine?
threads = table("benchmarks/threads/threads").set_index("way")
n_thread_images = made_with("benchmarks/threads")["images"][0]
thread_rows = "\n".join(
    filled(
        "| {} | {:.2f} | {:.2f} |",
        words,
        *threads.loc[way, ["seconds, quiet", "seconds, 2 busy"]],
    )
    for words, way in {
        "two that spin, PyTorch's default on Linux": "threads that spin",
        "two that wait briefly, as scripts set them": "threads that wait briefly",
        "two that wait passively": "threads that wait passively",
        "one": "one thread",
        "one in each of two processes, as in the quickstart": "a process a core, one thread each",
    }.items()
)

# What do the edges of a transformer cost?
vit_b = only_row("benchmarks/edges/speed")
vit_l = only_row("benchmarks/edges-large/speed")
n_at_once = made_with("benchmarks/edges")["images_at_once"]
n_at_once_large = made_with("benchmarks/edges-large")["images_at_once"]
n_path_points = made_with("benchmarks/edges")["points"]

# How long do mixtures and training take?
mixtures = only_row("benchmarks/mixtures/mixture")
training = only_row("benchmarks/training/train_clip")
