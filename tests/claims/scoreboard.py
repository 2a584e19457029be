"""Claims about circuits by method: how well they work at a size, which sizes work, and whose circuits they are."""

from functools import partial
from typing import Any

import pandas as pd

from tests.support.committed_tables import (
    Numbers,
    alike,
    comparison,
    made_with,
    rows,
    span,
)

SIZES = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)
METHODS = {
    "Fisher in rounds": "iterative-fisher",
    "Fisher, one pass": "fisher",
    "conductance": "conductance",
    "gradient": "gradient",
}
ALL_METHODS = {**METHODS, "exact patching": "patching", "learned masks": "learned"}
LITE0, MORE, OUTPUTS = (
    "efficientnet_lite0",
    "efficientnet_lite0_44_others",
    "efficientnet_lite0_outputs",
)
NETWORKS = {
    "EfficientNet-Lite0": LITE0,
    "EfficientNet-Lite0, many others": MORE,
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


def values(
    model: str,
    method: str,
    measure: str,
    circuit: str,
    sizes: object,
    baseline: str = "mean",
) -> list[float]:
    """Return a measure of circuits, classes pooled, by size."""
    asked = {
        "method": method,
        "measure": measure,
        "circuit": circuit,
        "baseline": baseline,
        "size": sizes,
    }
    return list(
        rows(f"scoreboard/{model}/curves", **asked).sort_values("size")["value"]
    )


def beside(model: str, method: str, measure: str, other: str) -> list[float]:
    """Return a measure of circuits and of others by size, in turn."""
    both = (
        values(model, method, measure, circuit, list(SIZES))
        for circuit in ("kept", other)
    )
    return [value for pair in zip(*both, strict=True) for value in pair]


def counted(model: str) -> str:
    """Return what sizes are shares of, the same in all tables of a scoreboard."""
    (words,) = {
        words
        for name in ("curves", "by_class")
        for words in rows(f"scoreboard/{model}/{name}")["counted"]
    }
    return str(words)


def sizes(
    model: str, method: str, what: str = "size to work, kept", baseline: str = "mean"
) -> pd.Series:
    """Return the smallest size of each class, in percent; 100 where none of the grid does."""
    found = rows(
        f"scoreboard/{model}/by_class", what=what, method=method, baseline=baseline
    ).set_index("class")
    return (100 * found["value"]).round(6)


def grid(model: str) -> list[float]:
    return sorted(
        float(size) for size in rows(f"scoreboard/{model}/curves")["size"].unique()
    )


def row(model: str, method: str) -> list[object]:
    """Return a network's row: units that are counted, sizes that work and of how many classes, measures, seconds.

    Measures are those of the size of the grid that is nearest to the median: KL recovered by circuits, by random units
    and by circuits of other classes, and the share of false answers.
    """
    found = sizes(model, method)
    size = min(grid(model), key=lambda one: abs(100 * one - found.median()))
    answers = [
        values(model, method, "kl recovered", one, size)[0]
        for one in ("kept", "random", "foreign")
    ]
    false = 100 * values(model, method, "false", "kept", size)[0]
    seconds = f"{sizes(model, method, 'seconds').median() / 100:.2g}"
    counts = (
        counted(model),
        found.median(),
        found.min(),
        found.max(),
        int((found < 100).sum()),
        len(found),
    )
    return [*counts, *answers, false, seconds]


def work_by(
    model: str, method: str, size: float, what: str = "size to work, kept"
) -> int:
    """Return how many classes have circuits that work, or another size, from a size in percent on."""
    return int((sizes(model, method, what) <= size).sum())


def pair(
    model: str, a: str, b: str, what: str = "size to work, kept", baseline: str = "mean"
) -> list[Any]:
    """Return how the sizes of a method differ from those of another: median in points, less, equal, more, p."""
    found = rows(f"scoreboard/{model}/paired", what=what, baseline=baseline)
    found = found.assign(
        a=found["a"].str.split().str[0], b=found["b"].str.split().str[0]
    )
    same, turned = (
        found[(found["a"] == a) & (found["b"] == b)],
        found[(found["a"] == b) & (found["b"] == a)],
    )
    row, sign = (same.iloc[0], 1) if len(same) else (turned.iloc[0], -1)
    counts = [row["n_less"], row["n_equal"], row["n_more"]][::sign]
    return [round(100 * sign * row["median"]), *counts, row["p"]]


def spread(
    model: str, method: str, what: str = "size to work, kept", baseline: str = "mean"
) -> list[float]:
    found = sizes(model, method, what, baseline)
    return [found.median(), found.min(), found.max()]


def leads(model: str, method: str, measure: str) -> list[float]:
    """Return by how much circuits exceed those of other classes, by size."""
    own, other = (
        values(model, method, measure, circuit, grid(model))
        for circuit in ("kept", "foreign")
    )
    return [a - b for a, b in zip(own, other, strict=True)]


def at(
    model: str,
    method: str,
    size: float,
    *asked: tuple[str, str],
    baseline: str = "mean",
) -> list[float]:
    """Return measures of circuits at a size: each a measure and which circuits."""
    return [
        values(model, method, measure, circuit, size, baseline)[0]
        for measure, circuit in asked
    ]


OPTIMAL = "efficientnet_lite0_optimal"
LITES = (LITE0, "efficientnet_lite1", "efficientnet_lite2")
ROUNDS = "iterative-fisher"
EMOJI_METHODS = ("gradient", "fisher", ROUNDS, "learned")
ANSWERS, SELECTIVITY = ("kl recovered", "kept"), ("selectivity", "kept")
SIZE_FOR_SELECTIVITY, RANDOM_WORK = (
    "size for 0.8 selectivity, kept",
    "size to work, random",
)
BY_IMAGES, LATENTS = (
    ("toy_two_images", "toy", "toy_ten_images"),
    ("toy_latents", "toy_three_outputs"),
)


def n_counted(model: str) -> int:
    return int(counted(model).split()[0])


def whole_right(model: str) -> float:
    """Return the share of right answers of the whole model."""
    return alike(
        rows(f"scoreboard/{model}/curves", measure="right", circuit="full")["value"]
    )


def percent(size: float) -> str:
    """Return a size in percent as a cell of a table."""
    return f"{size:.0f} %" if size < 100 else "no size of the grid"


def for_selectivity(model: str) -> list[object]:
    """Return the sizes for a selectivity of 0.8, of the median class and of the last, and selectivity with 35 %."""
    median, _, most = spread(model, ROUNDS, SIZE_FOR_SELECTIVITY)
    return [percent(median), percent(most), at(model, ROUNDS, 0.35, SELECTIVITY)[0]]


def masks(measure: str) -> list[float]:
    """Return a measure of masks and of other classes' masks, with 10 and with 35 %."""
    return [
        at(MORE, "learned", size, (measure, of))[0]
        for size in (0.1, 0.35)
        for of in ("kept", "foreign")
    ]


FITTED = (
    ("selectivity", "selectivity", "{:.2f}", 1),
    ("KL recovered", "kl recovered", "{:.2f}", 1),
    ("right answers", "right", "{:.0f} %", 100),
    ("false answers", "false", "{:.0f} %", 100),
)
"""Measures of circuits with fitted constants, as the page names and writes them."""


def fitted(model: str, size: float, n: int) -> list[float]:
    """Return size in percent, and a measure by Fisher in rounds with mean and fitted constants, of n measures in "
    "turn."""
    found = []
    for _, measure, _, scale in FITTED[:n]:
        both = (
            at(model, ROUNDS, size, (measure, "kept"), baseline=baseline)[0]
            for baseline in ("mean", "optimal")
        )
        found += [100 * size, *(scale * value for value in both)]
    return found


def seconds(model: str, method: str) -> float:
    return float(sizes(model, method, "seconds").median() / 100)


def single_units(method: str) -> list[float]:
    """Return the rank correlation of scores with exact patching on both small networks."""
    return [
        sizes(model, method, "rank correlation").median() / 100
        for model in ("toy", "toy_vit")
    ]


def significance(p: float) -> str:
    return "significant" if p < 0.05 else "not significant"


def rounds_lead() -> str:
    """Return in a word how rounds and one pass lie to each other up to 35 %."""
    below = [
        values(LITE0, method, "kl recovered", "kept", list(SIZES[:6]))
        for method in (ROUNDS, "fisher")
    ]
    return {"above": "more"}[comparison(*below)]


ROWS = (
    "| {} | {} | {} | {{:.0f}} [{{:.0f}}, {{:.0f}}] | {{}} of {{}} |"
    + " {{:.2f}} |" * 3
    + " {{:.0f}} % | {{}} |"
)

CLAIMS: dict[str, Numbers] = {
    **{
        f"| {named} | " + " | ".join(["{:.2f} ({:.2f})"] * len(SIZES)) + " |": partial(
            beside, LITE0, method, "kl recovered", "foreign"
        )
        for named, method in METHODS.items()
    },
    **{
        f"| {named}, selectivity | "
        + " | ".join(["{:.2f} ({:.2f})"] * len(SIZES))
        + " |": partial(beside, LITE0, method, "selectivity", "random")
        for named, method in METHODS.items()
    },
    **{
        ROWS.format(named, "{}", method): partial(row, model, name)
        for named, model in NETWORKS.items()
        for method, name in ALL_METHODS.items()
        if name in set(rows(f"scoreboard/{model}/by_class")["method"])
    },
    "circuits work from {:.0f} % of the hidden channels on in the median class ({:.0f} to {:.0f} % by class); Fisher "
    "in "
    "rounds finds them in {:.1f} seconds a class": lambda: [
        *spread(LITE0, ROUNDS),
        seconds(LITE0, ROUNDS),
    ],
    "with {} % of the hidden channels: Fisher in rounds {:.2f}, random units {:.2f}": lambda: [
        35,
        *at(LITE0, ROUNDS, 0.35, ANSWERS, ("kl recovered", "random")),
    ],
    "One or two of these and {} others find a circuit, one or two unseen ones and {} others measure it": lambda: (
        [made_with(f"scoreboard/{LITE0}")["n_others"]] * 2
    ),
    "With {} % of the {:,} hidden channels Fisher in rounds recovers {:.2f} of the answers, with a selectivity of "
    "{:.2f}. It "
    "gives the class to {:.0f} % of its images and to {:.0f} % of others": lambda: [
        35,
        n_counted(LITE0),
        *at(LITE0, ROUNDS, 0.35, ANSWERS, SELECTIVITY),
        *(
            100 * value
            for value in at(LITE0, ROUNDS, 0.35, ("right", "kept"), ("false", "kept"))
        ),
    ],
    **{
        f"| EfficientNet-Lite{i} | {{}} | {{}} | {{:.2f}} |": partial(
            for_selectivity, model
        )
        for i, model in enumerate(LITES)
    },
    "With outputs of blocks as units the same method needs {:.0f} % ({:.0f} to {:.0f} %)": lambda: (
        spread(OUTPUTS, ROUNDS)
    ),
    "with {} % of the hidden channels circuits of two other classes recover {:.2f} of the answers, the circuits of the "
    "class {:.2f}": lambda: [
        35,
        *at(LITE0, ROUNDS, 0.35, ("kl recovered", "foreign"), ANSWERS),
    ],
    "The circuits of other classes have a selectivity of {:.2f}, those of the class {:.2f}. They work from {:.0f} % "
    "on in the "
    "median class ({:.0f} to {:.0f} %), and as many random units at each site from {:.0f} % on ({:.0f} to {:.0f} "
    "%)": lambda: [
        *at(LITE0, ROUNDS, 0.35, ("selectivity", "foreign"), SELECTIVITY),
        *spread(LITE0, ROUNDS, "size to work, foreign"),
        *spread(LITE0, ROUNDS, RANDOM_WORK),
    ],
    "random units of these sites work from {:.0f} % on": lambda: spread(
        LITE0, ROUNDS, RANDOM_WORK
    )[:1],
    "With {} % it is the other way round: rounds recover {:.2f} with a selectivity of {:.2f}, masks {:.2f} and "
    "{:.2f}. Up "
    "to {} % rounds reach a selectivity of {} in {} of the classes, masks in {}": lambda: [
        35,
        *(
            value
            for method in (ROUNDS, "learned")
            for value in at(MORE, method, 0.35, ANSWERS, SELECTIVITY)
        ),
        *(35, 0.8),
        *(
            work_by(MORE, method, 35, SIZE_FOR_SELECTIVITY)
            for method in (ROUNDS, "learned")
        ),
    ],
    "Fisher in one pass needs {} as Fisher in rounds in the median class (Wilcoxon's p {:.2f}), in {:.1f} seconds "
    "instead of "
    "{:.1f}.": lambda: [
        {0: "as much"}[pair(LITE0, "fisher", ROUNDS)[0]],
        pair(LITE0, "fisher", ROUNDS)[4],
        *(seconds(LITE0, method) for method in ("fisher", ROUNDS)),
    ],
    "By class one pass needs {} in {}, as much in {} and {} in {}.": lambda: [
        *("less", pair(LITE0, "fisher", ROUNDS)[1], pair(LITE0, "fisher", ROUNDS)[2]),
        *("more", pair(LITE0, "fisher", ROUNDS)[3]),
    ],
    "With {} % of the hidden channels it recovers {:.2f}, and rounds recover {:.2f}. The gradient needs {:+d} points "
    "against "
    "rounds ({} in {} of {} classes, p {:.3f}), conductance {:+d} ({} in {}, p {:.3f}). Rounds are the default "
    "because up to "
    "{} % they recover {}.": lambda: [
        25,
        *(at(LITE0, method, 0.25, ANSWERS)[0] for method in ("fisher", ROUNDS)),
        *(
            pair(LITE0, "gradient", ROUNDS)[0],
            "more",
            pair(LITE0, "gradient", ROUNDS)[3],
            len(sizes(LITE0, ROUNDS)),
        ),
        pair(LITE0, "gradient", ROUNDS)[4],
        *(
            pair(LITE0, "conductance", ROUNDS)[0],
            "more",
            *pair(LITE0, "conductance", ROUNDS)[3:],
        ),
        *(35, rounds_lead()),
    ],
    "With seven classes Wilcoxon's test can give no p under {:.3f}": lambda: [
        2 / 2 ** len(sizes(LITE0, ROUNDS))
    ],
    "With {} images of other classes masks work from {:.0f} % on ({:.0f} to {:.0f} %); rounds need {:+d} points ({} "
    "in {} "
    "classes, {} in {}, p {:.2f}).": lambda: [
        made_with(f"scoreboard/{MORE}")["n_others"],
        *spread(MORE, "learned"),
        *(pair(MORE, ROUNDS, "learned")[0], "more", pair(MORE, ROUNDS, "learned")[3]),
        *("less", pair(MORE, ROUNDS, "learned")[1], pair(MORE, ROUNDS, "learned")[4]),
    ],
    "Masks take {:.0f} s a class, Fisher in rounds {:.0f} s. With {} % masks recover {:.2f} with "
    "a selectivity of {:.2f}; they give the class to {:.0f} % of its images and to {:.0f} % of others.": lambda: [
        *(seconds(MORE, method) for method in ("learned", ROUNDS)),
        15,
        *at(MORE, "learned", 0.15, ANSWERS, SELECTIVITY),
        *(
            100 * value
            for value in at(MORE, "learned", 0.15, ("right", "kept"), ("false", "kept"))
        ),
    ],
    "The {} masks are, the {} they are the class's own": lambda: [
        "smaller",
        {"above": "more"}[
            comparison(*(leads(MORE, "learned", "selectivity")[i:][:4] for i in (0, 1)))
        ],
    ],
    "| KL recovered by masks | {:.2f}, {:.2f} | {:.2f}, {:.2f} |": partial(
        masks, "kl recovered"
    ),
    "| selectivity of masks | {:.2f}, {:.2f} | {:.2f}, {:.2f} |": partial(
        masks, "selectivity"
    ),
    "On the small CLIP rounds need {:+d} points against masks with six images of a class ({} in {} of {} classes, {} "
    "in "
    "{}, p {:.2f}), "
    "and {:+d} with ten ({} in {} of {}, p {:.2f}). At {} % masks recover {:.2f} with a selectivity of {:.2f}, Fisher "
    "in rounds "
    "{:.2f} and "
    "{:.2f}, other classes' masks {:.2f} and {:.2f}": lambda: [
        *(
            pair("toy", ROUNDS, "learned")[0],
            "more",
            pair("toy", ROUNDS, "learned")[3],
            len(sizes("toy", ROUNDS)),
        ),
        *("less", pair("toy", ROUNDS, "learned")[1], pair("toy", ROUNDS, "learned")[4]),
        *(
            pair("toy_ten_images", ROUNDS, "learned")[0],
            "more",
            pair("toy_ten_images", ROUNDS, "learned")[3],
        ),
        *(
            len(sizes("toy_ten_images", ROUNDS)),
            pair("toy_ten_images", ROUNDS, "learned")[4],
        ),
        30,
        *at("toy", "learned", 0.3, ANSWERS, SELECTIVITY),
        *at("toy", ROUNDS, 0.3, ANSWERS, SELECTIVITY),
        *at(
            "toy",
            "learned",
            0.3,
            ("kl recovered", "foreign"),
            ("selectivity", "foreign"),
        ),
    ],
    "{:.0f} % by rounds and {:.0f} % by masks with two images of a class, {:.0f} and {:.0f} % with six, {:.0f} and "
    "{:.0f} % with ten. The classes differ, though: the model knows {}, {} and {} of them": lambda: [
        *(
            sizes(model, method).median()
            for model in BY_IMAGES
            for method in (ROUNDS, "learned")
        ),
        *(len(sizes(model, ROUNDS)) for model in BY_IMAGES),
    ],
    "the difference between masks and rounds is {}": lambda: [
        significance(pair(MORE, ROUNDS, "learned")[4])
    ],
    "with the units of another image in the place of ablated ones circuits work from {:.0f} % on ({:.0f} to {:.0f} "
    "%), with "
    "the mean from {:.0f} % on.": lambda: [
        *spread(LITE0, ROUNDS, baseline="resample"),
        spread(LITE0, ROUNDS)[0],
    ],
    "With the units of another image circuits of {} % recover {:.2f}, with the mean {:.2f}. Constants that are fitted "
    "to each circuit help on the small CLIP. On EfficientNet-Lite0, where they are fitted on {} images, they help "
    "circuits "
    "of {} % by three measures of four, and circuits of {} % by right answers alone": lambda: [
        35,
        *(
            at(LITE0, ROUNDS, 0.35, ANSWERS, baseline=baseline)[0]
            for baseline in ("resample", "mean")
        ),
        sum(
            made_with("scoreboard/efficientnet_lite0_optimal")[of]
            for of in ("n_images", "n_others")
        ),
        *(20, 30),
    ],
    **{
        " ".join(
            f"| {named}, {{:.0f}} % | {what} | {form} | {form} |"
            for what, _, form, _ in FITTED[:n]
        ): partial(fitted, model, size, n)
        for named, model, size, n in (
            ("small CLIP", "toy_ablations", 0.4, 4),
            ("EfficientNet-Lite0", OPTIMAL, 0.3, 3),
            ("EfficientNet-Lite0", OPTIMAL, 0.2, 4),
        )
    },
    "circuits of other classes, at {} %, have a selectivity of {:.2f} on the small CLIP and recover {:.2f}; random "
    "units "
    "have {:.2f} and recover {:.2f}": lambda: (
        [40]
        + [
            at("toy_ablations", ROUNDS, 0.4, (measure, circuit), baseline="optimal")[0]
            for circuit in ("foreign", "random")
            for measure in ("selectivity", "kl recovered")
        ]
    ),
    "{:.0f} % of the hidden channels of EfficientNet-Lite0, {:.0f} % of those of the small CLIP, and {:.0f} % of the "
    "heads and "
    "neurons of the small ViT": lambda: [
        sizes(model, ROUNDS).median() for model in (LITE0, "toy", "toy_vit")
    ],
    "On the small ViT as many random units at each site work from {:.0f} % on, too.": lambda: (
        spread("toy_vit", ROUNDS, RANDOM_WORK)[:1]
    ),
    "In the median class such units, and circuits, work from {:.0f} % on": lambda: [
        alike(
            (
                spread("toy_vit", ROUNDS, what)[0]
                for what in (RANDOM_WORK, "size to work, kept")
            ),
            0,
        )
    ],
    "on the small CLIP the whole model is right in {:.0f} % of their images, on the small ViT in {:.0f} %": lambda: (
        100 * whole_right(model) for model in ("toy", "toy_vit")
    ),
    "six images of a class and {} others)": lambda: [
        made_with("scoreboard/toy")["n_others"]
    ],
    "random units work from {:.0f} to {:.0f} % on, by method, circuits from {:.0f} to {:.0f} %": lambda: [
        size
        for circuit in ("random", "kept")
        for size in span(
            sizes("emoji", m, f"size to work, {circuit}").median()
            for m in EMOJI_METHODS
        )
    ],
    "as many random units at each site recover {:.2f} with {} %, circuits {:.2f}": lambda: [
        at("toy_vit", ROUNDS, 0.1, ("kl recovered", "random"))[0],
        10,
        at("toy_vit", ROUNDS, 0.1, ANSWERS)[0],
    ],
    "With latents of sparse autoencoders at three sites in the place of their channels circuits work from {:.0f} % on "
    "in the place of {:.0f} %. These are {:.0f} latents in the place of {:.0f} channels: there are four latents for "
    "each "
    "channel": lambda: [
        *(sizes(model, ROUNDS).median() for model in LATENTS),
        *(sizes(model, ROUNDS).median() / 100 * n_counted(model) for model in LATENTS),
    ],
    "its rank correlation with exact patching is {:.2f} on the small CLIP and {:.2f} on the small ViT": partial(
        single_units, "gradient"
    ),
    **{
        f"| scores by {named} | {{:.2f}} | {{:.2f}} |": partial(single_units, method)
        for named, method in {
            "the gradient": "gradient",
            "conductance": "conductance",
            "Fisher in rounds": ROUNDS,
            "learned masks": "learned",
        }.items()
    },
    "together: on EfficientNet-Lite0 and the small CLIP the gradient needs {} circuits": lambda: [
        {"above": "larger"}[
            comparison(
                *(
                    [sizes(model, method).median() for model in (LITE0, "toy")]
                    for method in ("gradient", ROUNDS)
                )
            )
        ]
    ],
    "They said that circuits which tell a class from others take {} % of a real network by masks and {} % by "
    "Fisher": lambda: [73, 88],
    "Fisher in rounds needs {:.0f} % ({:.0f} to {:.0f} %), with hidden channels {:.0f} % ({:.0f} to {:.0f} "
    "%)": lambda: [
        *spread(OUTPUTS, ROUNDS),
        *spread(LITE0, ROUNDS),
    ],
    # other pages
    "With 35 % Fisher in rounds recovers {:.2f} of the answers, has a selectivity of {:.2f}, and gives the class to "
    "{:.0f} % of its images and to {:.0f} % of others; as many random units at every site recover {:.2f}.": lambda: (
        *at(LITE0, ROUNDS, 0.35, ANSWERS, SELECTIVITY),
        *(
            100 * value
            for value in at(LITE0, ROUNDS, 0.35, ("right", "kept"), ("false", "kept"))
        ),
        *at(LITE0, ROUNDS, 0.35, ("kl recovered", "random")),
    ),
    "By Fisher in rounds, {:.1f} seconds a class, circuits work from {:.0f} % of the hidden channels on (median class; "
    "{:.0f} to {:.0f} %); of outputs of blocks it takes {:.0f} % ({:.0f} to {:.0f} %). With 35 % they recover {:.2f} "
    "of the answers with a selectivity of {:.2f} and give the class to {:.0f} % of other images; random units recover "
    "{:.2f}, and work from {:.0f} % on. But circuits of two other classes recover {:.2f}, with a selectivity of "
    "{:.2f}": lambda: (
        sizes(LITE0, ROUNDS, "seconds").median() / 100,
        *spread(LITE0, ROUNDS),
        *spread(OUTPUTS, ROUNDS),
        *at(LITE0, ROUNDS, 0.35, ANSWERS, SELECTIVITY),
        100 * at(LITE0, ROUNDS, 0.35, ("false", "kept"))[0],
        *at(LITE0, ROUNDS, 0.35, ("kl recovered", "random")),
        spread(LITE0, ROUNDS, RANDOM_WORK)[0],
        *at(
            LITE0, ROUNDS, 0.35, ("kl recovered", "foreign"), ("selectivity", "foreign")
        ),
    ),
    "with 25 % rounds recover more ({:.2f} and {:.2f}). The small CLIP of the package needs more: circuits by Fisher "
    "in rounds work from {:.0f} % on in the median class ({:.0f} to {:.0f} %)": lambda: (
        *(at(LITE0, method, 0.25, ANSWERS)[0] for method in (ROUNDS, "fisher")),
        *spread("toy", ROUNDS),
    ),
    "With {} % of the hidden channels circuits of other classes recover as much of the answers, with a selectivity of "
    "{:.2f} where those of the class have {:.2f}": lambda: [
        35,
        *at(LITE0, ROUNDS, 0.35, ("selectivity", "foreign"), SELECTIVITY),
    ],
    "Of the hidden channels of EfficientNet-Lite0 circuits work from {:.0f} to {:.0f} % on, by class, of outputs of "
    "blocks from {:.0f} to {:.0f} %": lambda: (
        *spread(LITE0, ROUNDS)[1:],
        *spread(OUTPUTS, ROUNDS)[1:],
    ),
}
