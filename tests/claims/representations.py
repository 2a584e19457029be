"""Claims about representations, features, embeddings and heads."""

from typing import Any

import pandas as pd

from tests.claims.quickstart import ratios_but
from tests.support.committed_tables import (
    Numbers,
    alike,
    comparison,
    interval,
    one,
    overlap,
    rows,
    significance,
    span,
)


def cka(site: str) -> tuple[float, float]:
    return span(rows("representations/cka_over_depth", site=site, kernel="linear", group="all")["value"])


def probed(*sites: str) -> tuple[float, float]:
    return span(100 * rows("representations/probes", site=list(sites), target="domain")["value"])


def shared(what: str) -> float:
    return one("shared_features/feature_sharing_levels", what=what)


def vit(what: str) -> float:
    return one("vit/edge_jaccard_class_by_domain", what=what)


SEPARATION = "embedding_separation/summary"


def distance(captions: str) -> list[float]:
    """Return how far quickdraw lies from the other styles, in spreads of a style, with its interval."""
    return interval(SEPARATION, measure="standardised distance", model=captions, domain="quickdraw")


def halves(captions: str) -> list[float]:
    return [one(SEPARATION, measure="standardised distance of parts", model=captions, domain="quickdraw")]


def by_distance(measure: str, captions: str) -> pd.Series:
    found = rows(SEPARATION, measure=measure, model=captions).set_index("domain")["value"]
    return found.sort_values(ascending=False)


def between(measure: str, captions: str, a: str, b: str) -> list[float]:
    """Return how much farther style a lies than style b, with its interval over classes."""
    named = {"measure": measure, "model": captions}
    (first, second), sign = ((a, b), 1) if a < b else ((b, a), -1)
    found = rows("embedding_separation/distance_tests", domain_a=first, domain_b=second, **named).iloc[0]
    return [sign * found["difference"], *sorted(sign * found[end] for end in ("low", "high"))]


def beyond_next(captions: str) -> list[object]:
    """Return how much farther quickdraw lies than the next style, significantly so, and which that is."""
    farthest, following = by_distance("standardised distance", captions).index[:2]
    assert farthest == "quickdraw"
    found = between("standardised_distance", captions, farthest, following)
    assert significance(*found[1:]) == "significant"
    return [*found, following]


def moved_apart() -> pd.DataFrame:
    return rows("embedding_separation/differences", measure="standardised distance")


def moved(classes: str, column: str = "difference", **equal: object) -> pd.Series:
    return rows("embedding_separation/differences", measure=f"accuracy, {classes} classes", **equal)[column]


def shared_least(group: str) -> list[list[Any]]:
    """Return the two styles that share the fewest features with the others, with their intervals."""
    found = rows("shared_features/feature_sharing_summary", group=group).sort_values("value")
    return found[["domain", "value", "low", "high"]].iloc[:2].to_numpy().tolist()


def apart_by_cka(group: str) -> pd.DataFrame:
    """Return linear CKA by site of quickdraw with the others, and of the others among themselves."""
    found = rows("representations/cka_apart", kernel="linear", group=group)
    sites = found.pivot(index="site", columns="domain", values="value")
    return sites.rename(columns={"quickdraw with the others": "quickdraw", "the others among themselves": "others"})


DEEP = ["act3", "layer1.0", "layer2.0", "layer3.0", "layer4.0", "attnpool"]
LAYERS = ("layer1.0", "layer2.0", "layer3.0", "layer4.0", "attnpool")

