"""The answers at the top of a report: a few sentences with numbers, how certain they are, what would change them.

Every number comes from a table. Where intervals or tests do not separate, the sentence says that it cannot be told.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from circuitry.comparison.comparison import Comparison
from circuitry.comparison.domain_tests import THIS_MODEL, below_ceiling
from circuitry.comparison.order_stability import DEFAULT
from circuitry.comparison.significance import LEVEL
from circuitry.interventions.transfer_tables import OTHER, OWN
from circuitry.reports.page import Finding
from circuitry.reports.sections.compared import measure_name, with_intervals

HOLM = f"corrected p below {LEVEL} (Holm)"
ANOTHER_MODEL = "Another checkpoint, trained alike, may answer otherwise: p speaks of this one"


def how_much_shared(comparison: Comparison) -> Finding:
    """Say how much of what two samples of one domain share two domains share: from ratios and tests against ceilings.

    Without parts of two domains: the mean value, against the levels that it is read against.
    """
    name = measure_name(comparison.measure)
    if not comparison.has_ratios or comparison.ratios()["value"].isna().all():
        levels = comparison.levels()
        value, *rest = zip(levels["what"], levels["value"], strict=True)
        against = "; ".join(f"{what} {number:.3f}" for what, number in rest) or "nothing"
        return Finding(
            f"Two domains reach a mean {name} of {value[1]:.3f}; how much that is of what could be shared cannot be "
            "told without parts of the images above chance.",
            f"Mean over up to {comparison.n_classes} classes and all pairs of domains, without an interval. Read "
            f"against: {against}.",
            f"Enough images to cut into parts, so that there is a ceiling. {ANOTHER_MODEL}.",
        )
    ratios, tests = comparison.ratios().dropna(subset="value"), comparison.ceiling_tests()
    ranked = ratios.sort_values("value", kind="stable")
    said = with_intervals(ranked, ".2f")
    least, most = (f"{ranked['domain_a'].iloc[i]} and {ranked['domain_b'].iloc[i]} {said.iloc[i]}" for i in (0, -1))
    mean, (low, high) = comparison.mean_ratio()
    (whole,) = with_intervals(pd.DataFrame({"value": [mean], "low": [low], "high": [high]}), ".2f")
    under, below = int((ranked["high"] < 1).sum()), int(below_ceiling(tests).sum())
    start = (
        "Two domains share"
        if high < 1
        else "Whether two domains share less than two samples of one domain cannot be told: they share"
    )
    impossible = "; with as few classes none could" if (tests["note"] != "").all() else ""
    return Finding(
        f"{start} {whole} of what two samples of one domain share ({name}, ratio to the ceiling, mean over "
        f"{len(ratios)} pairs of domains).",
        f"95 % intervals over classes and images. {least} to {most}; {under} of {len(ratios)} intervals lie below 1, "
        f"{below} pairs lie below their ceiling with a {HOLM}, about {THIS_MODEL}{impossible}.",
        f"Ratios near 1 with other images or classes. {ANOTHER_MODEL}.",
    )


def which_differs(comparison: Comparison, orders: pd.DataFrame | None = None, groups: str = "all") -> Finding:
    """Say which domain is least like the others, or that it cannot be told: from the summary and the paired tests.

    Args:
        comparison: Of several classes.
        orders: From `order_stability`: whether that hangs on the settings.
        groups: The group of classes.
    """
    name, alike = measure_name(comparison.measure), comparison.alike
    summary = comparison.summary().query("group == @groups").dropna(subset="value")
    ranked = summary.sort_values("value", ascending=alike, kind="stable").reset_index(drop=True)
    said, first = with_intervals(ranked), str(ranked["domain"].iloc[0])
    tests = comparison.tests()
    mine = tests[(tests["domain_a"] == first) | (tests["domain_b"] == first)]
    told = int((mine["p_holm"] < LEVEL).sum())
    word = "least like" if alike else "farthest from"
    others = ", ".join(f"{domain} {value}" for domain, value in zip(ranked["domain"][1:], said[1:], strict=True))
    if len(mine) and told == len(mine):
        claim = f"{first} is {word} the other domains ({name} {said.iloc[0]})."
    else:
        end = "lowest" if alike else "highest"
        claim = (
            f"Which domain is {word} the others cannot be told: {first} has the {end} mean {name} ({said.iloc[0]}), "
            f"but is told apart from {told} of {len(mine)} others."
        )
    impossible = "; none can be, with as few classes" if (mine["note"] != "").all() and len(mine) else ""
    certainty = (
        f"The others: {others}; 95 % intervals over {ranked['n_classes'].max()} classes. {told} of {len(mine)} "
        f"differences from {first} have a {HOLM}, about {THIS_MODEL}{impossible}."
    )
    return Finding(claim, certainty, f"{_order_words(orders, first, alike)}{ANOTHER_MODEL}.")


def _order_words(orders: pd.DataFrame | None, first: str, alike: bool) -> str:
    """Say how far the order holds under other settings, and under which of them another domain comes last."""
    if orders is None or (others := orders[orders["varied"] != DEFAULT].dropna(subset="rho")).empty:
        return ""
    by_rho, end = others.sort_values("rho", kind="stable"), "least" if alike else "most"
    worst, best = by_rho.iloc[0], by_rho.iloc[-1]
    elsewhere = by_rho[by_rho[end] != first]
    told = ", ".join(f"{_setting(row)}: {row[end]}" for _, row in elsewhere.head(4).iterrows())
    return (
        f"Other settings: under {len(others)} of them the order of the domains has a rank correlation of "
        f"{worst['rho']:+.2f} ({_setting(worst)}) to {best['rho']:+.2f} ({_setting(best)}) with this one, and another "
        f"domain takes this one's place under {len(elsewhere)}{f' ({told})' if told else ''}. "
    )


def _setting(row: "pd.Series[str]") -> str:
    return f"{row['varied']} {row['setting']}"


def class_or_domain(comparison: Comparison) -> Finding | None:
    """Say whether circuits are of the class or of the domain: from `Comparison.class_by_domain`; None without parts."""
    table = comparison.class_by_domain()
    rows = {row["what"]: row for row in table.assign(said=with_intervals(table)).to_dict("records")}
    if not {"class effect", "domain effect"} <= rows.keys():
        return None
    by_class, by_domain = rows["class effect"], rows["domain effect"]
    return Finding(
        f"{_effect('Being of one class', by_class)}, {_effect('being of one domain', by_domain)} "
        f"({measure_name(comparison.measure)}).",
        f"95 % intervals over {by_class['n_classes']} classes and the parts of their images; p {by_class['p']:.2g} and "
        f"{by_domain['p']:.2g} from exchanging what is the same and what is other, class by class, about {THIS_MODEL}.",
        f"More classes, or classes that are less alike. {ANOTHER_MODEL}.",
    )


def _effect(what: str, row: Mapping[Hashable, Any]) -> str:
    if pd.isna(row["low"]) or row["low"] <= 0 <= row["high"]:
        return f"whether {what[0].lower()}{what[1:]} makes alike cannot be told ({row['said']})"
    return f"{what} makes {'alike' if row['value'] > 0 else 'unlike'} by {row['said']}"


def kept_beats_random(curves: pd.DataFrame, measure: str, size: float, where: str = "at all sites") -> Finding | None:
    """Say in how many domains circuits of one size do better than random units: from `curves_by_domain`.

    None where the measure is not known.
    """
    at = curves[(curves["fraction"] == size)].set_index(["domain", "circuit"])[["value", "low", "high"]]
    kept, random = (at.xs(name, level="circuit") for name in ("kept", "random"))
    if kept["value"].isna().all():
        return None
    apart = int((kept["low"] > random["high"]).sum())
    start = f"With {size:.0%} of the units kept {where}, circuits"
    claim = (
        f"{start} reach a {measure} of {kept['value'].min():.2f} to {kept['value'].max():.2f} by domain, random units "
        f"{random['value'].min():.2f} to {random['value'].max():.2f}."
    )
    if apart == 0:
        claim = f"Whether circuits do better than random units cannot be told. {claim}"
    return Finding(
        claim,
        f"In {apart} of {len(kept)} domains the 95 % intervals over images do not meet; 1 is the whole model.",
        "Another way to take units out: under this one few units at all sites may let nothing through. The intervals "
        f"hold for these classes. {ANOTHER_MODEL.replace(': p speaks', ', and this speaks')}.",
    )


def own_circuits_lead(over_depth: pd.DataFrame, value: str) -> Finding | None:
    """Say whether a domain's own circuits serve it better than others': from `transfer_over_depth`; None if unknown."""
    wide = over_depth.dropna(subset="value").pivot(index="site", columns="domain", values=["value", "low", "high"])
    if wide.empty or not {OWN, OTHER} <= set(wide["value"].columns):
        return None
    lead = (wide["value"][OWN] - wide["value"][OTHER]).sort_values(kind="stable")
    apart = int((wide["low"][OWN] > wide["high"][OTHER]).sum())
    mean_own, mean_other = wide["value"][OWN].mean(), wide["value"][OTHER].mean()
    start = "Circuits of other domains do worse than a domain's own" if apart else (
        "Whether circuits of other domains do worse than a domain's own cannot be told"
    )  # fmt: skip
    return Finding(
        f"{start}: {value} {mean_other:.2f} against {mean_own:.2f}, mean over {len(lead)} sites kept one at a time.",
        f"At {apart} of {len(lead)} sites the 95 % bootstrap intervals over classes do not meet; the lead is "
        f"{lead.iloc[-1]:+.2f} at {lead.index[-1]} and {lead.iloc[0]:+.2f} at {lead.index[0]}.",
        f"More classes; another site. {ANOTHER_MODEL.replace(': p speaks', ', and this speaks')}.",
    )


def structure_predicts(correlations: pd.DataFrame, value: str) -> Finding | None:
    """Say whether what circuits share predicts how they transfer: from `transfer_correlations`; None if unknown."""
    rho, p, corrected = f"{value}: rho", f"{value}: p", f"{value}: p (Holm)"
    known = correlations.dropna(subset=rho) if rho in correlations else correlations.iloc[:0]
    if known.empty:
        return None
    by_p = known.sort_values([p, rho], kind="stable")
    best, significant = by_p.iloc[0], int((known[corrected] < LEVEL).sum())
    start = (
        "What circuits share in structure goes with how they transfer"
        if significant
        else "Whether what circuits share in structure predicts how they transfer cannot be told"
    )
    return Finding(
        f"{start}: rank correlation of {value} {best[rho]:+.2f} at {best['sites']}, over {best['pairs']:.0f} pairs of "
        "domains.",
        f"p {best[p]:.2g} from orders of the domains, {best[corrected]:.2g} corrected for all sites and measures tried "
        f"(Holm); {significant} of {len(known)} rows below {LEVEL}. About {THIS_MODEL}.",
        f"More domains: pairs share them. {ANOTHER_MODEL}.",
    )


def what_is_read_off(sites: pd.DataFrame) -> Finding:
    """Say what linear probes find at the last site against the first: from ``sites`` of `probe_sites`."""
    order = list(dict.fromkeys(sites["site"]))
    said = sites.assign(said=with_intervals(sites, ".2f")).set_index(["target", "site"])["said"]
    targets = list(dict.fromkeys(sites["target"]))
    claims = ", ".join(f"the {target} {said[target, order[-1]]}" for target in targets)
    before = ", ".join(f"the {target} {said[target, order[0]]}" for target in targets)
    guess = ", ".join(
        f"the {target} {value:.2f}" for target, value in sites.groupby("target", sort=False)["chance"].first().items()
    )
    return Finding(
        f"At {order[-1]} a linear probe reads off {claims} (balanced accuracy).",
        f"95 % intervals over folds, or over the domain that is left out; guessing: {guess}; at {order[0]}: {before}.",
        "A probe shows what can be found, not what the model uses; other images or a non-linear probe may find more.",
    )


def what_changes(change: pd.DataFrame, first: str, last: str, domain: str, measures: Sequence[str]) -> Finding:
    """Say what changes for a domain from one kind of model to another: from `differences`."""
    rows = change[change["domain"] == domain].set_index("measure").reindex(list(measures)).dropna(subset="difference")
    clear = (rows["low"] > 0) | (rows["high"] < 0)
    told = ", ".join(
        f"{name} {value}{'' if sure else ' (which way cannot be told)'}"
        for name, value, sure in zip(rows.index, with_intervals(rows, "+.2f", "difference"), clear, strict=True)
    )
    return Finding(
        f"From {first} to {last}, {domain} changes by: {told or 'nothing that is known'}.",
        f"95 % intervals over {rows['n_classes'].max() if len(rows) else 0} classes, paired; seeds are averaged first, "
        "and how far they differ is not in the intervals.",
        "More seeds: a difference between two kinds of models needs several of each.",
    )
