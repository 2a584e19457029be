"""Numbers of the page on units that are a class's own."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from circuitry.comparison.lesion_reading import (
    OTHERS,
    OWN,
    OWN_STYLE,
    SAME_PART,
    SPARED,
    TAKEN,
)
from experiments.pages.rendering import filled
from experiments.pages.tables import (
    Interval,
    Span,
    alike,
    interval,
    lines_of,
    made_with,
    one,
    rows,
    span,
    table,
)

import pandas as pd
from scipy import stats

STYLES = ["photo", "clipart", "noto", "fluent3d"]
NETWORKS = ["lite0_photo", "lite1_photo", "lite2_photo", "rn_tiny", "vit_tiny"]
SHARE = 0.02
HALF_SHARE = 0.01
DEPTH_SHARE = 0.05


class Left(NamedTuple):
    """Right answers that are left after a cut, means over classes."""

    own: Interval
    """Answers on images of the class, without its part."""
    own_random: Interval
    """Answers on images of the class, without as many random units."""
    others: Interval
    """Answers on images of other classes, without the part of the class."""
    others_random: Interval
    """Answers on images of other classes, without as many random units."""

    @property
    def cell(self) -> list[float]:
        """The numbers of a cell of the table: own class, other classes, own class without random units."""
        return [self.own.value, self.others.value, self.own_random.value]


def left(folder: str, share: float) -> Left:
    """Return the right answers that are left in a part's own style, for parts with a share of the units."""
    name = f"own_parts/{folder}/by_share"
    of_share = partial(interval, name, share=share, styles=OWN_STYLE)
    return Left(
        of_share(answers=OWN, cut="part"),
        of_share(answers=OWN, cut="random"),
        of_share(answers=OTHERS, cut="part"),
        of_share(answers=OTHERS, cut="random"),
    )


# Does a class have units of its own?
def n_tested(folder: str) -> int:
    """Return the number of classes whose part was tested at each share."""
    name = f"own_parts/{folder}/by_share"
    return int(rows(name, answers=OWN, styles=OWN_STYLE)["n_classes"].min())


photo = left("lite0_photo", SHARE)
n_classes = n_tested("lite0_photo")
assert photo.own.value == 0, "the count and the bound are those of no class"
n_keeping_any = 0
bound_level = 0.95
# Clopper and Pearson's one-sided upper bound of a share, where 0 of n_classes have it.
bound = stats.beta.ppf(bound_level, 1, n_classes)
by_network = {}
half_by_network = {}
n_by_network = {}
for network in NETWORKS:
    by_network[network] = left(network, SHARE).cell
    half_by_network[network] = left(network, HALF_SHARE).cell
    n_by_network[network] = n_tested(network)
small_clip = left("rn_tiny", SHARE)
small_vit = left("vit_tiny", SHARE)
n_others = made_with("own_parts/lite0_photo")["n_others"]
n_candidates = len(made_with("own_parts/lite0_photo")["classes"])
images = pd.Series(lines_of("own_parts/lite0_photo/images.txt"))
# A photograph is in the folder of its class.
n_photographs = images.map(lambda file: Path(file).parent.name).value_counts()
assert len(n_photographs) == n_candidates
n_with_second = (n_photographs > 1).sum()


# Do models of other seeds have such parts?
def over_seeds(share: float) -> dict[str, Interval]:
    """Return the mean over models with its interval, by the name of the number."""
    of_share = rows("own_parts/seeds/seeds", share=share).set_index("what")
    means = of_share[["value", "low", "high"]]
    return {str(what): Interval(*row) for what, row in means.iterrows()}


seeds = over_seeds(SHARE)
seeds_half = over_seeds(HALF_SHARE)
n_seeds = len(table("own_parts/seeds/seeds").filter(like="seed_").columns)


# Is the part of a class the same in other styles?
class Overlap(NamedTuple):
    """Jaccard indices of two parts, means over pairs."""

    one_class: float
    """Index of the units of two parts of one class, found in two styles."""
    two_classes: float
    """Index of the units of the parts of two classes in one style."""
    one_class_edges: float
    """Index of the edges of two parts of one class, found in two styles."""
    two_classes_edges: float
    """Index of the edges of the parts of two classes in one style."""
    chance: float
    """Index of the units of two random parts."""


def overlap(folder: str) -> Overlap:
    """Return the overlaps of the parts of a network."""
    name = f"own_parts/{folder}/overlap"
    one_class = "one class in two styles"
    two_classes = "two classes in one style"
    return Overlap(
        one(name, parts=one_class),
        one(name, parts=two_classes),
        one(name, "edges", parts=one_class),
        one(name, "edges", parts=two_classes),
        table(name)["chance"].mean(),
    )


BY_STYLE = "own_parts/lite0_styles/by_style"
from_photo = rows(
    BY_STYLE, part_domain="photo", domain=STYLES[1:], answers=OWN, cut="part"
)
drawn = alike(from_photo["value"])
n_drawn = span(from_photo["n_classes"])
random_by_style = span(rows(BY_STYLE, answers=OWN, cut="random")["value"])
lite0 = overlap("lite0_styles")
clip = overlap("rn_tiny")


