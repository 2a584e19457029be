"""Numbers of the page on the study on real pictures."""

from typing import Any

from circuitry.comparison import mean_interval
from circuitry.training import AMONG_GROUP, MEASURE
from experiments.pages import judgements
from experiments.pages.judgements import in_points, in_words, p_in_words, quoted
from experiments.pages.rendering import filled
from experiments.pages.tables import Interval, Span, only, rows, span, supported, table
from experiments.study import claims, real_claims
from experiments.study.claims_report import NOTHING
from experiments.study.run_tables import SETTING_ORDER
from experiments.study.sharing import LABEL_FREE, SHARED

import numpy as np
import pandas as pd

STUDY = "real_study"
TOWERS = "real_towers"
FIRST = "lite0-tuned"
NAMES = SHARED | LABEL_FREE
WRITTEN = claims.Choices()
written_on = "2 December 2026"

accuracies = table(f"{STUDY}/accuracies")
shared = table(f"{STUDY}/shared")
verdicts = table(f"{STUDY}/verdicts")
far = str(shared["test_domain"].iloc[0])
domains = sorted(set(accuracies["test_domain"]), key=lambda name: (name != far, name))
n_models = accuracies["run"].nunique()
n_pairs = accuracies[claims.PAIR].nunique()
n_classes = accuracies["class"].nunique() - 1
n_possible = n_classes * (n_classes - 1) // 2
n_claims = len(verdicts)
n_pilot = len(real_claims.PILOT)
pilot = only(f"{STUDY}/seeds", measure="all")
pilot_sd = pilot["sd"]
n_needed = pilot["seeds"]
effect = real_claims.EFFECT
power = real_claims.POWER
tables = claims.Tables(accuracies, shared, far)
questions = {claim.name: claim for claim in real_claims.CLAIMS}


# Does the study's line of argument hold?
by_verdict = {
    verdict: verdicts[verdicts["verdict"] == verdict]["claim"].tolist()
    for verdict in (claims.BORNE_OUT, claims.REFUTED, claims.OPEN)
}
headlines = verdicts[verdicts["headline"]]
corrected = verdicts[verdicts["p_holm"] < claims.LEVEL]
n_corrected = int((corrected["verdict"] == claims.BORNE_OUT).sum())
answer_claims = (
    f"Of {n_claims} claims {len(by_verdict[claims.BORNE_OUT])} are borne out, {n_corrected} of these after correction, "
    f"{len(by_verdict[claims.REFUTED])} are refuted, and {len(by_verdict[claims.OPEN])} cannot be told. "
    f"{len(headlines)} of them stand in every way to count "
    f"after correction: {quoted(questions, headlines['claim'].tolist())}"
)
contradictions = (
    f"Refuted, against the study: {quoted(questions, by_verdict[claims.REFUTED])}"
)
claim_rows = judgements.claim_rows(questions, verdicts)
amendments = "\n".join(f"- Amendment of {line}" for line in real_claims.AMENDMENTS)


# What must a model have seen?
def by_pair(rows: pd.DataFrame) -> "pd.Series[Any]":
    """Return the mean over pairs with its interval, of each test domain and setting."""
    keys = ["test_domain", "setting"]
    of_pairs = rows.groupby([*keys, claims.PAIR])["value"].mean()
    return of_pairs.groupby(keys).apply(
        lambda values: Interval(
            *(100 * part for part in mean_interval(values.to_numpy()))
        )
    )


held_out = by_pair(claims.accuracies(tables, WRITTEN))
of_seen = accuracies[
    (accuracies["class"] == claims.SEEN)
    & (accuracies["texts"] == claims.TRAINED_WORDS)
    & (accuracies["measure"] == MEASURE)
    & (accuracies["domain"] == accuracies["test_domain"])
]
last = of_seen["epoch"] == of_seen.groupby("run")["epoch"].transform("max")
seen = by_pair(of_seen[last])
settings = [name for name in SETTING_ORDER if name in set(accuracies["setting"])]


def cells(values: "pd.Series[Any]", setting: str) -> list[str]:
    """Return the cells of a setting, a test domain after the other."""
    known = [(domain, setting) for domain in domains]
    return [filled("{:.0f}", values[key]) if key in values else "" for key in known]


