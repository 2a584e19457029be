"""Claims about parts that are a class's own."""

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from scipy import stats

from tests.support.committed_tables import (
    RESULTS,
    Numbers,
    alike,
    interval,
    made_with,
    one,
    rows,
    span,
    table,
)

OWN, OTHERS, ITS_OWN = "own class", "other classes", "its own style"
BY_STYLE, DRAWN = "own_parts/lite0_styles/by_style", ["clipart", "noto", "fluent3d"]
VERDICTS = partial(table, "own_parts/lite0_styles/verdicts")
NETWORKS = {
    **{f"EfficientNet-Lite{n}": f"lite{n}_photo" for n in range(3)},
    "small CLIP": "rn_tiny",
    "small ViT": "vit_tiny",
}


def left(
    folder: str,
    share: float,
    answers: str = OWN,
    cut: str = "part",
    styles: str = "its own style",
) -> float:
    named: dict[str, Any] = {
        "share": share,
        "answers": answers,
        "cut": cut,
        "styles": styles,
    }
    return one(f"own_parts/{folder}/by_share", **named)


def classes(folder: str) -> int:
    return int(
        rows(f"own_parts/{folder}/by_share", answers=OWN, styles="its own style")[
            "n_classes"
        ].min()
    )


def row(folder: str, share: float) -> list[float]:
    """Return what own class, other classes, and the own class without random units keep."""
    return [
        left(folder, share),
        left(folder, share, OTHERS),
        left(folder, share, cut="random"),
    ]


def across(found_on: str, images: str, answers: str = OWN) -> float:
    return one(
        BY_STYLE, part_domain=found_on, domain=images, answers=answers, cut="part"
    )


def overlaps(folder: str) -> list[float]:
    kinds = ("one class in two styles", "two classes in one style")
    chance = rows(f"own_parts/{folder}/overlap")["chance"]
    return [
        *(one(f"own_parts/{folder}/overlap", parts=kind) for kind in kinds),
        float(chance.mean()),
    ]


def verdicts(folder: str, verdict: str) -> int:
    return int((table(f"own_parts/{folder}/verdicts")["verdict"] == verdict).sum())


def rival(method: str, share: float, answers: str = OWN) -> float:
    named: dict[str, Any] = {
        "method": method,
        "share": share,
        "answers": answers,
        "cut": "part",
        "styles": "its own style",
    }
    return one("own_parts/rivals/rivals", **named)


def both_taken(folder: str) -> int:
    """Return in how many classes and pairs of styles each part leaves a fifth of the class or less in the other."""
    found = table(f"own_parts/{folder}/verdicts")
    return int((found[["a_on_b", "b_on_a"]].max(axis=1) <= 0.2).sum())


def of_rival(method: str) -> list[float]:
    return [
        rival(method, share, answers)
        for share in (0.01, 0.02)
        for answers in (OWN, OTHERS)
    ]


def steered(units: str) -> float:
    return float(rows("own_parts/rivals/steering", units=units)["after"].mean())


def moved() -> pd.DataFrame:
    return rows("own_parts/rivals/steering", units="own part")


def recall(method: str, copies: int) -> float:
    return one("own_parts/rivals/planted", "recall", method=method, copies=copies)


def depth(sites: str, answers: str = OWN, styles: str = "its own style") -> float:
    return one(
        "own_parts/lite0_depth/by_depth",
        sites=sites,
        answers=answers,
        cut="part",
        styles=styles,
    )


def network(folder: str) -> list[object]:
    """Return the number of classes, and the rows of 1 and of 2 %."""
    return [classes(folder), *row(folder, 0.01), *row(folder, 0.02)]


def styles_of(
    found_on: str, images: tuple[str, ...] = ("photo", "clipart", "noto", "fluent3d")
) -> list[float]:
    """Return what the class keeps in each style without the part of one style, and the fewest classes of a style."""
    counts = rows(BY_STYLE, part_domain=found_on, answers=OWN, cut="part")["n_classes"]
    return [
        *(across(found_on, style) for style in images),
        int(counts.min()),
        int(counts.max()),
    ]


