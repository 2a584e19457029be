"""Numbers of the page on what holds a CLIP back in a style."""

from collections import Counter
from typing import Any

from circuitry.comparison import mean_interval
from experiments.pages import judgements
from experiments.pages.judgements import in_points, in_words, p_in_words, quoted
from experiments.pages.rendering import filled
from experiments.pages.tables import Interval, only, supported, table
from experiments.study import claims, style_claims
from experiments.study.claims_report import relations_of
from experiments.study.sharing import LABEL_FREE, SHARED
from experiments.study.style_curves import at_equal_loss
from experiments.study.style_edits import (
    CENTRED,
    MOVED,
    PART,
    PUT_BACK,
    RANDOM,
    RULE,
    STACKED,
    WHOLE,
)
from experiments.study.style_effects import ELSEWHERE, UNITS_SHARE

import numpy as np
import pandas as pd

STUDY = "style"
PATH = "style_path"
MAIN = "cg-high"
written_on = "3 December 2026"
LOSS = 0.05
HALF = 0.5
"""Right answers between two classes by guessing; and what the path was predicted to take, at least."""
LATE = 5
"""The last depths, which are counted together."""
KEPT_COLUMNS = [
    "run",
    "model",
    "test_domain",
    "seed",
    claims.PAIR,
    "setting",
    "held_out_all",
    "held_out_alone",
    "elsewhere",
]
CORRELATIONS = (
    ("pair", "held_out_all"),
    ("pair", "held_out_alone"),
    ("setting", "held_out_all"),
)
"""Models within a pair or within a setting, and the accuracy."""
EDITS = (
    WHOLE,
    PART,
    RANDOM,
    "random units of the costliest tenth",
    "units of the largest first costs",
    "units of the last site that the style is read from",
    "direction of the style's text",
    "direction between means",
    "LEACE",
    MOVED,
    CENTRED,
    "head fitted again",
    STACKED,
    PUT_BACK,
)
"""Edits in the order of the table."""

all_answers = table(f"{STUDY}/answers")
verdicts = table(f"{STUDY}/verdicts")
strengths = table(f"{STUDY}/strengths")
equal = at_equal_loss(strengths)
facts = table(f"{STUDY}/facts")
units = table(f"{STUDY}/units")
# Further settings are of the far domain alone.
far = str(facts.loc[facts["setting"] != MAIN, "test_domain"].iloc[0])
domains = sorted(set(all_answers["test_domain"]), key=lambda name: (name != far, name))
n_domains = len(domains)
rule_of_strength = (
    f"**At equal cost.** Each edit gets the largest strength that costs the seen classes of the style at most "
    f"{filled('{:.0%}', LOSS)} of right answers on training pictures. Pictures of the pair in the style, and test "
    f"pictures, choose nothing."
)
near = (
    "**What is near.** DomainDrop (Guo et al., ICCV 2023) drops channels that a discriminator of domains finds, during "
    "training; Ding et al. (NeurIPS 2022) remove features of domains by training. Calibrated stacking (Chao et al., "
    "2016) is the answer of generalized zero-shot learning to the bias towards seen classes. LEACE (Belrose et al., "
    "2023) erases a concept from embeddings. Stacking and LEACE are in the table; the two trainings were not run."
)
questions = {claim.name: claim for claim in style_claims.CLAIMS}
n_claims = len(verdicts)
n_models = all_answers["run"].nunique()
n_main = all_answers[all_answers["setting"] == MAIN]["run"].nunique()
n_pairs = all_answers[claims.PAIR].nunique()
n_further = facts[facts["setting"] != MAIN][claims.PAIR].nunique()

# Where texts and folders were both tried, texts tell the style.
of_texts = all_answers["told"] == all_answers.groupby("run")["told"].transform("max")
answers = all_answers[of_texts & (all_answers["rule"] == RULE)]
is_seen = answers["class"] == claims.SEEN
place = answers["domain"].where(answers["domain"] != answers["test_domain"], "style")
answers = answers.assign(place=place, group=answers["class"].where(is_seen, "pair"))