accuracy_rows = "\n".join(
    f"| {name} | {' | '.join(cells(held_out, name) + cells(seen, name))} |"
    for name in settings
)
rules = "---|" * (2 * len(domains))


def right(setting: str) -> str:
    """Return the right answers on held-out pairs in the far domain in percent, with the interval."""
    return filled("{:.0f}", held_out[far, setting]) + " %"


def said(claim: str) -> str:
    """Return the value of a claim in points with its interval, and the verdict."""
    row = only(f"{STUDY}/verdicts", claim=claim)
    return f"{in_points(row)}, {row['verdict']}"


answer_accuracy = (
    f"In {far}, models of photographs are right on {right('natural-only')} of the held-out pair, and of photographs "
    f"and {far} on {right('cg-low')}; with all styles it is {right('cg-high')}, with all styles but {far} "
    f"{right('leave-out')}, with a fifth of the pair's pictures {right('class-interpolation')}, and with all of them "
    f"{right('upper-high')}. Over test domains diversity brings {said('diversity')}; other domains bring a domain that "
    f"was never seen {said('unseen-domain')}; what is missing to the upper bound is {said('gap')}."
)
sometimes = only(f"{STUDY}/verdicts", claim="sometimes")
share_of_cases = filled("{:.0%}", sometimes["value"] + real_claims.SOMETIMES_SHARE)
entirely = rows(
    f"{STUDY}/claims",
    claim="sometimes",
    way=claims.AS_WRITTEN,
    first=False,
).iloc[0]
answer_sometimes = (
    f"**Entirely unseen beats half seen.** In {share_of_cases} of the pairs and test domains leave-out is more than "
    f"ten points above cg-high; the mean difference is {in_points(entirely)}."
)
supported("Entirely unseen beats half seen.", entirely["low"] > 0)

# Does a model not know the held-out classes, or not answer them?
held_out_alone = by_pair(claims.accuracies(tables, claims.Choices(among=AMONG_GROUP)))
alone_rows = "\n".join(
    f"| {name} | {' | '.join(cells(held_out_alone, name))} |" for name in settings
)
alone_rules = "---|" * len(domains)


def told_apart(setting: str) -> str:
    """Return right answers between the two held-out classes in percent, with the interval."""
    return filled("{:.0f}", held_out_alone[far, setting]) + " %"


def beyond_cg_high(choices: claims.Choices) -> "pd.Series[float]":
    """Return leave-out minus cg-high in points, by test domain and pair."""
    values = claims.between("leave-out", "cg-high")(claims.counted(tables, choices))
    return 100 * values.groupby(["test_domain", claims.PAIR])["value"].mean()


def mean_in_far(of_pairs: "pd.Series[float]") -> str:
    """Return the mean over pairs in the far domain, with its interval."""
    return filled("{:+.0f}", Interval(*mean_interval(of_pairs.loc[[far]].to_numpy())))


all_beyond = beyond_cg_high(WRITTEN)
alone_beyond = beyond_cg_high(claims.Choices(among=AMONG_GROUP))
margin = 100 * real_claims.SOMETIMES_MARGIN
share_above = filled("{:.0%}", (alone_beyond > margin).mean())
share_below = filled("{:.0%}", (alone_beyond < -margin).mean())
answer_known = (
    f"In {far} cg-high is right on {right('cg-high')} of the held-out pair among all classes, and on "
    f"{told_apart('cg-high')} where it must choose between the two; leave-out on {right('leave-out')} and "
    f"{told_apart('leave-out')}, the upper bound on {right('upper-high')} and {told_apart('upper-high')}. "
    f"Leave-out minus cg-high is {mean_in_far(all_beyond)} points among all classes and "
    f"{mean_in_far(alone_beyond)} points between the two. So cg-high tells the two classes apart, and does not answer "
    f"them in {far}."
)
supported(
    "cg-high tells the two classes apart",
    held_out_alone[far, "cg-high"].low > 50 > held_out[far, "cg-high"].high,
)
cited = (
    "Generalized zero-shot learning knows this as the bias towards seen classes (Chao et al., 2016). This section was "
    "written after all accuracies had been seen; the way to count was listed before."
)
answer_noise = (
    f"Between the two, over all test domains, leave-out is more than ten points above cg-high in {share_above} of the "
    f"cases, and more than ten points below in {share_below}: that *sometimes* passes there says little, "
    f"since so few pictures vary by as much in both directions."
)

