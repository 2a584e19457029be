"""Numbers of the page on own parts in three real networks."""

import math
from itertools import combinations
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
    """Right answers that are left over networks and drawn styles, without a part and without random units."""

    own: Span
    random: Span
    others: Span


def left(found_on: list[str], tested_on: list[str]) -> Left:
    asked = {"part_domain": found_on, "domain": tested_on}
    return Left(
        span(rows(LEFT, answers=OWN, cut="part", **asked)["value"]),
        span(rows(LEFT, answers=OWN, cut="random", **asked)["value"]),
        span(rows(LEFT, answers=OTHERS, cut="part", **asked)["value"]),
    )


def left_cells(pairs: list[tuple[str, str]]) -> dict[str, list[list[float]]]:
    """Return by network, for styles (found on, tested on): own class, other classes, own class without random units."""
    keys = ["model", "part_domain", "domain", "answers", "cut"]
    answers = table(LEFT).set_index(keys)["value"]
    kinds = [(OWN, "part"), (OTHERS, "part"), (OWN, "random")]
    return {
        model: [[answers[(model, *pair, *kind)] for kind in kinds] for pair in pairs]
        for model in MODELS
    }


in_photographs = left(DRAWN, [PHOTO])
in_drawings = left([PHOTO], DRAWN)
of_photographs = left_cells([(style, PHOTO) for style in DRAWN])
of_drawings = left_cells([(PHOTO, style) for style in [PHOTO, *DRAWN]])
cells = table(LEFT)
n_of_cells = span(
    cells[(cells["part_domain"] == PHOTO) | (cells["domain"] == PHOTO)]["n_classes"]
)


def falls(cut: str) -> pd.DataFrame:
    """Return by class and style its log-odds (``whole``), and what a cut of the other style's part takes (``fall``)."""
    lesions = known_cells(table("own_parts/lite0_margins/lesions"))
    of_class = lesions[lesions["part_class"] == lesions["class"]]
    of_other_style = of_class[of_class["part_domain"] != of_class["domain"]]
    across = of_other_style[of_other_style["cut"] == cut]
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
    """Rank correlations with colours over histograms, and the least p."""

    rho: Span
    p: float


def agree(model: str, with_model: str, what: str, cause: str) -> Correlation:
    asked = {"model": model, "with_model": with_model, "what": what, "with": cause}
    return Correlation(one(AGREEMENT, "rho", **asked), one(AGREEMENT, "p", **asked))


def agreed(what: str) -> list[Correlation]:
    """Return by pair of networks how alike they order the pairs of styles."""
    return [agree(*pair, what, what) for pair in PAIRS]


def with_classes(what: str) -> list[Correlation]:
    """Return by network how an order goes with that of parts of two classes."""
    return [agree(model, model, what, "two classes") for model in MODELS]


def with_colours(what: str) -> list[Colours]:
    """Return by network how an order goes with colours."""
    found = rows(AGREEMENT, what=what)
    found = found[found["with"].str.startswith("colours")]
    each = [found[found["model"] == model] for model in MODELS]
    return [Colours(span(of["rho"]), of["p"].min()) for of in each]


agreed_units = agreed("one class")
agreed_span = span(found.rho for found in agreed_units)
agreed_p = max(found.p for found in agreed_units)
between = {what: agreed(what) for what in ("one class", "left", "two classes")}
within = {what: with_classes(what) for what in ("one class", "left")}
colours = {what: with_colours(what) for what in ("one class", "left")}
of_pairs = table("real_networks/pairs").pivot(
    index=["domain_a", "domain_b"], columns="model", values="one class"
)
least_shared = of_pairs.min().tolist()
most_shared = of_pairs.max().tolist()
least_pairs: Any = of_pairs.idxmin()
most_pairs: Any = of_pairs.idxmax()
supported("a photograph and OpenMoji", set(least_pairs) == {(PHOTO, "openmoji")})
supported("emoji of Noto and Fluent", set(most_pairs) == {("noto", "fluent3d")})
least_p = 1 / math.factorial(5)

# Do parts go by class or by style?
OVERLAP = "real_networks/overlap"
one_class = span(rows(OVERLAP, parts=ONE_CLASS)["value"])
two_classes = span(rows(OVERLAP, parts=TWO_CLASSES)["value"])
chance = alike(rows(OVERLAP, parts=TWO_CLASSES)["chance"], 3)


KINDS = [ONE_CLASS, TWO_CLASSES, "two classes in two styles"]
shared = {
    model: [interval(OVERLAP, model=model, parts=kind) for kind in KINDS]
    for model in MODELS
}
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
stages = {
    str(stage): of[[ONE_CLASS, TWO_CLASSES]].to_numpy().tolist()
    for stage, of in by_stage.groupby("stage")
}

# Which styles do the networks recognise?
accuracy = table("real_networks/accuracy")
n_recognised = accuracy["n_classes"].max()
by_network = accuracy.pivot(index="domain", columns="model", values="value")
recognised = {str(style): span(values) for style, values in by_network.iterrows()}
in_percent = (100 * by_network).T.to_dict("list")
