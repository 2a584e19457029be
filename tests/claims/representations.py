"""Claims about representations, features, embeddings and generalization."""

from functools import partial

import pandas as pd

from tests.support.committed_tables import Numbers, interval, one, rows, span, table


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
]