def over_pairs(
    edit: str,
    group: str = "pair",
    place: str = "style",
    column: str = "right",
    **equal_to: str,
) -> Interval:
    """Return the mean over pairs of answers after an edit, with its interval.

    Args:
        place: In the ``style``, `ELSEWHERE` or in photographs.
        equal_to: Values of further columns, such as the test domain; the setting is `MAIN` unless it is given.
    """
    chosen = answers
    wanted = {"edit": edit, "group": group, "place": place, "setting": MAIN}
    for name, value in (wanted | equal_to).items():
        chosen = chosen[chosen[name] == value]
    return Interval(
        *mean_interval(chosen.groupby(claims.PAIR)[column].mean().to_numpy())
    )


def percent(value: Interval) -> str:
    """Return a share in percent without its interval; a dash for a share that is not known."""
    return "–" if np.isnan(value.value) else f"{100 * value.value:.0f}"


def with_interval(value: Interval) -> str:
    """Return a share in percent with its interval."""
    return filled("{:.0f}", Interval(*(100 * each for each in value))) + " %"


def of_claim(name: str) -> str:
    """Return the value of a claim in points, with its interval and verdict."""
    row = only(f"{STUDY}/verdicts", claim=name)
    return f"{in_points(row)}, {row['verdict']}"


def at_loss(edit: str, domain: str, loss: float = LOSS) -> Interval:
    """Return right answers on the pair where seen classes have lost as much on test pictures."""
    chosen = equal[
        (equal["edit"] == edit)
        & (equal["test_domain"] == domain)
        & (equal["loss"] == loss)
    ]
    by_pair = chosen.groupby(claims.PAIR)["value"].mean().to_numpy()
    return (
        Interval(*mean_interval(by_pair)) if len(by_pair) else Interval(*[np.nan] * 3)
    )


# Does removing a style's part give held-out classes back?
whole, part, random = (over_pairs(edit, test_domain=far) for edit in EDITS[:3])
moved = over_pairs(MOVED, test_domain=far)
answer_part = (
    f"In {far} {MAIN} is right on {with_interval(whole)} of the held-out pair. After removing the part, "
    f"{with_interval(part)}; after removing as many random units of the same sites, {with_interval(random)}. Over all "
    f"test domains the part brings {of_claim('returns')}. Other styles keep their answers: {of_claim('elsewhere')}."
)
supported("the part brings", part.low > whole.high)
edit_lines = list[str]()
for edit in EDITS:
    in_domains = list[str]()
    for domain in domains:
        right = over_pairs(edit, test_domain=domain)
        seen = over_pairs(edit, "seen", test_domain=domain)
        in_domains.append(f"{percent(right)} ({percent(seen)})")
    alone = over_pairs(edit, column="alone", test_domain=far)
    others = over_pairs(edit, "seen", ELSEWHERE)
    at_losses = [percent(at_loss(edit, domain)) for domain in domains]
    cells = [edit, *in_domains, percent(alone), percent(others), *at_losses]
    edit_lines.append(f"| {' | '.join(cells)} |")
edit_rows = "\n".join(edit_lines)
n_columns = 2 * len(domains) + 2
rules = "---|" * n_columns

# Does the part do more than edits of embeddings?
answer_embeddings = (
    f"No. Moving the mean of the style, one vector, brings the pair to {with_interval(moved)} in {far}: the part minus "
    f"this is {of_claim('above-embeddings')}. Where both cost seen classes {filled('{:.0%}', LOSS)} of test pictures "
    f"it is {with_interval(at_loss(PART, far))} and {with_interval(at_loss(MOVED, far))}."
)
supported(
    "No.",
    only(f"{STUDY}/verdicts", claim="above-embeddings")["verdict"] == claims.REFUTED,
)

# What returns, the reading of the classes or the answer?
alone_whole = over_pairs(WHOLE, column="alone", test_domain=far)
alone_part = over_pairs(PART, column="alone", test_domain=far)
alone_moved = over_pairs(MOVED, column="alone", test_domain=far)
answer_reading = (
    f"Mostly the answer. Between the two held-out classes {far} is right on {with_interval(alone_whole)} before any "
    f"edit, on {with_interval(alone_part)} after removing the part, and on {with_interval(alone_moved)} after moving "
    f"the mean. Over all test domains the part brings {of_claim('better-told')}."
)

