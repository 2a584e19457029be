"""Claims about circuits of emoji."""

from tests.support.committed_tables import Numbers, alike, one, span, table

COLOURED, BLACK = ["fluent3d", "fluentflat", "noto"], ["mono", "silhouette", "sketch"]


def styles(first: list[str], second: list[str]) -> tuple[float, float]:
    """Return the span of the ratios of edges between some styles and others, or among themselves."""
    found = table("emoji/edge_jaccard_ratios")
    a, b = found["domain_a"], found["domain_b"]
    return span(found.loc[(a.isin(first) & b.isin(second)) | (a.isin(second) & b.isin(first)), "value"])


def most_alike() -> list[float]:
    found = table("emoji/edge_jaccard_ratios").sort_values("value").iloc[-1]
    return [len(table("emoji/edge_jaccard_ratios")), *found[["value", "low", "high", "n_per_part"]]]


CLAIMS: list[tuple[str, Numbers]] = [
    (
        "right in {:.0f} to {:.0f} % of the images (36 classes, guessing {:.0f} %)",
        lambda: (*span(100 * table("emoji/accuracy")["all"]), 100 * alike(table("emoji/accuracy")["chance"], 6)),
    ),
    (
        "of {} ratios of edges the largest is {:.2f} [{:.2f}, {:.2f}], at {:.1f} images a part",
        most_alike,
    ),
    (
        "share {:.2f} to {:.2f}, black ones of three {:.2f} to {:.2f}, a coloured and a black one {:.2f} to {:.2f}; "
        "outlines filled with colour lie between, {:.2f} to {:.2f}",
        lambda: (
            number
            for pair in ((COLOURED, COLOURED), (BLACK, BLACK), (COLOURED, BLACK), (["openmoji"], COLOURED + BLACK))
            for number in styles(*pair)
        ),
    ),
    (
        "(rank correlation of own-style with pooled ones {:.2f})",
        lambda: [one("emoji/order_stability", "rho", varied="class texts")],
    ),
]
