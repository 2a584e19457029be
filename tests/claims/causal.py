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


RANKED = ["site-path", "input-path", "gradient", "patching", "fisher"]

STUDIED = {"baseline": "mean", "metric": "margin"}


def board(method: str | list[str], what: str, model: str = "efficientnet_lite0_all_sites") -> pd.DataFrame:
    return rows(f"scoreboard/{model}/summary", method=method, what=what, **STUDIED)


def sizes_for(model: str, method: str | list[str], circuit: str, metric: str = "margin") -> pd.DataFrame:
    what = f"size for 0.8, {circuit}"
    return rows(f"scoreboard/{model}/summary", method=method, what=what, baseline="mean", metric=metric)


def by_masks(model: str, metric: str = "margin") -> list[float]:
    """Return the size for a selectivity of 0.8, with its interval, in percent."""
    (found,) = sizes_for(model, "learned", "kept", metric)[["value", "low", "high"]].to_numpy()
    return [100 * float(value) for value in found]


LITE0, LITE1 = "efficientnet_lite0_body", "efficientnet_lite1_stages_2_to_6"
LITE2 = "efficientnet_lite2_stages_2_to_6"
CONTESTANTS = {
    "learned masks": ("learned", "learned"),
    "site path, global": ("site-path", "global"),
    "Fisher, global": ("fisher", "global"),
    "gradient, global": ("gradient", "global"),
    "Fisher, same share": ("fisher", "same-share"),
    "gradient, same share": ("gradient", "same-share"),
}


def by_size(model: str, method: str, budget: str) -> list[float]:
    """Return the selectivity of circuits and, as many at every site, of random units, by size."""
    named = {"measure": "selectivity", "method": method, "budget": budget}
    both = [
        rows(f"scoreboard/{model}/curves", circuit=circuit, **named, **STUDIED).sort_values("size")["value"]
        for circuit in ("kept", "random")
    ]
    return [value for pair in zip(*both, strict=True) for value in pair]


def counted(model: str) -> str:
    """Return what sizes are shares of, the same in all tables of a scoreboard."""
    (words,) = {
        words for name in ("curves", "summary", "by_class") for words in rows(f"scoreboard/{model}/{name}")["counted"]
    }
    return str(words)


def by_budget(model: str, budget: str, metric: str = "margin", circuit: str = "kept") -> tuple[float, float]:
    """Return the span over rankings of the size for a selectivity of 0.8, in percent."""
    found = sizes_for(model, RANKED, circuit, metric)
    return span(100 * found.loc[found["budget"] == budget, "value"])


SIZES = [
    ("EfficientNet-Lite0", LITE0, "margin"),
    ("EfficientNet-Lite1", LITE1, "margin"),
    ("EfficientNet-Lite2", LITE2, "margin"),
    ("small CLIP, drawn set", "toy_body", "margin"),
    ("small CLIP, emoji (noto)", "emoji_body", "margin"),
    ("small ViT, drawn set, heads and neurons", "toy_vit_body", "logit"),
]


def sizes_row(model: str, metric: str) -> tuple[float, ...]:
    """Return the size for a selectivity of 0.8 by masks, with its interval, and by rankings of either budget."""
    budgets = ("global", "same-share")
    return (*by_masks(model, metric), *(size for budget in budgets for size in by_budget(model, budget, metric)))


def selectivity(size: float | list[float], method: str | list[str], model: str = LITE0) -> pd.DataFrame:
    named = {"measure": "selectivity", "circuit": "kept", "method": method, **STUDIED}
    return rows(f"scoreboard/{model}/curves", size=size, **named)


def sizes_by_class(method: str) -> list[float]:
    """Return the size for a selectivity of 0.8 of every class, the smallest first, in percent."""
    found = rows(f"scoreboard/{LITE0}/by_class", method=method, what="size for 0.8, kept", **STUDIED)
    return sorted(100 * found["value"])


def edges_for(methods: list[str], circuit: str) -> tuple[float, float]:
    return span(100 * sizes_for("toy_vit_edges", methods, circuit, "logit")["value"])


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
    found = rows("scoreboard/toy_body/planted", network="attention", kind="edge", site="attention", method=methods)
    return span(found["auroc"])


