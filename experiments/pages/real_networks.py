"""Numbers of the page on own parts in three real networks."""

import math
from itertools import combinations, product
from typing import Any, NamedTuple

from circuitry.comparison.lesion_reading import (
    OTHERS,
    OWN,
    SAME_PART,
    TAKEN,
    known_cells,
)
from experiments.pages.tables import (
    Span,
    alike,
    interval,
    lines_of,
    one,
    rows,
    span,
    supported,
    table,
)

import pandas as pd
from scipy import stats
from scipy.special import logit

PHOTO = "photo"
DRAWN = ["clipart", "noto", "fluent3d", "openmoji"]
MODELS = ["efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2"]
ONE_CLASS = "one class in two styles"
TWO_CLASSES = "two classes in one style"
OWN_CELLS = ["own_a", "own_b"]
SHARE = 0.02
n_classes = len(lines_of("real_networks/classes.txt"))

# Does a class need in photographs the part that drawings found? In drawings that of photographs?
LEFT = "real_networks/left"


class Left(NamedTuple):
    """Right answers that are left after a cut, over networks and drawn styles."""

    own: Span
    """Answers on images of the class, without its part."""
    random: Span
    """Answers on images of the class, without as many random units."""
    others: Span
    """Answers on images of other classes, without the part of the class."""


def left(found_on: list[str], tested_on: list[str]) -> Left:
    """Return the spans over the networks and pairs of styles: of finding a part, and of testing it."""
    asked = {"part_domain": found_on, "domain": tested_on}
    return Left(
        span(rows(LEFT, answers=OWN, cut="part", **asked)["value"]),
        span(rows(LEFT, answers=OWN, cut="random", **asked)["value"]),
        span(rows(LEFT, answers=OTHERS, cut="part", **asked)["value"]),
    )


def left_cells(
    found_on: list[str], tested_on: list[str]
) -> dict[str, list[list[float]]]:
    """Return the right answers that are left, by network, as lists [pairs of styles, 3].

    The three numbers are of the own class, of other classes, and of the own class without random units.
    """
    by_kind = table(LEFT).pivot(
        index=["model", "part_domain", "domain"],
        columns=["answers", "cut"],
        values="value",
    )
    told = by_kind[[(OWN, "part"), (OTHERS, "part"), (OWN, "random")]]
    pairs = list(product(found_on, tested_on))
    return {name: told.loc[name].loc[pairs].to_numpy().tolist() for name in MODELS}


in_photographs = left(DRAWN, [PHOTO])
in_drawings = left([PHOTO], DRAWN)
of_photographs = left_cells(DRAWN, [PHOTO])
of_drawings = left_cells([PHOTO], [PHOTO, *DRAWN])
cells = table(LEFT)
n_of_cells = span(
    cells[(cells["part_domain"] == PHOTO) | (cells["domain"] == PHOTO)]["n_classes"]
)


def falls(cut: str) -> pd.DataFrame:
    """Return log-odds of the right answer by class, a row each, and style.

    Args:
        cut: Which units are cut: the ``part`` that another style found, or ``random`` ones.

    Returns:
        Columns ``whole``, the log-odds of the whole network, and ``fall``, how much the cut lowers them, for each
        style. Classes with an unknown number in any style are left out, so all styles have the same classes.
    """
    lesions = known_cells(table("own_parts/lite0_margins/lesions"))
    of_class = lesions[lesions["part_class"] == lesions["class"]]
    of_other_style = of_class[of_class["part_domain"] != of_class["domain"]]
    across = of_other_style[of_other_style["cut"] == cut]
    # Log-odds, since probabilities near 1 hide how far an answer fell.
    whole = logit(across["whole_probability"])
    told = across.assign(whole=whole, fall=whole - logit(across["probability"]))
    return told.pivot(
        index="class", columns="domain", values=["whole", "fall"]
    ).dropna()


of_parts = falls("part")
odds = of_parts["whole"].mean()
taken = of_parts["fall"].mean()
taken_by_random = falls("random")["fall"].mean()
n_of_odds = len(of_parts)
p_of_taken = stats.wilcoxon(
    of_parts["fall"][PHOTO], of_parts["fall"]["openmoji"]
).pvalue

# Is it the same part in photographs and in drawings?
cases = table("real_networks/verdicts")
n_cases = len(cases)
# A part is untested on its own images where too few of them are unseen.
untested = cases[OWN_CELLS].isna()
n_untested = untested.all(axis=1).sum()
tested = cases[~untested.any(axis=1)]
n_tested = len(tested)
by_verdict = tested["verdict"].value_counts()
supported("three classes", tested["class"].nunique() == 3)
same = tested[tested["verdict"] == SAME_PART]
n_same = len(same)
n_cups = (same["class"] == "cup").sum()
said_same = cases[cases["verdict"] == SAME_PART]
n_said_same = len(said_same)
n_said_untested = said_same[OWN_CELLS].isna().any(axis=1).sum()
# Each part takes the class in the other style: the one that takes less decides.
takes_both = cases[["a_on_b", "b_on_a"]].max(axis=1) <= TAKEN
with_photographs = cases["domain_a"] == PHOTO
n_with_photographs = with_photographs.sum()
n_of_drawings = n_cases - n_with_photographs
n_taken_photographs = (takes_both & with_photographs).sum()
n_taken_drawings = (takes_both & ~with_photographs).sum()

# Do networks agree on which styles share a part?
AGREEMENT = "real_networks/agreement"
PAIRS = list(combinations(MODELS, 2))


