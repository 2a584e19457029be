"""The findings at the top of a report. Each finding asks a question, gives a short answer, and gives the numbers.

Most answers are "Yes", "Partly" or "No". The answer is "Cannot be told" if intervals or tests do not decide the
question. Every number comes from a table.
"""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from circuitry.comparison.ceiling import missing_ratios
from circuitry.comparison.comparison import Comparison
from circuitry.comparison.domain_testing import below_ceiling, could_find
from circuitry.comparison.significance import LEVEL, smallest_p
from circuitry.reports.figures.style import capitalised, measure_name
from circuitry.reports.page import Finding
from circuitry.reports.sections.compared import with_intervals

HOLM = f"p < {LEVEL} (Holm)"
ANOTHER_MODEL = "another training of the model"
YES = "Yes"
PARTLY = "Partly"
NO = "No"
UNKNOWN = "Cannot be told"
FEW_PER_FOLD = 2
"""If a fold has fewer images, a ratio to the ceiling tells nothing. This is so for fewer than 8 images in 4 folds."""
NEARLY_ALL = 0.9
"""Above this share, the answer is that all is shared."""
HARDLY_ANY = 0.1
"""Below this share, the answer is that nothing is shared or recovered."""


def how_much_shared(comparison: Comparison, what: str = "circuits") -> Finding:
    """Return the finding on how much two domains share, as a ratio to the ceiling.

    The ceiling is what two samples of one domain share. The numbers come from the ratios and from the tests against the
    ceilings. If there is no ratio, the finding gives the mean similarity, and the levels to compare it with, such as
    the chance level.

    Args:
        what: What is compared, in the plural, such as "circuits".

    Example:
        >>> how_much_shared(circuitry.compare_domains(graphs)["node_overlap"]).claim
        'Do domains share their circuits? ...'
    """
    name = measure_name(comparison.measure)
    question = f"Do domains share their {what}?"
    ratios = pd.DataFrame(columns=["value", "note"])
    if comparison.has_ratios:
        ratios = comparison.ratios()
    missing = missing_ratios(ratios)
    ratios = ratios.dropna(subset="value")
    if ratios.empty:
        levels = comparison.levels().set_index("what")["value"]
        # The first level is the value itself.
        against = [f"{level} {number:.3f}" for level, number in levels.items()][1:]
        return Finding(
            f"{question} {UNKNOWN}: two domains have a mean {name} of {levels.iloc[0]:.3f}, and there is no ceiling "
            f"well above chance to compare it with. {missing}".strip(),
            "Mean over classes and pairs of domains, without an interval. For comparison: "
            f"{'; '.join(against) or 'nothing'}.",
            f"More images, so that folds of them give a ceiling; {ANOTHER_MODEL}.",
        )
    tests = comparison.ceiling_tests()
    mean, (low, high) = comparison.mean_ratio()
    spread = pd.DataFrame({"value": [mean], "low": [low], "high": [high]})
    (said,) = with_intervals(spread, ".2f")
    # With a single pair, the mean is the ratio of this pair, so it is said once.
    n = len(ratios)
    over = ""
    ends = ""
    below_one = ""
    above_one = ""
    if n > 1:
        ranked = ratios.sort_values("value", kind="stable")
        pairs = ranked["domain_a"] + " and " + ranked["domain_b"]
        pairs += " (" + with_intervals(ranked, ".2f") + ")"
        over = f", mean over {n} pairs of domains"
        ends = f" Most: {pairs.iloc[-1]}; least: {pairs.iloc[0]}."
        below_one = f" {(ratios['high'] < 1).sum()} of {n} intervals lie below 1."
    if (ratios["value"] > 1).any():
        above_one = " A ratio above 1 is chance: two domains cannot share more than two samples of one."
    answer = _shared(low, high)
    least = float(ratios["n_per_fold"].min())
    if least < FEW_PER_FOLD:
        images = "image" if least == 1 else "images"
        answer = f"{UNKNOWN} with {least:.2g} {images} in a fold"
    return Finding(
        f"{question} {answer}: two domains share {said} of what two samples of one domain share ({name}, "
        f"ratio to the ceiling{over}).{ends}",
        f"95 % intervals over classes and images, with {least:.2g} or more in a fold.{below_one} Below their ceiling "
        f"with {HOLM}: {below_ceiling(tests).sum()} of {len(tests)} pairs."
        f"{could_find(tests)}{above_one} {missing}".strip(),
        f"Ratios near 1 with other images or classes; {ANOTHER_MODEL}.",
    )


