"""Numbers of the page on speed and scale."""

from experiments.pages.tables import alike, made_with, only, span, supported, table

import numpy as np
import pandas as pd

# How much time do partial runs save?
speed = table("benchmarks/attribution/speed")
timed = speed.set_index(speed["model"] + " " + speed["scores"]).T
rn50_nodes = timed["RN50 nodes"]
rn50_edges = timed["RN50 edges"]
N_POINTS = 10
n_images = made_with("benchmarks/attribution")["images"]


# How does cost grow?
GROWTH = "benchmarks/scale/growth"
grown = table(GROWTH).groupby("what grows")
sites = grown.get_group("sites")
times_sites = sites["value"].to_numpy()
times_nodes = sites["node seconds"].to_numpy()
growth_of_nodes = times_nodes[1:] / times_nodes[:-1]
growth_of_sites = times_sites[1:] / times_sites[:-1]
faster_than = supported("faster than", (growth_of_nodes > growth_of_sites).all())
# From half of the sites to all of them.
last_growth = growth_of_nodes[-1]
by_images = grown.get_group("images")
# Seconds of node scores are a line over the number of images: its slope, and what does not grow.
an_image, fixed = np.polyfit(by_images["images"], by_images["node seconds"], 1)


lists = grown.agg(list)
values_of = lists["value"]
units_in_percent = (100 * grown.get_group("share of units")["value"]).tolist()
seconds_of_edges = lists["edge seconds"]
seconds_of_nodes = lists["node seconds"]
rates = table("benchmarks/scale/rates").set_index("what")["GFLOP/s"]
n_cores = made_with("benchmarks/scale")["threads"]
share_of_edges = rates["edge"] / rates["matrix products"]
share_of_nodes = rates["node"] / rates["matrix products"]

# What would the study's circuits cost?
study = table("benchmarks/scale/study").set_index("rule")
N_CLASSES = 345
N_DOMAINS = 6
# The table has the images of one model's circuits; the page tells the images of one class in one domain.
n_each = alike(study["images"], 0) // N_CLASSES // N_DOMAINS
reached = made_with("benchmarks/scale")["gpu_fraction"]
tflops = made_with("benchmarks/scale")["gpu_tflops"]

# How long does it take to compare circuits?
compared = only("benchmarks/similarity/similarity")
compared_with = made_with("benchmarks/similarity")

# What do threads cost on a shared machine?
by_way = table("benchmarks/threads/threads").set_index("way")
threads = by_way[["seconds, quiet", "seconds, 2 busy"]].T.to_dict("list")
n_thread_images = made_with("benchmarks/threads")["images"]
# What do the edges of a transformer cost?
vit_b = only("benchmarks/edges/speed")
vit_l = only("benchmarks/edges-large/speed")
n_at_once = made_with("benchmarks/edges")["images"]
n_at_once_large = made_with("benchmarks/edges-large")["images"]
n_path_points = made_with("benchmarks/edges")["points"]

# How long do mixtures and training take?
mixtures = only("benchmarks/mixtures/mixture")
training = only("benchmarks/training/train_clip")

# How much time do other tools take for the same scores?
BESIDE = ("beside-tiny", "beside-ViT-S-32")
beside = pd.concat([table(f"benchmarks/{folder}/tools") for folder in BESIDE])
beside_rounds = span(made_with(f"benchmarks/{folder}")["rounds"] for folder in BESIDE)


def beside_rows() -> str:
    """Return a row of Markdown for each job and tool but circuitry."""
    rows = list[str]()
    for (tower, job), tools in beside.groupby(["tower", "job"], sort=False):
        by_tool = tools.set_index("tool")
        ours = by_tool.loc["circuitry"]
        for tool, theirs in by_tool.drop("circuitry").iterrows():
            runs = "operations in forward runs of an image"
            difference = theirs["largest difference relative to the largest score"]
            cells = [
                f"{tower}, {ours['images']} images",
                f"{job} ({ours['scores']:,})",
                str(tool),
                f"{theirs['seconds']:.2g} s",
                f"{ours['seconds']:.2g} s",
                f"{theirs['ratio']:.1f}",
                f"{theirs[runs]:.0f}, {ours[runs]:.0f}",
                f"{difference:.0e}".replace("e-0", "e-"),
            ]
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


rows_beside = beside_rows()
others = beside[beside["tool"] != "circuitry"]
least_ratio = others["ratio"].min()
most_ratio = others["ratio"].max()
# By tower and job, how much longer the quickest of the other tools takes.
quickest = others.groupby(["tower", "job"], sort=False)["ratio"].min()


def in_words(chosen: pd.Series) -> str:
    """Return the chosen jobs in words, tower by tower."""
    jobs = chosen[chosen].reset_index().groupby("tower", sort=False)["job"]
    return "; ".join(f"{', '.join(names)} ({tower})" for tower, names in jobs)


ahead = in_words(quickest > 1)
behind = in_words(quickest <= 1)
