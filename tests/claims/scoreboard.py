"""Claims about the size of circuits by method, and how scores rank single units."""

from collections.abc import Iterable
from functools import partial

import numpy as np
import pandas as pd

from circuitry.comparison.statistics import mean_interval
from tests.support.committed_tables import Numbers, alike, comparison, listed, rows, significance, span
from tests.support.committed_tables import overlap as overlap_of

RANKED = ["site-path", "input-path", "gradient", "patching", "fisher"]

STUDIED = {"baseline": "mean", "metric": "margin"}


def sizes_for(model: str, method: str | list[str], circuit: str, metric: str = "margin") -> pd.DataFrame:
    what = f"size for 0.8, {circuit}"
    return rows(f"scoreboard/{model}/summary", method=method, what=what, baseline="mean", metric=metric)


def by_masks(model: str, metric: str = "margin") -> list[float]:
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
WITHOUT_PATHS = {named: contestant for named, contestant in CONTESTANTS.items() if "site path" not in named}


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


def sizes_row(model: str, metric: str) -> tuple[object, ...]:
    """Return the size for a selectivity of 0.8 by masks, with its interval, and by rankings of either budget."""
    return (*by_masks(model, metric), *(needed(model, budget, metric) for budget in ("global", "same-share")))


def needed(model: str, budget: str, metric: str) -> str:
    """Return the sizes that rankings need in words: of those that most classes never reach only a lower bound."""
    found = pd.concat([in_classes(model, method, budget, metric) for method in rankings(model, metric)])
    grid = sorted(100 * rows(f"scoreboard/{model}/curves", circuit="kept")["size"].unique())
    if (found == NEVER).mean() > 0.5:
        return f"more than {max(size for size in grid if size < found.min()):.0f}"
    low, high = by_budget(model, budget, metric)
    return f"{low:.0f} to {high:.0f}"


NEVER = 100
"""What a class counts that has the selectivity at no size of the grid."""


def in_classes(model: str, method: str, budget: str, metric: str = "margin", level: float = 0.8) -> pd.Series:
    named = {"method": method, "budget": budget, "baseline": "mean", "metric": metric}
    found = rows(f"scoreboard/{model}/by_class", what=f"size for {level}, kept", **named)
    return (100 * found.set_index("class")["value"]).round(6)


def rankings(model: str, metric: str = "margin") -> list[str]:
    """Return the methods beside masks that a network has with one cut, the one that needs fewest units first."""
    found = rows(f"scoreboard/{model}/by_class", budget="global", metric=metric)["method"].unique()
    return sorted(found, key=lambda method: in_classes(model, method, "global", metric).mean())


def beyond_masks(model: str, method: str, metric: str = "margin", level: float = 0.8) -> list[float]:
    """Return how many points more a ranking with one cut needs than masks, with its interval over classes."""
    masks = in_classes(model, "learned", "learned", metric, level)
    of_ranking = in_classes(model, method, "global", metric, level)
    return list(mean_interval((of_ranking - masks[of_ranking.index]).to_numpy()))


def beyond(model: str, method: str, metric: str = "margin", level: float = 0.8) -> list[object]:
    return [*beyond_masks(model, method, metric, level), verdict(model, method, metric, level)]


def verdict(model: str, method: str, metric: str = "margin", level: float = 0.8) -> str:
    return significance(*beyond_masks(model, method, metric, level)[1:])


def with_significance(model: str, of: str, metric: str = "margin") -> list[str]:
    return [name for name in rankings(model, metric) if verdict(model, name, metric) == of]


def classes_that_need(model: str) -> list[int]:
    """Return in how many classes Fisher with one cut needs more than masks, of how many, and in how many less."""
    more = in_classes(model, "fisher", "global") - in_classes(model, "learned", "learned")
    return [int((more > 0).sum()), len(more), int((more < 0).sum())]


