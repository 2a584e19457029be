"""Numbers of the page on how small a circuit is that works."""

from typing import NamedTuple

from experiments.pages.rendering import filled
from experiments.pages.scoreboard import (
    WORKS,
    at,
    by_class,
    counted,
    curve,
    grid,
    n_counted,
    pair,
    seconds,
    spread,
    whole_right,
)
from experiments.pages.tables import (
    alike,
    made_with,
    rows,
    significance,
    span,
    supported,
    table,
)

import numpy as np
import pandas as pd

ROUNDS = "iterative-fisher"
LITE0 = "efficientnet_lite0"
MANY_OTHERS = "efficientnet_lite0_44_others"
OUTPUTS = "efficientnet_lite0_outputs"
FITTED = "efficientnet_lite0_optimal"
METHODS = {
    "Fisher in rounds": ROUNDS,
    "Fisher, one pass": "fisher",
    "conductance": "conductance",
    "gradient": "gradient",
    "exact patching": "patching",
    "learned masks": "learned",
}
"""Names of methods in the tables of a scoreboard, by the words of the page."""
NETWORKS = {
    "EfficientNet-Lite0": LITE0,
    "EfficientNet-Lite0, many others": MANY_OTHERS,
    "EfficientNet-Lite0, outputs of blocks": OUTPUTS,
    "EfficientNet-Lite1": "efficientnet_lite1",
    "EfficientNet-Lite2": "efficientnet_lite2",
    "small CLIP": "toy",
    "small CLIP, outputs of blocks": "toy_outputs",
    "small CLIP, outputs of three blocks": "toy_three_outputs",
    "small CLIP, their latents": "toy_latents",
    "small ViT, heads and neurons": "toy_vit",
    "small CLIP, emoji": "emoji",
}
"""Folders of scoreboards, by the words of the page."""
RANDOM_WORK = "size to work, random"
SELECTIVE = 0.8
FOR_SELECTIVITY = "size for 0.8 selectivity, kept"
SIZE = 0.35
SIZES = [0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5]
SMALLER = 0.25
SMALL = 0.15

# How many units does a circuit need?
works = spread(LITE0, ROUNDS)
outputs = spread(OUTPUTS, ROUNDS)
rounds = at(LITE0, ROUNDS, SIZE)
seconds_rounds = seconds(LITE0, ROUNDS)
n_channels = n_counted(LITE0)
n_others = made_with(f"scoreboard/{LITE0}")["n_others"]


for_selectivity = {}
selectivity_at_size = {}
for lite in (LITE0, "efficientnet_lite1", "efficientnet_lite2"):
    for_selectivity[lite] = spread(lite, ROUNDS, FOR_SELECTIVITY)
    selectivity_at_size[lite] = at(lite, ROUNDS, SIZE)["selectivity"]["kept"]
# A class that no size of the grid works for counts as the whole network, size 1.
lite2_reaches_no_size = supported(
    "no size of the grid", for_selectivity["efficientnet_lite2"].classes.high == 1
)


# Is such a circuit the class's own?
foreign_work = spread(LITE0, ROUNDS, "size to work, foreign")
random_work = spread(LITE0, ROUNDS, RANDOM_WORK)


def rows_by_size(measure: str, beside: str, words: str = "") -> str:
    """Return a row for each of the first four methods: a measure of its circuits over their size.

    Args:
        measure: Name of the measure in the table.
        beside: Circuits whose measure stands in brackets, ``foreign`` or ``random``.
        words: Text after the name of the method.
    """
    lines = []
    for name in list(METHODS)[:4]:
        kept = curve(LITE0, METHODS[name], measure, "kept", SIZES)
        compared = curve(LITE0, METHODS[name], measure, beside, SIZES)
        pairs = zip(kept, compared, strict=True)
        cells = " | ".join(filled("{:.2f} ({:.2f})", *values) for values in pairs)
        lines.append(f"| {name}{words} | {cells} |")
    return "\n".join(lines)


recovered_by_size = rows_by_size("kl recovered", "foreign")
selectivity_by_size = rows_by_size("selectivity", "random", ", selectivity")

