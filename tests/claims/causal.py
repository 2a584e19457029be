"""Claims about causal checks, learned circuits, heads and edges."""

from functools import partial

import pandas as pd

from tests.support.committed_tables import Numbers, alike, one, rows, span

ACROSS = "faithfulness/scores_across_sites"


def kept(measure: str, circuit: str) -> list[float]:
    return list(rows(f"faithfulness/{measure}_absolute", circuit=circuit, fraction=0.1)["value"])


def at_site(site: str, circuit: str) -> float:
    return float(rows("faithfulness/selectivity_one_site", sites=site, circuit=circuit)["value"].mean())


def transfers(column: str) -> tuple[float, float]:
    return span(rows("transfer/correlations", sites=["layer1.0", "layer2.0", "layer3.0"])[f"selectivity: {column}"])


RANKINGS = ["site-path", "input-path", "gradient", "patching"]

RANKED = [*RANKINGS, "fisher"]

STUDIED = {"baseline": "mean", "metric": "margin"}


def board(method: str | list[str], what: str, model: str = "efficientnet") -> pd.DataFrame:
    return rows(f"scoreboard/{model}/summary", method=method, what=what, **STUDIED)


def size_for(method: str | list[str], model: str = "efficientnet") -> tuple[float, float]:
    return span(100 * board(method, "size for 0.8, kept", model)["value"])


def sizes_for(model: str, method: str | list[str], circuit: str, metric: str = "margin") -> pd.DataFrame:
    what = f"size for 0.8, {circuit}"
    return rows(f"scoreboard/{model}/summary", method=method, what=what, baseline="mean", metric=metric)


def by_masks(model: str, metric: str = "margin") -> list[float]:
    """Return the size for a selectivity of 0.8, with its interval, in percent."""
    (found,) = sizes_for(model, "learned", "kept", metric)[["value", "low", "high"]].to_numpy()
    return [100 * float(value) for value in found]


IN_BODY = {
    "learned masks": ("learned", "learned"),
    "site path, global": ("site-path", "global"),
    "Fisher, global": ("fisher", "global"),
    "gradient, global": ("gradient", "global"),
    "site path, same share": ("site-path", "same-share"),
    "Fisher, same share": ("fisher", "same-share"),
    "gradient, same share": ("gradient", "same-share"),
}


def in_body(method: str, budget: str) -> list[float]:
    """Return the selectivity of circuits and, as many at every site, of random units, by size."""
    named = {"measure": "selectivity", "method": method, "budget": budget}
    by_size = [
        rows("scoreboard/efficientnet_body/curves", circuit=circuit, **named, **STUDIED).sort_values("size")["value"]
        for circuit in ("kept", "random")
    ]
    return [value for pair in zip(*by_size, strict=True) for value in pair]


def by_budget(model: str, budget: str, metric: str = "margin", circuit: str = "kept") -> tuple[float, float]:
    """Return the span over rankings of the size for a selectivity of 0.8, in percent."""
    found = sizes_for(model, RANKED, circuit, metric)
    return span(100 * found.loc[found["budget"] == budget, "value"])


def selectivity(size: float, method: str | list[str], model: str = "efficientnet_body") -> pd.DataFrame:
    named = {"measure": "selectivity", "circuit": "kept", "method": method, **STUDIED}
    return rows(f"scoreboard/{model}/curves", size=size, **named)


def sizes_by_class(method: str) -> list[float]:
    """Return the size for a selectivity of 0.8 of every class, the smallest first, in percent."""
    found = rows("scoreboard/efficientnet_body/by_class", method=method, what="size for 0.8, kept", **STUDIED)
    return sorted(100 * found["value"])


def edges_for(methods: list[str], circuit: str) -> tuple[float, float]:
    return span(100 * sizes_for("components", methods, circuit, "logit")["value"])


def selective(method: str, of: str) -> float:
    named = {"what": "selectivity with only the circuit", "images of": of}
    return float(rows("shared_masks/work", method=method, **named)["value"].iloc[0])


def overlap(method: str, what: str, ceiling: str = "other images") -> float:
    return one("shared_masks/levels", method=method, what=what, ceiling=ceiling)