def mean_curves(model: str, metric: str = "margin") -> pd.DataFrame:
    """Return the mean selectivity by size of masks, and of the best ranking."""
    named = {"measure": "selectivity", "circuit": "kept", "baseline": "mean", "metric": metric}
    found = rows(f"scoreboard/{model}/curves", **named)
    learned, budget = found["method"] == "learned", found["budget"] == "learned"
    best = found[~learned & ~budget].groupby("size")["value"].max()
    return pd.DataFrame({"masks": found[learned].set_index("size")["value"], "rankings": best})


def without_exception(models: list[str]) -> str:
    """Return how one cut compares with the same share of every site, where either has a selectivity above 0.1."""
    signs = []
    for model in models:
        named = {"measure": "selectivity", "circuit": "kept", "method": rankings(model), **STUDIED}
        found = rows(f"scoreboard/{model}/curves", **named).set_index(["method", "size"])
        pairs = found.pivot(columns="budget", values="value")[["global", "same-share"]].dropna()
        signs += [comparison([a], [b]) for a, b in pairs[pairs.max(axis=1) > 0.1].to_numpy()]
    return {frozenset({"above"}): "more than"}.get(frozenset(signs), "not always more than")


def agreement_with_patching(model: str, methods: list[str], metric: str = "margin") -> list[float]:
    found = [rows(f"scoreboard/{model}/summary", method=m, what="rank correlation", metric=metric) for m in methods]
    return [alike(of["value"], 6) for of in found]


def same_order(*models: str) -> str:
    methods = ["gradient", "site-path", "input-path", "learned"]
    found = [agreement_with_patching(model, methods) for model in models]
    return "the same" if all(values == sorted(values, reverse=True) for values in found) else "another"


def alike_words(words: Iterable[str]) -> str:
    (word,) = set(words)
    return word


def selectivity(size: float | list[float], method: str | list[str], model: str = LITE0) -> pd.DataFrame:
    named = {"measure": "selectivity", "circuit": "kept", "method": method, **STUDIED}
    return rows(f"scoreboard/{model}/curves", size=size, **named)


def sizes_by_class() -> list[float]:
    """Return the size of masks for a selectivity of 0.8 of every class, the smallest first, in percent."""
    return sorted(in_classes(LITE0, "learned", "learned"))


CNNS = [model for _, model, metric in SIZES if metric == "margin"]


def at_all_sites() -> str:
    masks = in_classes("efficientnet_lite0_all_sites", "learned", "learned")
    cut_once = "efficientnet_lite0_all_sites_global"
    found = [in_classes(cut_once, method, "global") - masks for method in rankings(cut_once)]
    return alike_words(significance(*mean_interval(more.to_numpy())[1:]) for more in found)


def judged(method: str) -> list[float]:
    name = "scoreboard/efficientnet_lite0_all_sites/summary"
    found = (rows(name, method=method, what=what, **STUDIED) for what in ("rank correlation", "seconds"))
    return [float(of["value"].iloc[0]) for of in found]


def fisher_and_masks() -> np.ndarray:
    return np.array(
        [
            agreement_with_patching(m, ["fisher", "learned"], of)
            for m, of in (("toy_body", "margin"), ("toy_vit_body", "logit"))
        ]
    )