# Does accuracy on photographs foretell accuracy on drawings?
robustness = table(f"{STUDY}/robustness")
off_line = robustness[robustness["test_domain"] == far].groupby("setting")["effective"]
effective = 100 * off_line.mean()
answer_robustness = (
    f"In {far} models lie off the line of models of photographs by, in points on average: "
    + ", ".join(
        f"{name} {effective[name]:+.0f}" for name in settings if name in effective
    )
    + "."
)

# Does the far style lie apart, and share less?
FAR = ("embeddings", "alignment", "features", "cka", "units", "edges")
far_lines = list[str]()
far_verdicts = list[str]()
for name in FAR:
    of_claim = only(f"{STUDY}/verdicts", claim=name)
    what, _, model = of_claim["measure"].partition(", ")
    model = model.partition("(")[2].rstrip(")") or model
    cells_of_claim = (
        what,
        model,
        in_words(of_claim, spec="+.3f"),
        p_in_words(of_claim["p_holm"]),
        str(of_claim["n_units"]),
        of_claim["verdict"],
    )
    far_lines.append(f"| {' | '.join(cells_of_claim)} |")
    far_verdicts.append(
        f"{questions[name].question} {of_claim['verdict'].capitalize()}."
    )
far_rows = "\n".join(far_lines)
n_far_pairs = int(only(f"{STUDY}/verdicts", claim=FAR[0])["n_units"])
# All pairs have one sign, or all have the other one.
least_p = 2 / 2**n_far_pairs
supported(
    "none can be a headline",
    not verdicts[verdicts["claim"].isin(FAR)]["headline"].any(),
)
note_p = (
    f"With {n_far_pairs} pairs no p by exchanged signs is below {least_p:.4f}, and none of these claims can be a "
    f"headline after correction. The number of pairs was written before."
)
answer_far = " ".join(far_verdicts)

# Does sharing explain generalization?
AMONG = {"all": "held_out_all", "alone": "held_out_alone"}
relations = table(f"{STUDY}/relations")
n_relations = len(relations) // relations["within"].nunique()
points = table(f"{STUDY}/points")
n_points = len(points)
n_shared_pairs = points[claims.PAIR].nunique()
# A correlation that cannot be significant tells nothing: few models have the number.
few = relations[(relations["within"] == "pair") & relations["note"].notna()]
measured = [what for what in NAMES if what in set(relations["what"]) - set(few["what"])]
n_few = few["what"].nunique()


def relation(what: str, within: str, among: str) -> "pd.Series[Any]":
    """Return the correlation of a number with accuracy among all classes, or between the held-out classes alone."""
    return only(
        f"{STUDY}/relations", **{"with": AMONG[among], "within": within, "what": what}
    )


def related(what: str, within: str, among: str) -> str:
    """Return the cells of a correlation: with its interval, and p."""
    row = relation(what, within, among)
    return f"{in_words(row, 'rho')} | {p_in_words(row['p_holm'])}"


def partial(what: str) -> str:
    """Return the partial correlation within pairs, given accuracy in other domains."""
    row = relation(what, "pair", "all")
    return filled("{:+.2f}", row["partial"]) + f" ({p_in_words(row['partial_p'])})"


relation_lines = list[str]()
for what in measured:
    n_known = int(relation(what, "pair", "all")["n_models"])
    line = (
        NAMES[what] if n_known == n_points else f"{NAMES[what]} ({n_known} models)",
        related(what, "pair", "all"),
        partial(what),
        related(what, "pair", "alone"),
        related(what, "setting", "all"),
    )
    relation_lines.append(f"| {' | '.join(line)} |")
relation_rows = "\n".join(relation_lines)


def is_clear(what: str, within: str, among: str) -> bool:
    """Return whether a correlation is significant, and its interval does not hold zero."""
    row = relation(what, within, among)
    return bool(row["p_holm"] < claims.LEVEL and row["low"] * row["high"] > 0)


