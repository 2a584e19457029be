"""Numbers in README, documentation and experiments/RESULTS.md are what their committed tables give, rounded as there.

`CLAIMS` holds phrases of the text with a place for each number, and how the numbers come from the tables. Where a
phrase or a table changes alone, the text lacks what the table makes. To change a phrase, change it here, too.
"""

import re
from collections.abc import Callable, Iterable
from functools import partial

import pandas as pd
import pytest

from circuitry.comparison.statistics import mean_interval
from circuitry.study import smallest_sizes
from tests.support.committed_tables import DOCS, RESULTS_PAGE, ROOT, interval, one, rows, span, table

Numbers = Callable[[], Iterable[object]]


def alike(values: Iterable[float], digits: int = 2) -> float:
    """Return the one number that all values are at this rounding."""
    (value,) = {round(float(value), digits) + 0.0 for value in values}
    return value


# Trust and rules


def covered(of: str, degrees: str = "Satterthwaite") -> tuple[float, float]:
    return span(100 * rows("trust/coverage", of=of, degrees=degrees)["coverage"])


def told(measure: str) -> float:
    return one("measures/measures", measure=measure, case="another domain")


def promised(model: str, kind: str) -> list[object]:
    """Return rule, cost, promise, what was measured with its interval, and the error of the study's rule."""
    columns = ["rule", "cost", "promised", "measured", "low", "high", "error of the study's rule"]
    return list(rows(f"rules/{model}/promise", kind=kind)[columns].iloc[0])


def found_nothing(case: str) -> tuple[float, float]:
    """Return how often, in percent, some test is significant without a difference."""
    return span(100 * rows("trust/family_wise_error", case=case)["error"])


# Emoji

COLOURED, BLACK = ["fluent3d", "fluentflat", "noto"], ["mono", "silhouette", "sketch"]


def styles(first: list[str], second: list[str]) -> tuple[float, float]:
    """Return the span of the ratios of edges between some styles and others, or among themselves."""
    found = table("emoji/edge_jaccard_ratios")
    a, b = found["domain_a"], found["domain_b"]
    return span(found.loc[(a.isin(first) & b.isin(second)) | (a.isin(second) & b.isin(first)), "value"])


def most_alike() -> list[float]:
    found = table("emoji/edge_jaccard_ratios").sort_values("value").iloc[-1]
    return [len(table("emoji/edge_jaccard_ratios")), *found[["value", "low", "high", "n_per_part"]]]


# The quickstart


def quickdraw(*columns: str) -> list[float]:
    return [100 * one("quickstart/accuracy", column, domain="quickdraw") for column in columns]


def level(what: str) -> float:
    return one("quickstart/edge_jaccard_levels", what=what)


def by_domain(what: str) -> list[float]:
    return interval("quickstart/edge_jaccard_class_by_domain", what=what)


def lowest(measure: str) -> str:
    found = rows(f"quickstart/{measure}_summary", group="all")
    return str(found.sort_values("value")["domain"].iloc[0])


def stands_out(measure: str) -> set[str]:
    """Return the domains that differ from all others after correction."""
    found = table(f"quickstart/{measure}_paired_tests")
    apart = found[found["p_holm"] < 0.05]
    counts = pd.concat([apart["domain_a"], apart["domain_b"]]).value_counts()
    return set(counts.index[counts == 5])


def ratios_but(a: str, b: str) -> tuple[float, float]:
    found = table("quickstart/edge_jaccard_ratios")
    return span(found.loc[(found["domain_a"] != a) | (found["domain_b"] != b), "value"])


def other_orders() -> tuple[float, float]:
    found = table("quickstart/order_stability").iloc[1:]
    return span(found.loc[found["varied"] != "baseline", "rho"])


# What two other classes in two styles share


def of_other_classes(levels: str) -> float:
    """Return what parts of other classes in other styles share, relative to parts of one class and style."""
    found = table(levels).set_index("what")["value"]
    return float(found["two classes in two domains"] / found["two parts of the same images"])