CLAIMS: dict[str, Numbers] = {
    **{
        f"| {named} | " + " | ".join(["{:.2f} ({:.2f})"] * 8) + " |": partial(by_size, LITE0, *contestant)
        for named, contestant in CONTESTANTS.items()
    },
    **{
        f"| {network}, {counted(model)} | 40 % | 66 % | 75 % | 85 % | |---|---|---|---|---| "
        + " ".join(f"| {named} | " + " | ".join(["{:.2f} ({:.2f})"] * 4) + " |" for named in WITHOUT_PATHS): partial(
            lambda of: [n for contestant in WITHOUT_PATHS.values() for n in by_size(of, *contestant)], model
        )
        for network, model in (("Lite1", LITE1), ("Lite2", LITE2))
    },
    **{
        f"| {named} | {counted(model)} | {{:.0f}} [{{:.0f}}, {{:.0f}}] | {{}} | {{}} |": partial(
            sizes_row, model, metric
        )
        for named, model, metric in SIZES
    },
    "at 40 % {:.2f} [{:.2f}, {:.2f}], rankings at most {:.2f}": lambda: (
        *selectivity(0.4, "learned")[["value", "low", "high"]].iloc[0],
        selectivity(0.4, RANKED)["value"].max(),
    ),
    "masks of 20 to 40 % come to {:.2f} to {:.2f}": lambda: span(
        selectivity([0.2, 0.3, 0.4], "learned", "emoji_body")["value"]
    ),
    "one class needs {:.0f} %, the seven others {:.0f} to {:.0f} %": lambda: [
        sizes_by_class()[place] for place in (0, 1, 7)
    ],
    "To reach 0.8 learned masks keep {:.0f} % [{:.0f}, {:.0f}] of the block outputs (one class {:.0f} %, the seven "
    "others {:.0f} to {:.0f} %), Fisher with one cut {:.0f} %; the paired difference of {:.0f} [{:.0f}, {:.0f}] "
    "points is {}. To reach 0.5 masks keep {:.0f} [{:.0f}, {:.0f}] points less, which is {}.": lambda: (
        *by_masks(LITE0),
        *(sizes_by_class()[place] for place in (0, 1, 7)),
        in_classes(LITE0, "fisher", "global").mean(),
        *beyond(LITE0, "fisher"),
        *beyond(LITE0, "fisher", level=0.5),
    ),
    "for 0.8 Fisher {:.0f} [{:.0f}, {:.0f}] and site paths {:.0f} [{:.0f}, {:.0f}], which is {}; for 0.5 {}, the "
    "best there, {:.0f} [{:.0f}, {:.0f}], which is.": lambda: (
        *beyond_masks(LITE0, "fisher"),
        *beyond_masks(LITE0, "site-path"),
        alike_words(verdict(LITE0, method) for method in ("fisher", "site-path")),
        min(rankings(LITE0), key=lambda m: in_classes(LITE0, m, "global", level=0.5).mean()).capitalize(),
        *beyond_masks(LITE0, "fisher", level=0.5),
    ),
    "Fisher needs more in {} and {} of the {} classes, and less in {}.": lambda: (
        *(classes_that_need(model)[0] for model in (LITE1, LITE2)),
        classes_that_need(LITE1)[1],
        {0: "none"}[sum(classes_that_need(model)[2] for model in (LITE1, LITE2))],
    ),
    "Small CLIP: all {} rankings need {}ly more, the best {:.0f} [{:.0f}, {:.0f}]. ViT: {} needs significantly "
    "more ({:.0f} [{:.0f}, {:.0f}]), {} do not; its masks have a {} mean selectivity than the best ranking at "
    "every size. Emoji: {} of the rankings needs significantly more.": lambda: (
        {5: "five"}[len(rankings("toy_body"))],
        alike_words(verdict("toy_body", method) for method in rankings("toy_body")),
        *beyond_masks("toy_body", rankings("toy_body")[0]),
        listed(with_significance("toy_vit_body", "significant", "logit")),
        *beyond_masks("toy_vit_body", "gradient", "logit"),
        listed(
            {"fisher": "Fisher", "patching": "exact patching"}[m]
            for m in with_significance("toy_vit_body", "not significant", "logit")
        ),
        {"below": "lower"}[comparison(*mean_curves("toy_vit_body", "logit").to_numpy().T)],
        listed(with_significance("emoji_body", "significant")),
    ),
    "separates its class from others only when, on average over classes, {} half of them are kept. One cut over "
    "all sites recovers {} the same share of every site, {} on emoji. What learned masks need depends on the "
    "class: on EfficientNet-Lite0 from {:.0f} to {:.0f} %.": lambda: (
        {"above": "more than"}[comparison([by_budget(model, "global")[0] for model in CNNS], [50] * len(CNNS))],
        without_exception([model for model in CNNS if model != "emoji_body"]),
        {"not always more than": "except"}[without_exception(["emoji_body"])],
        *span(sizes_by_class()),
    ),
    "masks have the {} mean selectivity up to {:.0f} %": lambda: (
        {frozenset({"above"}): "largest"}[
            frozenset(
                comparison([masks], [best])
                for model in (LITE0, LITE1, LITE2)
                for masks, best in mean_curves(model).loc[:0.75].to_numpy()
            )
        ],
        75,
    ),
    "at 90 % Fisher with one cut is level ({:.2f} and {:.2f})": lambda: mean_curves(LITE0).loc[0.9],
    "the seven others 66 to 90 % ({:.0f} % [{:.0f}, {:.0f}] on average)": lambda: mean_interval(
        np.array(sizes_by_class()[1:])
    ),
    "one cut recovers {} the same share of every site at every size where either has a selectivity above 0.1": lambda: [
        without_exception([LITE0, LITE1, LITE2, "toy_body"])
    ],
    "no ranking reaches 0.8 with {} % in any class": lambda: [
        alike_words(needed(m, by, "margin").split()[-1] for m in (LITE1, LITE2) for by in ("global", "same-share"))
    ],
    "Masks never reach it for {} class of 8 on Lite1, {} on Lite2 and {} on emoji.": lambda: [
        int((in_classes(model, "learned", "learned") == NEVER).sum()) for model in (LITE1, LITE2, "emoji_body")
    ],
    "{:.0f} % [{:.0f}, {:.0f}] with two, {:.0f} % [{:.0f}, {:.0f}] with ten ({:.2f} at 40 %), intervals that {} "
    "that of six; site paths with one cut need {:.0f} and {:.0f} %": lambda: (
        *by_masks("toy_body_two_images"),
        *by_masks("toy_body_ten_images"),
        float(selectivity(0.4, "learned", "toy_body_ten_images")["value"].iloc[0]),
        alike_words(
            overlap_of(by_masks(model)[1:], by_masks("toy_body")[1:])
            for model in ("toy_body_two_images", "toy_body_ten_images")
        ),
        *(alike(by_budget(model, "global"), 6) for model in ("toy_body_two_images", "toy_body_ten_images")),
    ),
    "there masks need {:.0f} % [{:.0f}, {:.0f}], rankings {:.0f} to {:.0f} % with one cut, which is {}ly more, and "
    "{:.0f} to {:.0f} % with the same share; on emoji {:.0f} % [{:.0f}, {:.0f}], and {:.0f} to {:.0f} % with the "
    "same share": lambda: (
        *by_masks("efficientnet_lite0_all_sites"),
        *by_budget("efficientnet_lite0_all_sites_global", "global"),
        at_all_sites(),
        *by_budget("efficientnet_lite0_all_sites", "same-share"),
        *by_masks("emoji_all_sites"),
        *by_budget("emoji_all_sites", "same-share"),
    ),
    "rankings with the masks' counts need {:.0f} to {:.0f} % on the small CLIP": lambda: by_budget(
        "toy_body", "learned"
    ),
    "random units with the masks' counts need {:.0f} % there, with the same share {:.0f} %": lambda: (
        100 * sizes_for("toy_vit_body", "learned", "random", "logit")["value"].iloc[0],
        alike(by_budget("toy_vit_body", "same-share", "logit", "random")),
    ),
    "rank correlation with exact patching is {:.2f} for one gradient ({:.2f} s), {:.2f} for the study's path "
    "({:.1f} s), {:.2f} for the path of the image ({:.2f} s), {:.2f} for masks ({:.0f} s). The order is {} on the "
    "small CLIP (`toy_body`, `emoji_all_sites`).": lambda: [
        *(number for method in ("gradient", "site-path", "input-path", "learned") for number in judged(method)),
        same_order("efficientnet_lite0_all_sites", "toy_body", "emoji_all_sites"),
    ],
    "it has {} than masks on the small CLIP ({:.2f}, masks {:.2f}) and on the ViT ({:.2f}, masks {:.2f})": lambda: (
        {"below": "less"}[comparison(*fisher_and_masks().T)],
        *fisher_and_masks().ravel(),
    ),
}