# Which claims hold?
by_verdict = verdicts.groupby("verdict")["claim"].agg(list)
n_borne_out = len(by_verdict.get(claims.BORNE_OUT, []))
n_refuted = len(by_verdict.get(claims.REFUTED, []))
headlines = verdicts[verdicts["headline"]]["claim"].tolist()

answer_claims = (
    f"Of {n_claims} claims {n_borne_out} are borne out, {n_refuted} are refuted, and "
    f"{n_claims - n_borne_out - n_refuted} cannot be told. "
    f"Refuted: {quoted(questions, by_verdict.get(claims.REFUTED, []))} {len(headlines)} stand in each "
    f"way to count after correction: {quoted(questions, headlines)}"
)
claim_rows = judgements.claim_rows(questions, verdicts)
amendments = "\n".join(f"- Amendment of {line}" for line in style_claims.AMENDMENTS)

about_margins = (
    "*Borne out* and *refuted* are as in the study. A claim that allows a loss is refuted as soon as its interval lies "
    "below zero, also within the loss that is allowed. *Other styles* counts the two held-out classes and all seen "
    "classes as three."
)

# Does it matter what the model has seen?
SETTINGS = (
    "natural-only",
    "leave-out",
    "cg-low",
    "domain-interpolation",
    MAIN,
    "aligned",
    "class-interpolation",
    "upper-high",
)
first_pairs = set(facts[facts["setting"] != MAIN][claims.PAIR])
bias_of = facts[(facts["what"] == "bias") & (facts["edit"] == WHOLE)]
setting_lines = list[str]()
for setting in SETTINGS:
    of_setting = answers[answers["setting"] == setting]
    if not len(of_setting):
        continue
    of_setting = of_setting[
        of_setting[claims.PAIR].isin(first_pairs) & (of_setting["test_domain"] == far)
    ]
    cells = list[str]()
    for edit in (WHOLE, PART, RANDOM, MOVED):
        of_edit = of_setting[
            (of_setting["edit"] == edit) & (of_setting["place"] == "style")
        ]
        for group in ("pair", "seen"):
            values = of_edit[of_edit["group"] == group].groupby(claims.PAIR)["right"]
            cells.append(f"{100 * values.mean().mean():.0f}")
    pairs_of = [f"{cells[i]} ({cells[i + 1]})" for i in range(0, len(cells), 2)]
    told_by = "texts" if (of_setting["told"] == "texts").any() else "folders"
    biases = bias_of[
        (bias_of["setting"] == setting)
        & (bias_of["test_domain"] == far)
        & bias_of[claims.PAIR].isin(first_pairs)
    ]
    setting_lines.append(
        f"| {setting} | {told_by} | {' | '.join(pairs_of)} | {biases['value'].mean():+.1f} |"
    )
setting_rows = "\n".join(setting_lines)
gain_of = {name: of_claim(name) for name in ("named-style", "aligned", "harmless")}
answer_settings = (
    f"The part brings {MAIN} more than leave-out, which has not seen the style: {gain_of['named-style']}. More than "
    f"aligned, whose captions name no style: {gain_of['aligned']}. In the upper bound, where nothing is wrong, the "
    f"pair changes by {gain_of['harmless']}: there, too, its pictures in the style neither found the part nor were "
    f"spared. So whoever removes a part should spare each class that counts."
)

# Does a model fail where seen pictures already argue against a class?
first_told = bias_of["told"] == bias_of.groupby("run")["told"].transform("max")
bias_by_run = dict(
    zip(
        bias_of[first_told]["run"].str.rpartition("/")[2],
        bias_of[first_told]["value"],
        strict=True,
    )
)
points = table("real_study/points")
points = points.assign(bias=points["run"].map(bias_by_run)).dropna(subset="bias")
names = ["bias", "cka", "distance", "features", "study_edges", "study_units"]
related = relations_of(points[[*KEPT_COLUMNS, *names]], names)
MEASURES = (
    SHARED | LABEL_FREE | {"bias": "bias against the pair, on pictures of seen classes"}
)