def clear(within: str, among: str) -> str:
    """Return the measures whose correlation is clear, with their correlations."""
    names = [
        f"{NAMES[what]} ({relation(what, within, among)['rho']:+.2f})"
        for what in measured
        if is_clear(what, within, among)
    ]
    return ", ".join(names) or "no number"


def rho_of(what: str, among: str) -> str:
    """Return a correlation within pairs."""
    return filled("{:+.2f}", relation(what, "pair", among)["rho"])


def less_a_setting(what: str) -> Span:
    """Return the mean correlation within pairs after leaving out each setting, its least and its largest value."""
    found = list[float]()
    for setting in sorted(set(points["setting"])):
        kept = points[points["setting"] != setting]
        of_pairs = kept.groupby(claims.PAIR)[[what, "held_out_all"]].corr("spearman")
        values = of_pairs.xs(what, level=-1)["held_out_all"]
        found.append(float(values.mean()))
    return span(found)


answer_sharing = (
    f"Within pairs, where settings differ, these correlate with accuracy among all classes after correction: "
    f"{clear('pair', 'all')}. With accuracy between the two held-out classes: {clear('pair', 'alone')}. Within "
    f"settings, where pairs differ, with accuracy among all classes: {clear('setting', 'all')}."
)
# Chosen by their significance, and not by hand: what is known of all models, and clear among all classes.
CLEAR = [
    what
    for what in measured
    if relation(what, "pair", "all")["n_models"] == n_points
    and is_clear(what, "pair", "all")
]
robust = ", ".join(
    f"{NAMES[what]} {filled('{:+.2f}', less_a_setting(what))}" for what in CLEAR
)
answer_robust = f"After leaving out each setting in turn the correlations within pairs are {robust}."
ranking = table(f"{STUDY}/ranking").sort_values("right", ascending=False)
ranking_rows = "\n".join(
    f"| {NAMES[row['what']]} | {filled('{:.0%}', row['right'])} | {row['n_pairs']} |"
    for _, row in ranking.iterrows()
)
best = ranking.iloc[0]
answer_ranking = (
    f"Of two models of one pair, the better one is picked without labels by the {NAMES[best['what']]} in "
    f"{filled('{:.0%}', best['right'])} of {best['n_pairs']} cases, best of {len(ranking)} numbers; guessing picks "
    f"it in half."
)

# Does another tower, or a start from random weights, change a verdict?
further = table(f"{TOWERS}/accuracies")
further_settings = set(further["setting"])
same = accuracies[
    accuracies["seed"].isin(set(further["seed"]))
    & (accuracies["test_domain"] == far)
    & accuracies["setting"].isin(further_settings)
]
of_towers = dict[str, claims.Tables]()
for model, of_model in pd.concat([same, further]).groupby("model"):
    of_towers[str(model)] = claims.Tables(of_model, NOTHING, far)
towers = sorted(of_towers)
n_further = further["run"].nunique()
n_pairs_of_towers = further[claims.PAIR].nunique()


def judged_alone(tower: str) -> pd.DataFrame:
    """Return the claims on accuracy of one tower as written, by claim."""
    judgements = real_claims.judged(of_towers[tower])
    as_written = judgements["first"] & (judgements["way"] == claims.AS_WRITTEN)
    return judgements[as_written].dropna(subset="value").set_index("claim")


judged_towers = {name: judged_alone(name) for name in towers}
of_first = judged_towers[FIRST]
tower_lines = list[str]()
turned = list[str]()
other_sign = list[str]()
for name in of_first.index:
    of_towers_in_words = [
        f"{in_words(judged.loc[name])}, {judged.loc[name, 'verdict']}"
        for judged in judged_towers.values()
    ]
    tower_lines.append(
        f"| {questions[name].question} | {' | '.join(of_towers_in_words)} |"
    )
    values = np.array([judged_towers[tower].loc[name, "value"] for tower in towers])
    if len(set(np.sign(values))) > 1:
        other_sign.append(name)
    decided = {judged_towers[tower].loc[name, "verdict"] for tower in towers}
    if len(decided - {claims.OPEN}) > 1:
        turned.append(name)
tower_rows = "\n".join(tower_lines)
tower_rules = "---|" * len(towers)


right_of_towers = {
    (name, choices.among): by_pair(claims.accuracies(of_towers[name], choices))
    for name in towers
    for choices in (WRITTEN, claims.Choices(among=AMONG_GROUP))
}


