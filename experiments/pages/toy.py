"""Numbers of the page on the study in small."""

from typing import Any

from circuitry.comparison import LEVEL
from experiments.pages.rendering import filled
from experiments.pages.tables import Interval, alike, made_with, rows, supported, table
from experiments.study.sharing import LABEL_FREE, SHARED
from experiments.study.toy_claims import (
    ALL_MODELS,
    BORNE_OUT,
    BY_SET,
    CLAIMS,
    KINDS,
    OPEN,
    REFUTED,
    Claim,
)

import pandas as pd

STUDY = "toy_study"
AGAIN = "toy_recounted"
SHORT = "toy_short"
RESNETS = "rn-tiny"
NAMES = SHARED | LABEL_FREE
THREE = 3
"""Ways to count a claim: by seed, of ResNets alone, by held-out set."""

points = table(f"{STUDY}/points")
by_model = points.groupby("model")
n_models = points["run"].nunique()
n_runs = by_model["run"].nunique()
seeds = by_model["seed"].unique().map(sorted)
test_domains = " and ".join(sorted(points["test_domain"].unique()))
told_apart = table(f"{AGAIN}/told_apart")
# The old screen left one held-out class to these settings.
few = told_apart[told_apart["n_classes_screened"] == 1]["held_out_classes"]
of_few = table(f"{AGAIN}/points").query("held_out_classes in @few")
n_of_one_class = of_few["run"].nunique()


def in_words(row: "pd.Series[Any]", value: str = "value", ends: str = "") -> str:
    """Return a number of a row with its interval: ``+0.15 [-0.03, +0.32]``.

    Args:
        value: Column of the number.
        ends: What the names of the columns ``low`` and ``high`` end in.
    """
    numbers = row[[value, f"low{ends}", f"high{ends}"]]
    return filled("{:+.2f}", Interval(*numbers))


# What turned over, and each claim by each way to count
Counts = dict[str, Any]
"""The row of a claim's first measure by how it was counted, the published count first."""


def counts_of(claim: Claim) -> Counts:
    """Return the counts of a claim. The count by held-out set is left out where there is no such count."""
    measure = claim.measures[0].name
    published = rows(f"{STUDY}/claims", measure=measure).set_index("models")
    again = rows(f"{AGAIN}/claims", measure=measure).set_index("models")
    # A measure that one architecture has is the same over all models and over this architecture.
    of_resnets = RESNETS if RESNETS in again.index else ALL_MODELS
    counts = {
        "published": published.loc[ALL_MODELS],
        "by seed": again.loc[ALL_MODELS],
        "ResNets": again.loc[of_resnets],
    }
    if BY_SET in again.index:
        counts[BY_SET] = again.loc[BY_SET]
    return counts


def verdicts_again(counts: Counts) -> list[str]:
    """Return the verdicts of the corrected counts; the verdict of the count by seed comes first."""
    return [str(row["verdict"]) for name, row in counts.items() if name != "published"]


counted = {claim: counts_of(claim) for claim in CLAIMS}


def in_each_count(verdict: str) -> list[str]:
    """Return the questions of claims that have a verdict in each of the three counts."""
    questions = list[str]()
    for claim, counts in counted.items():
        if verdicts_again(counts) == [verdict] * THREE:
            questions.append(claim.question)
    return questions


def n_published(verdict: str) -> int:
    """Return the number of claims that had a verdict when they were published."""
    return sum(counts["published"]["verdict"] == verdict for counts in counted.values())


def turned(claim: Claim) -> str:
    """Return a line on a claim whose verdict changed, or an empty text."""
    before = counted[claim]["published"]
    now = counted[claim]["by seed"]
    if before["verdict"] == now["verdict"]:
        return ""
    return (
        f"- {claim.question} Published: {before['verdict']}, {in_words(before)}. "
        f"Of all held-out classes: **{now['verdict']}**, {in_words(now)}.\n"
    )


def claim_row(claim: Claim) -> str:
    """Return a row of a claim: its first measure by each way to count."""
    cells = [claim.question, claim.predicts, claim.measures[0].name]
    for name in ("published", "by seed", "ResNets", BY_SET):
        if name in counted[claim]:
            row = counted[claim][name]
            cells.append(f"{in_words(row)}: {row['verdict']}")
        else:
            cells.append("not counted")
    verdicts = verdicts_again(counted[claim])
    holds_in = f"{verdicts.count(verdicts[0])} of {len(verdicts)}"
    return f"| {' | '.join(cells)} | {verdicts[0]}: {holds_in} |"