def row_of_style(found_on: str) -> str:
    """Return a row of the table of styles: right answers in each style without the part that one style found.

    A dash stands for a style in which no image is unseen.
    """
    own = rows(BY_STYLE, part_domain=found_on, answers=OWN, cut="part")
    values = own.set_index("domain")["value"].reindex(STYLES)
    cells = filled("{:.2f|}", values.tolist()).replace("nan", "-")
    return filled("| {} | {} | {} |", found_on, cells, span(own["n_classes"]))


by_style = "\n".join(map(row_of_style, STYLES))
cases = table("own_parts/lite0_styles/verdicts")
n_cases = len(cases)
# Each part takes the class in the other style: the one that takes less decides.
n_both_taken = (cases[["a_on_b", "b_on_a"]].max(axis=1) <= TAKEN).sum()
n_of_two_classes = cases["class"].isin(["electric_guitar", "soccer_ball"]).sum()
same = cases[cases["verdict"] == SAME_PART]
n_same = len(same)
# A verdict may rest on the other style alone, where no image of the own style is unseen.
n_same_untested = same[["own_a", "own_b"]].isna().any(axis=1).sum()


# Do the colours of pixels explain that?
def partials(folder: str, cause: str, column: str = "partial") -> pd.Series:
    """Return partial correlations of overlaps with a cause, a value for each number of levels of a histogram."""
    name = f"own_parts/{folder}/correlations"
    return rows(name, pairs="of classes in styles", **{"with": cause})[column]


class Styles(NamedTuple):
    """Rank correlations over pairs of styles, of the overlap of parts with the colours that images have in common."""

    rho: Span
    """Correlations over histograms."""
    p: Span
    """Their p over histograms."""
    n_pairs: int
    """Number of pairs of styles."""


def of_styles(folder: str) -> Styles:
    """Return the correlations of a network."""
    of_pairs = rows(f"own_parts/{folder}/correlations", pairs="of styles")
    # The table has each pair once for each number of levels.
    n_pairs = len(rows(f"own_parts/{folder}/styles", levels=2))
    return Styles(span(of_pairs["rho"]), span(of_pairs["p"]), n_pairs)


COLOURS = ("colours_lite0", "colours_rn_tiny")
by_class_lite0 = partials("colours_lite0", "one class").mean()
by_class_clip = partials("colours_rn_tiny", "one class").mean()
# The p that is farthest from what the page says: the largest with the class, the least with colours.
by_class_p = max(partials(of, "one class", "partial_p").max() for of in COLOURS)
by_colours_lite0 = span(partials("colours_lite0", "colours"))
by_colours_clip = span(partials("colours_rn_tiny", "colours"))
by_colours_p = min(partials(of, "colours", "partial_p").min() for of in COLOURS)
levels = span(table("own_parts/colours_lite0/correlations")["levels"])
styles_clip = of_styles("colours_rn_tiny")
styles_lite0 = of_styles("colours_lite0")

# At which depth does a class have a part?
BY_DEPTH = "own_parts/lite0_depth/by_depth"
by_depth = rows(BY_DEPTH, styles=OWN_STYLE, cut="part").pivot(
    index="answers", columns="sites", values="value"
)
n_at_depth = rows(BY_DEPTH, styles=OWN_STYLE)["n_classes"].min()
at_depth = by_depth.reindex([OWN, OTHERS]).to_dict("list")
in_other_style = rows(BY_DEPTH, answers=OWN, styles="another style")
late_other_style = one(
    BY_DEPTH,
    sites="from blocks.5.2.bn2",
    answers=OWN,
    cut="part",
    styles="another style",
)
n_other_style = in_other_style["n_classes"].min()
MORE_SHARE = 0.025
without_last = left("lite0_without_last", SHARE)
without_last_more = left("lite0_without_last", MORE_SHARE)
without_last_most = left("lite0_without_last", DEPTH_SHARE)

# Do other rankings find such parts?
RANKINGS = [
    "contrast",
    "gradient",
    "fisher",
    "fisher difference",
    "class selectivity",
    "linear probe",
    "learned gates",
]
RIVALS = "own_parts/rivals/rivals"


def rivals(share: float) -> dict[Any, list[float]]:
    """Return the right answers that are left by ranking, as lists: of the own class, of other classes."""
    at_share = rows(RIVALS, share=share, cut="part", styles=OWN_STYLE)
    by_answers = at_share.pivot(index="answers", columns="method", values="value")
    return by_answers.reindex([OWN, OTHERS]).to_dict("list")


ranked = rivals(SHARE)
ranked_half = rivals(HALF_SHARE)
clean = [n for n, (own, others) in ranked.items() if own <= TAKEN and others >= SPARED]
n_contrast = alike(rows(RIVALS, method="contrast")["n_classes"], 0)
n_rivals = alike(rows(RIVALS, method=RANKINGS[1:])["n_classes"], 0)
takers = span(ranked[n][1] for n in ("gradient", "fisher", "fisher difference"))
random_at_fisher = one(
    RIVALS, method="fisher", share=SHARE, answers=OTHERS, cut="random"
)

# Does contrast find what was planted?
planted = table("own_parts/rivals/planted").pivot(
    index="copies", columns="method", values="recall"
)

# Does a part carry its class into other images?
steering = table("own_parts/rivals/steering")
before = steering["before"].mean()
after = steering.groupby("units")["after"].mean()
moved = rows("own_parts/rivals/steering", units="own part")
n_pairs = len(moved)
n_steered = moved["class"].nunique()
by_class = moved.groupby("class")["after"].mean()
over_classes = span(by_class)
median_pair = moved["after"].median()