def _shared(low: float, high: float) -> str:
    """Return the answer to whether structure is shared, from the 95 % interval of the ratio to the ceiling.

    The answer is "Yes" if the interval lies above `NEARLY_ALL`, and "No" if the interval lies below `HARDLY_ANY`.
    Otherwise, the answer is "Partly" if the interval lies between 0 and 1, and "At least partly" if the interval begins
    above 0 and ends at 1 or above. In all other cases, and if the limits are unknown, it is "Cannot be told".
    """
    if low > NEARLY_ALL:
        return YES
    if high < HARDLY_ANY:
        return NO
    if low > 0:
        return PARTLY if high < 1 else "At least partly"
    return UNKNOWN


def which_differs(comparison: Comparison) -> Finding | None:
    """Return the finding on which domain is least similar to the other domains.

    The answer is "Yes" if the mean of this domain differs significantly from the mean of every other domain, and
    "Cannot be told" otherwise. With two domains the result is None, because both have the same mean.

    Example:
        >>> which_differs(circuitry.compare_domains(graphs)["node_overlap"])    # of two domains
    """
    if len(comparison.domains) < 3:
        return None
    alike = comparison.alike
    summary = comparison.summary().query("group == 'all'").dropna(subset="value")
    ranked = summary.sort_values("value", ascending=alike, kind="stable")
    said = ranked["domain"] + " " + with_intervals(ranked)
    first = str(ranked["domain"].iloc[0])
    tests = comparison.tests()
    of_first = tests[(tests["domain_a"] == first) | (tests["domain_b"] == first)]
    significant = int((of_first["p_holm"] < LEVEL).sum())
    # The first domain differs if its tests against all other domains are significant.
    answer = YES if len(of_first) and significant == len(of_first) else UNKNOWN
    relation = "least similar to" if alike else "farthest from"
    end = "lowest" if alike else "highest"
    mean = f"the {end} mean {measure_name(comparison.measure)}"
    (value,) = with_intervals(ranked.head(1))
    return Finding(
        f"Is one domain {relation} the others? {answer}: {first} has {mean} ({value}).",
        f"The others: {', '.join(said.iloc[1:])}; 95 % intervals over {ranked['n_classes'].max()} classes. "
        f"{significant} of {len(of_first)} differences from {first} have {HOLM}.{could_find(of_first)}",
        f"{ANOTHER_MODEL}.",
    )


def class_or_domain(comparison: Comparison) -> Finding | None:
    """Return the finding on whether a common class or a common domain makes circuits similar.

    The numbers are the effects of class and domain in `Comparison.class_by_domain`. If there are no folds of two
    classes, or no folds of two domains, an effect is missing, and the result is None.

    Example:
        >>> class_or_domain(circuitry.compare_domains(graphs)["node_overlap"]).claim
        'Is it the class or the domain? ...'
    """
    table = comparison.class_by_domain()
    table = table.assign(said=with_intervals(table)).set_index("what")
    rows = table.to_dict("index")
    # The table has no row for a cell without values, and no row for an effect of this cell.
    if not {"class effect", "domain effect"} <= rows.keys():
        return None
    by_class = rows["class effect"]
    by_domain = rows["domain effect"]
    clear = []
    if by_class["p"] < LEVEL:
        clear.append("the class")
    if by_domain["p"] < LEVEL:
        clear.append("the domain")
    answer = "Both"
    if len(clear) < 2:
        answer = capitalised("".join(clear)) or UNKNOWN
    n = int(by_class["n_classes"])
    least = smallest_p(n)
    few = f" With {n} classes no p can be below {least:.2g}." if least >= LEVEL else ""
    return Finding(
        f"Is it the class or the domain? {answer}: a common class {_effect(by_class)}, a common domain "
        f"{_effect(by_domain)} ({measure_name(comparison.measure)}).",
        f"95 % intervals over {n} classes and the folds of their images. p {by_class['p']:.2g} for "
        f"the class and {by_domain['p']:.2g} for the domain, from exchanging same and other, class by class.{few}",
        f"More classes, or less similar ones; {ANOTHER_MODEL}.",
    )


def _effect(row: Mapping[Hashable, Any]) -> str:
    if row["p"] < LEVEL:
        verb = "adds" if row["value"] > 0 else "changes by"
        return f"{verb} {row['said']}"
    if np.isinf(row["detectable"]):
        return f"cannot be tested with so few classes ({row['said']})"
    size = f"{row['detectable']:.3f}"
    return f"has no clear effect ({row['said']}; four of five studies like this would find {size})"