def over_depth(way: str, styles: str = "its own style") -> list[float]:
    """Return what own class and other classes keep where units may lie up to, or from, each place."""
    sites = [
        name
        for name in dict.fromkeys(table("own_parts/lite0_depth/by_depth")["sites"])
        if name.startswith(way)
    ]
    return [depth(name, answers, styles) for name in sites for answers in (OWN, OTHERS)]


def seeds(share: float, *what: str) -> list[float]:
    """Return mean and interval over the models of other seeds."""
    return interval("own_parts/seeds/seeds", share=share, what=", ".join(what))


def of_seeds(*what: str) -> list[float]:
    """Return mean and interval over models, without 1 and without 2 % of the units."""
    return [number for share in (0.01, 0.02) for number in seeds(share, *what)]


def bound_of_none(folder: str, share: float) -> list[float]:
    """Return how many classes keep any right answer, of how many, the percent of a bound, and the bound."""
    n, level = classes(folder), 0.95
    assert left(folder, share) == 0
    return [0, n, 100 * level, stats.beta.ppf(level, 1, n)]


def photographs() -> "pd.Series[int]":
    """Return how many photographs each class has."""
    files = (
        (RESULTS / "own_parts" / "lite0_photo" / "images.txt")
        .read_text(encoding="utf-8")
        .split()
    )
    return pd.Series([Path(file).parent.name for file in files]).value_counts()


def of_others(folder: str, share: float) -> list[float]:
    return interval(
        f"own_parts/{folder}/by_share", share=share, answers=OTHERS, cut="part"
    )


def steering() -> list[float]:
    """Return the probability of a class before and with its own part."""
    return [
        float(table("own_parts/rivals/steering")["before"].mean()),
        steered("own part"),
    ]


def beside_colours(
    folder: str, which: str, column: str = "partial"
) -> "pd.Series[float]":
    return rows(
        f"own_parts/{folder}/correlations",
        pairs="of classes in styles",
        **{"with": which},
    )[column]


def of_styles(folder: str) -> list[float]:
    """Return the span of the rank correlations over pairs of styles, how many pairs, and the largest p."""
    found = rows(f"own_parts/{folder}/correlations", pairs="of styles")
    pairs = rows(f"own_parts/{folder}/styles", levels=2)
    return [*span(found["rho"]), len(pairs), float(found["p"].max())]