CLAIMS: dict[str, Numbers] = {
    "quickdraw lies {} from the other styles, {:.2f} [{:.2f}, {:.2f}], by {:.2f} [{:.2f}, {:.2f}] more than the "
    "next, {}; two halves of quickdraw lie {:.2f} apart. By the plain distance {} is farthest ({:.2f}, quickdraw "
    "{:.2f}, which is {}ly less)": lambda: (
        {"quickdraw": "farthest"}[by_distance("standardised distance", "standard captions").index[0]],
        *distance("standard captions"),
        *beyond_next("standard captions"),
        *halves("standard captions"),
        (plain := by_distance("distance", "standard captions")).index[0],
        plain.iloc[0],
        plain["quickdraw"],
        significance(*between("euclidean_distance", "standard captions", plain.index[0], "quickdraw")[1:]),
    ),
    "all {} come closer; quickdraw has {:.2f} [{:.2f}, {:.2f}] (its halves {:.2f}), by {:.2f} [{:.2f}, {:.2f}] "
    "more than the next, {}.": lambda: (
        {6: "six"}[int((moved_apart()["high"] < 0).sum())],
        *distance("aligned captions"),
        *halves("aligned captions"),
        *beyond_next("aligned captions"),
    ),
    "The distance of quickdraw to the other styles {} from {:.2f} [{:.2f}, {:.2f}] to {:.2f} [{:.2f}, {:.2f}] "
    "spreads of a style; two halves of quickdraw lie {:.2f} and {:.2f} apart. {} tiny models of each kind.": lambda: (
        {True: "falls"}[bool(moved_apart().set_index("domain")["high"]["quickdraw"] < 0)],
        *distance("standard captions"),
        *distance("aligned captions"),
        *halves("standard captions"),
        *halves("aligned captions"),
        {2.0: "Two"}[alike(rows(SEPARATION, measure="standardised distance")["n_seeds"])],
    ),
    "finds the style in {:.0f} % of the images ({:.0f} % before)": lambda: [
        100 * one(SEPARATION, measure="domain probe", domain="all", model=captions)
        for captions in ("aligned captions", "standard captions")
    ],
    "Accuracy on seen classes changes by {:.2f} to {:.2f} by style": lambda: span(moved("seen")),
    "in quickdraw from {:.2f} to {:.2f}, a difference of {:.2f} [{:.2f}, {:.2f}]": lambda: (
        *(
            one(SEPARATION, measure="accuracy, held-out classes", domain="quickdraw", model=captions)
            for captions in ("standard captions", "aligned captions")
        ),
        *(moved("held-out", column, domain="quickdraw").item() for column in ("difference", "low", "high")),
    ),
    "edge Jaccard {:.3f} for the same class and style, {:.3f} other style, {:.3f} other class, {:.3f} both": lambda: (
        vit(f"{of} class, {by} domain") for of in ("same", "other") for by in ("same", "other")
    ),
    "Painting and real reach {:.2f} [{:.2f}, {:.2f}] of the ceiling, all others {:.2f} to {:.2f}": lambda: (
        *interval("vit/edge_jaccard_ratios", domain_a="painting", domain_b="real"),
        *ratios_but("painting", "real", "vit"),
    ),
    "other styles grows from {:.2f} to {:.2f} at the input to {:.2f} to {:.2f} at the embedding": lambda: (
        *cka("input"),
        *cka("attnpool"),
    ),
    "finds the style in {:.0f} % of the images at the input and in {:.0f} to {:.0f} % from layer1.0 on": lambda: (
        probed("input")[0],
        *probed(*LAYERS),
    ),
    "{:.2f} of a class's strongest features (two parts of one style {:.2f}, other classes {:.2f}, "
    "random {:.2f})": lambda: map(
        shared,
        (
            "the same class in two domains",
            "two parts of the same images",
            "two classes in two domains",
            "random features",
        ),
    ),
    "on held-out classes {} shares {:.2f} [{:.2f}, {:.2f}], then {} {:.2f} [{:.2f}, {:.2f}]: intervals over four "
    "classes that {}. Over all classes {} shares the least, {:.2f} [{:.2f}, {:.2f}], then {} {:.2f} [{:.2f}, "
    "{:.2f}].": lambda: (
        *(word for domain in shared_least("held-out") for word in domain),
        overlap(*(domain[2:] for domain in shared_least("held-out"))),
        *(word for domain in shared_least("all") for word in domain),
    ),
    "Over all classes quickdraw's CKA with the others is at no site {} than theirs among themselves. On the four "
    "held-out classes it is {} from act3 on, {:.2f} to {:.2f} against {:.2f} to {:.2f}": lambda: (
        {False: "lower"}[bool((apart_by_cka("all")["quickdraw"] < apart_by_cka("all")["others"]).any())],
        {"below": "lower"}[comparison(*apart_by_cka("held-out").loc[DEEP, ["quickdraw", "others"]].to_numpy().T)],
        *span(apart_by_cka("held-out")["quickdraw"][DEEP]),
        *span(apart_by_cka("held-out")["others"][DEEP]),
    ),
}