# The least p by exchanged signs: two in the number of ways to choose signs.
n_seeds = seeds.map(len).sum()
least_p_of_seeds = 2 / 2**n_seeds
n_sets = table(f"{AGAIN}/points")["held_out_classes"].nunique()
least_p_of_sets = 2 / 2**n_sets
n_claims = len(CLAIMS)
turned_over = "".join(map(turned, CLAIMS)).rstrip("\n")
borne_out = in_each_count(BORNE_OUT)
refuted = in_each_count(REFUTED)
left_open = in_each_count(OPEN)
borne_out_questions = " ".join(borne_out)
refuted_questions = " ".join(refuted)
open_questions = " ".join(left_open)
n_borne_out = len(borne_out)
n_refuted = len(refuted)
n_open = len(left_open)
n_published_borne_out = n_published(BORNE_OUT)
n_published_refuted = n_published(REFUTED)
n_published_open = n_published(OPEN)
claim_rows = "\n".join(map(claim_row, CLAIMS))


def of_claim(name: str, models: str = ALL_MODELS) -> Interval:
    """Return the first measure of a claim in points."""
    (claim,) = (claim for claim in CLAIMS if claim.name == name)
    counts = counted[claim]
    row = counts["by seed"] if models == ALL_MODELS else counts[models]
    return Interval(*(100 * row[["value", "low", "high"]]))


alignment = of_claim("alignment-accuracy")
supported("against the claim", alignment.low > 0)
lesions_by_set = of_claim("own-part", BY_SET)

# What must a model have seen?
NUMBER_WORDS = ["none", "one", "two", "three", "four"]
n_seeds_resnets = NUMBER_WORDS[len(seeds["rn-tiny"])]
n_seeds_transformers = NUMBER_WORDS[len(seeds["vit-tiny-8"])]
of_resnets = rows(f"{AGAIN}/told_apart", test_domain="quickdraw", model=RESNETS)
held_out = of_resnets.set_index("setting")["held_out"]


def accuracy_row(row: "pd.Series[Any]") -> str:
    """Return a row of the table of accuracies, in percent; an unknown number leaves its cell empty."""
    shares = ["seen", "held_out", "sd", "held_out_screened"]
    return filled(
        "| {} | {} | {} | {:.0f} | {:.0f} | {:.0f} | {:.0f} | {} | {} |",
        *row[["model", "test_domain", "setting"]],
        *100 * row[shares],
        *row[["n_classes", "n_classes_screened"]],
    ).replace("| nan |", "|  |")


accuracy_rows = "\n".join(told_apart.apply(accuracy_row, axis=1))


# Where over depth does quickdraw share less?
def depth_line(model: str, what: str, at: pd.DataFrame) -> str:
    """Return a line on what quickdraw shares over the sites of a model.

    Args:
        at: Sites in the order of depth, with what quickdraw and other domains share.
    """
    # "Least" is the site where quickdraw falls short of other domains most.
    beside = (at["quickdraw"] - at["others"]).set_axis(at["site"])
    return filled(
        "- {}, {}: quickdraw has {:.2f} at `{}`, {:.2f} at `{}`; quickdraw minus the others is least at `{}`, {:+.2f}.",
        model,
        NAMES[what].removesuffix(" at the last site"),
        *at.iloc[0][["quickdraw", "site"]],
        *at.iloc[-1][["quickdraw", "site"]],
        beside.idxmin(),
        beside.min(),
    )


depth = table(f"{STUDY}/depth")
# Where all share everything, the measure says nothing of depth.
known_depth = depth[(depth["quickdraw"] < 1) | (depth["others"] < 1)]
depth_lines = "\n".join(
    depth_line(str(model), str(what), at)
    for (model, what), at in known_depth.groupby(["model", "what"])
)

# Does sharing explain generalization?
relations = table(f"{AGAIN}/relations").merge(
    table(f"{STUDY}/relations"), on=["what", "with"], suffixes=("", "_before")
)
n_relations = len(relations)
clear = relations[relations["p_holm"] < LEVEL]
n_clear = len(clear)
shown = relations[relations["with"] == "held_out"]
n_not_shown = n_relations - len(shown)


