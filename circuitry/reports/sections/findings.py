"""The answers at the top of a report: a question, yes, no, partly or cannot be told, and then the numbers.

Every number comes from a table. Where intervals or tests do not separate, the answer cannot be told.
"""

from collections.abc import Hashable, Mapping
from typing import Any

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
YES, PARTLY, NO, UNKNOWN = "Yes", "Partly", "No", "Cannot be told"
FEW_PER_PART = 2
"""Images in a part below which a ratio to the ceiling tells nothing: fewer than 8 images in 4 parts."""
NEARLY_ALL, HARDLY_ANY = 0.9, 0.1
"""Shares from which on all is called shared or recovered, and below which nothing is."""


def how_much_shared(comparison: Comparison, what: str = "circuits") -> Finding:
    """Say how much two domains share of what two samples of one domain share: from ratios and tests against ceilings.

    Without parts of two domains: the mean value beside its reference levels. ``what`` is compared.
    """
    name, question = measure_name(comparison.measure), f"Do domains share their {what}?"
    every = (
        comparison.ratios()
        if comparison.has_ratios
        else pd.DataFrame(columns=["value", "note"])
    )
    ratios, missing = every.dropna(subset="value"), missing_ratios(every)
    if ratios.empty:
        levels = comparison.levels()
        value, *rest = zip(levels["what"], levels["value"], strict=True)
        against = (
            "; ".join(f"{what} {number:.3f}" for what, number in rest) or "nothing"
        )
        return Finding(
            f"{question} {UNKNOWN}: two domains have a mean {name} of {value[1]:.3f}, and there is no ceiling well "
            f"above chance to compare it with. {missing}".strip(),
            f"Mean over classes and pairs of domains, without an interval. For comparison: {against}.",
            f"More images, so that parts of them give a ceiling; {ANOTHER_MODEL}.",
        )
    tests = comparison.ceiling_tests()
    mean, (low, high) = comparison.mean_ratio()
    (whole,) = with_intervals(
        pd.DataFrame({"value": [mean], "low": [low], "high": [high]}), ".2f"
    )
    n, under, below = (
        len(ratios),
        int((ratios["high"] < 1).sum()),
        int(below_ceiling(tests).sum()),
    )
    over, spread, ends = "", "", ""
    if n > 1:
        ranked = ratios.sort_values("value", kind="stable")
        pairs, values = (
            ranked["domain_a"] + " and " + ranked["domain_b"],
            with_intervals(ranked, ".2f"),
        )
        over = f", mean over {n} pairs of domains"
        ends = f" Most: {pairs.iloc[-1]} ({values.iloc[-1]}); least: {pairs.iloc[0]} ({values.iloc[0]})."
        spread = f" {under} of {n} intervals lie below 1."
    above = (
        " A ratio above 1 is chance: two domains cannot share more than two samples of one."
        * bool((ratios["value"] > 1).any())
    )
    told, least = _shared(low, high), float(ratios["n_per_part"].min())
    if least < FEW_PER_PART:
        told = f"{UNKNOWN} with {least:.2g} image{'s' * (least != 1)} in a part"
    return Finding(
        f"{question} {told}: two domains share {whole} of what two samples of one domain share ({name}, "
        f"ratio to the ceiling{over}).{ends}",
        f"95 % intervals over classes and images, with {least:.2g} or more in a part.{spread} Below their ceiling with "
        f"{HOLM}: {below} of {len(tests)} pairs.{could_find(tests)}{above} {missing}".strip(),
        f"Ratios near 1 with other images or classes; {ANOTHER_MODEL}.",
    )


def _shared(low: float, high: float) -> str:
    """Answer by the interval of a ratio to the ceiling; unknown limits give no answer."""
    if low > NEARLY_ALL:
        return YES
    if high < HARDLY_ANY:
        return NO
    if low > 0:
        return PARTLY if high < 1 else "At least partly"
    return UNKNOWN


def which_differs(comparison: Comparison) -> Finding | None:
    """Say which domain is least similar to the others, or that this is open: from the summary and the paired tests.

    None for two domains, which are equally similar to each other.
    """
    if len(comparison.domains) < 3:
        return None
    name, alike = measure_name(comparison.measure), comparison.alike
    summary = comparison.summary().query("group == 'all'").dropna(subset="value")
    ranked = summary.sort_values("value", ascending=alike, kind="stable").reset_index(
        drop=True
    )
    said, first = with_intervals(ranked), str(ranked["domain"].iloc[0])
    tests = comparison.tests()
    mine = tests[(tests["domain_a"] == first) | (tests["domain_b"] == first)]
    significant = int((mine["p_holm"] < LEVEL).sum())
    word, end = (
        ("least similar to", "lowest") if alike else ("farthest from", "highest")
    )
    told = YES if len(mine) and significant == len(mine) else UNKNOWN
    claim = f"Is one domain {word} the others? {told}: {first} has the {end} mean {name} ({said.iloc[0]})."
    others = ", ".join(
        f"{domain} {value}"
        for domain, value in zip(ranked["domain"][1:], said[1:], strict=True)
    )
    return Finding(
        claim,
        f"The others: {others}; 95 % intervals over {ranked['n_classes'].max()} classes. {significant} of {len(mine)} "
        f"differences from {first} have {HOLM}.{could_find(mine)}",
        f"{ANOTHER_MODEL}.",
    )


def class_or_domain(comparison: Comparison) -> Finding | None:
    """Say whether similarity follows the class or the domain: from `Comparison.class_by_domain`; None without parts."""
    table = comparison.class_by_domain()
    rows = {
        row["what"]: row
        for row in table.assign(said=with_intervals(table)).to_dict("records")
    }
    if not {"class effect", "domain effect"} <= rows.keys():
        return None
    by_class, by_domain = rows["class effect"], rows["domain effect"]
    clear = [
        name
        for name, row in (("the class", by_class), ("the domain", by_domain))
        if row["p"] < LEVEL
    ]
    n, least = by_class["n_classes"], smallest_p(by_class["n_classes"])
    few = f" With {n} classes no p can be below {least:.2g}." if least >= LEVEL else ""
    told = "Both" if len(clear) == 2 else capitalised(clear[0]) if clear else UNKNOWN
    return Finding(
        f"Is it the class or the domain? {told}: a common class {_effect(by_class)}, a common domain "
        f"{_effect(by_domain)} ({measure_name(comparison.measure)}).",
        f"95 % intervals over {n} classes and the parts of their images. p {by_class['p']:.2g} for "
        f"the class and {by_domain['p']:.2g} for the domain, from exchanging same and other, class by class.{few}",
        f"More classes, or less similar ones; {ANOTHER_MODEL}.",
    )


def _effect(row: Mapping[Hashable, Any]) -> str:
    if not row["p"] < LEVEL:
        size = row["detectable"]
        if size == float("inf"):
            return f"cannot be tested with so few classes ({row['said']})"
        return f"has no clear effect ({row['said']}; four of five studies like this would find {size:.3f})"
    return f"{'adds' if row['value'] > 0 else 'changes by'} {row['said']}"