def overlaps(method: str) -> list[float]:
    whats = (
        *("two parts of the same images", "the same class in two domains, parts", "two classes in one domain"),
        *("two classes in two domains", "random units"),
    )
    return [overlap(method, what) for what in whats]


def judged(method: str) -> list[float]:
    return [float(board(method, what)["value"].iloc[0]) for what in ("rank correlation", "seconds")]


def into_attention() -> tuple[float, float]:
    methods = ["left 10", "Gauss-Radau 5", "midpoint 10", "gradient x activation"]
    found = rows("scoreboard/toy/planted", network="attention", kind="edge", site="attention", method=methods)
    return span(found["auroc"])


def cut() -> float:
    return alike(rows("scoreboard/toy/planted", network="attention", kind="edge", method="edge cuts")["auroc"])


CLAIMS: list[tuple[str, Numbers]] = [
    (
        "removing a unit is {:.2f} times its score at layer4.0 and {:.2f} times at act3",
        lambda: (one(ACROSS, "exact_per_score", site=site) for site in ("layer4.0", "act3")),
    ),
    (
        "Of the strongest 20 % by score {:.0f} are at the embedding, by exact effect {}.",
        lambda: (
            one(ACROSS, "strongest_by_score", site="attnpool"),
            {0: "none"}[int(one(ACROSS, "strongest_by_exact", site="attnpool"))],
        ),
    ),
    (
        "largest scores reach faithfulness {:.2f} to {:.2f} by style (random units {:.1f})",
        lambda: (*span(kept("faithfulness", "kept")), alike(kept("faithfulness", "random"), 1)),
    ),
    (
        "the lead over images of other classes, {:.2f}.",
        lambda: [alike(kept("selectivity", "kept"))],
    ),
    (
        "{:.2f} at layer3.0 (random units {:.2f}), {:.2f} at layer4.0 ({:.2f}); "
        "all *but* the circuit keeps {:.2f} and {:.2f}",
        lambda: (
            *(at_site(site, circuit) for site in ("layer3.0", "layer4.0") for circuit in ("kept", "random")),
            *(at_site(site, "complement") for site in ("layer3.0", "layer4.0")),
        ),
    ),
    (
        "(rank correlation of selectivity {:.2f} to {:.2f}, Mantel p {:.2f} to {:.2f})",
        lambda: (*transfers("rho"), *transfers("p")),
    ),
    *(
        (f"| {named} | " + " | ".join(["{:.2f} ({:.2f})"] * 8) + " |", partial(in_body, *contestant))
        for named, contestant in IN_BODY.items()
    ),
    (
        "Selectivity 0.8 takes {:.0f} % [{:.0f}, {:.0f}] of the units by masks, {:.0f} to {:.0f} % by rankings with "
        "one cut over all sites, {:.0f} to {:.0f} % with the same share of every site. Masks lead up to 75 % "
        "(at 40 % {:.2f} [{:.2f}, {:.2f}], rankings at most {:.2f})",
        lambda: (
            *by_masks("efficientnet_body"),
            *by_budget("efficientnet_body", "global"),
            *by_budget("efficientnet_body", "same-share"),
            *selectivity(0.4, "learned")[["value", "low", "high"]].iloc[0],
            selectivity(0.4, RANKED)["value"].max(),
        ),
    ),
    (
        "takes {:.0f} % [{:.0f}, {:.0f}] of the units that compute by masks, {:.0f} to {:.0f} % by rankings with "
        "one cut",
        lambda: (*by_masks("efficientnet_body"), *by_budget("efficientnet_body", "global")),
    ),
    (
        "with {:.0f} % [{:.0f}, {:.0f}] of the units by masks and {:.0f} to {:.0f} % by rankings with one cut; on the "
        "toy model with {:.0f} % and {:.0f} to {:.0f} %. With the same share of every site rankings need {:.0f} to "
        "{:.0f} % and {:.0f} to {:.0f} %. Give masks many images of the class: with ten instead of six they need "
        "{:.0f} %",
        lambda: (
            *by_masks("efficientnet_body"),
            *by_budget("efficientnet_body", "global"),
            by_masks("toy_body")[0],
            *by_budget("toy_body", "global"),
            *by_budget("efficientnet_body", "same-share"),
            *by_budget("toy_body", "same-share"),
            by_masks("toy_ten_images")[0],
        ),
    ),
    (
        "{:.0f} % [{:.0f}, {:.0f}] with two, {:.0f} % [{:.0f}, {:.0f}] with ten ({:.2f} at 40 %), by site paths with "
        "one cut {:.0f} and {:.0f} %",
        lambda: (
            *by_masks("toy_two_images"),
            *by_masks("toy_ten_images"),
            float(selectivity(0.4, "learned", "toy_ten_images")["value"].iloc[0]),
            *(alike(by_budget(model, "global"), 6) for model in ("toy_two_images", "toy_ten_images")),
        ),
    ),
    (
        "one class needs {:.0f} %, the seven others {:.0f} to {:.0f} %",
        lambda: [sizes_by_class("learned")[place] for place in (0, 1, 7)],
    ),
    (
        "it takes {:.0f} % [{:.0f}, {:.0f}] by masks, {:.0f} to {:.0f} % by rankings with one cut over all sites, "
        "{:.0f} to {:.0f} % with the masks' counts and {:.0f} to {:.0f} % with the same share",
        lambda: (
            *by_masks("toy_body"),
            *(percent for budget in ("global", "learned", "same-share") for percent in by_budget("toy_body", budget)),
        ),
    ),
    (
        "{:.0f} % [{:.0f}, {:.0f}] by masks and {:.0f} to {:.0f} % by rankings on EfficientNet-Lite0, {:.0f} % "
        "[{:.0f}, {:.0f}] and {:.0f} to {:.0f} % on emoji",
        lambda: (
            *by_masks("efficientnet"),
            *size_for(RANKINGS),
            *by_masks("emoji"),
            *size_for(RANKINGS, "emoji"),
        ),
    ),
    (
        "takes {:.0f} % [{:.0f}, {:.0f}] of the edges between heads and MLPs by learned masks, {:.0f} to {:.0f} % "
        "by scores and exact cuts, whose intervals overlap it, and {:.0f} % of random edges",
        lambda: (
            *by_masks("components", "logit"),
            *edges_for(["gradient", "path", "atp-star", "relp", "exact"], "kept"),
            edges_for(["gradient"], "random")[0],
        ),
    ),
    (
        "it takes {:.0f} % [{:.0f}, {:.0f}] by masks, {:.0f} to {:.0f} % by rankings with one cut over all sites, "
        "{:.0f} to {:.0f} % with the same share of every site, and of random units {:.0f} % with the masks' counts, "
        "{:.0f} % with the same share",
        lambda: (
            *by_masks("vit_body", "logit"),
            *by_budget("vit_body", "global", "logit"),
            *by_budget("vit_body", "same-share", "logit"),
            100 * sizes_for("vit_body", "learned", "random", "logit")["value"].iloc[0],
            alike(by_budget("vit_body", "same-share", "logit", "random")),
        ),
    ),
    (
        "selective in their own style ({:.2f}) and, less, in the others ({:.2f}); those of site paths in neither "
        "({:.2f})",
        lambda: (
            *(selective("learned", of) for of in ("own domain", "other domains")),
            alike(selective("site-path", of) for of in ("own domain", "other domains")),
        ),
    ),
    (
        "overlap by {:.2f}, on other images of the style by {:.2f}, in another style by {:.2f}, with another class by "
        "{:.2f} and {:.2f}, where random units of these sizes overlap by {:.2f}",
        lambda: (overlap("learned", "two parts of the same images", "other seed"), *overlaps("learned")),
    ),
    (
        "attributed circuits does ({:.2f}, {:.2f}, {:.2f} and {:.2f}, random {:.2f})",
        lambda: overlaps("site-path"),
    ),
    (
        "{:.2f} for one gradient ({:.2f} s), {:.2f} for the study's path ({:.1f} s), {:.2f} for the path of the image "
        "({:.2f} s), {:.2f} for masks ({:.0f} s)",
        lambda: [number for method in ("gradient", "site-path", "input-path", "learned") for number in judged(method)],
    ),
    (
        "(AUROC {:.2f} to {:.2f}, guessing 0.5); cuts do ({:.1f})",
        lambda: (*into_attention(), cut()),
    ),
]
