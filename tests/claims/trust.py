"""Claims about what numbers are read against, and rules of quadrature."""

from functools import partial

import pandas as pd

from tests.support.committed_tables import Numbers, alike, one, rows, span, table


def covered(of: str, degrees: str = "Satterthwaite") -> tuple[float, float]:
    return span(100 * rows("trust/coverage", of=of, degrees=degrees)["coverage"])


def promised(model: str, kind: str) -> list[object]:
    """Return rule, cost, promise, what was measured with its interval, and the error of the study's rule."""
    columns = ["rule", "cost", "promised", "measured", "low", "high", "error of the study's rule"]
    return list(rows(f"rules/{model}/promise", kind=kind)[columns].iloc[0])


MODELS = (
    ("rn-tiny, toy", "toy"),
    ("rn-tiny, emoji", "emoji"),
    ("EfficientNet-Lite0", "efficientnet"),
    ("vit-tiny, toy, mean-position", "vit-mean-position"),
)
"""Models whose rules were chosen, as the page names them, and their folders."""


def above_the_promise() -> list[bool]:
    found = pd.concat([table(f"rules/{model}/promise") for _, model in MODELS])
    return list(found["measured"] > found["promised"])


def separated(case: str) -> pd.Series:
    found = rows("measures/measures", case=case).set_index("measure")["value"]
    return found.drop("depth_bias")


NAMED = {"spearman": "rank correlation of node scores"}


def found_nothing(case: str) -> tuple[float, float]:
    """Return how often, in percent, some test is significant without a difference."""
    return span(100 * rows("trust/family_wise_error", case=case)["error"])


CLAIMS: dict[str, Numbers] = {
    "the ratio of two identical domains is {:.2f} at low and middle and {:.2f} at high noise, "
    "of unrelated ones {:.2f}": lambda: (
        alike(rows("trust/ratio", domains="identical", noise=["low", "middle"])["ratio"]),
        one("trust/ratio", "ratio", domains="identical", noise="high"),
        alike(rows("trust/ratio", domains="unrelated")["ratio"]),
    ),
    "intervals cover {:.1f} to {:.1f} % for similarities of all images, {:.1f} to {:.1f} % for those of parts, "
    "{:.1f} to {:.1f} % for ratios, at {} to {} classes": lambda: (
        *covered("similarity of all images"),
        *covered("similarity of parts"),
        *covered("ratio to the ceiling"),
        *span(table("trust/coverage")["n_classes"]),
    ),
    "degrees of freedom; min(n1, n2) - 1 covers up to {:.0f} %": lambda: [
        max(covered(of, "min(n1, n2) - 1")[1] for of in ("similarity of parts", "ratio to the ceiling"))
    ],
    **{
        f"| {name} | {kind} | {{}} | {{:.2f}} | {{:.3f}} | {{:.3f}} [{{:.3f}}, {{:.3f}}] | {{:.3f}} |": partial(
            promised, model, kind
        )
        for name, model in MODELS
        for kind in ("nodes", "edges")
    },
    "(their distance is {:.3f} of the node scores), but not with zero ({:.2f})": lambda: (
        one(f"rules/vit-{name}/promise", "references differ", kind="nodes") for name in ("mean-position", "zero")
    ),
    "by {:.2f} [{:.2f}, {:.2f}] for nodes and {:.2f} [{:.2f}, {:.2f}] for edges against 80 points": lambda: (
        number for kind in ("nodes", "edges") for number in promised("vit-zero", kind)[3:6]
    ),
    "sites are worse ({} {:.2f} on the toy)": lambda: rows(
        "rules/toy/rules", kind="nodes", rule=promised("toy", "nodes")[0]
    )[["worst at", "worst"]].iloc[0],
    "some test between domains is significant in {:.1f} to {:.1f} % of the studies": lambda: found_nothing(
        "classes alone"
    ),
    "it is so in {:.1f} to {:.1f} % if the tests know the families, and in up to {:.1f} % if not": lambda: (
        *found_nothing("families of 4, drawn together"),
        found_nothing("families of 4, taken for single classes")[1],
    ),
    "find a difference that is not there in up to {:.1f} % of the studies**, tests over 8 or 12 models in up to "
    "{:.1f} %": lambda: (
        found_nothing("models differ, one is tested")[1],
        max(found_nothing(f"models differ, over {n}")[1] for n in (8, 12)),
    ),
    "tests over one model find differences that are not there in up to {:.1f} % of simulated studies": lambda: [
        found_nothing("models differ, one is tested")[1]
    ],
    "in {} of {} rows the error measured on others is larger": lambda: (
        sum(above_the_promise()),
        len(above_the_promise()),
    ),
    "Mantel's test errs in at most {:.1f} %, pairs taken as independent in up to {:.1f} %": lambda: (
        100 * table("trust/mantel")[["mantel", "pairs as independent"]].max()
    ),
    "those of other classes (area under precision-recall at least {:.3f}), and puts at most {:.0f} % of the "
    "permuted or noisy circuits in the wrong order": lambda: (
        separated("fresh images").min(),
        100 * max(separated(case).max() for case in ("units permuted", "noise")),
    ),
    "The {} separates circuits of one class in other domains best (area under precision-recall {:.3f}, cosine "
    "{:.3f}, node overlap {:.2f}, kernel {:.2f}, edges {:.2f}; guessing {:.2f})": lambda: (
        NAMED[str(separated("another domain").idxmax())],
        *(
            separated("another domain")[measure]
            for measure in ("spearman", "cosine", "node_overlap", "wl_kernel", "edge_jaccard")
        ),
        alike(rows("measures/measures", case="another domain")["guessing"], 6),
    ),
}