COLOURS = ("colours_lite0", "colours_rn_tiny")
DEPTH_ROW = "| {:.2f}, {:.2f} | {:.2f}, {:.2f} | {:.2f}, {:.2f} | {:.2f}, {:.2f} |"
RIVALS = (
    "contrast",
    "gradient",
    "fisher",
    "fisher difference",
    "class selectivity",
    "linear probe",
    "learned gates",
)
CLAIMS: dict[str, Numbers] = {
    "after removing {} % of the hidden channels a class of photographs keeps {:.2f} of its right answers ({} of {} "
    "classes keep any; one-sided {:.0f} % bound {:.2f}, by Clopper-Pearson), and other classes keep {:.2f} [{:.2f}, "
    "{:.2f}]. After removing as many random channels at the same sites the class keeps {:.2f}, and other classes keep "
    "{:.2f}.": lambda: [
        *(
            2,
            left("lite0_photo", 0.02),
            *bound_of_none("lite0_photo", 0.02),
            *of_others("lite0_photo", 0.02),
        ),
        *(left("lite0_photo", 0.02, answers, "random") for answers in (OWN, OTHERS)),
    ],
    "The share of {} % was chosen of five on": lambda: [2],
    "of the {} classes {} have a second photograph, and {} of these are in the table": lambda: [
        len(photographs()),
        (photographs() > 1).sum(),
        classes("lite0_photo"),
    ],
    "mean over {} classes. At {} %: own class {:.2f}, other classes {:.2f}, own class without random channels "
    "{:.2f}": lambda: [classes("lite0_photo"), 2, *row("lite0_photo", 0.02)],
    **{
        f"| {name}, {{}} classes | {{:.2f}}, {{:.2f}}, {{:.2f}} | {{:.2f}}, {{:.2f}}, {{:.2f}} |": partial(
            network, folder
        )
        for name, folder in NETWORKS.items()
    },
    "Without {} % of the units of the small CLIP other classes keep {:.2f}, without as many random units {:.2f}. "
    "Without "
    "{} % of those of the small ViT the class itself keeps {:.2f}": lambda: [
        *(2, left("rn_tiny", 0.02, OTHERS), left("rn_tiny", 0.02, OTHERS, "random")),
        *(2, left("vit_tiny", 0.02)),
    ],
    "beside photographs of {} other classes, and one or two photographs test it. The "
    "candidate classes are {} of": lambda: [
        made_with("own_parts/lite0_photo")["n_others"],
        len(made_with("own_parts/lite0_photo")["classes"]),
    ],
    "without {} % of the units a class keeps {:.2f} [{:.2f}, {:.2f}] of its right answers, and other classes keep "
    "{:.2f} "
    "[{:.2f}, {:.2f}]; without random units they keep {:.2f}.": lambda: [
        1,
        *seeds(0.01, OWN, "part", "its own style"),
        *seeds(0.01, OTHERS, "part", "its own style"),
        seeds(0.01, OTHERS, "random", "its own style")[0],
    ],
    "Each cell is a mean over {} models": lambda: [
        len(table("own_parts/seeds/seeds").filter(like="seed_").columns)
    ],
    **{
        f"| {name} | {{:.2f}} [{{:.2f}}, {{:.2f}}] | {{:.2f}} [{{:.2f}}, {{:.2f}}] |": partial(
            of_seeds, *what
        )
        for name, what in {
            "own class": (OWN, "part", "its own style"),
            "other classes": (OTHERS, "part", "its own style"),
            "own class, without random units": (OWN, "random", "its own style"),
            "other classes, without random units": (OTHERS, "random", "its own style"),
            "own class, in another style": (OWN, "part", "another style"),
        }.items()
    },
    "Parts that photographs found leave the class {:.2f} of its right answers in clip art and in two sets of emoji, "
    "too "
    "({} to {} classes). Two parts of a class share {:.3f} of their units, where chance is {:.3f}": lambda: [
        alike(across("photo", style) for style in DRAWN),
        *span(
            rows(BY_STYLE, part_domain="photo", domain=DRAWN, answers=OWN, cut="part")[
                "n_classes"
            ]
        ),
        *(overlaps("lite0_styles")[i] for i in (0, 2)),
    ],
    "In EfficientNet-Lite0 two parts of a class share {:.3f} of their units.": lambda: [
        overlaps("lite0_styles")[0]
    ],
    "so {:.3f} has no ceiling": lambda: [overlaps("lite0_styles")[0]],
    "What the class keeps without {} % of": lambda: [2],
    "take the class in clip art and two sets of emoji, too ({} to {} classes). "
    "Parts in the last three blocks alone, {} % of the units there, leave other classes {:.2f} (photographs and clip "
    "art, "
    "{} classes)": lambda: [
        *span(
            rows(BY_STYLE, part_domain="photo", domain=DRAWN, answers=OWN, cut="part")[
                "n_classes"
            ]
        ),
        *(5, depth("from blocks.5.2.bn2", OTHERS)),
        int(rows("own_parts/lite0_depth/by_depth", styles=ITS_OWN)["n_classes"].min()),
    ],
    "By class the mean is {:.3f} to {:.3f}": lambda: span(
        moved().groupby("class")["after"].mean()
    ),
    "| photo | {:.2f} | {:.2f} | {:.2f} | {:.2f} | {} to {} |": lambda: styles_of(
        "photo"
    ),
    "| clipart | {:.2f} | {:.2f} | {:.2f} | {:.2f} | {} to {} |": lambda: styles_of(
        "clipart"
    ),
    "| noto | {:.2f} | {:.2f} | - | {:.2f} | {} to {} |": lambda: styles_of(
        "noto", ("photo", "clipart", "fluent3d")
    ),
    "| fluent3d | {:.2f} | {:.2f} | {:.2f} | - | {} to {} |": lambda: styles_of(
        "fluent3d", ("photo", "clipart", "noto")
    ),
    "Without as many random units the class keeps {:.2f} to {:.2f}.": lambda: span(
        rows(BY_STYLE, answers=OWN, cut="random")["value"]
    ),
    "Parts of one class in two styles share {:.3f} of their units (Jaccard index), parts of two classes in one style "
    "{:.3f}, and "
    "chance is "
    "{:.3f}": lambda: overlaps("lite0_styles"),
    "In the small CLIP they share {:.3f}, {:.3f} and, by chance, {:.3f}; over five seeds {:.3f} [{:.3f}, {:.3f}], "
    "{:.3f} "
    "and {:.3f}": lambda: [
        *overlaps("rn_tiny"),
        *seeds(0.02, "one class in two styles"),
        seeds(0.02, "two classes in one style")[0],
        seeds(0.02, "chance")[0],
    ],
    "parts of one class in two styles share {:.4f}, of two classes in one style {:.4f}; in the small CLIP {:.4f} and "
    "{:.4f}": lambda: [
        one(f"own_parts/{folder}/overlap", "edges", parts=kind)
        for folder in ("lite0_styles", "rn_tiny")
        for kind in ("one class in two styles", "two classes in one style")
    ],
    "In {} of {} classes and pairs of styles each part takes the class in the other style, too. They are pairs of nine "
    "classes; electric guitar and soccer ball have {} of them. For {} of the {} the verdict": lambda: [
        both_taken("lite0_styles"),
        len(VERDICTS()),
        int(VERDICTS()["class"].isin(["electric_guitar", "soccer_ball"]).sum()),
        verdicts("lite0_styles", "the same part"),
        len(VERDICTS()),
    ],
    "In {} of these {} a style has no unseen image": lambda: [
        int(
            VERDICTS()
            .query("verdict == 'the same part'")[["own_a", "own_b"]]
            .isna()
            .any(axis=1)
            .sum()
        ),
        verdicts("lite0_styles", "the same part"),
    ],
    "rank correlation of {:.2f} in EfficientNet-Lite0 and {:.2f} in the small CLIP (permutation p {:.4f})": lambda: [
        *(float(beside_colours(folder, "one class").mean()) for folder in COLOURS),
        max(
            beside_colours(folder, "one class", "partial_p").max() for folder in COLOURS
        ),
    ],
    "Given the class, it goes with colours by {:.2f} to {:.2f} and by {:.2f} to {:.2f}, with p from {:.2f} on. "
    "Colours are "
    "histograms of {} to {} levels": lambda: [
        *(end for folder in COLOURS for end in span(beside_colours(folder, "colours"))),
        min(beside_colours(folder, "colours", "partial_p").min() for folder in COLOURS),
        *span(table("own_parts/colours_lite0/correlations")["levels"]),
    ],
    "in the small CLIP: the rank correlation is {:.2f} to {:.2f} over {} pairs, p {:.2f}. In EfficientNet-Lite0 it is "
    "{:.2f} to {:.2f} over {} pairs, p {:.2f} to {:.2f}": lambda: [
        *of_styles("colours_rn_tiny"),
        *of_styles("colours_lite0")[:3],
        *span(rows("own_parts/colours_lite0/correlations", pairs="of styles")["p"]),
    ],
    "without {} % of the units from there on the class keeps {:.2f} of its right answers, and other classes keep "
    "{:.2f}": lambda: [5, *over_depth("from")[-2:]],
    "are left without {} % of the units up to a place": lambda: [5],
    f"up to there {DEPTH_ROW}": lambda: over_depth("up to"),
    f"from the next on {DEPTH_ROW}": lambda: over_depth("from"),
    "of {} classes with a part": lambda: [
        int(rows("own_parts/lite0_depth/by_depth", styles=ITS_OWN)["n_classes"].min())
    ],
    "Up to `blocks.3.0` the class keeps {:.2f} and other classes {:.2f}": lambda: (
        over_depth("up to")[2:4]
    ),
    "In the other style the class keeps {:.2f} without the units from `blocks.5.2` on ({} classes)": lambda: [
        depth("from blocks.5.2.bn2", styles="another style"),
        int(
            rows("own_parts/lite0_depth/by_depth", answers=OWN, styles="another style")[
                "n_classes"
            ].min()
        ),
    ],
    "Without the last block, {} % of the other units leave the class {:.2f} [{:.2f}, {:.2f}] and other classes "
    "{:.2f}; {} "
    "% leave {:.2f} and {:.2f}, {} % leave {:.2f} and {:.2f}": lambda: [
        2,
        *interval(
            "own_parts/lite0_without_last/by_share", share=0.02, answers=OWN, cut="part"
        ),
        left("lite0_without_last", 0.02, OTHERS),
        *(
            2.5,
            *(left("lite0_without_last", 0.025, answers) for answers in (OWN, OTHERS)),
        ),
        *(5, *(left("lite0_without_last", 0.05, answers) for answers in (OWN, OTHERS))),
    ],
    "one takes the class and keeps nine tenths of other classes at {} %: {}, which leaves {:.2f} and {:.2f}": lambda: [
        2,
        *[
            name
            for name in RIVALS
            if rival(name, 0.02) <= 0.2 and rival(name, 0.02, OTHERS) >= 0.9
        ],
        *of_rival("contrast")[2:],
    ],
    "contrast has {} classes, other rankings {}:": lambda: [
        int(alike(rows("own_parts/rivals/rivals", method=methods)["n_classes"]))
        for methods in ("contrast", [*RIVALS[1:]])
    ],
    **{
        f"| {name} | {{:.2f}}, {{:.2f}} | {{:.2f}}, {{:.2f}} |": partial(of_rival, name)
        for name in RIVALS
    },
    "With {} % the gradient, Fisher and Fisher's difference leave {:.2f} to {:.2f} of other classes": lambda: [
        2,
        *span(
            rival(name, 0.02, OTHERS)
            for name in ("gradient", "fisher", "fisher difference")
        ),
    ],
    "as many random units at the sites of Fisher's parts leave {:.2f}": lambda: [
        one(
            "own_parts/rivals/rivals",
            method="fisher",
            share=0.02,
            answers=OTHERS,
            cut="random",
        )
    ],
    "in {} steps and were not tuned": lambda: [25],
    "contrast finds {:.2f} of a class's own units, and {:.2f} in another where each has a copy that replaces it; exact "
    "patching finds {:.2f} and {:.2f}, the gradient {:.2f} and {:.2f}, Fisher {:.2f} and {:.2f}.": lambda: [
        recall(method, copies)
        for method in ("contrast", "patching", "gradient", "fisher")
        for copies in (1, 2)
    ],
    "from {:.3f} to {:.3f}; by random units to {:.3f}, by the part of a third class to {:.3f}": lambda: [
        *steering(),
        steered("random"),
        steered("another class's part"),
    ],
    "activations of a part ({} %) in images of other classes move the probability of the class from {:.3f} to "
    "{:.3f}": lambda: [2, *steering()],
    "Random units move it to {:.3f}, and the part of a third class to {:.3f}": lambda: [
        steered("random"),
        steered("another class's part"),
    ],
    "mean over {} pairs of {} classes": lambda: [
        len(moved()),
        moved()["class"].nunique(),
    ],
    "A probability of {:.3f} is a mean. By class it is {:.3f} (whale) to {:.3f} (mushroom), and the median pair has "
    "{:.2f}": lambda: [
        steering()[1],
        *(
            moved().groupby("class")["after"].mean()[name]
            for name in ("whale", "mushroom")
        ),
        moved()["after"].median(),
    ],
}