def cut() -> float:
    return alike(rows("scoreboard/toy_body/planted", network="attention", kind="edge", method="edge cuts")["auroc"])


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
        (f"| {named} | " + " | ".join(["{:.2f} ({:.2f})"] * 8) + " |", partial(by_size, LITE0, *contestant))
        for named, contestant in CONTESTANTS.items()
    ),
    *(
        (f"| {named} | " + " | ".join(["{:.2f} ({:.2f})"] * 4) + " |", partial(by_size, model, *contestant))
        for model in (LITE1, LITE2)
        for named, contestant in CONTESTANTS.items()
        if "site path" not in named
    ),
    *(
        (
            f"| {named} | {counted(model)} | {{:.0f}} [{{:.0f}}, {{:.0f}}] | {{:.0f}} to {{:.0f}} | {{:.0f}} to "
            "{:.0f} |",
            partial(sizes_row, model, metric),
        )
        for named, model, metric in SIZES
    ),
    (
        "at 40 % {:.2f} [{:.2f}, {:.2f}], rankings at most {:.2f}",
        lambda: (
            *selectivity(0.4, "learned")[["value", "low", "high"]].iloc[0],
            selectivity(0.4, RANKED)["value"].max(),
        ),
    ),
    (
        "masks of 20 to 40 % come to {:.2f} to {:.2f}",
        lambda: span(selectivity([0.2, 0.3, 0.4], "learned", "emoji_body")["value"]),
    ),
    (
        "one class needs {:.0f} %, the seven others {:.0f} to {:.0f} %",
        lambda: [sizes_by_class("learned")[place] for place in (0, 1, 7)],
    ),
    (
        "takes {:.0f} % [{:.0f}, {:.0f}] of the units that compute by masks, {:.0f} to {:.0f} % by rankings with "
        "one cut over all sites; on Lite1 and Lite2 {:.0f} % [{:.0f}, {:.0f}] and {:.0f} % [{:.0f}, {:.0f}] by masks, "
        "at least {:.0f} % by rankings",
        lambda: (
            *by_masks(LITE0),
            *by_budget(LITE0, "global"),
            *by_masks(LITE1),
            *by_masks(LITE2),
            min(by_budget(model, "global")[0] for model in (LITE1, LITE2)),
        ),
    ),
    (
        "with {:.0f} % [{:.0f}, {:.0f}] of the units by masks and {:.0f} to {:.0f} % by rankings with one cut; on the "
        "toy model with {:.0f} % and {:.0f} to {:.0f} %. With the same share of every site rankings need {:.0f} to "
        "{:.0f} % and {:.0f} to {:.0f} %. Give masks many images of the class: with ten instead of six they need "
        "{:.0f} %",
        lambda: (
            *by_masks(LITE0),
            *by_budget(LITE0, "global"),
            by_masks("toy_body")[0],
            *by_budget("toy_body", "global"),
            *by_budget(LITE0, "same-share"),
            *by_budget("toy_body", "same-share"),
            by_masks("toy_body_ten_images")[0],
        ),
    ),
    (
        "{:.0f} % [{:.0f}, {:.0f}] with two, {:.0f} % [{:.0f}, {:.0f}] with ten ({:.2f} at 40 %); site paths with "
        "one cut need {:.0f} and {:.0f} %",
        lambda: (
            *by_masks("toy_body_two_images"),
            *by_masks("toy_body_ten_images"),
            float(selectivity(0.4, "learned", "toy_body_ten_images")["value"].iloc[0]),
            *(alike(by_budget(model, "global"), 6) for model in ("toy_body_two_images", "toy_body_ten_images")),
        ),
    ),
    (
        "there masks need {:.0f} % [{:.0f}, {:.0f}], rankings {:.0f} to {:.0f} % with one cut and {:.0f} to {:.0f} % "
        "with the same share; on emoji {:.0f} % [{:.0f}, {:.0f}], and {:.0f} to {:.0f} % with the same share",
        lambda: (
            *by_masks("efficientnet_lite0_all_sites"),
            *by_budget("efficientnet_lite0_all_sites_global", "global"),
            *by_budget("efficientnet_lite0_all_sites", "same-share"),
            *by_masks("emoji_all_sites"),
            *by_budget("emoji_all_sites", "same-share"),
        ),
    ),
    (
        "rankings with the masks' counts need {:.0f} to {:.0f} % on the small CLIP",
        lambda: by_budget("toy_body", "learned"),
    ),
    (
        "takes {:.0f} % [{:.0f}, {:.0f}] of the edges between heads and MLPs by learned masks, {:.0f} to {:.0f} % "
        "by scores and exact cuts, whose intervals overlap it, and {:.0f} % of random edges",
        lambda: (
            *by_masks("toy_vit_edges", "logit"),
            *edges_for(["gradient", "path", "atp-star", "relp", "exact"], "kept"),
            edges_for(["gradient"], "random")[0],
        ),
    ),
    (
        "random units with the masks' counts need {:.0f} % there, with the same share {:.0f} %",
        lambda: (
            100 * sizes_for("toy_vit_body", "learned", "random", "logit")["value"].iloc[0],
            alike(by_budget("toy_vit_body", "same-share", "logit", "random")),
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
