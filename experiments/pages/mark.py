"""Numbers of the page on a mark that goes with one class."""

from typing import Any

from circuitry.comparison import mean_interval
from experiments.pages import judgements
from experiments.pages.judgements import in_points, quoted
from experiments.pages.rendering import filled
from experiments.pages.tables import Interval, only, supported, table
from experiments.study import claims, mark_claims
from experiments.study.mark_command import BOUND_SEED
from experiments.study.mark_edits import (
    AT_A_STRENGTH,
    AT_NONE,
    BY_CLASS,
    NO_MARK,
    OF_EMBEDDINGS,
    PART,
    PRUNED,
    RANDOM,
    RULE,
    RULES,
    SHARES,
)
from experiments.study.mark_further import FINER, SIZES
from experiments.study.mark_models import ONE_WITH_NONE, SETS
from experiments.study.style_edits import LEACE, MOVED, OF_MEANS, REFITTED, WHOLE

import pandas as pd

STUDY = "mark"
N_CLASSES = 7
N_STYLES = 4
"""Classes and styles of PACS."""
FIVE = "five points"
written_on = "7 December 2026"
EDITS = (
    WHOLE,
    PART,
    AT_NONE,
    BY_CLASS,
    RANDOM,
    PRUNED,
    OF_EMBEDDINGS[LEACE],
    OF_EMBEDDINGS[OF_MEANS],
    OF_EMBEDDINGS[MOVED],
    OF_EMBEDDINGS[REFITTED],
    NO_MARK,
)
"""Edits in the order of the tables."""
RIVALS = (PRUNED, *(OF_EMBEDDINGS[name] for name in (LEACE, OF_MEANS, MOVED, REFITTED)))
COLUMNS = ("worst", "as_trained", "all_groups", "others", "class_alone")
"""Columns of the first table."""

all_models = table(f"{STUDY}/models")
# Models that have not learned the mark are left out, as was written first; one table has all.
models = mark_claims.learned(all_models)
verdicts = table(f"{STUDY}/verdicts")
further = table(f"{STUDY}/further")
questions = {claim.name: claim for claim in mark_claims.CLAIMS}
all_marked = list(dict.fromkeys(all_models["marked"]))
learned = list(dict.fromkeys(models["marked"]))
left_out = [name for name in all_marked if name not in learned]
n_all = len(all_marked)
n_models = len(learned)
n_left_out = n_all - n_models
n_groups = 2 * N_CLASSES
n_of_group = N_STYLES * SETS["test"]
marked_share = 1 - 1 / ONE_WITH_NONE
bound_seed = BOUND_SEED
not_learned = filled("{:.0%}", mark_claims.NOT_LEARNED)
about_left_out = (
    f"Before any edit the worst group of {n_left_out} models ({', '.join(left_out)}) is right on more than "
    f"{not_learned}. So by the rule that was written first they have not learned the mark, and are left out: "
    f"{n_models} models count ({', '.join(learned)})."
)
supported("have not learned the mark", n_left_out > 0)
rule_of_strength = (
    f"**At equal cost.** Each edit gets the strength that is best for the worst group among those that cost the mean "
    f"as trained at most {filled('{:.0%}', RULES[RULE])} on further pictures; an alternative allows "
    f"{filled('{:.0%}', RULES[FIVE])}. An edit may have no such strength; then the model stays as it was."
)


def of_models(edit: str, column: str, rule: str = RULE) -> "pd.Series[Any]":
    """Return a number of each model after an edit, by its marked class."""
    chosen = models[(models["edit"] == edit) & (models["rule"] == rule)]
    return chosen.set_index("marked")[column].loc[learned]


def mean(edit: str, column: str, rule: str = RULE) -> Interval:
    """Return the mean over models of a number after an edit, in percent with its interval."""
    values = 100 * of_models(edit, column, rule).to_numpy(dtype=float)
    return Interval(*mean_interval(values))


def said(edit: str, column: str = "worst", rule: str = RULE) -> str:
    """Return this mean with its interval, in words."""
    return filled("{:.0f} %", mean(edit, column, rule))


def plain(edit: str, column: str = "worst", rule: str = RULE) -> str:
    """Return this mean without its interval."""
    return f"{mean(edit, column, rule).value:.0f}"


def of_claim(name: str) -> str:
    """Return the value of a claim in points, with its interval and verdict."""
    row = only(f"{STUDY}/verdicts", claim=name)
    return f"{in_points(row)}, {row['verdict']}"