def rho(what: str, within: str, accuracy: str) -> "pd.Series[Any]":
    """Return a correlation of a number of models with their accuracy."""
    chosen = related[
        (related["what"] == what)
        & (related["within"] == within)
        & (related["with"] == accuracy)
    ]
    # Exactly one.
    ((_, row),) = chosen.iterrows()
    found: pd.Series[Any] = row
    return found


relation_lines = list[str]()
for what in names:
    cells = [MEASURES[what]]
    for within, accuracy in CORRELATIONS:
        row = rho(what, within, accuracy)
        cells.append(f"{in_words(row, 'rho')} ({p_in_words(row['p_holm'])})")
    relation_lines.append(f"| {' | '.join(cells)} |")
relation_rows = "\n".join(relation_lines)
of_bias = rho("bias", "pair", "held_out_all")
strongest = max(names, key=lambda name: abs(rho(name, "pair", "held_out_all")["rho"]))
n_points = len(points)
n_point_pairs = points[claims.PAIR].nunique()
answer_bias = (
    f"Yes. The bias, which needs no picture of the pair in the style, correlates with accuracy on the pair by "
    f"{in_words(of_bias, 'rho')} (corrected p {p_in_words(of_bias['p_holm'])}) over {n_points} models, within pairs. "
    f"Of {len(names)} numbers the strongest correlation has the {MEASURES[strongest]}. It tells which training answers "
    f"a pair, and not which pair is answered: between the two classes the correlation is "
    f"{in_words(rho('bias', 'pair', 'held_out_alone'), 'rho')}, and within settings, where pairs differ, "
    f"{in_words(rho('bias', 'setting', 'held_out_all'), 'rho')}."
)
supported("Yes.", of_bias["p_holm"] < claims.LEVEL and of_bias["low"] > 0)

# Where does the part lie, and do other models have the same?
main_units = units[(units["setting"] == MAIN) & (units["told"] == "texts")]


def chosen_units(table: pd.DataFrame) -> dict[str, set[tuple[str, str]]]:
    """Return the units of each part, by the key of its model."""
    found = dict[str, set[tuple[str, str]]]()
    for key, site, of_site in table[["key", "site", "units"]].itertuples(index=False):
        of_key = found.setdefault(key, set())
        if isinstance(of_site, str):
            of_key |= {(site, unit) for unit in of_site.split()}
        elif not pd.isna(of_site):
            of_key.add((site, f"{of_site:g}"))
    return found


def shared_of(first: set[tuple[str, str]], second: set[tuple[str, str]]) -> float:
    """Return the share of the units of a part that another part has, too."""
    return len(first & second) / len(first)


keyed = main_units.assign(key=main_units["test_domain"] + " " + main_units[claims.PAIR])
parts = chosen_units(keyed)
path_units = table(f"{PATH}/units")
again = chosen_units(
    path_units.assign(key=path_units["pictures"] + " " + path_units[claims.PAIR])
)
path_pairs = sorted(set(path_units[claims.PAIR]))
same_model = [
    shared_of(again[f"first {pair}"], again[f"other {pair}"]) for pair in path_pairs
]
other_model = [
    np.mean(
        [
            shared_of(parts[f"{far} {pair}"], parts[f"{far} {other}"])
            for other in path_pairs
            if other != pair
        ]
    )
    for pair in path_pairs
]
other_style = [
    np.mean(
        [
            shared_of(parts[f"{far} {pair}"], parts[f"{domain} {pair}"])
            for domain in domains
            if domain != far
        ]
    )
    for pair in path_pairs
]
by_depth = main_units.groupby(["test_domain", "depth"])["n"].mean()
last_depth = int(main_units["depth"].max())
n_part = by_depth[far].sum()
n_sites = last_depth + 1
n_units = round(n_part / UNITS_SHARE, -1)
late_share = by_depth[far].iloc[-LATE:].sum() / n_part
at_the_end = by_depth[far].iloc[-1] / n_part
of_same_model, of_other_model, of_other_style = (
    with_interval(Interval(*mean_interval(np.array(shared))))
    for shared in (same_model, other_model, other_style)
)
answer_where = (
    f"In {far} {filled('{:.0%}', at_the_end)} of its {n_part:.0f} units lie at the last of {n_sites} depths, and "
    f"{filled('{:.0%}', late_share)} in the last {LATE}. A part found on other pictures of the same model shares "
    f"{of_same_model} of its units; parts of models with other pairs {of_other_model}, and parts of other styles "
    f"{of_other_style}. By chance it would be {filled('{:.1%}', UNITS_SHARE)}."
)