# Causal checks


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


TRIALS = (
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
)
"""Changes to learned masks on three classes."""


def tried(trial: str | list[str], size: float, column: str = "value") -> pd.Series:
    """Return the numbers of trials by trial and class."""
    return rows("scoreboard/mask_trials/trials", trial=trial, size=size)[column]


def in_trial(trial: str) -> list[float]:
    """Return selectivity at 66 and 40 %, the size for 0.8 with its interval, in percent, and seconds."""
    found = rows("scoreboard/mask_trials/trials", trial=trial)
    sizes = smallest_sizes(found[["class", "size", "value"]].assign(circuit="kept"), [0.8])["value"].to_numpy()
    percent = [100 * number for number in mean_interval(sizes)]
    return [*(tried(trial, size).mean() for size in (0.66, 0.4)), *percent, found["seconds"].mean()]


def of_one_class(size: float) -> pd.Series:
    """Return the selectivities of the trials on one class."""
    found = rows("scoreboard/mask_trials/trials", size=size)
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


# Representations


def cka(site: str) -> tuple[float, float]:
    return span(rows("representations/cka_over_depth", site=site, kernel="linear", group="all")["value"])


def probed(*sites: str) -> tuple[float, float]:
    return span(100 * rows("representations/probes", site=list(sites), target="domain")["value"])


def shared(what: str) -> float:
    return one("shared_features/feature_sharing_levels", what=what)


def accuracy_without(component: str, block: int) -> float:
    return 100 * one("components/mean_ablation", "accuracy", component=component, block=block)


def vit(what: str) -> float:
    return one("vit/edge_jaccard_class_by_domain", what=what)


def paired(domain_a: str, domain_b: str, of: str) -> list[float]:
    return interval(of, domain_a=domain_a, domain_b=domain_b)


def others_than_painting_and_real() -> tuple[float, float]:
    found = table("vit/edge_jaccard_ratios")
    return span(found.loc[(found["domain_a"] != "painting") | (found["domain_b"] != "real"), "value"])


def nearest(method: str) -> list[float]:
    """Return the rank correlation of an edge score with exact cuts, by baseline."""
    ends = ("counterfactual", "mean")
    return [one("edges/agreement", "spearman", edges="all", method=method, baseline=end) for end in ends]


def few_pairs(circuit: str, fraction: float) -> float:
    return 100 * float(rows("pooling_pairs/accuracy", circuit=circuit, fraction=fraction)["value"].mean())


def held_out(setting: str, column: str) -> list[float]:
    """Return accuracies in percent on held-out classes in quickdraw and in sketch."""
    name = "generalization/told_apart"
    return [100 * one(name, column, setting=setting, test_domain=d, domain=d) for d in ("quickdraw", "sketch")]


def related(what: str, accuracy: str, *columns: str) -> list[float]:
    """Return columns of a relation over models."""
    return [one("shared_circuitry/relations", column, what=what, **{"with": accuracy}) for column in columns]


def faster(scores: str, model: str = "RN50") -> float:
    return one("benchmarks/attribution/speed", "ratio", model=model, scores=scores)


def timed(model: str, scores: str) -> list[object]:
    """Return a row of the table of speed, the difference as it is written there."""
    named = {"model": model, "scores": scores}
    (row,) = rows("benchmarks/attribution/speed", **named).drop(columns=list(named)).to_numpy()
    return [*row[:-1], f"{row[-1]:.1e}".replace("e-0", "e-")]


def growing(what: str, column: str) -> list[float]:
    return list(rows("benchmarks/scale/growth", **{"what grows": what})[column])


def rated(what: str) -> float:
    return one("benchmarks/scale/rates", "GFLOP/s", what=what)


def stream_edges(folder: str) -> list[float]:
    """Return edges, passes of the tower, what 5 points cost beside, and the peak of memory of a transformer."""
    (row,) = table(f"benchmarks/{folder}/speed").to_dict("records")
    return [row[column] for column in ("edges", "scores / pass", "5 points / scores", "peak GiB")]