def corrected(row: "pd.Series[Any]", ends: str = "") -> str:
    """Return a correlation with its corrected p."""
    rho = in_words(row, f"rho{ends}", ends)
    return filled("{}, p {:.2g} (Holm)", rho, row[f"p_holm{ends}"])


def relation_row(row: "pd.Series[Any]") -> str:
    """Return a row of the table of relations with accuracy among held-out classes."""
    return filled(
        "| {} | {} | {} | {:.2g} | {:.2g} | {:+.2f} | {:.2g} | {} | {} |",
        NAMES[row["what"]],
        in_words(row, "rho"),
        in_words(row, "rho", "_set"),
        *row[["p", "p_holm", "partial", "partial_p", "n_models"]],
        in_words(row, "rho_before", "_before"),
    )


clear_sentence = "; ".join(
    f"{NAMES[row['what']]}: {corrected(row)}" for _, row in clear.iterrows()
)
clear_lines = "\n".join(
    f"- {NAMES[row['what']]}, with accuracy {KINDS[row['with']]}: published {corrected(row, '_before')}. "
    f"Of all held-out classes: **{corrected(row)}**."
    for _, row in clear.iterrows()
)
relation_rows = "\n".join(shown.apply(relation_row, axis=1))
by_what = shown.set_index("what")
cka = by_what.loc["cka"]
features = by_what.loc["features"]
cka_rho = Interval(*cka[["rho", "low", "high"]])
features_rho = Interval(*features[["rho", "low", "high"]])
cka_by_set = Interval(*cka[["rho", "low_set", "high_set"]])
features_by_set = Interval(*features[["rho", "low_set", "high_set"]])
of_circuits = by_what.drop(["cka", "features"])
supported("among them", {"overlap", "edges", "part"} <= set(of_circuits.index))
n_of_circuits = len(of_circuits)
n_significant = (of_circuits["p_holm"] < LEVEL).sum()

# Which model is better in a new style, without labels?
ranking = table(f"{AGAIN}/ranking").merge(
    table(f"{STUDY}/ranking")[["what", "right"]], on="what", suffixes=("", "_before")
)
# Of measures that are equally often right the first in the table.
best = ranking.nlargest(1, "right").iloc[0]
chance = alike(ranking["chance"])
ranking_rows = "\n".join(
    filled(
        "| {} | {:.2f} | {} | {:.2f} |",
        *row[["what", "right", "n_pairs", "right_before"]],
    )
    for _, row in ranking.iterrows()
)

# Do the conclusions depend on choices?
of_seeds = points.pivot(
    index=["model", "setting", "test_domain"], columns="seed", values="seen"
)
# Between the first and the last seed, where a setting has models of both.
gaps = 100 * (of_seeds[0] - of_seeds[4]).abs().dropna()
median_gap = gaps.median()
largest_gap = gaps.max()
n_gaps = len(gaps)
short_points = table(f"{SHORT}/points")
short_screened = table(f"{SHORT}/screened")
n_short = short_points["run"].nunique()
short_seed = short_points["seed"].iloc[0]
# The full runs of the models and seeds that were trained in short, too.
same_points = points.merge(
    short_points[["model", "setting", "seed"]].drop_duplicates()
).query("setting == 'cg-high'")
screened = table(f"{STUDY}/screened")
same_screened = screened.merge(short_screened[["test_domain", "model", "class"]])
short_seen = short_points.query("setting == 'cg-high'")["seen"].mean()
full_seen = 100 * same_points["seen"].mean()
n_short_learned = short_screened["kept"].sum()
n_short_classes = len(short_screened)
n_full_learned = same_screened["kept"].sum()
learned = ", ".join(
    f"{of['kept'].sum()} of {len(of)} of {model} in {domain}"
    for (model, domain), of in screened.groupby(["model", "test_domain"])
)

# What this does not show, and how to measure it again
everywhere = table(f"{STUDY}/told_apart")
in_test_domain = everywhere[
    (everywhere["domain"] == everywhere["test_domain"])
    & (everywhere["setting"] == "cg-high")
]
seen = in_test_domain.groupby("model")["seen"].mean()
study_command = made_with(STUDY)["command"]
again_command = made_with(AGAIN)["command"]
short_command = made_with(SHORT)["command"]