n_in_parts = Counter(
    unit
    for key, of_key in parts.items()
    if key.startswith(f"{far} ")
    for unit in of_key
)
(common_site, common_unit), n_common = n_in_parts.most_common(1)[0]
answer_cards = (
    f"Since all models start from the same tower, their units can be named: channel {common_unit} of `{common_site}` "
    f"is in {n_common} of {n_pairs} parts of {far}. The units that most parts share were looked at in one model, by "
    f"the pictures of four styles that they respond to; this is a description, not a measurement. In {far} the early "
    f"ones respond to outlines around empty surfaces, the late ones to white paper beside thin black lines. In "
    f"cartoons they respond to flat colour within thick outlines, and in paintings to the texture of brush strokes. "
    f"One unit of many parts of cartoons is silent on black and white: the model tells styles by what is missing, too."
)

# What does the part do to the evidence of classes?
evidence = table(f"{PATH}/evidence")
path = table(f"{PATH}/path")
n_path_pairs = len(path_pairs)


def changed(edit: str, pictures: str, of: str) -> Interval:
    """Return how an edit changes a logit in pictures of the pair or of seen classes, over pairs.

    Args:
        pictures: ``pair`` or ``seen``.
        of: ``own``, against the logits of seen classes, or ``seen``.
    """
    rows_of = evidence[evidence["pictures"] == pictures].set_index(
        [claims.PAIR, "edit"]
    )
    gap = rows_of[of] if of == "seen" else rows_of[of] - rows_of["seen"]
    by_edit = gap.unstack("edit")
    return Interval(*mean_interval((by_edit[edit] - by_edit[WHOLE]).to_numpy()))


evidence_rows = "\n".join(
    filled(
        "| {} | {:+.1f} | {:+.1f} | {:+.1f} |",
        edit,
        changed(edit, "pair", "own"),
        changed(edit, "pair", "seen"),
        changed(edit, "seen", "own"),
    )
    for edit in (PART, RANDOM, MOVED)
)
margins = path.set_index([claims.PAIR, "edit", "kept"])["margin"].unstack(
    ["edit", "kept"]
)
gain = margins[PART, "nothing"] - margins[WHOLE, "nothing"]


def lost_by_keeping(kept: str) -> Interval:
    """Return the share of the mean gain in the margin that is lost where units keep their values, over pairs."""
    lost = (margins[PART, "nothing"] - margins[PART, kept]) / gain.mean()
    return Interval(*mean_interval(lost.to_numpy()))


