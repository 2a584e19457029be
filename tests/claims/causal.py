"""Claims about causal checks, learned circuits, heads and edges."""

from functools import partial

import pandas as pd

from circuitry.comparison.statistics import mean_interval
from circuitry.study import smallest_sizes
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


SKETCHES = (
    "as they are, the stem whole",
    "43 images of other classes",
    "43 others, 7 views of each own image",
    "own class over domains",
    "a pair of classes",
    "resample ablation",
    "resample ablation in a quarter of the steps",
    "dropout of whole sites",
    "noise on the gates to the end",
    "mean of the scores over steps",
    "dropout of sites and mean of the scores",
    "masks of all sizes cut from the last scores",
    "all drawings of all classes",
    "one mask for all classes",
    "half of its ranks added to the own",
    "mean of the masks of the seven other classes",
    "that mean added to the own",
    "dropout of 20 % of the gates",
    "the lead at every position kept, too",
    "one score for a channel in all blocks of a stage",
)
"""Changes to learned masks whose code was not kept."""

FISHER_TRIAL = "Fisher, 43 other photographs"

TRIALS = (
    "43 other photographs",
    "43 other photographs, half of a score its stage's",
    FISHER_TRIAL,
)
"""Trials that a script runs, on eight classes."""

OTHER_LABEL = ("bear", "lizard")
"""Classes whose unseen photograph the model gives another label than those that masks are learned on."""


def tried(trial: str | list[str], size: float, column: str = "value", table: str = "mask_sketches") -> pd.Series:
    """Return the numbers of trials by trial and class."""
    return rows(f"scoreboard/{table}/trials", trial=trial, size=size)[column]


def in_trial(trial: str, table: str) -> list[float]:
    """Return the number of classes, selectivity at 66 and 40 %, the size for 0.8 with its interval, and seconds."""
    found = rows(f"scoreboard/{table}/trials", trial=trial)
    sizes = smallest_sizes(found[["class", "size", "value"]].assign(circuit="kept"), [0.8])["value"].to_numpy()
    percent = [100 * number for number in mean_interval(sizes)]
    means = [tried(trial, size, table=table).mean() for size in (0.66, 0.4)]
    return [len(sizes), *means, *percent, found["seconds"].mean()]


def by_label() -> list[float]:
    """Return the mean selectivity at 40 % of classes whose unseen photograph has another label, and of the rest."""
    found = rows("scoreboard/mask_trials/trials", trial=TRIALS[0], size=0.4)
    of_another = found["class"].isin(OTHER_LABEL)
    return [float(found.loc[chosen, "value"].mean()) for chosen in (of_another, ~of_another)]


def of_one_class(size: float) -> pd.Series:
    """Return the selectivities of the trials on one class."""
    found = rows("scoreboard/mask_sketches/trials", size=size)
    return found.loc[found.groupby("trial")["class"].transform("nunique") == 1, "value"]


def spread(of: str, size: float) -> float:
    return float(tried(f"{of}, one factor a site restores the spread", size).mean())


def fisher_cut_once(size: float) -> float:
    found = selectivity(size, "fisher")
    return float(found.loc[found["budget"] == "global", "value"].iloc[0])


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
    *(
        (
            f"| {trial} | {{:.0f}} | {{:.2f}} | {{:.2f}} | {{:.0f}} [{{:.0f}}, {{:.0f}}] | {{:.0f}} |",
            partial(in_trial, trial, table),
        )
        for table, trials in (("mask_trials", TRIALS), ("mask_sketches", SKETCHES))
        for trial in trials
    ),
    (
        "masks have {:.2f} there on the images that they are learned on and {:.2f} on unseen ones",
        lambda: [tried(TRIALS[0], 0.4, column, "mask_trials").mean() for column in ("found", "value")],
    ),
    (
        "give {:.2f} (the scoreboard's {:.2f}, Fisher from the same images {:.2f})",
        lambda: (
            in_trial(TRIALS[0], "mask_trials")[1],
            float(selectivity(0.66, "learned")["value"].iloc[0]),
            in_trial(FISHER_TRIAL, "mask_trials")[1],
        ),
    ),
    (
        "and {:.2f} where half of a score is the channel's mean over the blocks of its stage (a share chosen on these "
        "classes); 0.8 takes {:.0f} and {:.0f} % in place of {:.0f} %",
        lambda: (
            in_trial(TRIALS[1], "mask_trials")[1],
            *(in_trial(trial, "mask_trials")[3] for trial in TRIALS[:2]),
            by_masks("efficientnet_body")[0],
        ),
    ),
    (
        "They have {:.2f} at 40 %, the six other classes {:.2f}",
        by_label,
    ),
    (
        "a mask of all classes has {:.2f} at 40 % and hardly more on its own images ({:.2f})",
        lambda: [tried("one mask for all classes", 0.4, column).mean() for column in ("value", "found")],
    ),
    (
        "or of the embedding gave {:.2f} to {:.2f} at 40 %",
        lambda: span(of_one_class(0.4)),
    ),
    (
        "helps Fisher ({:.2f} to {:.2f} at 66 %, {:.2f} to {:.2f} at 40 %) and harms masks ({:.2f} and {:.2f})",
        lambda: (
            *(number for size in (0.66, 0.4) for number in (fisher_cut_once(size), spread("Fisher, global", size))),
            *(spread("masks", size) for size in (0.66, 0.4)),
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