def of_mixture(tower: str, setting: str) -> str:
    """Return right answers on the held-out pair in percent: among all classes, and between the two."""
    ways = (MEASURE, AMONG_GROUP)
    means = [right_of_towers[tower, way][far, setting].value for way in ways]
    return filled("{:.0f}, {:.0f}", *means)


tower_accuracies = "\n".join(
    f"| {name} | {' | '.join(of_mixture(tower, name) for tower in towers)} |"
    for name in settings
    if name in further_settings
)
about_towers = (
    f"EfficientNet-Lite2 is a larger tower with ImageNet weights; `rn-tiny` starts from random weights, as models of "
    f"the study do, with smaller pictures and more passes. These {n_further} models were trained after all verdicts "
    f"had been seen, and are judged apart. With {n_pairs_of_towers} pairs intervals are wide."
)
in_two_ways = f"right on the held-out pair in {far}: among all classes, between the two"
n_same_sign = len(of_first) - len(other_sign)
answer_towers = (
    f"In {n_same_sign} of {len(of_first)} claims on accuracy the value of {', '.join(towers)} has one sign on the same "
    f"{n_pairs_of_towers} pairs in {far}. Another sign has: {quoted(questions, other_sign)} Decided verdicts "
    f"that turn over: {quoted(questions, turned)}"
)

# The README and the list of results
title_accuracy = (
    "A style that was never seen is easier than a style that was seen without the class: after training on all styles "
    "a CLIP tells the class apart there, and does not answer it."
)
supported(title_accuracy, bool(sometimes["headline"]) and entirely["low"] > 0)
readme_accuracy = (
    f"{n_models} CLIPs, EfficientNet-Lite0 with ImageNet weights tuned on PACS by the study's mixtures, each of "
    f"{n_pairs} pairs of classes held out in turn. Right on the held-out pair in {far}, as in the picture: "
    f"{right('natural-only')} after photographs, {right('cg-low')} with {far} added, {right('cg-high')} with all "
    f"styles, {right('leave-out')} with all styles but {far}, {right('upper-high')} where the pair was seen there. "
    f"Where the model must choose between the two, it is {told_apart('cg-high')} with all styles and "
    f"{told_apart('leave-out')} with all but {far}. Claims and "
    f"the number of models were [written first](docs/results/real.md): of {n_claims} claims "
    f"{len(by_verdict[claims.BORNE_OUT])} are borne out, {n_corrected} of these after correction, and "
    f"{len(by_verdict[claims.REFUTED])} are refuted; {len(headlines)} stand in every way to count."
)
turning = verdicts[verdicts["n_same"] < verdicts["n_ways"]]
title_refuted = (
    f"{len(by_verdict[claims.REFUTED])} of {n_claims} claims of the study are refuted, "
    f"{len(by_verdict[claims.OPEN])} cannot be told."
)
limit_refuted = (
    f"{contradictions} {len(turning)} verdicts change in another way to count. With other towers the sign is another "
    f"in: {quoted(questions, other_sign)}"
)
withdrawn = (
    "Its drawn styles were made about equally hard, three held-out sets counted as independent models, and verdicts "
    "turned over with one choice of how to count. The study on real pictures takes its place."
)
title_sharing = (
    "Shared features, shared edges and near embeddings go with how readily a CLIP answers a class; we saw none of them "
    "go with how well it tells the class apart."
)
supported(
    title_sharing,
    len(CLEAR) > 1 and not any(is_clear(what, "pair", "alone") for what in CLEAR),
)
of_three = "; ".join(
    f"{NAMES[what]} {rho_of(what, 'all')}, {rho_of(what, 'alone')}" for what in CLEAR
)
limit_sharing = (
    f"Correlation within a pair with accuracy among all classes, and between the two held-out classes: "
    f"{of_three}."
)

# What it takes, by the times of the files
hours_of_training = 8.8
hours_of_accuracies = 1.2
hours_of_sharing = 3.4
minutes_of_one_pair = 46
"""Of a core, measured in a fresh clone and a fresh environment."""
hours = hours_of_training + hours_of_accuracies + hours_of_sharing
resolution = 112