OWN_PAIR = "own parts of the pair"
kept_names = [
    OWN_PAIR,
    "own parts of two seen classes",
    "random units, same sites as the pair's",
]
n_kept = path.groupby("kept")["n_kept"].mean()
kept_rows = "\n".join(
    filled("| {} | {:.0f} | {:.0%} |", name, n_kept[name], lost_by_keeping(name))
    for name in kept_names
)
by_site = {
    name.removeprefix("all units of "): lost_by_keeping(name)
    for name in dict.fromkeys(path["kept"])
    if name.startswith("all units of ")
}
widest = sorted(by_site, key=lambda site: -by_site[site].value)[:2]
about_kept = (
    "What is lost of the gain in the margin (logit of the right class minus the largest logit of a seen class) where "
    "some units keep the values that they had before the part was removed:"
)
widest_in_words = " and ".join(
    f"{site} ({filled('{:.0%}', by_site[site].value)})" for site in widest
)
own = lost_by_keeping(OWN_PAIR)
by_random = lost_by_keeping(kept_names[2])
says_half = "holds a half" if own.low < HALF < own.high else "does not hold a half"
answer_predictions = (
    f"Predicted were a rise in pictures of the pair that is larger than in pictures of seen classes, which is so; a "
    f"loss of at least half of the gain, whose interval {says_half}, and more than with random units, which is so; "
    f"and the order of shared units above, which is so."
)
supported(
    "which is so",
    changed(PART, "pair", "own").low > changed(PART, "seen", "own").high
    and own.low > by_random.high
    and min(same_model) > max(other_model) > np.mean(other_model) > max(other_style),
)
answer_sites = (
    f"Of single sites, keeping all units loses the most at {widest_in_words}."
)
answer_path = (
    f"Removing the part raises the logit of the right class of the pair against seen classes by "
    f"{filled('{:.1f}', changed(PART, 'pair', 'own'))}, and by {filled('{:.1f}', changed(PART, 'seen', 'own'))} in "
    f"pictures of seen classes. If the units of the pair's own parts keep the values that they had before, "
    f"{filled('{:.0%}', own)} of the gain in the margin is lost; with as many random units of the same sites "
    f"{filled('{:.0%}', by_random)}."
)

# Does further training do as much?
trained = table(f"{PATH}/trained")
trained_means = trained.groupby(["captions", "class", claims.PAIR])["right"].mean()


def after_training(captions: str, group: str) -> Interval:
    """Return right answers after one further pass, over pairs."""
    return Interval(*mean_interval(trained_means[captions, group].to_numpy()))


def first_of(edit: str, group: str = "pair", place: str = "style") -> Interval:
    """Return right answers after an edit, over the pairs that were trained further."""
    chosen = answers[
        (answers["edit"] == edit)
        & (answers["group"] == group)
        & (answers["place"] == place)
        & (answers["setting"] == MAIN)
        & (answers["test_domain"] == far)
        & answers[claims.PAIR].isin(path_pairs)
    ]
    return Interval(
        *mean_interval(chosen.groupby(claims.PAIR)["right"].mean().to_numpy())
    )


training_lines = list[str]()
for captions in ("as before", "no style"):
    cells = [f"one further pass, captions {captions}"]
    cells += [
        filled("{:.0%}", after_training(captions, group))
        for group in ("pair", "seen", "elsewhere")
    ]
    training_lines.append(f"| {' | '.join(cells)} |")
for edit in (WHOLE, PART, MOVED):
    cells = [
        edit,
        *(filled("{:.0%}", first_of(edit, group)) for group in ("pair", "seen")),
    ]
    elsewhere = first_of(edit, "seen", ELSEWHERE)
    training_lines.append(f"| {' | '.join(cells)} | {filled('{:.0%}', elsewhere)} |")
training_rows = "\n".join(training_lines)
difference = (
    trained_means["no style", "pair"]
    - answers[
        (answers["edit"] == MOVED)
        & (answers["group"] == "pair")
        & (answers["place"] == "style")
        & (answers["setting"] == MAIN)
        & (answers["test_domain"] == far)
    ]
    .groupby(claims.PAIR)["right"]
    .mean()
).dropna()
of_difference = Interval(*(100 * each for each in mean_interval(difference.to_numpy())))
answer_training = (
    f"One further pass over the same pictures with captions that name no style brings the pair from "
    f"{filled('{:.0%}', first_of(WHOLE))} to {filled('{:.0%}', after_training('no style', 'pair'))}, with the captions "
    f"as before to {filled('{:.0%}', after_training('as before', 'pair'))}. Minus moving the mean it is "
    f"{filled('{:+.0f}', of_difference)} points, which was predicted to be below zero."
)

# Does another tower change a verdict?
TOWERS = "style_towers"
tower_answers = table(f"{TOWERS}/answers")
tower_facts = table(f"{TOWERS}/facts")
seeds = sorted(set(tower_answers["seed"]))
n_tower_models = tower_answers["run"].nunique()


