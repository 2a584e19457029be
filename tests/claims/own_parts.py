"""Claims about parts that are a class's own."""

from functools import partial
from typing import Any

import pandas as pd

from tests.support.committed_tables import Numbers, interval, one, rows, span, table

OWN, OTHERS = "own class", "other classes"
NETWORKS = {
    **{f"EfficientNet-Lite{n}": f"lite{n}_photo" for n in range(3)},
    "small CLIP": "rn_tiny",
    "small ViT": "vit_tiny",
}


def left(folder: str, share: float, answers: str = OWN, cut: str = "part", styles: str = "its own style") -> float:
    named: dict[str, Any] = {"share": share, "answers": answers, "cut": cut, "styles": styles}
    return one(f"own_parts/{folder}/by_share", **named)


def classes(folder: str) -> int:
    return int(rows(f"own_parts/{folder}/by_share", answers=OWN, styles="its own style")["n_classes"].min())


def row(folder: str, share: float) -> list[float]:
    """Return what own class, other classes, and the own class without random units keep."""
    return [left(folder, share), left(folder, share, OTHERS), left(folder, share, cut="random")]


def across(found_on: str, images: str, answers: str = OWN) -> float:
    return one("own_parts/lite0_styles/by_style", part_domain=found_on, domain=images, answers=answers, cut="part")


def overlaps(folder: str) -> list[float]:
    kinds = ("one class in two styles", "two classes in one style")
    chance = rows(f"own_parts/{folder}/overlap")["chance"]
    return [*(one(f"own_parts/{folder}/overlap", parts=kind) for kind in kinds), float(chance.mean())]


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
    return [rival(method, share, answers) for share in (0.01, 0.02) for answers in (OWN, OTHERS)]


def steered(units: str) -> float:
    return float(rows("own_parts/rivals/steering", units=units)["after"].mean())


def recall(method: str, copies: int) -> float:
    return one("own_parts/rivals/planted", "recall", method=method, copies=copies)


def depth(sites: str, answers: str = OWN, styles: str = "its own style") -> float:
    return one("own_parts/lite0_depth/by_depth", sites=sites, answers=answers, cut="part", styles=styles)


def network(folder: str) -> list[object]:
    """Return the number of classes, and the rows of 1 and of 2 %."""
    return [classes(folder), *row(folder, 0.01), *row(folder, 0.02)]


def styles_of(found_on: str) -> list[float]:
    """Return what the class keeps in each style without the part of one style, and the fewest classes of a style."""
    images = ("photo", "clipart", "noto", "fluent3d")
    named = {"part_domain": found_on, "answers": OWN, "cut": "part"}
    counts = rows("own_parts/lite0_styles/by_style", **named)["n_classes"]
    return [*(across(found_on, style) for style in images), int(counts.min()), int(counts.max())]


def over_depth(way: str, styles: str = "its own style") -> list[float]:
    """Return what own class and other classes keep where units may lie up to, or from, each place."""
    sites = [name for name in dict.fromkeys(table("own_parts/lite0_depth/by_depth")["sites"]) if name.startswith(way)]
    return [depth(name, answers, styles) for name in sites for answers in (OWN, OTHERS)]


def seeds(share: float, *what: str) -> list[float]:
    """Return mean and interval over the models of other seeds."""
    return interval("own_parts/seeds/seeds", share=share, what=", ".join(what))


def beside_colours(folder: str, which: str, column: str = "partial") -> "pd.Series[float]":
    return rows(f"own_parts/{folder}/correlations", pairs="of classes in styles", **{"with": which})[column]


def of_styles(folder: str) -> list[float]:
    """Return the span of the rank correlations over pairs of styles, how many pairs, and the largest p."""
    found = rows(f"own_parts/{folder}/correlations", pairs="of styles")
    pairs = rows(f"own_parts/{folder}/styles", levels=2)
    return [*span(found["rho"]), len(pairs), float(found["p"].max())]