def single(name: str, *columns: str) -> list[float]:
    """Return columns of a table of one row."""
    (row,) = table(name).to_dict("records")
    return [row[column] for column in columns]


SEPARATION = "embedding_separation/summary"


def apart(captions: str) -> list[float]:
    """Return how far quickdraw lies from the other styles, farther than any other does, with its interval."""
    found = rows(SEPARATION, measure="standardised distance", model=captions).set_index("domain")
    assert found["value"].idxmax() == "quickdraw"
    return list(found.loc["quickdraw", ["value", "low", "high"]])


def moved(classes: str, column: str = "difference", **equal: object) -> pd.Series:
    """Return what aligned captions change of an accuracy."""
    return rows("embedding_separation/differences", measure=f"accuracy, {classes} classes", **equal)[column]


def held_out_in_quickdraw(captions: str) -> float:
    return one(SEPARATION, measure="accuracy, held-out classes", domain="quickdraw", model=captions)


# Real networks

OVER_MODELS = "real_networks/over_models"


def shared_edges(domain: str) -> list[float]:
    """Return how much a domain shares of its edges with the others, network by network."""
    return list(rows("real_networks/domains_by_model", measure="edge_jaccard", domain=domain)["value"])


def edge_ratios(domain_a: str, domain_b: str) -> list[float]:
    """Return the ratio of two domains to the ceiling, network by network."""
    pair = {"domain_a": domain_a, "domain_b": domain_b}
    return list(rows("real_networks/pairs_by_model", measure="edge_jaccard", **pair)["value"])


def agree(measure: str) -> list[float]:
    """Return the rank correlations of every two networks."""
    return list(rows("real_networks/agreement", measure=measure)["correlation"])


def recognised(domain: str) -> tuple[float, float]:
    return span(100 * rows("real_networks/accuracy", domain=domain)["accuracy"])


THREADS = "benchmarks/threads/threads"
LAYERS = ("layer1.0", "layer2.0", "layer3.0", "layer4.0", "attnpool")