def same_models(numbers: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the first tower for the pairs and settings of the further towers."""
    return numbers[
        numbers["seed"].isin(seeds)
        & (numbers["test_domain"] == far)
        & numbers["setting"].isin(set(tower_answers["setting"]))
    ]


of_towers = dict(
    tuple(pd.concat([same_models(all_answers), tower_answers]).groupby("model"))
)
facts_of_towers = dict(
    tuple(pd.concat([same_models(facts), tower_facts]).groupby("model"))
)
towers = sorted(map(str, of_towers))
judged_towers = dict[str, pd.DataFrame]()
for tower in towers:
    of_tower_alone = style_claims.judged(of_towers[tower], facts_of_towers[tower], far)
    as_written = of_tower_alone["way"] == claims.AS_WRITTEN
    known_values = of_tower_alone[of_tower_alone["first"] & as_written]
    judged_towers[tower] = known_values.dropna(subset="value").set_index("claim")
known = [
    name
    for name in judged_towers[towers[0]].index
    if all(name in judged.index for judged in judged_towers.values())
]
tower_lines = list[str]()
turned = list[str]()
for name in known:
    cells = [
        f"{in_words(judged.loc[name])}, {judged.loc[name, 'verdict']}"
        for judged in judged_towers.values()
    ]
    tower_lines.append(f"| {questions[name].question} | {' | '.join(cells)} |")
    decided = {judged.loc[name, "verdict"] for judged in judged_towers.values()}
    if len(decided - {claims.OPEN}) > 1:
        turned.append(name)
tower_rows = "\n".join(tower_lines)
tower_rules = "---|" * len(towers)


def of_tower(tower: str, edit: str) -> str:
    """Return right answers on the pair in percent after an edit, mean over the pairs of the towers."""
    chosen = of_towers[tower]
    chosen = chosen[
        (chosen["edit"] == edit)
        & (chosen["rule"] == RULE)
        & (chosen["setting"] == MAIN)
        & (chosen["told"] == "texts")
        & (chosen["domain"] == far)
        & (chosen["class"] != claims.SEEN)
    ]
    return f"{100 * chosen.groupby(claims.PAIR)['right'].mean().mean():.0f} %"


answer_towers = "; ".join(
    f"{tower}: from {of_tower(tower, WHOLE)} to {of_tower(tower, PART)} after removing the part, "
    f"{of_tower(tower, RANDOM)} with random units, and {of_tower(tower, MOVED)} after moving the mean"
    for tower in towers
)
answer_towers = (
    f"On the pair in {far}, {len(seeds)} pairs ({n_tower_models} further models): {answer_towers}. Decided verdicts "
    f"that turn over: {quoted(questions, turned)}"
)

# The list of results and the README
title_style = (
    "What a CLIP has not seen in a style it may know: the style itself argues against the class, through the class's "
    "own units."
)
supported(
    title_style,
    part.low > whole.high and own.low > by_random.high and alone_whole.low > HALF,
)
title_limit = "Moving one vector does more than removing the part of a style."
supported(title_limit, over_pairs(MOVED).value > over_pairs(PART).value)
n_removed = answers[
    (answers["edit"] == PART)
    & (answers["setting"] == MAIN)
    & (answers["test_domain"] == far)
    & (answers["place"] == "style")
]["n_units"].mean()
readme_style = (
    f"{n_main} of these CLIPs, edited. In {far} they are right on {with_interval(whole)} of the pair that was held out "
    f"of it, and between its two classes on {with_interval(alone_whole)}. After removing the units that tell the style "
    f"and that classes do not need ({n_removed:.0f} of {n_units:,.0f} on average, found without the pair), it is "
    f"{with_interval(part)}, after as many random units {with_interval(random)}. In {n_path_pairs} models "
    f"{filled('{:.0%}', own)} of the gain is lost if the units that recognise the pair keep their values. Moving the "
    f"mean embedding of the style does more, {with_interval(moved)}: [the claim that the part does "
    f"more](docs/results/style.md) is refuted. The command `edit` writes such a checkpoint."
)
