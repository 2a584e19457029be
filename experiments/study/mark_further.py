"""What was asked of models with a mark after a look: smaller parts, random and pruned units of their sizes.

Four models had been edited, and in three of them the smallest part had cost more than two points, so that by the rule
nothing was removed. Is a part worth more that is smaller? And what do as many other units do at its size? No claim
counts these numbers.
"""

from experiments.study.mark_edits import (
    AT_A_STRENGTH,
    PART,
    PRUNED,
    RANDOM,
    RULE,
    RULES,
    SHARES,
    MarkQuestion,
    Row,
    best_strength,
    group_rows,
    probed,
)
from experiments.study.style_edits import Pictures, removing

import numpy as np
import pandas as pd

SIZES = (0.0005, 0.001, *SHARES[:2])
"""Shares of the units; larger parts cost more than a rule allows."""
FINER = "two points, smaller parts too"
"""The rule `RULE` with these sizes."""


def further_effects(
    question: MarkQuestion, choosing: Pictures, test: Pictures
) -> dict[str, pd.DataFrame]:
    """Return what parts of further sizes, and random and pruned units of these sizes, do to a model.

    Args:
        choosing: Pictures that choose the size by `FINER`, and on which probes are fitted.
        test: Pictures that are counted.

    Returns:
        ``answers``: columns edit, rule, strength, n_units, draw, class, mark, right. ``facts``: columns edit, strength,
        what, value.
    """
    found = question.found(SIZES)
    part = removing(question, found[PART])
    on_choosing = part.answers(choosing, part.strengths)
    on_test = part.answers(test, part.strengths)
    rows = list[Row]()
    facts = list[Row]()
    groups = dict[float, np.ndarray]()
    generator = np.random.default_rng(question.label)
    for place, strength in enumerate(part.strengths):
        fitted, after = on_choosing[place], on_test[place]
        groups[strength] = question.groups(fitted.logits, choosing)
        of_probe = probed(
            PART,
            choosing._replace(embeddings=fitted.embeddings),
            test._replace(embeddings=after.embeddings),
        )
        facts.append(of_probe | {"strength": strength})
        rule = f"{AT_A_STRENGTH} {strength:g}"
        units = found[PART][strength]
        about: Row = {"rule": rule, "strength": strength, "n_units": units.count}
        rows += group_rows(question, test, [after], about | {"edit": PART})
        # No unit is the whole model.
        if units.count:
            rivals = [found[PRUNED][strength], units.random(generator)]
            cut = question.embeddings(test.images, rivals)
            for edit, embeddings in zip((PRUNED, RANDOM), cut, strict=True):
                answers = [question.answered(embeddings)]
                rows += group_rows(question, test, answers, about | {"edit": edit})
    best = best_strength(question, groups, RULES[RULE])
    about = {"edit": PART, "rule": FINER, "strength": best}
    about["n_units"] = part.n_units[best]
    answers = [on_test[part.strengths.index(best)]]
    rows += group_rows(question, test, answers, about)
    return {"answers": pd.DataFrame(rows), "facts": pd.DataFrame(facts)}
