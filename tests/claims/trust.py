"""Claims about what numbers are read against, and rules of quadrature."""

import math
from functools import partial

import pandas as pd

from tests.support.committed_tables import (
    Numbers,
    alike,
    made_with,
    one,
    rows,
    span,
    table,
)


def covered(of: str, degrees: str = "Satterthwaite") -> tuple[float, float]:
    return span(100 * rows("trust/coverage", of=of, degrees=degrees)["coverage"])


def promised(model: str, kind: str) -> list[object]:
    """Return rule, cost, promise, what was measured with its interval, and the error of the study's rule."""
    columns = [
        "rule",
        "cost",
        "promised",
        "measured",
        "low",
        "high",
        "error of the study's rule",
    ]
    return list(rows(f"rules/{model}/promise", kind=kind)[columns].iloc[0])


MODELS = (
    ("rn-tiny, toy", "toy"),
    ("rn-tiny, emoji", "emoji"),
    ("EfficientNet-Lite0", "efficientnet"),
    ("vit-tiny, toy, mean-position", "vit-mean-position"),
)
"""Models whose rules were chosen, as the page names them, and their folders."""


def separated(case: str) -> pd.Series:
    return rows("measures/measures", case=case).set_index("measure")["value"]


def found_nothing(case: str) -> tuple[float, float]:
    """Return how often, in percent, some test is significant without a difference."""
    return span(100 * rows(ERRORS, case=case)["error"])


def in_percent(values: "pd.Series[float]") -> tuple[float, float]:
    return span(100 * values)


def both_degrees(of: str) -> list[float]:
    return [
        end
        for degrees in ("Satterthwaite", "min(n1, n2) - 1")
        for end in covered(of, degrees)
    ]


def promises() -> pd.DataFrame:
    return pd.concat([table(f"rules/{model}/promise") for _, model in MODELS])


def points(model: str) -> int:
    """Return the number of points of the integral that errors are measured against."""
    return int(made_with(f"rules/{model}")["reference"].removeprefix("midpoint-"))


def worst_site() -> float:
    """Return the error of the chosen rule of node scores at `act1`, which is more than its mean over sites."""
    (found,) = rows(
        "rules/toy/rules", kind="nodes", rule=promised("toy", "nodes")[0]
    ).to_dict("records")
    assert found["worst at"] == "act1"
    assert found["worst"] > one("rules/toy/promise", "measured", kind="nodes")
    return float(found["worst"])


ERRORS = "trust/family_wise_error"
SIX = (
    "node_overlap",
    "edge_jaccard",
    "wl_kernel",
    "spearman",
    "cosine",
    "edge_spearman",
)

