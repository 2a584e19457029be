"""Claims about circuits of emoji."""

from scipy import stats

from experiments.emoji_colours import ARTISTS
from tests.support.committed_tables import Numbers, alike, interval, one, rows, span, table

COLOURED, BLACK = ["fluent3d", "fluentflat", "noto"], ["mono", "silhouette", "sketch"]


def styles(first: list[str], second: list[str]) -> tuple[float, float]:
    """Return the span of the ratios of edges between some styles and others, or among themselves."""
    found = table("emoji/edge_jaccard_ratios")
    a, b = found["domain_a"], found["domain_b"]
    return span(found.loc[(a.isin(first) & b.isin(second)) | (a.isin(second) & b.isin(first)), "value"])


def of_other_classes() -> list[float]:
    """Return what parts of other classes in other styles share, relative to parts of one class and style."""
    found = table("emoji/edge_jaccard_levels").set_index("what")["value"]
    return [found["two classes in two domains"] / found["two parts of the same images"]]


def most_alike() -> list[object]:
    """Return how many ratios there are, and the largest of them with who drew these two styles."""
    found = table("emoji/edge_jaccard_ratios").sort_values("value").iloc[-1]
    domains = found["domain_a"], found["domain_b"]
    (artist,) = {ARTISTS[domain] for domain in domains}
    assert set(domains) <= set(COLOURED)
    return [len(table("emoji/edge_jaccard_ratios")), *found[["value", "low", "high", "n_per_part"]], artist, *domains]


def of_two_artists(domains: list[str]) -> tuple[float, float]:
    found = table("emoji/edge_jaccard_ratios")
    of_them = found["domain_a"].isin(domains) & found["domain_b"].isin(domains)
    return span(found.loc[of_them & (found["domain_a"].map(ARTISTS) != found["domain_b"].map(ARTISTS)), "value"])


def nearest_to(domain: str) -> str:
    found = table("emoji/edge_jaccard_ratios")
    most = found[(found["domain_a"] == domain) | (found["domain_b"] == domain)].sort_values("value").iloc[-1]
    return str(most["domain_b"] if most["domain_a"] == domain else most["domain_a"])


def as_colours_do() -> list[float]:
    """Return the least and largest rank correlation of circuits with histograms of colours, and the levels of each."""
    found = table("emoji_colours/overlaps").merge(table("emoji/edge_jaccard_ratios"), on=["domain_a", "domain_b"])
    assert (found.groupby("levels").size() == len(table("emoji/edge_jaccard_ratios"))).all()
    by_levels = {int(levels): found[found["levels"] == levels] for levels in found["levels"].unique()}
    values = {n: float(stats.spearmanr(of["overlap"], of["value"]).statistic) for n, of in by_levels.items()}
    return [*span(values.values()), min(values, key=values.__getitem__), max(values, key=values.__getitem__)]


def of_classes(column: str) -> float:
    return one("emoji/edge_jaccard_class_by_domain", column, what="class effect")


def given_the_other(which: str) -> list[float]:
    """Return the span of the partial rank correlations of circuits with colours, or with one artist."""
    return list(span(rows("emoji_colours/correlations", **{"with": which})["partial"]))


CLAIMS: dict[str, Numbers] = {
    "Given whether one artist drew both styles it is the same, {:.2f} to {:.2f}": lambda: given_the_other("colours"),
    "one artist, given colours, goes with circuits by {:.2f} to {:.2f}, at best with p {:.2f}": lambda: [
        *given_the_other("one artist"),
        rows("emoji_colours/correlations", **{"with": "one artist"})["partial_p"].min(),
    ],
    "right in {:.0f} to {:.0f} % of the images (36 classes, guessing {:.0f} %)": lambda: (
        *span(100 * table("emoji/accuracy")["all"]),
        100 * alike(table("emoji/accuracy")["chance"], 6),
    ),
    "of {} ratios of edges the largest is {:.2f} [{:.2f}, {:.2f}], at {:.1f} images a part, of the two coloured "
    "styles by {} ({} and {})": most_alike,
    "Coloured styles of two artists share {:.2f} to {:.2f}, black ones of three artists {:.2f} to {:.2f}, a "
    "coloured and a black one {:.2f} to {:.2f}, also by one artist ({}'s noto and mono, {:.2f}). OpenMoji's "
    "outlines filled with colour lie between, {:.2f} to {:.2f}, nearest to its own black outlines ({}).": lambda: (
        *of_two_artists(COLOURED),
        *styles(BLACK, BLACK),
        *styles(COLOURED, BLACK),
        {ARTISTS["noto"], ARTISTS["mono"]}.pop(),
        one("emoji/edge_jaccard_ratios", domain_a="mono", domain_b="noto"),
        *styles(["openmoji"], COLOURED + BLACK),
        nearest_to("openmoji"),
    ),
    "right on {:.0f} to {:.0f} % of the images, coloured styles share {:.2f} to {:.2f} of what two samples of one "
    "style share ({:.2f} by one artist), a coloured and a black one {:.2f} to {:.2f}.": lambda: (
        *span(100 * table("emoji/accuracy")["all"]),
        *styles(COLOURED, COLOURED),
        one("emoji/edge_jaccard_ratios", domain_a="fluent3d", domain_b="fluentflat"),
        *styles(COLOURED, BLACK),
    ),
    "order the {} pairs of styles nearly as circuits do (rank correlation {:.2f} to {:.2f}, by the number of "
    "colours).": lambda: (len(table("emoji/edge_jaccard_ratios")), *as_colours_do()[:2]),
    "the ratios of circuits by rank correlation {:.2f} to {:.2f} ({:.0f} to {:.0f} levels a channel)": as_colours_do,
    "two *other* classes in two styles share {:.2f} of the ceiling, and the class effect": of_other_classes,
    "Two *other* classes in two styles share {:.2f} of the ceiling. Histograms of colours": of_other_classes,
    "the class effect on the edge Jaccard index is {:.3f} [{:.3f}, {:.3f}], an interval over classes that {} 0 "
    "beside a permutation p of {:.3f}": lambda: (
        *interval("emoji/edge_jaccard_class_by_domain", what="class effect"),
        "holds" if of_classes("low") < 0 < of_classes("high") else "leaves out",
        of_classes("p"),
    ),
}
