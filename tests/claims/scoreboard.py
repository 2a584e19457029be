"""Claims about circuits by method: how well they work at a size, which sizes work, and whose circuits they are."""

from functools import partial
from typing import Any

import pandas as pd

from tests.support.committed_tables import Numbers, comparison, rows, span

SIZES = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)
METHODS = {
    "Fisher in rounds": "iterative-fisher",
    "Fisher, one pass": "fisher",
    "conductance": "conductance",
    "gradient": "gradient",
}
ALL_METHODS = {**METHODS, "exact patching": "patching", "learned masks": "learned"}
LITE0, MORE, OUTPUTS = "efficientnet_lite0", "efficientnet_lite0_44_others", "efficientnet_lite0_outputs"
NETWORKS = {
    "EfficientNet-Lite0": LITE0,
    "EfficientNet-Lite0, 44 others": MORE,
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


def values(model: str, method: str, measure: str, circuit: str, sizes: object, baseline: str = "mean") -> list[float]:
    """Return a measure of circuits, classes pooled, by size."""
    asked = {"method": method, "measure": measure, "circuit": circuit, "baseline": baseline, "size": sizes}
    return list(rows(f"scoreboard/{model}/curves", **asked).sort_values("size")["value"])


def beside(model: str, method: str, measure: str, other: str) -> list[float]:
    """Return a measure of circuits and of others by size, in turn."""
    both = (values(model, method, measure, circuit, list(SIZES)) for circuit in ("kept", other))
    return [value for pair in zip(*both, strict=True) for value in pair]


def counted(model: str) -> str:
    """Return what sizes are shares of, the same in all tables of a scoreboard."""
    (words,) = {words for name in ("curves", "by_class") for words in rows(f"scoreboard/{model}/{name}")["counted"]}
    return str(words)


def sizes(model: str, method: str, what: str = "size to work, kept", baseline: str = "mean") -> pd.Series:
    """Return the smallest size of each class, in percent; 100 where none of the grid does."""
    found = rows(f"scoreboard/{model}/by_class", what=what, method=method, baseline=baseline).set_index("class")
    return (100 * found["value"]).round(6)


def grid(model: str) -> list[float]:
    return sorted(float(size) for size in rows(f"scoreboard/{model}/curves")["size"].unique())


def row(model: str, method: str) -> list[object]:
    """Return a network's row: the size that works in the median class, least and most, in how many, measures, seconds.

    Measures are those of the size of the grid that is nearest to the median: KL recovered by circuits, by random units
    and by circuits of other classes, and the share of false answers.
    """
    found = sizes(model, method)
    size = min(grid(model), key=lambda one: abs(100 * one - found.median()))
    answers = [values(model, method, "kl recovered", one, size)[0] for one in ("kept", "random", "foreign")]
    false = 100 * values(model, method, "false", "kept", size)[0]
    seconds = f"{sizes(model, method, 'seconds').median() / 100:.2g}"
    return [found.median(), found.min(), found.max(), int((found < 100).sum()), len(found), *answers, false, seconds]


def work_by(model: str, method: str, size: float, what: str = "size to work, kept") -> int:
    """Return how many classes have circuits that work, or another size, from a size in percent on."""
    return int((sizes(model, method, what) <= size).sum())


def pair(model: str, a: str, b: str, what: str = "size to work, kept", baseline: str = "mean") -> list[Any]:
    """Return how the sizes of a method differ from those of another: median in points, less, equal, more, p."""
    found = rows(f"scoreboard/{model}/paired", what=what, baseline=baseline)
    found = found.assign(a=found["a"].str.split().str[0], b=found["b"].str.split().str[0])
    same, turned = found[(found["a"] == a) & (found["b"] == b)], found[(found["a"] == b) & (found["b"] == a)]
    row, sign = (same.iloc[0], 1) if len(same) else (turned.iloc[0], -1)
    counts = [row["n_less"], row["n_equal"], row["n_more"]][::sign]
    return [round(100 * sign * row["median"]), *counts, row["p"]]


def spread(model: str, method: str, what: str = "size to work, kept", baseline: str = "mean") -> list[float]:
    found = sizes(model, method, what, baseline)
    return [found.median(), found.min(), found.max()]


def leads(model: str, method: str, measure: str) -> list[float]:
    """Return by how much circuits exceed those of other classes, by size."""
    own, other = (values(model, method, measure, circuit, grid(model)) for circuit in ("kept", "foreign"))
    return [a - b for a, b in zip(own, other, strict=True)]


def at(model: str, method: str, size: float, *asked: tuple[str, str], baseline: str = "mean") -> list[float]:
    """Return measures of circuits at a size: each a measure and which circuits."""
    return [values(model, method, measure, circuit, size, baseline)[0] for measure, circuit in asked]


LITES = (LITE0, "efficientnet_lite1", "efficientnet_lite2")
ROUNDS = "iterative-fisher"
EMOJI_METHODS = ("gradient", "fisher", ROUNDS, "learned")
ANSWERS, SELECTIVITY = ("kl recovered", "kept"), ("selectivity", "kept")
SIZE_FOR_SELECTIVITY = "size for 0.8 selectivity, kept"

ROWS = "| {} | {} | {} | {{:.0f}} [{{:.0f}}, {{:.0f}}] | {{}} of {{}} |" + " {{:.2f}} |" * 3 + " {{:.0f}} % | {{}} |"

CLAIMS: dict[str, Numbers] = {
    **{
        f"| {named} | " + " | ".join(["{:.2f} ({:.2f})"] * len(SIZES)) + " |": partial(
            beside, LITE0, method, "kl recovered", "foreign"
        )
        for named, method in METHODS.items()
    },
    **{
        f"| {named}, selectivity | " + " | ".join(["{:.2f} ({:.2f})"] * len(SIZES)) + " |": partial(
            beside, LITE0, method, "selectivity", "random"
        )
        for named, method in METHODS.items()
    },
    **{
        ROWS.format(named, counted(model), method): partial(row, model, name)
        for named, model in NETWORKS.items()
        for method, name in ALL_METHODS.items()
        if name in set(rows(f"scoreboard/{model}/by_class")["method"])
    },
    "With 35 % Fisher in rounds recovers {:.2f} of the answers, has a selectivity of {:.2f}, and gives the class to "
    "{:.0f} % of its images and to {:.0f} % of others; as many random units at every site recover {:.2f}.": lambda: (
        *at(LITE0, ROUNDS, 0.35, ANSWERS, SELECTIVITY),
        *(100 * value for value in at(LITE0, ROUNDS, 0.35, ("right", "kept"), ("false", "kept"))),
        *at(LITE0, ROUNDS, 0.35, ("kl recovered", "random")),
    ),
    "{} of {} classes reach a selectivity of 0.8 by 35 %, {} by 50 %.": lambda: (
        work_by(LITE0, ROUNDS, 35, SIZE_FOR_SELECTIVITY),
        len(sizes(LITE0, ROUNDS)),
        work_by(LITE0, ROUNDS, 50, SIZE_FOR_SELECTIVITY),
    ),
    "circuits of two other classes, of this size, recover {:.2f} of the answers and have a selectivity of {:.2f}; they "
    "work from {:.0f} % on (median; {:.0f} to {:.0f})": lambda: (
        *at(LITE0, ROUNDS, 0.35, ("kl recovered", "foreign"), ("selectivity", "foreign")),
        *spread(LITE0, ROUNDS, "size to work, foreign"),
    ),
    "Fisher once needs {} in the median class (less in {}, as much in {}, more in {}; Wilcoxon's p {:.2f}), in a "
    "quarter of the time; at 25 % it recovers {:.2f} where rounds recover {:.2f}. The gradient needs {:+d} points "
    "(more in {} of {}, p {:.3f}), conductance {:+d} (more in {}, p {:.3f}).": lambda: (
        {0: "as much"}[pair(LITE0, "fisher", ROUNDS)[0]],
        *pair(LITE0, "fisher", ROUNDS)[1:],
        *(at(LITE0, method, 0.25, ANSWERS)[0] for method in ("fisher", ROUNDS)),
        *(pair(LITE0, "gradient", ROUNDS)[i] for i in (0, 3)),
        len(sizes(LITE0, ROUNDS)),
        pair(LITE0, "gradient", ROUNDS)[4],
        *(pair(LITE0, "conductance", ROUNDS)[i] for i in (0, 3, 4)),
    ),
    "With the units of another image in the place of ablated ones circuits by Fisher in rounds work from {:.0f} % on "
    "({:.0f} to {:.0f}); at 35 % they recover {:.2f}.": lambda: (
        *spread(LITE0, ROUNDS, baseline="resample"),
        *at(LITE0, ROUNDS, 0.35, ANSWERS, baseline="resample"),
    ),
    "with outputs of blocks the same methods need {:.0f} % ({:.0f} to {:.0f}) in the place of {:.0f} % ({:.0f} to "
    "{:.0f})": lambda: (*spread(OUTPUTS, ROUNDS), *spread(LITE0, ROUNDS)),
    "{:.0f} % by rounds and {:.0f} % by masks with two images of a class, {:.0f} and {:.0f} % with six, {:.0f} and "
    "{:.0f} % with ten": lambda: [
        sizes(model, method).median()
        for model in ("toy_two_images", "toy", "toy_ten_images")
        for method in (ROUNDS, "learned")
    ],
    "Beside masks Fisher in rounds needs {:+d} points with six images (more in {} of {} classes, p {:.2f}), {:+d} with "
    "ten (p {:.2f})": lambda: (
        *(pair("toy", ROUNDS, "learned")[i] for i in (0, 3)),
        len(sizes("toy", ROUNDS)),
        pair("toy", ROUNDS, "learned")[4],
        *(pair("toy_ten_images", ROUNDS, "learned")[i] for i in (0, 4)),
    ),
    "On the small CLIP constants of each circuit take selectivity at 40 % from {:.2f} to {:.2f}, KL recovered from "
    "{:.2f} to {:.2f}; circuits of other classes, with constants of their own, have {:.2f} and {:.2f}, random units "
    "{:.2f} and {:.2f}. {:.0f} % of other images get the class, by the mean {:.0f} %.": lambda: (
        *(at("toy_ablations", ROUNDS, 0.4, SELECTIVITY, baseline=b)[0] for b in ("mean", "optimal")),
        *(at("toy_ablations", ROUNDS, 0.4, ANSWERS, baseline=b)[0] for b in ("mean", "optimal")),
        *(
            at("toy_ablations", ROUNDS, 0.4, (measure, circuit), baseline="optimal")[0]
            for circuit in ("foreign", "random")
            for measure in ("selectivity", "kl recovered")
        ),
        *(100 * at("toy_ablations", ROUNDS, 0.4, ("false", "kept"), baseline=b)[0] for b in ("optimal", "mean")),
    ),
    "On the small ViT Fisher in rounds works from {:.0f} % of the heads and neurons on, but as many random units at "
    "every site recover {:.2f} there, circuits {:.2f}: what counts is how many units each site keeps.": lambda: (
        sizes("toy_vit", ROUNDS).median(),
        *at("toy_vit", ROUNDS, 0.1, ("kl recovered", "random"), ANSWERS),
    ),
    "At {:.0f} % masks recover {:.2f} and have a selectivity of {:.2f}, Fisher in rounds {:.2f} and {:.2f}, other "
    "classes' masks {:.2f} and {:.2f}": lambda: (
        30,
        *at("toy", "learned", 0.3, ANSWERS, SELECTIVITY),
        *at("toy", ROUNDS, 0.3, ANSWERS, SELECTIVITY),
        *at("toy", "learned", 0.3, ("kl recovered", "foreign"), ("selectivity", "foreign")),
    ),
    "By Fisher in rounds, {:.1f} seconds a class, circuits work from {:.0f} % of the hidden channels on (median class; "
    "{:.0f} to {:.0f} %); of outputs of blocks it takes {:.0f} % ({:.0f} to {:.0f} %). With 35 % they recover {:.2f} "
    "of the answers with a selectivity of {:.2f} and give the class to {:.0f} % of other images; random units recover "
    "{:.2f}. But circuits of two other classes recover {:.2f}, with a selectivity of {:.2f}": lambda: (
        sizes(LITE0, ROUNDS, "seconds").median() / 100,
        *spread(LITE0, ROUNDS),
        *spread(OUTPUTS, ROUNDS),
        *at(LITE0, ROUNDS, 0.35, ANSWERS, SELECTIVITY),
        100 * at(LITE0, ROUNDS, 0.35, ("false", "kept"))[0],
        *at(LITE0, ROUNDS, 0.35, ("kl recovered", "random"), ("kl recovered", "foreign"), ("selectivity", "foreign")),
    ),
    "rank correlation with exact patching is {:.2f} and {:.2f} for the gradient, {:.2f} and {:.2f} for conductance, "
    "{:.2f} and {:.2f} for Fisher in rounds, {:.2f} and {:.2f} for masks": lambda: [
        sizes(model, method, "rank correlation").median() / 100
        for method in ("gradient", "conductance", ROUNDS, "learned")
        for model in ("toy", "toy_vit")
    ],
    "with 25 % rounds recover more ({:.2f} and {:.2f}). The small CLIP of the package needs more: circuits by Fisher "
    "in rounds work from {:.0f} % on in the median class ({:.0f} to {:.0f} %)": lambda: (
        *(at(LITE0, method, 0.25, ANSWERS)[0] for method in (ROUNDS, "fisher")),
        *spread("toy", ROUNDS),
    ),
    "Of the hidden channels of EfficientNet-Lite0 circuits work from {:.0f} to {:.0f} % on, by class, of outputs of "
    "blocks from {:.0f} to {:.0f} %": lambda: (*spread(LITE0, ROUNDS)[1:], *spread(OUTPUTS, ROUNDS)[1:]),
    "With 44 images of other classes to find circuits, in the place of 12, Fisher in rounds takes {:.0f} s and "
    "recovers {:.2f} at 25 % and {:.2f} at 35 %, where its selectivity is {:.2f}. Masks take {:.0f} s and work from "
    "{:.0f} % on ({:.0f} to {:.0f}); rounds need {:+d} points more (more in {} classes, less in {}, "
    "p {:.2f}).": lambda: (
        sizes(MORE, ROUNDS, "seconds").median() / 100,
        at(MORE, ROUNDS, 0.25, ANSWERS)[0],
        *at(MORE, ROUNDS, 0.35, ANSWERS, SELECTIVITY),
        sizes(MORE, "learned", "seconds").median() / 100,
        *spread(MORE, "learned"),
        *(pair(MORE, ROUNDS, "learned")[i] for i in (0, 3, 1, 4)),
    ),
    "At 15 % masks recover {:.2f}, have a selectivity of {:.2f} and give the class to {:.0f} % of its images and "
    "{:.0f} % of others. The smaller, the {} the class's own: at 10 % they recover {:.2f} and other classes' masks "
    "{:.2f}, at 35 % {:.2f} and {:.2f}; selectivity is {:.2f} and {:.2f}, at 35 % {:.2f} and {:.2f}.": lambda: (
        *at(MORE, "learned", 0.15, ANSWERS, SELECTIVITY),
        *(100 * value for value in at(MORE, "learned", 0.15, ("right", "kept"), ("false", "kept"))),
        {"above": "more"}[comparison(*(leads(MORE, "learned", "selectivity")[i:][:4] for i in (0, 1)))],
        *(
            value
            for measure in ("kl recovered", "selectivity")
            for size in (0.1, 0.35)
            for value in at(MORE, "learned", size, (measure, "kept"), (measure, "foreign"))
        ),
    ),
    "On Lite0, Lite1 and Lite2 the size for a selectivity of 0.8 is {:.0f}, {:.0f} and {:.0f} % in the median class "
    "(to {:.0f}, {:.0f} and {:.0f} %, where 100 is none of the grid); with 35 % selectivity is {:.2f}, {:.2f} and "
    "{:.2f}.": lambda: [
        *(spread(model, ROUNDS, SIZE_FOR_SELECTIVITY)[i] for i in (0, 2) for model in LITES),
        *(at(model, ROUNDS, 0.35, SELECTIVITY)[0] for model in LITES),
    ],
    "On EfficientNet-Lite0, fitted on 14 images, they do not help: KL recovered is {:.2f} with 30 % (mean {:.2f}), "
    "selectivity {:.2f} ({:.2f}). With 20 % they give more right answers, {:.0f} % ({:.0f} %), and more false ones, "
    "{:.0f} % ({:.0f} %).": lambda: [
        scale * at("efficientnet_lite0_optimal", ROUNDS, size, (measure, "kept"), baseline=baseline)[0]
        for measure, size, scale in (
            ("kl recovered", 0.3, 1),
            ("selectivity", 0.3, 1),
            ("right", 0.2, 100),
            ("false", 0.2, 100),
        )
        for baseline in ("optimal", "mean")
    ],
    "With latents of sparse autoencoders at three sites in the place of their channels circuits work from {:.0f} % on "
    "in the place of {:.0f} %; there are four latents for each channel.": lambda: (
        sizes(model, ROUNDS).median() for model in ("toy_latents", "toy_three_outputs")
    ),
    "Rounds are the default because they recover {} where circuits are small.": lambda: [
        {"above": "more"}[
            comparison(*(values(LITE0, m, "kl recovered", "kept", list(SIZES[:6])) for m in (ROUNDS, "fisher")))
        ]
    ],
    "random units work from {:.0f} to {:.0f} % on, by method, circuits from {:.0f} to {:.0f} %": lambda: [
        size
        for circuit in ("random", "kept")
        for size in span(sizes("emoji", m, f"size to work, {circuit}").median() for m in EMOJI_METHODS)
    ],
}