def n_changed(edit: str, rule: str = RULE) -> int:
    """Return in how many models a rule chooses any strength but none."""
    if edit == RANDOM:
        edit = PART
    return int((of_models(edit, "strength", rule) > 0).sum())


# Does the worst group rise?
n_unchanged = n_models - n_changed(PART)
answer_rises = (
    f"{only(f'{STUDY}/verdicts', claim='rises')['verdict'].capitalize()}: by the rule of two points nothing was "
    f"removed from {n_unchanged} of {n_models} models, since no part that was tried brought more at this cost. The "
    f"worst group is right on {said(WHOLE)} before and on {said(PART)} after. A head that is fitted again brings it to "
    f"{said(OF_EMBEDDINGS[REFITTED])}, LEACE to {said(OF_EMBEDDINGS[LEACE])}, selective pruning to {said(PRUNED)}; in "
    f"a model that never saw the mark it is {said(NO_MARK)}. With a cost of five points the part brings it to "
    f"{said(PART, rule=FIVE)}, the head to {said(OF_EMBEDDINGS[REFITTED], rule=FIVE)}, LEACE to "
    f"{said(OF_EMBEDDINGS[LEACE], rule=FIVE)} and pruning to {said(PRUNED, rule=FIVE)}."
)
supported("nothing was removed", n_unchanged > 0)
edit_lines = list[str]()
for edit in EDITS:
    changed = "" if edit in (WHOLE, NO_MARK) else f"{n_changed(edit)} of {n_models}"
    cells = [edit, changed, filled("{:.0f}", mean(edit, "worst"))]
    cells += [plain(edit, column) for column in COLUMNS[1:]]
    cells += [plain(edit, "worst", FIVE), plain(edit, "as_trained", FIVE)]
    edit_lines.append(f"| {' | '.join(cells)} |")
edit_rows = "\n".join(edit_lines)

# Is it so in each model?
model_lines = list[str]()
for edit in EDITS:
    of_edit = all_models[all_models["edit"] == edit]
    worst = 100 * of_edit.pivot(index="marked", columns="rule", values="worst")
    cells = list[str]()
    for name in (*learned, *left_out):
        of_model = worst.loc[name]
        cells.append(f"{of_model[RULE]:.0f} ({of_model[FIVE]:.0f})")
    model_lines.append(f"| {edit} | {' | '.join(cells)} |")
model_rows = "\n".join(model_lines)
model_rules = "---|" * n_all
model_names = [*learned, *(f"({name})" for name in left_out)]


def n_ahead(edit: str, rule: str, other: str = PART) -> int:
    """Return in how many models an edit brings the worst group further than another edit."""
    return int((of_models(edit, "worst", rule) > of_models(other, "worst", rule)).sum())


ahead = "; ".join(
    f"{edit} {n_ahead(edit, RULE)} ({n_ahead(edit, FIVE)})" for edit in RIVALS
)
by_model = all_models[all_models["rule"] == RULE].pivot(
    index="marked", columns="edit", values="worst"
)
gain_of_all = 100 * (by_model[PART] - by_model[WHOLE]).to_numpy()
about_all = (
    f"With the models that have not learned the mark the part brings the worst group "
    f"{filled('{:+.0f}', Interval(*mean_interval(gain_of_all)))} points by the rule of two points."
)
answer_each = (
    f"By the rule of two points the part raises the worst group in {n_ahead(PART, RULE, WHOLE)} of {n_models} models "
    f"and lowers it in {n_ahead(WHOLE, RULE)}; by that of five points in {n_ahead(PART, FIVE, WHOLE)} and "
    f"{n_ahead(WHOLE, FIVE)}. In so many models an edit brings more than the part (in brackets by five points): "
    f"{ahead}."
)

# What does the part take out, and at what cost?
first_size = SHARES[0]
MEASURES = ("others", "class_alone", "class_marked", "as_trained", "worst")


def at_size(size: float) -> str:
    """Return the name of the rule that has edits at a size."""
    return f"{AT_A_STRENGTH} {size:g}"


def n_at(edit: str, size: float) -> int:
    """Return the number of units at a size."""
    return int(of_models(edit, "n_units", at_size(size)).iloc[0])