# Which method finds it?
one_pass = pair(LITE0, "fisher", ROUNDS)
as_much = supported("as much", one_pass.points == 0)
seconds_one_pass = seconds(LITE0, "fisher")
rounds_smaller = at(LITE0, ROUNDS, SMALLER)
one_pass_smaller = at(LITE0, "fisher", SMALLER)
gradient = pair(LITE0, "gradient", ROUNDS)
conductance = pair(LITE0, "conductance", ROUNDS)
n_judged = len(by_class(LITE0, ROUNDS))
lead_of_rounds = curve(LITE0, ROUNDS, "kl recovered", "kept", SIZES[:6]) - curve(
    LITE0, "fisher", "kl recovered", "kept", SIZES[:6]
)
rounds_recover = supported("more", (lead_of_rounds > 0).all())
# The least p of Wilcoxon's test: all differences have one sign, which two of the choices of signs have.
least_p = 2 / 2**n_judged

# What do learned masks give?
masks = spread(MANY_OTHERS, "learned")
n_many_others = made_with(f"scoreboard/{MANY_OTHERS}")["n_others"]
rounds_against_masks = pair(MANY_OTHERS, ROUNDS, "learned")
masks_significant = significance(rounds_against_masks.p)
seconds_masks = seconds(MANY_OTHERS, "learned")
seconds_many = seconds(MANY_OTHERS, ROUNDS)
small_masks = at(MANY_OTHERS, "learned", SMALL)
least_masks = at(MANY_OTHERS, "learned", SIZES[0])
large_masks = at(MANY_OTHERS, "learned", SIZE)
rounds_many = at(MANY_OTHERS, ROUNDS, SIZE)
# A class that is not selective at any size has size 1, so it is over SIZE.
selective_rounds = by_class(MANY_OTHERS, ROUNDS, FOR_SELECTIVITY)
selective_masks = by_class(MANY_OTHERS, "learned", FOR_SELECTIVITY)
n_selective_rounds = (selective_rounds <= SIZE).sum()
n_selective_masks = (selective_masks <= SIZE).sum()
measured = grid(MANY_OTHERS)
own_lead = curve(MANY_OTHERS, "learned", "selectivity", "kept", measured) - curve(
    MANY_OTHERS, "learned", "selectivity", "foreign", measured
)
smaller_more = supported("smaller masks are, the more", (own_lead.diff()[1:] < 0).all())


class ByImages(NamedTuple):
    """Sizes that work, with a number of images of each class."""

    rounds: float
    """Size of the median class by Fisher scores in rounds, in percent of the units."""
    masks: float
    """Size of the median class by learned masks, in percent of the units."""
    n_classes: int
    """Number of classes that were judged, which are those that the model recognises."""


def by_images(folder: str) -> ByImages:
    """Return the sizes of a scoreboard, whose folder says with how many images of a class it was made."""
    sizes = by_class(folder, ROUNDS)
    of_masks = by_class(folder, "learned")
    return ByImages(100 * sizes.median(), 100 * of_masks.median(), len(sizes))


two_images = by_images("toy_two_images")
six_images = by_images("toy")
ten_images = by_images("toy_ten_images")
six_against_masks = pair("toy", ROUNDS, "learned")
ten_against_masks = pair("toy_ten_images", ROUNDS, "learned")
SIZE_OF_CLIP = 0.3
masks_of_clip = at("toy", "learned", SIZE_OF_CLIP)
rounds_of_clip = at("toy", ROUNDS, SIZE_OF_CLIP)

# Does it matter what replaces a unit?
resampled = spread(LITE0, ROUNDS, baseline="resample")
rounds_resampled = at(LITE0, ROUNDS, SIZE, "resample")
fitted_with = made_with(f"scoreboard/{FITTED}")
n_fitted_on = fitted_with["n_images"] + fitted_with["n_others"]
FEW = 0.2
HALF_OF_CLIP = 0.4
fitted_clip = at("toy_ablations", ROUNDS, HALF_OF_CLIP, "optimal")
mean_clip = at("toy_ablations", ROUNDS, HALF_OF_CLIP)
mean_lite0 = at(FITTED, ROUNDS, SIZE_OF_CLIP)
fitted_lite0 = at(FITTED, ROUNDS, SIZE_OF_CLIP, "optimal")
mean_few = at(FITTED, ROUNDS, FEW)
fitted_few = at(FITTED, ROUNDS, FEW, "optimal")

# Which sizes work on which network, by which method?
small_clip = spread("toy", ROUNDS)
small_vit = spread("toy_vit", ROUNDS)
small_vit_random = spread("toy_vit", ROUNDS, RANDOM_WORK)
small_vit_either = alike([small_vit.median, small_vit_random.median])
right_clip = whole_right("toy")
right_vit = whole_right("toy_vit")