COLOURS = ("colours_lite0", "colours_rn_tiny")
DEPTH_ROW = "| {:.2f}, {:.2f} | {:.2f}, {:.2f} | {:.2f}, {:.2f} | {:.2f}, {:.2f} |"
RIVALS = ("contrast", "gradient", "fisher", "fisher difference", "class selectivity", "linear probe", "learned gates")
CLAIMS: dict[str, Numbers] = {
    "without 2 % of the hidden channels a class of photographs keeps {:.2f} of its right answers, and other classes "
    "keep {:.2f} [{:.2f}, {:.2f}]; without as many random channels at the same sites it keeps {:.2f}": lambda: [
        left("lite0_photo", 0.02),
        *interval("own_parts/lite0_photo/by_share", share=0.02, answers=OTHERS, cut="part"),
        left("lite0_photo", 0.02, cut="random"),
    ],
    **{
        f"| {name}, {{}} classes | {{:.2f}}, {{:.2f}}, {{:.2f}} | {{:.2f}}, {{:.2f}}, {{:.2f}} |": partial(
            network, folder
        )
        for name, folder in NETWORKS.items()
    },
    "| photo | {:.2f} | {:.2f} | {:.2f} | {:.2f} | {} to {} |": lambda: styles_of("photo"),
    "| clipart | {:.2f} | {:.2f} | {:.2f} | {:.2f} | {} to {} |": lambda: styles_of("clipart"),
    "The parts of one class in two styles share {:.3f} of their units, those of two classes in one style {:.3f}, "
    "chance {:.3f}": lambda: overlaps("lite0_styles"),
    "In the small CLIP they share {:.3f}, {:.3f} and, by chance, {:.3f}": partial(overlaps, "rn_tiny"),
    "parts of one class in two styles share {:.4f}, of two classes in one style {:.4f}; in the small CLIP {:.4f} and "
    "{:.4f}": lambda: [
        one(f"own_parts/{folder}/overlap", "edges", parts=kind)
        for folder in ("lite0_styles", "rn_tiny")
        for kind in ("one class in two styles", "two classes in one style")
    ],
    "In {} of {} classes and pairs of styles each part takes the class in the other style, too; {} of them are the "
    "same part by every measure": lambda: [
        both_taken("lite0_styles"),
        len(table("own_parts/lite0_styles/verdicts")),
        verdicts("lite0_styles", "the same part"),
    ],
    "Without 1 % of the units a class keeps {:.2f} [{:.2f}, {:.2f}] of its right answers, other classes {:.2f} "
    "[{:.2f}, {:.2f}], the class without random units {:.2f} [{:.2f}, {:.2f}]": lambda: [
        *seeds(0.01, OWN, "part", "its own style"),
        *seeds(0.01, OTHERS, "part", "its own style"),
        *seeds(0.01, OWN, "random", "its own style"),
    ],
    "Without 2 % the class keeps {:.2f} and others {:.2f}, where random units leave others {:.2f}": lambda: [
        seeds(0.02, answers, cut, "its own style")[0]
        for answers, cut in ((OWN, "part"), (OTHERS, "part"), (OTHERS, "random"))
    ],
    "the part it keeps {:.2f} [{:.2f}, {:.2f}]": lambda: seeds(0.01, OWN, "part", "another style"),
    "share {:.3f} [{:.3f}, {:.3f}] of their units, those of two classes in one style {:.3f}, chance {:.3f}": lambda: [
        *seeds(0.01, "one class in two styles"),
        seeds(0.01, "two classes in one style")[0],
        seeds(0.01, "chance")[0],
    ],
    "rank correlation of {:.2f} on EfficientNet-Lite0 and of {:.2f} in the small CLIP (permutation p {:.4f}), and "
    "with colours, given one class, by {:.2f} to {:.2f} and {:.2f} to {:.2f} (no p below {:.2f})": lambda: [
        *(float(beside_colours(folder, "one class").mean()) for folder in COLOURS),
        max(beside_colours(folder, "one class", "partial_p").max() for folder in COLOURS),
        *(end for folder in COLOURS for end in span(beside_colours(folder, "colours"))),
        min(beside_colours(folder, "colours", "partial_p").min() for folder in COLOURS),
    ],
    "the small CLIP ({:.2f} to {:.2f} over {} pairs, p {:.2f})": lambda: of_styles("colours_rn_tiny"),
    "too few to tell ({:.2f} to {:.2f})": lambda: of_styles("colours_lite0")[:2],
    "the class {:.2f} [{:.2f}, {:.2f}], and other classes {:.2f}; 2.5 % leave {:.2f} and {:.2f}, "
    "5 % {:.2f} and {:.2f}": lambda: [
        *interval("own_parts/lite0_without_last/by_share", share=0.02, answers=OWN, cut="part"),
        *(left("lite0_without_last", *of) for of in ((0.02, OTHERS), (0.025, OWN), (0.025, OTHERS))),
        *(left("lite0_without_last", 0.05, answers) for answers in (OWN, OTHERS)),
    ],
    f"up to there {DEPTH_ROW}": lambda: over_depth("up to"),
    f"from the next on {DEPTH_ROW}": lambda: over_depth("from"),
    **{f"| {name} | {{:.2f}}, {{:.2f}} | {{:.2f}}, {{:.2f}} |": partial(of_rival, name) for name in RIVALS},
    "finds {:.2f} of the planted units, exact patching {:.2f}, the gradient {:.2f}, Fisher {:.2f}; where each has "
    "a copy that replaces it {:.2f}, {:.2f}, {:.2f} and {:.2f}": lambda: [
        recall(method, copies) for copies in (1, 2) for method in ("contrast", "patching", "gradient", "fisher")
    ],
    "from {:.3f} to {:.3f}; by random units to {:.3f}, by the part of a third class to {:.3f}": lambda: [
        float(table("own_parts/rivals/steering")["before"].mean()),
        *(steered(units) for units in ("own part", "random", "another class's part")),
    ],
}