n_first = n_at(PART, first_size)
n_units = round(n_first / first_size, -2)
first = at_size(first_size)
is_worst = of_models(PART, "class_alone", first) == of_models(PART, "worst", first)
n_worst = int(is_worst.sum())
answer_out = (
    f"Much of what the mark does to other classes is gone after the removal of {n_first} of {n_units:,.0f} units, the "
    f"smallest part that was written first: other classes with the mark are right on {said(WHOLE, 'others')} before "
    f"and on {said(PART, 'others', first)} after, with as many random units on {said(RANDOM, 'others', first)}, with "
    f"as many of those whose activations differ most on {said(PRUNED, 'others', first)}, in a model that never saw the "
    f"mark on {said(NO_MARK, 'others')}. The cost is the marked class's: with the mark it falls from "
    f"{said(WHOLE, 'class_marked')} to {said(PART, 'class_marked', first)}. With no mark it was right on "
    f"{said(WHOLE, 'class_alone')} and is now on {said(PART, 'class_alone', first)}, and in {n_worst} of {n_models} "
    "models it is the worst group: removal does not teach a class."
)
supported(
    "Much of what the mark does to other classes is gone",
    mean(PART, "others", first).value - mean(RANDOM, "others", first).value
    > (mean(NO_MARK, "others").value - mean(WHOLE, "others").value) / 2,
)
supported(
    "removal does not teach a class",
    mean(PART, "class_alone", first).value < mean(NO_MARK, "class_alone").value,
)
size_lines = list[str]()
probes = 100 * further.groupby("strength")["value"].mean()
for size in SIZES:
    for edit in (PART, RANDOM, PRUNED):
        cells = [f"{edit}, {n_at(edit, size)}"]
        cells += [plain(edit, column, at_size(size)) for column in MEASURES]
        cells.append(f"{probes[size]:.0f}" if edit == PART else "")
        size_lines.append(f"| {' | '.join(cells)} |")
for edit in (WHOLE, NO_MARK):
    cells = [edit, *(plain(edit, column) for column in MEASURES)]
    cells.append(f"{probes[0.0]:.0f}" if edit == WHOLE else "")
    size_lines.append(f"| {' | '.join(cells)} |")
size_rows = "\n".join(size_lines)
about_look = (
    f"What is below {n_first} units, random and pruned units and probes were added after a look (see the amendment); "
    f"to count other classes apart was decided after a look, too. No claim counts these numbers."
)
finer_gain = of_models(PART, "worst", FINER) - of_models(WHOLE, "worst")
answer_finer = (
    f"If the rule of two points may choose the smaller parts, too, it removes units from {n_changed(PART, FINER)} of "
    f"{n_models} models, and the worst group is right on {said(PART, rule=FINER)}; it rises in "
    f"{(finer_gain > 0).sum()} models and falls in {(finer_gain < 0).sum()}."
)
lost_by_bound = mean(WHOLE, "as_trained").value - mean(NO_MARK, "as_trained").value
about_rule = (
    f"The model that never saw the mark is right on {said(NO_MARK, 'as_trained')} of pictures as in training, "
    f"{lost_by_bound:.0f} points below the models with the mark, since a mark that goes with its class helps where it "
    "goes with it. So taking a mark out costs mean accuracy as trained, and a rule of two points forbids what it asks "
    "for. This was seen afterwards, and the rule was not changed."
)
supported("forbids what it asks for", lost_by_bound > 100 * RULES[RULE])

# Which claims hold?
by_verdict = verdicts.groupby("verdict")["claim"].agg(list)
n_claims = len(verdicts)
n_borne_out = len(by_verdict.get(claims.BORNE_OUT, []))
n_refuted = len(by_verdict.get(claims.REFUTED, []))
answer_claims = (
    f"Of {n_claims} claims {n_borne_out} are borne out, {n_refuted} are refuted, and "
    f"{n_claims - n_borne_out - n_refuted} cannot be told with {n_models} models. Borne out: "
    f"{quoted(questions, by_verdict.get(claims.BORNE_OUT, []))} Refuted: "
    f"{quoted(questions, by_verdict.get(claims.REFUTED, []))} As was said before, so few models cannot give a small p, "
    f"and none stands after correction. Where no unit was removed, a claim compares the whole model with a rival."
)
supported("none stands", not verdicts["headline"].any())
claim_rows = judgements.claim_rows(questions, verdicts)
amendments = "\n".join(f"- Amendment of {line}" for line in mark_claims.AMENDMENTS)
title_limit = (
    "At equal mean accuracy we did not see that removing the part of a planted mark brings the worst group more than "
    "rivals do."
)
REST = (PRUNED, OF_EMBEDDINGS[LEACE], OF_EMBEDDINGS[REFITTED])
supported(
    title_limit,
    mean(PART, "worst").value < min(mean(edit, "worst").value for edit in REST),
)