CLAIMS: list[tuple[str, Numbers]] = [
    (
        "Quickdraw lies farthest from the other styles, {:.2f} [{:.2f}, {:.2f}] times the spread of a style (infograph "
        "{:.2f})",
        lambda: (
            *apart("standard captions"),
            one(SEPARATION, measure="standardised distance", domain="infograph", model="standard captions"),
        ),
    ),
    (
        "quickdraw to {:.2f} [{:.2f}, {:.2f}], still the farthest",
        lambda: apart("aligned captions"),
    ),
    (
        "finds the style in {:.0f} % of the images ({:.0f} % before)",
        lambda: [
            100 * one(SEPARATION, measure="domain probe", domain="all", model=captions)
            for captions in ("aligned captions", "standard captions")
        ],
    ),
    (
        "on seen classes it changes by {:.2f} to {:.2f} by style",
        lambda: span(moved("seen")),
    ),
    (
        "in quickdraw from {:.2f} to {:.2f}, a difference of {:.2f} [{:.2f}, {:.2f}]",
        lambda: (
            *(held_out_in_quickdraw(captions) for captions in ("standard captions", "aligned captions")),
            *(moved("held-out", column, domain="quickdraw").item() for column in ("difference", "low", "high")),
        ),
    ),
    (
        "cost grows in proportion to images (nodes {:.1f}, {:.1f} and {:.1f} s, edges {:.1f}, {:.1f} and {:.1f} s for "
        "{}, {} and {}), for edges in proportion to kept units ({:.1f}, {:.1f} and {:.1f} s for {:.0f}, {:.0f} and "
        "{:.0f} %), for nodes with the sites ({:.1f}, {:.1f} and {:.1f} s for the last {:.0f}, {:.0f} and all {:.0f})",
        lambda: (
            *growing("images", "node seconds"),
            *growing("images", "edge seconds"),
            *growing("images", "images"),
            *growing("share of units", "edge seconds"),
            *(100 * share for share in growing("share of units", "value")),
            *growing("sites", "node seconds"),
            *growing("sites", "value"),
        ),
    ),
    (
        "The edge pass reaches {:.0f} %, the node pass {:.0f} % of the {:.0f} GFLOP/s",
        lambda: (
            *(100 * rated(what) / rated("matrix products") for what in ("edge", "node")),
            rated("matrix products"),
        ),
    ),
    (
        "takes {:.1f} TFLOP an image with its rule and {:.1f} with midpoint-10",
        lambda: table("benchmarks/scale/study").set_index("rule")["TFLOP an image"][["left-10", "midpoint-10"]],
    ),
    (
        "{:.0f} and {:.0f} hours on one GPU",
        lambda: table("benchmarks/scale/study").set_index("rule")["GPU hours"][["left-10", "midpoint-10"]],
    ),
    (
        "compared in {:.0f} s by five measures, within {:.1f} GiB",
        lambda: single("benchmarks/similarity/similarity", "seconds", "peak GiB"),
    ),
    (
        "all {:,} edges between the heads and MLPs of a ViT-B/32 on 8 images take {:.1f} forward-backward passes of "
        "the tower, with 5 points {:.1f} times that, within {:.1f} GiB",
        lambda: stream_edges("edges"),
    ),
    (
        "the {:,} edges of a ViT-L/14 on 2 images (`--models ViT-L-14 --images-at-once 2`) {:.1f} passes within "
        "{:.1f} GiB",
        lambda: [stream_edges("edges-large")[i] for i in (0, 1, 3)],
    ),
    *(
        (
            f"| {words} | {{:.2f}} | {{:.2f}} |",
            partial(lambda way: rows(THREADS, way=way)[["seconds, quiet", "seconds, 2 busy"]].iloc[0], way),
        )
        for words, way in (
            ("two that spin, PyTorch's default on Linux", "threads that spin"),
            ("two that wait briefly, as scripts set them", "threads that wait briefly"),
            ("two that wait passively", "threads that wait passively"),
            ("one", "one thread"),
            ("one in each of two processes, as in the quickstart", "a process a core, one thread each"),
        )
    ),
    (
        "{:,} listed images are subsampled and merged with {:,} base lines in {:.0f} s of the processor, peak memory "
        "{:.1f} GiB",
        lambda: single("benchmarks/mixtures/mixture", "images listed", "base lines", "CPU seconds", "peak GiB"),
    ),
    (
        "at {:.2f} of the speed of open_clip's trainer by hand ({:.0f} images/s)",
        lambda: single("benchmarks/training/train_clip", "of the trainer by hand", "images per second"),
    ),
    (
        "the ratio of two identical domains is {:.2f} at low and middle and {:.2f} at high noise, "
        "of unrelated ones {:.2f}",
        lambda: (
            alike(rows("trust/ratio", domains="identical", noise=["low", "middle"])["ratio"]),
            one("trust/ratio", "ratio", domains="identical", noise="high"),
            alike(rows("trust/ratio", domains="unrelated")["ratio"]),
        ),
    ),
    (
        "intervals cover {:.1f} to {:.1f} % for similarities of all images, {:.1f} to {:.1f} % for those of parts, "
        "{:.1f} to {:.1f} % for ratios, at {} to {} classes",
        lambda: (
            *covered("similarity of all images"),
            *covered("similarity of parts"),
            *covered("ratio to the ceiling"),
            *span(table("trust/coverage")["n_classes"]),
        ),
    ),
    (
        "degrees of freedom; min(n1, n2) - 1 covers up to {:.0f} %",
        lambda: [max(covered(of, "min(n1, n2) - 1")[1] for of in ("similarity of parts", "ratio to the ceiling"))],
    ),
    *(
        (
            f"| {name} | {kind} | {{}} | {{:.2f}} | {{:.3f}} | {{:.3f}} [{{:.3f}}, {{:.3f}}] | {{:.3f}} |",
            partial(promised, model, kind),
        )
        for name, model in (
            ("rn-tiny, toy", "toy"),
            ("rn-tiny, emoji", "emoji"),
            ("EfficientNet-Lite0", "efficientnet"),
            ("vit-tiny, toy, mean-position", "vit-mean-position"),
        )
        for kind in ("nodes", "edges")
    ),
    (
        "(their distance is {:.3f} of the node scores), but not with zero ({:.2f})",
        lambda: (
            one(f"rules/vit-{name}/promise", "references differ", kind="nodes") for name in ("mean-position", "zero")
        ),
    ),
    (
        "by {:.2f} [{:.2f}, {:.2f}] for nodes and {:.2f} [{:.2f}, {:.2f}] for edges against 80 points",
        lambda: (number for kind in ("nodes", "edges") for number in promised("vit-zero", kind)[3:6]),
    ),
    (
        "sites are worse ({} {:.2f} on the toy)",
        lambda: rows("rules/toy/rules", kind="nodes", rule=promised("toy", "nodes")[0])[["worst at", "worst"]].iloc[0],
    ),
    (
        "some test between domains is significant in {:.1f} to {:.1f} % of the studies",
        lambda: found_nothing("classes alone"),
    ),
    (
        "that share noise, in {:.1f} to {:.1f} % if the tests know them and up to {:.1f} % if not",
        lambda: (
            *found_nothing("families of 4, drawn together"),
            found_nothing("families of 4, taken for single classes")[1],
        ),
    ),
    (
        "up to {:.1f} % by the tests of one model and {:.1f} % by those over 8 or 12",
        lambda: (
            found_nothing("models differ, one is tested")[1],
            max(found_nothing(f"models differ, over {n}")[1] for n in (8, 12)),
        ),
    ),
    (
        "Mantel's test errs in at most {:.1f} %, pairs taken as independent in up to {:.1f} %",
        lambda: 100 * table("trust/mantel")[["mantel", "pairs as independent"]].max(),
    ),
    (
        "(area under precision-recall {:.2f}, node overlap {:.2f}, kernel {:.2f}, edges {:.2f}; guessing {:.2f})",
        lambda: (
            *map(told, ("spearman", "node_overlap", "wl_kernel", "edge_jaccard")),
            alike(rows("measures/measures", case="another domain")["guessing"], 6),
        ),
    ),
    (
        "right in {:.0f} to {:.0f} % of the images (36 classes, guessing {:.0f} %)",
        lambda: (*span(100 * table("emoji/accuracy")["all"]), 100 * alike(table("emoji/accuracy")["chance"], 6)),
    ),
    (
        "two *other* classes in two styles share {:.2f} of the ceiling (class effect on the edge Jaccard index {:.3f} "
        "[{:.3f}, {:.3f}])",
        lambda: (
            of_other_classes("emoji/edge_jaccard_levels"),
            *interval("emoji/edge_jaccard_class_by_domain", what="class effect"),
        ),
    ),
    (
        "Two other classes in two styles share {:.2f} of it, so the least similar pairs",
        lambda: [of_other_classes("quickstart/edge_jaccard_levels")],
    ),
    (
        "where two other classes in two styles share {:.2f} of it. These are circuits",
        lambda: [of_other_classes("vit/edge_jaccard_levels")],
    ),
    (
        "(painting and real), where two other classes in two styles share {:.2f}.",
        lambda: [of_other_classes("pooling_pairs/pair_sharing_levels")],
    ),
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
    (
        "the held-out classes are right in {:.0f} % of the images (guessing {:.0f} %), its other classes in {:.0f} %",
        lambda: quickdraw("held_out", "chance", "seen"),
    ),
    (
        "among the four alone it is {:.0f} % (guessing {:.0f} %), with own-style texts {:.0f} %, "
        "and a held-out class is predicted for {:.0f} % of their images",
        lambda: quickdraw("alone", "chance_alone", "own_style", "predicted_held_out"),
    ),
    (
        "| same style | {:.3f} (the ceiling) | {:.3f} | |",
        lambda: (by_domain("same class, same domain")[0], by_domain("other class, same domain")[0]),
    ),
    (
        "| other style | {:.3f} [{:.3f}, {:.3f}] | {:.3f} | random units {:.3f} |",
        lambda: (
            *by_domain("same class, other domain"),
            by_domain("other class, other domain")[0],
            level("random units"),
        ),
    ),
    (
        "painting and real share {:.2f} [{:.2f}, {:.2f}] of their edges, all other pairs {:.2f} to {:.2f}",
        lambda: (
            *interval("quickstart/edge_jaccard_ratios", domain_a="painting", domain_b="real"),
            *ratios_but("painting", "real"),
        ),
    ),
    ("{} (nodes), and {} and infograph (edges) are lowest", lambda: (lowest("node_overlap"), lowest("edge_jaccard"))),
    (
        "only {} stands out from all five after correction",
        lambda: stands_out("node_overlap") & stands_out("edge_jaccard"),
    ),
    (
        "(rank correlation {:.2f} with the default; under all other changes {:.2f} to {:.0f})",
        lambda: (one("quickstart/order_stability", "rho", varied="baseline"), *other_orders()),
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
        (f"| {trial} | {{:.2f}} | {{:.2f}} | {{:.0f}} [{{:.0f}}, {{:.0f}}] | {{:.0f}} |", partial(in_trial, trial))
        for trial in TRIALS
    ),
    (
        "({:.2f} as they are) and {:.2f} to {:.2f} on unseen ones",
        lambda: (
            tried(TRIALS[0], 0.4, "found").mean(),
            *span(tried(trial, 0.4).mean() for trial in TRIALS if trial != "resample ablation"),
        ),
    ),
    (
        "or of the embedding gave {:.2f} to {:.2f} at 40 %",
        lambda: span(of_one_class(0.4)),
    ),
    (
        "the smallest ended with gives {:.2f} at 66 % and {:.2f} at 40 % ({:.2f} and {:.2f} as they are); one factor "
        "for each site that restores the spread of the kept units helps Fisher ({:.2f} to {:.2f} at 66 %, {:.2f} to "
        "{:.2f} at 40 %) and harms masks ({:.2f} and {:.2f})",
        lambda: (
            *(tried("masks of all sizes cut from the last scores", size).mean() for size in (0.66, 0.4)),
            *(float(selectivity(size, "learned")["value"].iloc[0]) for size in (0.66, 0.4)),
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
    (
        "({:.0f} % right, guessing 6 %)",
        lambda: [accuracy_without("none", -1)],
    ),
    (
        "third layer to their mean costs most ({:.0f} to {:.0f} %)",
        lambda: (accuracy_without("none", -1), accuracy_without("heads", 2)),
    ),
    (
        "edge Jaccard {:.3f} for the same class and style, {:.3f} other style, {:.3f} other class, {:.3f} both",
        lambda: map(
            vit,
            (
                "same class, same domain",
                "same class, other domain",
                "other class, same domain",
                "other class, other domain",
            ),
        ),
    ),
    (
        "Painting and real reach {:.2f} [{:.2f}, {:.2f}] of the ceiling, all others {:.2f} to {:.2f}",
        lambda: (*paired("painting", "real", "vit/edge_jaccard_ratios"), *others_than_painting_and_real()),
    ),
    (
        "exact readers {:.2f} and {:.2f}, exact softmax {:.2f} and {:.2f}, AtP\\* {:.2f} and {:.2f}, plain attribution "
        "{:.2f} and {:.2f}, RelP with patterns {:.2f} and {:.2f}, along activations {:.2f} and {:.2f}, RelP {:.2f} and "
        "{:.2f}, along the input {:.2f} and {:.2f}",
        lambda: (
            number
            for method in (
                *("exact readers", "exact softmax", "AtP*", "plain", "RelP with patterns"),
                *("5 points of activations", "RelP", "5 points of the input"),
            )
            for number in nearest(method)
        ),
    ),
    (
        "the {:.0f} edges between the strongest 3 % of the units",
        lambda: [alike(table("edges-graphs/graphs")["n_edges"], 6)],
    ),
    (
        "exact cuts {:.3f} to {:.3f} by exact readers, {:.3f} to {:.3f} by one gradient",
        lambda: (
            bound
            for method in ("exact-readers", "gradient")
            for bound in span(rows("edges-graphs/graphs", method=method)["spearman"])
        ),
    ),
    (
        "the strongest 10 % alone are right in {:.0f} %, 30 % in {:.0f} % "
        "(all in {:.0f} %; at random {:.0f} and {:.0f} %)",
        lambda: (
            *(few_pairs("kept", fraction) for fraction in (0.1, 0.3, 1.0)),
            *(few_pairs("random", fraction) for fraction in (0.1, 0.3)),
        ),
    ),
    (
        "Two styles share {:.2f} of what two samples of one style share (mean of {:.0f} pairs), "
        "from {:.2f} (quickdraw and real) to {:.2f} (painting and real)",
        lambda: table("pooling_pairs/pair_sharing_ratios")["value"].agg(["mean", "size", "min", "max"]),
    ),
    (
        "other styles grows from {:.2f} to {:.2f} at the input to {:.2f} to {:.2f} at the embedding",
        lambda: (*cka("input"), *cka("attnpool")),
    ),
    (
        "finds the style in {:.0f} % of the images at the input and in {:.0f} to {:.0f} % from layer1.0 on",
        lambda: (probed("input")[0], *probed(*LAYERS)),
    ),
    (
        "{:.2f} of a class's strongest features (two parts of one style {:.2f}, other classes {:.2f}, random {:.2f})",
        lambda: map(
            shared,
            (
                "the same class in two domains",
                "two parts of the same images",
                "two classes in two domains",
                "random features",
            ),
        ),
    ),
    (
        "quickdraw shares least, {:.2f} [{:.2f}, {:.2f}]",
        lambda: interval("shared_features/feature_sharing_summary", group="held-out", domain="quickdraw"),
    ),
    *(
        (
            f"| {setting} | " + " | ".join(["{:.0f} / {:.0f} %"] * 3) + " |",
            partial(lambda of: [n for kind in ("held_out", "alone", "own_style") for n in held_out(of, kind)], setting),
        )
        for setting in ("natural-only", "leave-out", "cg-low", "cg-high", "upper-high")
    ),
    (
        "corrected for {} tests. Circuits do not go with it (node overlap {:.2f} [{:.2f}, {:.2f}]), CKA of class "
        "means at the last site does ({:.2f} [{:.2f}, {:.2f}], p {:.3f}; {:.2f} given accuracy on the other styles), "
        "though among the held-out classes alone this is not significant ({:.2f}, p {:.2f})",
        lambda: (
            len(table("shared_circuitry/relations")),
            *related("overlap", "held_out", "rho", "low", "high"),
            *related("cka", "held_out", "rho", "low", "high", "p_holm", "partial"),
            *related("cka", "alone", "rho", "p_holm"),
        ),
    ),
    (
        "On RN50 its edges are {:.0f} times as fast as one run of the whole tower for each point and unit",
        lambda: [faster("edges")],
    ),
    (
        "scores all RN50 nodes {:.0f} times as fast as the study's site path ({:.2f} against {:.1f} s)",
        lambda: (
            faster("nodes, path of the image against study"),
            *timed("RN50", "nodes, path of the image against study")[1::-1],
        ),
    ),
    *(
        (f"| {written} |", partial(timed, model, scores))
        for model, scores, written in (
            ("RN50", "nodes", "RN50, 224 px | nodes | {:.1f} s | {:.1f} s | {:.1f} | {}"),
            ("RN50", "edges", "RN50, 224 px | edges | {:.0f} s | {:.1f} s | {:.0f} | {}"),
            (
                *("RN50", "nodes, gauss-radau-5"),
                "RN50, 224 px | nodes, Gauss-Radau 5 | {:.1f} s | {:.1f} s | {:.1f} | another rule",
            ),
            (
                *("RN50", "edges, gauss-radau-4"),
                "RN50, 224 px | edges, Gauss-Radau 4 | {:.0f} s | {:.1f} s | {:.0f} | another rule",
            ),
            ("rn-tiny", "nodes", "rn-tiny, 64 px | nodes | {:.2f} s | {:.2f} s | {:.1f} | {}"),
            ("rn-tiny", "edges", "rn-tiny, 64 px | edges | {:.2f} s | {:.2f} s | {:.0f} | {}"),
            (
                *("rn-tiny", "patching"),
                "rn-tiny, 64 px | exact patching of all 823 units, 16 images | {:.1f} s | {:.2f} s | {:.1f} | {}",
            ),
        )
    ),
    (
        "In all three networks photographs share the least with the other styles, by units and by edges "
        "(edges {:.3f}, {:.3f}, {:.3f}; clip art {:.3f} to {:.3f})",
        lambda: (*shared_edges("photo"), *span(shared_edges("clipart"))),
    ),
    (
        "the least alike ({:.2f}, {:.2f}, {:.2f} of the ceiling), and clip art and shaded emoji the most by edges "
        "({:.2f}, {:.2f}, {:.2f})",
        lambda: (*edge_ratios("photo", "sketch"), *edge_ratios("clipart", "noto")),
    ),
    (
        "agrees by edges {:.2f}, {:.2f}, {:.2f} and by units {:.2f}, {:.2f}, {:.2f}",
        lambda: (*agree("edge_jaccard"), *agree("node_overlap")),
    ),
    (
        "Clip art shares {:.3f} [{:.3f}, {:.3f}] more of its edges with the others than photographs do, but three "
        "networks can give no p below {:.2f}",
        lambda: (
            one(OVER_MODELS, column, measure="edge_jaccard", domain_a="clipart", domain_b="photo")
            for column in ("difference", "low", "high", "p")
        ),
    ),
    (
        "photographs {:.0f} to {:.0f} %, clip art {:.0f} to {:.0f} %, emoji {:.0f} to {:.0f} %, outlines {:.0f} to "
        "{:.0f} %",
        lambda: (number for domain in ("photo", "clipart", "noto", "sketch") for number in recognised(domain)),
    ),
]


OF_THE_EXAMPLE = {"40"}
"""Percentages of README's example, which its own test runs."""


def in_one_line(text: str) -> str:
    """Return a text with single spaces, and hyphens for minus signs."""
    return re.sub(r"\s+", " ", text.replace("\N{MINUS SIGN}", "-"))


@pytest.mark.parametrize(("phrase", "numbers"), CLAIMS, ids=[phrase for phrase, _ in CLAIMS])
def test_readme_says_what_the_tables_give(phrase: str, numbers: Numbers) -> None:
    said = re.sub(r"-(0\.0+)(?!\d)", r"\1", phrase.format(*numbers()))  # no minus zero
    assert said in in_one_line(DOCS), f"neither README nor RESULTS says: {said}"


@pytest.mark.parametrize("page", ["README.md", "docs/limits.md"])
def test_pages_quote_numbers_that_the_results_have(page: str) -> None:
    prose = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    measured = set(re.findall(r"(?<![\d.])-?\d+\.\d\d+", prose)) | set(re.findall(r"(\d+)(?= %)", prose))
    known = set(re.findall(r"-?\d+(?:\.\d+)?", RESULTS_PAGE)) | OF_THE_EXAMPLE
    assert sorted(measured - known) == []