CLAIMS: dict[str, Numbers] = {
    "at {} to {} classes 95 % intervals cover the truth in {:.1f} to {:.1f} % of {:,} simulated studies. "
    "Where a class in eight shares nearly everything and the others little, intervals of ratios cover {:.1f} to {:.1f} "
    "%": lambda: [
        *span(table("trust/coverage")["n_classes"]),
        *in_percent(rows("trust/coverage", degrees="Satterthwaite")["coverage"]),
        made_with("trust")["draws"],
        *in_percent(rows("trust/skewed", shares="skewed")["coverage"]),
    ],
    **{
        f"| {named} | {{:.1f}} to {{:.1f}} % | {{:.1f}} to {{:.1f}} % |": partial(
            both_degrees, of
        )
        for named, of in {
            "similarities of whole sets of images": "similarity of all images",
            "similarities of parts": "similarity of parts",
            "ratios to the ceiling": "ratio to the ceiling",
        }.items()
    },
    "intervals of ratios cover {:.1f} to {:.1f} % where shares are even": lambda: (
        in_percent(rows("trust/skewed", shares="even")["coverage"])
    ),
    **{
        f"{says} in up to {{:.1f}} % of the simulated studies, tests over several models in up to {{:.1f}} %": lambda: (
            found_nothing("models differ, one is tested")[1],
            max(found_nothing(f"models differ, over {n}")[1] for n in (8, 12)),
        )
        for says in (
            "tests over one trained model do so",
            "they find differences that are not there",
        )
    },
    "The {:.1f} % are of six domains, the {:.1f} % of three. Where the rate is {:.1f} %, there are so few families or "
    "domains that no corrected p can be under {}": lambda: [
        *(
            100 * one(ERRORS, "error", case="models differ, one is tested", domains=n)
            for n in (6, 3)
        ),
        *(found_nothing("families of 4, drawn together")[0], 0.05),
    ],
    "differs between models by a factor of {:.1f}": lambda: [math.exp(0.25)],
    **{
        f"| {row} | {{:.1f}} to {{:.1f}} % |": partial(found_nothing, case)
        for row, case in {
            "classes | classes": "classes alone",
            "families of classes share noise | families": "families of 4, drawn together",
            "families of classes share noise | classes, as if each were "
            "single": "families of 4, taken for single classes",
            "models | classes of one model": "models differ, one is tested",
        }.items()
    },
    "| models | models, {} or {} of them | {:.1f} to {:.1f} % |": lambda: [
        *(8, 12),
        *in_percent(
            rows(ERRORS, case=["models differ, over 8", "models differ, over 12"])[
                "error"
            ]
        ),
    ],
    "| Mantel's test | {:.1f} to {:.1f} % |": lambda: in_percent(
        table("trust/mantel")["mantel"]
    ),
    "| pairs as if independent | {:.1f} to {:.1f} % |": lambda: in_percent(
        table("trust/mantel")["pairs as independent"]
    ),
    "tests over one model find differences that are not there in up to {:.1f} % of simulated studies": lambda: [
        found_nothing("models differ, one is tested")[1]
    ],
    "it is {:.2f} to {:.2f} for identical ones, and {:.2f} for unrelated ones": lambda: [
        *span(rows("trust/ratio", domains="identical")["ratio"]),
        alike(rows("trust/ratio", domains="unrelated")["ratio"]),
    ],
    **{
        f"| {domains} | {{:.2f}} | {{:.2f}} | {{:.2f}} |": partial(
            lambda of: [
                one("trust/ratio", "ratio", domains=of, noise=noise)
                for noise in ("low", "middle", "high")
            ],
            domains,
        )
        for domains in ("identical", "unrelated")
    },
    "with an area under precision-recall of {:.3f} to {:.3f}; depth bias has {:.3f}": lambda: [
        *span(separated("fresh images")[list(SIX)]),
        separated("fresh images")["depth_bias"],
    ],
    "In another domain: Spearman {:.2f}, cosine {:.2f}, node overlap {:.2f}, kernel {:.2f}, edges {:.2f}": lambda: [
        separated("another domain")[measure]
        for measure in (
            "spearman",
            "cosine",
            "node_overlap",
            "wl_kernel",
            "edge_jaccard",
        )
    ],
    "The rank correlation of node scores separates circuits of one class in other domains {}:": lambda: [
        {"spearman": "best"}[str(separated("another domain").idxmax())]
    ],
    **{
        f"| {named} | {{:.3f}} |": partial(
            lambda measure: [separated("another domain")[measure]], measure
        )
        for named, measure in {
            "rank correlation of node scores": "spearman",
            "cosine of node scores": "cosine",
            "node overlap": "node_overlap",
            "Weisfeiler-Lehman kernel": "wl_kernel",
            "rank correlation of edge scores": "edge_spearman",
            "edge Jaccard index": "edge_jaccard",
            "depth bias": "depth_bias",
        }.items()
    },
    "| guessing | {:.3f} |": lambda: [
        alike(rows("measures/measures", case="another domain")["guessing"], 6)
    ],
    "the six put {:.0f} to {:.0f} % in the wrong order, depth bias {:.0f} to {:.0f} %": lambda: [
        end
        for measures in (list(SIX), ["depth_bias"])
        for end in in_percent(
            rows(
                "measures/measures", case=["units permuted", "noise"], measure=measures
            )["value"]
        )
    ],
    "For {} of {} kinds of scores a rule that costs {:.2f} to {:.2f} of the study's errs by {:.3f} to {:.3f}": lambda: [
        len(cheap := promises().query("cost < 1")),
        len(promises()),
        *span(cheap["cost"]),
        *span(cheap["measured"]),
    ],
    "whose error there does not pass {} (*promised*). *Measured* is its error on other circuits, against {} points "
    "(EfficientNet-Lite0: {}, ViT: {})": lambda: [
        alike(promises()["asked"], 1),
        *(points(model) for model in ("toy", "efficientnet", "vit-mean-position")),
    ],
    **{
        f"| {name} | {kind} | {{}} | {{:.2f}} | {{:.3f}} | {{:.3f}} [{{:.3f}}, {{:.3f}}] | {{:.3f}} |": partial(
            promised, model, kind
        )
        for name, model in MODELS
        for kind in ("nodes", "edges")
    },
    **{
        f"In {{}} of {{}} rows the measured error passes the promised one, {within} its interval": lambda: [
            len(promises().query("promised < measured and low < promised")),
            len(promises()),
        ]
        for within in ("which lies within", "within")
    },
    "In {} of {} rows the study's rule errs by {}. Single sites err by {} {} the mean over sites: `act1` by {:.2f} on "
    "the "
    "toy": lambda: [
        int((promises()["measured"] < promises()["error of the study's rule"]).sum()),
        *(len(promises()), "more"),
        *("more", "than"),
        worst_site(),
    ],
    "of the toy after {} epochs the references": lambda: [
        made_with("rules/vit-zero")["checkpoint"].split("epoch_")[1].removesuffix(".pt")
    ],
    "(their distance is {:.3f} of the node scores), and not with zero ({:.2f}). With zero the rule {} errs by {:.2f} "
    "[{:.2f}, "
    "{:.2f}] for nodes and by {:.2f} [{:.2f}, {:.2f}] for edges against {} points": lambda: [
        *(
            one(f"rules/vit-{name}/promise", "references differ", kind="nodes")
            for name in ("mean-position", "zero")
        ),
        promised("vit-zero", "edges")[0],
        *(
            number
            for kind in ("nodes", "edges")
            for number in promised("vit-zero", kind)[3:6]
        ),
        points("vit-zero"),
    ],
}
