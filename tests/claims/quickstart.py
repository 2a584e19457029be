"""Claims about the quickstart, and what two other classes in two styles share."""

from functools import partial

import pandas as pd

from tests.support.committed_tables import Numbers, interval, one, rows, span, table


def quickdraw(*columns: str) -> list[float]:
    return [100 * one("quickstart/accuracy", column, domain="quickdraw") for column in columns]


def by_domain(what: str) -> list[float]:
    return interval("quickstart/edge_jaccard_class_by_domain", what=what)


def lowest(measure: str) -> str:
    found = rows(f"quickstart/{measure}_summary", group="all")
    return str(found.sort_values("value")["domain"].iloc[0])


def stands_out(measure: str) -> set[str]:
    found = table(f"quickstart/{measure}_paired_tests")
    apart = found[found["p_holm"] < 0.05]
    counts = pd.concat([apart["domain_a"], apart["domain_b"]]).value_counts()
    return set(counts.index[counts == 5])


def ratios_but(a: str, b: str, run: str = "quickstart") -> tuple[float, float]:
    found = table(f"{run}/edge_jaccard_ratios")
    return span(found.loc[(found["domain_a"] != a) | (found["domain_b"] != b), "value"])


def of_other_classes(levels: str) -> list[float]:
    """Return what parts of other classes in other styles share, relative to parts of one class and style."""
    found = table(levels).set_index("what")["value"]
    return [found["two classes in two domains"] / found["two parts of the same images"]]


CLAIMS: dict[str, Numbers] = {
    "two *other* classes in two styles share {:.2f} of the ceiling, and the class effect": partial(
        of_other_classes, "emoji/edge_jaccard_levels"
    ),
    "Two *other* classes in two styles share {:.2f} of the ceiling. Histograms of colours": partial(
        of_other_classes, "emoji/edge_jaccard_levels"
    ),
    "Two other classes in two styles share {:.2f} of it, so the least similar pairs": partial(
        of_other_classes, "quickstart/edge_jaccard_levels"
    ),
    "where two other classes in two styles share {:.2f} of it. These are circuits": partial(
        of_other_classes, "vit/edge_jaccard_levels"
    ),
    "the held-out classes are right in {:.0f} % of the images (guessing {:.0f} %), "
    "its other classes in {:.0f} %": lambda: quickdraw("held_out", "chance", "seen"),
    "among the four alone it is {:.0f} % (guessing {:.0f} %), with own-style texts {:.0f} %, "
    "and a held-out class is predicted for {:.0f} % of their images": lambda: quickdraw(
        "alone", "chance_alone", "own_style", "predicted_held_out"
    ),
    "| same style | {:.3f} (the ceiling) | {:.3f} | |": lambda: (
        by_domain(f"{of} class, same domain")[0] for of in ("same", "other")
    ),
    "| other style | {:.3f} [{:.3f}, {:.3f}] | {:.3f} | random units {:.3f} |": lambda: (
        *by_domain("same class, other domain"),
        by_domain("other class, other domain")[0],
        one("quickstart/edge_jaccard_levels", what="random units"),
    ),
    "painting and real share {:.2f} [{:.2f}, {:.2f}] of their edges, all other pairs {:.2f} to {:.2f}": lambda: (
        *interval("quickstart/edge_jaccard_ratios", domain_a="painting", domain_b="real"),
        *ratios_but("painting", "real"),
    ),
    "8 images a circuit painting and real share {:.2f} [{:.2f}, {:.2f}], all others {:.2f} to {:.2f}": lambda: (
        *interval("toy/edge_jaccard_ratios", domain_a="painting", domain_b="real"),
        *ratios_but("painting", "real", "toy"),
    ),
    "{} (nodes), and {} and infograph (edges) are lowest": lambda: (lowest("node_overlap"), lowest("edge_jaccard")),
    "only {} stands out from all five after correction": lambda: (
        stands_out("node_overlap") & stands_out("edge_jaccard")
    ),
}