def row_of_sizes(network: str, name: str) -> str:
    """Return a row of the table of sizes for a network and a method.

    Measures are known at the sizes of the grid alone. The row has them at the size that is nearest to the median.
    """
    folder = NETWORKS[network]
    method = METHODS[name]
    sizes = by_class(folder, method)
    # Rounded, so that of two sizes that are equally near the smaller is taken.
    size = min(grid(folder), key=lambda size: abs(round(size - sizes.median(), 6)))
    measures = at(folder, method, size)
    # Rounded, since 0.285 is 28.499999999999996 percent in floating point.
    in_percent = np.round(100 * np.array([sizes.median(), *span(sizes)]), 6)
    return filled(
        "| {} | {} | {} | {:.0f} [{:.0f}, {:.0f}] | {} of {} | {:.2f} | {:.2f} | {:.2f} | {:.0%} | {:.2g} |",
        network,
        counted(folder),
        name,
        *in_percent,
        (sizes < 1).sum(),
        len(sizes),
        *measures["kl recovered"][["kept", "random", "foreign"]],
        measures["false"]["kept"],
        seconds(folder, method),
    )


size_rows = []
for network, folder in NETWORKS.items():
    # Not every method ran on every network.
    methods_run = set(table(f"scoreboard/{folder}/by_class")["method"])
    for name, method in METHODS.items():
        if method in methods_run:
            size_rows.append(row_of_sizes(network, name))
all_sizes = "\n".join(size_rows)
n_small_others = made_with("scoreboard/toy")["n_others"]
EMOJI_METHODS = ["gradient", "fisher", ROUNDS, "learned"]
emoji_sizes = rows("scoreboard/emoji/by_class", method=EMOJI_METHODS, baseline="mean")
emoji_medians = emoji_sizes.groupby(["what", "method"])["value"].median()
emoji_random = span(emoji_medians[RANDOM_WORK])
emoji_work = span(emoji_medians[WORKS])
SIZE_OF_VIT = 0.1
rounds_of_vit = at("toy_vit", ROUNDS, SIZE_OF_VIT)
latents = spread("toy_latents", ROUNDS)
three_outputs = spread("toy_three_outputs", ROUNDS)
n_latents = latents.median * n_counted("toy_latents")
n_three_outputs = three_outputs.median * n_counted("toy_three_outputs")


# Which scores describe single units?
def of_single_units(method: str) -> list[float]:
    """Return the rank correlations of scores with exact patching: of the small CLIP, and of the small ViT."""
    of_clip = by_class("toy", method, "rank correlation")
    of_vit = by_class("toy_vit", method, "rank correlation")
    return [of_clip.median(), of_vit.median()]


SCORES = ["gradient", "conductance", ROUNDS, "learned"]
single_units = {method: of_single_units(method) for method in SCORES}
needs_larger = supported(
    "larger",
    spread(LITE0, "gradient").median > works.median
    and spread("toy", "gradient").median > small_clip.median,
)

# Do 10 % circuits by attribution select?
KEPT = 0.1


def attributed(measure: str, circuit: str) -> "pd.Series[float]":
    """Return a measure of circuits of the small CLIP, a value for each style; units rank by absolute scores."""
    name = f"faithfulness/{measure}_absolute"
    return rows(name, circuit=circuit, fraction=KEPT)["value"]


faithfulness = span(attributed("faithfulness", "kept"))
random_faithfulness = alike(attributed("faithfulness", "random"), 1)
selectivity = alike(attributed("selectivity", "kept"))
one_site = table("faithfulness/selectivity_one_site").pivot_table(
    index="circuit", columns="sites", values="value"
)


# What do the units of a circuit that works respond to?
class Read(NamedTuple):
    """Counts of units by what a person saw in their pictures. No table has these counts."""

    read: int
    """Units whose pictures were read."""
    named: int
    """Units that respond to something that has a name."""
    partly: int
    """Units whose name holds for a part of their pictures."""
    not_named: int
    """Units that no name was found for."""
    of_the_class: int
    """Units of a circuit whose class is among the three with the strongest mean activation of the unit."""


by_importance = Read(20, 8, 6, 6, 2)
by_effects = Read(10, 6, 4, 0, 4)
of_outputs = Read(10, 5, 2, 3, 0)
n_candidates = 59
"""Classes of the photographs whose activations were looked at."""

# What did earlier results say? They are withdrawn with their tables, so the numbers stand here.
withdrawn_masks = 0.73
withdrawn_fisher = 0.88
