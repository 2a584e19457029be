"""Claims about own parts in three real networks."""

from functools import partial

import pandas as pd

from tests.support.committed_tables import Numbers, interval, made_with, one, rows, span, table

OWN, OTHERS = "own class", "other classes"
NETWORKS = [f"efficientnet-lite{n}" for n in range(3)]
PAIRS = [(NETWORKS[0], NETWORKS[1]), (NETWORKS[0], NETWORKS[2]), (NETWORKS[1], NETWORKS[2])]
DRAWN = ["clipart", "noto", "fluent3d", "openmoji"]
STYLES = ["photo", *DRAWN]
IN_COMMON = ["one class in two styles", "two classes in one style", "two classes in two styles"]
SAME, OTHER, NO = "the same part", "other parts", "no own part"


def left(model: str, found_on: str, style: str, answers: str = OWN, cut: str = "part") -> float:
    named = {"model": model, "part_domain": found_on, "domain": style}
    return one("real_networks/left", answers=answers, cut=cut, **named)


def cells(model: str, pairs: list[tuple[str, str]]) -> list[float]:
    """Return of styles (found on, tested on) what own class, other classes, and own class without random units keep."""
    kinds = ((OWN, "part"), (OTHERS, "part"), (OWN, "random"))
    return [left(model, *pair, *kind) for pair in pairs for kind in kinds]


def to_drawings(answers: str = OWN, cut: str = "part") -> tuple[float, float]:
    """Return the span over networks and drawn styles of what is left without the part of photographs."""
    return span(left(model, "photo", style, answers, cut) for model in NETWORKS for style in DRAWN)


def to_photographs(answers: str = OWN, cut: str = "part") -> tuple[float, float]:
    """Return the span over networks and drawn styles of what photographs keep without the part of drawings."""
    return span(left(model, style, "photo", answers, cut) for model in NETWORKS for style in DRAWN)


def in_common(kind: str, column: str = "value") -> list[float]:
    return [one("real_networks/overlap", column, model=model, parts=kind) for model in NETWORKS]


def verdicts(**asked: object) -> "pd.Series[int]":
    """Return how many classes and pairs of styles have each verdict."""
    found = rows("real_networks/verdicts", **asked)["verdict"]
    return found.value_counts().reindex([SAME, OTHER, NO], fill_value=0)


def of_stage(stage: str) -> list[float]:
    """Return by network what parts share there: of one class in two styles, and of two classes in one."""
    kinds = IN_COMMON[:2]
    found = partial(one, "real_networks/depth", "overlap", stage=stage)
    return [found(model=model, parts=kind) for model in NETWORKS for kind in kinds]


def agree(what: str, column: str = "rho") -> list[float]:
    """Return the rank correlations of every two networks, or their p values."""
    named = {"what": what, "with": what}
    return [one("real_networks/agreement", column, model=a, with_model=b, **named) for a, b in PAIRS]


def beside(what: str, cause: str, column: str = "rho") -> list[float]:
    """Return within each network the rank correlations of parts with a cause, or their p values."""
    return [one("real_networks/agreement", column, model=m, with_model=m, what=what, **{"with": cause}) for m in NETWORKS]


def with_p(rho: list[float], p: list[float]) -> list[float]:
    return [number for pair in zip(rho, p, strict=True) for number in pair]


def colours(what: str, column: str = "rho") -> list[tuple[float, float]]:
    """Return within each network the span of the correlations with histograms of colours over levels."""
    found = table("real_networks/agreement")
    found = found[(found["what"] == what) & found["with"].str.startswith("colours")]
    return [span(found.loc[found["model"] == model, column]) for model in NETWORKS]


def accuracy(style: str) -> list[float]:
    return [100 * one("real_networks/accuracy", model=model, domain=style) for model in NETWORKS]


def units_in_common(model: str) -> list[float]:
    """Return what parts share by kind, with intervals over classes, and chance."""
    shared = [interval("real_networks/overlap", model=model, parts=kind) for kind in IN_COMMON]
    return [*(number for some in shared for number in some), rows("real_networks/overlap", model=model)["chance"].mean()]


AGREED = {
    "units that parts of one class share": "one class",
    "what is left of the class": "left",
    "units that parts of two classes share": "two classes",
}
CAUSES = {
    "units of one class, with units of two classes": ("one class", "two classes"),
    "what is left, with units of two classes": ("left", "two classes"),
}
ALL_STYLES = [*STYLES, "cartoon", "silhouette", "sketch"]
NAMES = {f"EfficientNet-Lite{n}": model for n, model in enumerate(NETWORKS)}
CELL = "{:.2f}, {:.2f}, {:.2f}"
CLAIMS: dict[str, Numbers] = {
    "{} classes have parts with {} % of the hidden channels": lambda: [
        len(made_with("real_networks")["classes"]),
        2,
    ],
    "of its right answers in photographs without the part that a drawn style found, by style and network, and {:.2f} to "
    "{:.2f} without random units": lambda: to_photographs(cut="random"),
    **{
        f"| {name}, photographs | {' | '.join([CELL] * 4)} |": partial(cells, model, [(d, "photo") for d in DRAWN])
        for name, model in NAMES.items()
    },
    **{
        f"| {name} | {' | '.join([CELL] * 5)} |": partial(cells, model, [("photo", d) for d in STYLES])
        for name, model in NAMES.items()
    },
    **{
        f"| {name}, verdicts | {{}}, {{}}, {{}} | {{}}, {{}}, {{}} |": partial(
            lambda model: [*verdicts(model=model, domain_a="photo"), *verdicts(model=model, domain_a=DRAWN)], model
        )
        for name, model in NAMES.items()
    },
    **{
        f"| {name}, units | {{:.3f}} [{{:.3f}}, {{:.3f}}] | {{:.3f}} [{{:.3f}}, {{:.3f}}] | {{:.3f}} [{{:.3f}}, {{:.3f}}] "
        "| {:.3f} |": partial(units_in_common, model)
        for name, model in NAMES.items()
    },
    **{
        f"| `{stage}` | {' | '.join(['{:.3f}, {:.3f}'] * 3)} |": partial(of_stage, stage)
        for stage in ("bn1", *(f"blocks.{n}" for n in range(1, 7)))
    },
    **{
        f"| {name} | {{:.2f}} ({{:.2f}}) | {{:.2f}} ({{:.2f}}) | {{:.2f}} ({{:.2f}}) |": partial(
            lambda what: with_p(agree(what), agree(what, "p")), what
        )
        for name, what in AGREED.items()
    },
    **{
        f"| {name} | {{:.2f}} ({{:.2f}}) | {{:.2f}} ({{:.2f}}) | {{:.2f}} ({{:.2f}}) |": partial(
            lambda what, cause: with_p(beside(what, cause), beside(what, cause, "p")), *asked
        )
        for name, asked in CAUSES.items()
    },
    **{
        f"| {name}, colours | {{:.2f}} to {{:.2f}} | {{:.2f}} to {{:.2f}} | {{:.2f}} to {{:.2f}} |": partial(
            lambda what: [end for ends in colours(what) for end in ends], what
        )
        for name, what in list(AGREED.items())[:2]
    },
    **{f"| {style} | {{:.0f}} | {{:.0f}} | {{:.0f}} |": partial(accuracy, style) for style in ALL_STYLES},
}