class Correlation(NamedTuple):
    """A rank correlation over pairs of styles."""

    rho: float
    p: float


class Colours(NamedTuple):
    """Rank correlations with colours, over histograms of several numbers of levels."""

    rho: Span
    p: float
    """The least p over the histograms."""


def agree(model: str, with_model: str, what: str, cause: str) -> Correlation:
    """Return how alike two orders of the pairs of styles are: by ``what`` in a network, by ``cause`` in another."""
    asked = {"model": model, "with_model": with_model, "what": what, "with": cause}
    return Correlation(one(AGREEMENT, "rho", **asked), one(AGREEMENT, "p", **asked))


def agreed(what: str) -> list[Correlation]:
    """Return how alike two networks order the pairs of styles, for each pair of networks."""
    return [agree(*pair, what, what) for pair in PAIRS]


def with_classes(what: str) -> list[Correlation]:
    """Return the correlation of an order with the order by parts of two classes, for each network."""
    return [agree(model, model, what, "two classes") for model in MODELS]


def with_colours(what: str) -> list[Colours]:
    """Return the correlations of an order with colours, for each network."""
    orders = rows(AGREEMENT, what=what)
    of_colours = orders[orders["with"].str.startswith("colours")]
    # Groups are sorted by name, as the networks are.
    by_model = of_colours.groupby("model")
    return [Colours(span(of["rho"]), of["p"].min()) for _, of in by_model]


between = {"two classes": agreed("two classes")}
within = {}
colours = {}
for order in ("one class", "left"):
    between[order] = agreed(order)
    within[order] = with_classes(order)
    colours[order] = with_colours(order)
agreed_units = pd.DataFrame(between["one class"])
agreed_span = span(agreed_units["rho"])
agreed_p = agreed_units["p"].max()
of_pairs = table("real_networks/pairs").pivot(
    index=["domain_a", "domain_b"], columns="model", values="one class"
)
least_shared = of_pairs.min().tolist()
most_shared = of_pairs.max().tolist()
least_pairs: Any = of_pairs.idxmin()
most_pairs: Any = of_pairs.idxmax()
supported("a photograph and OpenMoji", set(least_pairs) == {(PHOTO, "openmoji")})
supported("emoji of Noto and Fluent", set(most_pairs) == {("noto", "fluent3d")})
# The least p of Mantel's test, which permutes the five styles.
least_p = 1 / math.factorial(5)

# Do parts go by class or by style?
OVERLAP = "real_networks/overlap"
one_class = span(rows(OVERLAP, parts=ONE_CLASS)["value"])
two_classes = span(rows(OVERLAP, parts=TWO_CLASSES)["value"])
chance = alike(rows(OVERLAP, parts=TWO_CLASSES)["chance"], 3)


KINDS = [ONE_CLASS, TWO_CLASSES, "two classes in two styles"]
shared = {}
for network in MODELS:
    shared[network] = [interval(OVERLAP, model=network, parts=kind) for kind in KINDS]
mean_chance = table(OVERLAP).groupby("model")["chance"].mean()

# Do parts of a small CLIP of emoji go by class or by style?
EMOJI = "real_networks/emoji"
emoji_one_class = interval(f"{EMOJI}/overlap", parts=ONE_CLASS)
emoji_two_classes = interval(f"{EMOJI}/overlap", parts=TWO_CLASSES)
emoji_cases = table(f"{EMOJI}/verdicts")
emoji_verdicts = emoji_cases["verdict"].value_counts()
n_emoji_cases = len(emoji_cases)
n_emoji_classes = emoji_cases["class"].nunique()
emoji_same = emoji_cases[emoji_cases["verdict"] == SAME_PART]
n_of_fruit = (emoji_same["class"] == "food-fruit").sum()
emoji_accuracy = table(f"{EMOJI}/accuracy")
n_concepts = alike(emoji_accuracy["n_images"], 0)
emoji_right = span(emoji_accuracy["value"])
n_emoji_groups = emoji_accuracy["n_classes"].max()
n_groups = len(lines_of(f"{EMOJI}/classes.txt"))
emoji_order = rows(f"{EMOJI}/agreement", what="one class")
emoji_colours = emoji_order[emoji_order["with"].str.startswith("colours")]
n_emoji_pairs = emoji_colours["n_pairs"].max()
emoji_rho = span(emoji_colours["rho"])
emoji_p = emoji_colours["p"].min()
n_pairs_of_parts = one(f"{EMOJI}/overlap", "n_pairs", parts=ONE_CLASS)

# At which depth do parts of two styles share their units?
by_stage = table("real_networks/depth").pivot(
    index=["stage", "model"], columns="parts", values="overlap"
)
last_stage = by_stage.loc["blocks.6"]
last_one_class = span(last_stage[ONE_CLASS])
last_two_classes = span(last_stage[TWO_CLASSES])
early_stages = by_stage.loc[["blocks.1", "blocks.2", "blocks.3"]]
early_one_class = span(early_stages[ONE_CLASS])
# [networks, 2] by stage.
stages = {
    str(stage): overlaps[[ONE_CLASS, TWO_CLASSES]].to_numpy().tolist()
    for stage, overlaps in by_stage.groupby("stage")
}

# Which styles do the networks recognise?
accuracy = table("real_networks/accuracy")
n_recognised = accuracy["n_classes"].max()
by_network = accuracy.pivot(index="domain", columns="model", values="value")
recognised = by_network.apply(span, axis=1)
in_percent = (100 * by_network).T.to_dict("list")
