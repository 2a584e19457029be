"""Claims about own parts in three real networks."""

from functools import partial

import pandas as pd

from tests.support.committed_tables import Numbers, made_with, span, table

OWN, OTHERS = "own class", "other classes"
DRAWN = ["clipart", "noto", "fluent3d", "openmoji"]
STYLES = {f"efficientnet-lite{n}": DRAWN if n < 2 else ["clipart", "openmoji"] for n in range(3)}
"""Drawn styles by network."""
TWO = list(STYLES)[:2]
KINDS = ["one class in two styles", "two classes in one style", "two classes in two styles"]
VERDICTS = ["the same part", "other parts", "no own part"]


def found(name: str, **equal: object) -> pd.DataFrame:
    """Return the rows of a table of the three networks."""
    both = pd.concat([table(f"real_networks/{name}"), table(f"real_networks/lite2/{name}")])
    for column, value in equal.items():
        both = both[both[column] == value]
    assert len(both), f"{name} has no row with {equal}"
    return both


def one(name: str, column: str = "value", **equal: object) -> float:
    (value,) = found(name, **equal)[column]
    return float(value)


def left(model: str, found_on: str, style: str, answers: str = OWN, cut: str = "part") -> float:
    return one("left", model=model, part_domain=found_on, domain=style, answers=answers, cut=cut)


def cells(model: str, pairs: list[tuple[str, str]]) -> list[float]:
    """Return of styles (found on, tested on) what own class, other classes, and own class without random units keep."""
    kinds = ((OWN, "part"), (OTHERS, "part"), (OWN, "random"))
    return [left(model, *pair, *kind) for pair in pairs for kind in kinds]


def to_drawings(answers: str = OWN, cut: str = "part") -> tuple[float, float]:
    """Return the span over networks and drawn styles of what is left without the part of photographs."""
    return span(left(model, "photo", style, answers, cut) for model, drawn in STYLES.items() for style in drawn)


def to_photographs(answers: str = OWN, cut: str = "part") -> tuple[float, float]:
    """Return the span over networks and drawn styles of what photographs keep without the part of drawings."""
    return span(left(model, style, "photo", answers, cut) for model, drawn in STYLES.items() for style in drawn)


def of_pairs(photo: bool, model: str | None = None) -> pd.DataFrame:
    """Return the verdicts of pairs of photographs with drawings, or of two drawn styles."""
    pairs = found("verdicts") if model is None else found("verdicts", model=model)
    return pairs[(pairs["domain_a"] == "photo") == photo]


def same_part() -> list[int]:
    """Return in how many pairs the part is the same, and how many there are: with photographs, and of drawings."""
    kinds = [of_pairs(photo)["verdict"] for photo in (True, False)]
    return [number for verdicts in kinds for number in ((verdicts == VERDICTS[0]).sum(), len(verdicts))]


def taken() -> list[int]:
    """Return in how many pairs each part leaves a fifth of the class or less in the other style."""
    return [(of_pairs(photo)[["a_on_b", "b_on_a"]].max(axis=1) <= 0.2).sum() for photo in (True, False)]


def verdicts(model: str) -> list[int]:
    return [(of_pairs(photo, model)["verdict"] == verdict).sum() for photo in (True, False) for verdict in VERDICTS]


def in_common(kind: str, column: str = "value") -> tuple[float, float]:
    return span(found("overlap", parts=kind)[column])


def units_in_common(model: str) -> list[float]:
    """Return what parts share by kind, with intervals over classes, and chance."""
    shared = [one("overlap", column, model=model, parts=kind) for kind in KINDS for column in ("value", "low", "high")]
    return [*shared, found("overlap", model=model)["chance"].mean()]


def of_stage(stage: str) -> list[float]:
    """Return by network what parts share there: of one class in two styles, and of two classes in one."""
    return [one("depth", "overlap", stage=stage, model=model, parts=kind) for model in STYLES for kind in KINDS[:2]]


def agree(what: str) -> list[float]:
    """Return rank correlation of two networks over pairs of styles, and its p value."""
    named = {"model": TWO[0], "with_model": TWO[1], "what": what, "with": what}
    return [one("agreement", column, **named) for column in ("rho", "p")]


def beside(what: str) -> list[float]:
    """Return within two networks rank correlation of parts of one class with parts of two, and its p value."""
    named = [{"model": model, "with_model": model, "what": what, "with": "two classes"} for model in TWO]
    return [one("agreement", column, **asked) for asked in named for column in ("rho", "p")]


def colours(what: str) -> list[float]:
    """Return within two networks the span of the rank correlations with colours over levels, and the least p."""
    numbers = list[float]()
    for model in TWO:
        by_levels = found("agreement", model=model, what=what)
        by_levels = by_levels[by_levels["with"].str.startswith("colours")]
        numbers += [*span(by_levels["rho"]), by_levels["p"].min()]
    return numbers


def ends() -> list[float]:
    """Return what the two styles share that share the fewest units, by network, and those that share the most."""
    pairs = [found("pairs", model=model).set_index(["domain_a", "domain_b"])["one class"] for model in TWO]
    assert {shared.idxmin() for shared in pairs} == {("photo", "openmoji")}
    assert {shared.idxmax() for shared in pairs} == {("noto", "fluent3d")}
    return [*(shared.min() for shared in pairs), *(shared.max() for shared in pairs)]


def accuracy(style: str) -> list[float]:
    return [100 * one("accuracy", model=model, domain=style) for model in STYLES]


NAMES = {model: f"EfficientNet-Lite{n}" for n, model in enumerate(STYLES)}
CELL, NONE = "{:.2f}, {:.2f}, {:.2f}", "\N{EN DASH}"
INTERVAL = "{:.3f} [{:.3f}, {:.3f}]"
AGREED = {
    "units that parts of one class share": "one class",
    "what is left of the class": "left",
    "units that parts of two classes share": "two classes",
}


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


CLAIMS: dict[str, Numbers] = {
    "{} classes have parts with {} % of the hidden channels": lambda: [len(made_with("real_networks")["classes"]), 2],
    "a class keeps {:.2f} to {:.2f} of its right answers in photographs without the part that drawings found, and "
    "{:.2f} to {:.2f} without random units": lambda: [*to_photographs(), *to_photographs(cut="random")],
    "Without it a class keeps {:.2f} to {:.2f} of its right answers there": to_photographs,
    **{
        row(f"{NAMES[model]}, in photographs", *(CELL if style in drawn else NONE for style in DRAWN)): partial(
            cells, model, [(style, "photo") for style in drawn]
        )
        for model, drawn in STYLES.items()
    },
    "a class keeps {:.2f} to {:.2f} of its right answers in drawings without the part that photographs found, and "
    "{:.2f} to {:.2f} without random units; other classes keep {:.2f} to {:.2f}": lambda: [
        *to_drawings(),
        *to_drawings(cut="random"),
        *to_drawings(OTHERS),
    ],
    "part that photographs found, with random units, and other classes: {:.2f} to {:.2f}, {:.2f} to {:.2f}, {:.2f} to "
    "{:.2f}": lambda: [*to_drawings(), *to_drawings(cut="random"), *to_drawings(OTHERS)],
    **{
        row(f"{NAMES[model]}, in drawings", CELL, *(CELL if style in drawn else NONE for style in DRAWN)): partial(
            cells, model, [("photo", style) for style in ["photo", *drawn]]
        )
        for model, drawn in STYLES.items()
    },
    "Cells are of {} to {} classes": lambda: [int(end) for end in span(found("left")["n_classes"])],
    "it is in {} of {} cases, and between two drawn styles in {} of {}": same_part,
    "Each part takes the class in the other style in {} cases with photographs, and in {} of drawings": taken,
    **{row(f"{name}, cases", "{}, {}, {}", "{}, {}, {}"): partial(verdicts, model) for model, name in NAMES.items()},
    "share {:.3f} to {:.3f} of their units in three networks, parts of two classes in one style {:.3f} to {:.3f}, and "
    "chance is {:.3f} to {:.3f}": lambda: [
        *in_common(KINDS[0]),
        *in_common(KINDS[1]),
        *in_common(KINDS[1], "chance"),
    ],
    "Of the three strongest edges into each unit they share {:.4f} to {:.4f}, and {:.4f} to {:.4f}": lambda: [
        *in_common(KINDS[0], "edges"),
        *in_common(KINDS[1], "edges"),
    ],
    **{
        row(f"{name}, units", INTERVAL, INTERVAL, INTERVAL, "{:.3f}"): partial(units_in_common, model)
        for model, name in NAMES.items()
    },
    "in `blocks.6` {:.3f} to {:.3f}, where parts of two classes in one style share {:.3f} to {:.3f}; up to `blocks.3` "
    "{:.3f} to {:.3f}": lambda: [
        *span(of_stage("blocks.6")[::2]),
        *span(of_stage("blocks.6")[1::2]),
        *span(value for n in (1, 2, 3) for value in of_stage(f"blocks.{n}")[::2]),
    ],
    **{
        row(f"`{stage}`", *["{:.3f}, {:.3f}"] * 3): partial(of_stage, stage)
        for stage in ("bn1", *(f"blocks.{n}" for n in range(1, 7)))
    },
    "(rank correlation {:.2f}, p {:.3f}), and colours order the pairs in part so ({:.2f} to {:.2f} in Lite0, p from "
    "{:.3f} on; {:.2f} to {:.2f} in Lite1, p from {:.3f} on)": lambda: [*agree("one class"), *colours("one class")],
    "between a photograph and OpenMoji ({:.3f} in Lite0, {:.3f} in Lite1) and emoji of Noto and Fluent ({:.3f} and "
    "{:.3f})": ends,
    **{row(f"{name}, Lite0 and Lite1", "{:.2f}", "{:.3f}"): partial(agree, what) for name, what in AGREED.items()},
    **{
        row(f"{name}, with units of two classes", *["{:.2f} ({:.3f})"] * 2): partial(beside, what)
        for name, what in list(AGREED.items())[:2]
    },
    **{
        row(f"{name}, with colours", *["{:.2f} to {:.2f} ({:.3f})"] * 2): partial(colours, what)
        for name, what in list(AGREED.items())[:2]
    },
    "Of photographs they recognise {:.0f} to {:.0f} %, of clip art {:.0f} to {:.0f} %, of thin outlines {:.0f} to "
    "{:.0f} %": lambda: [end for style in ("photo", "clipart", "sketch") for end in span(accuracy(style))],
    "Right images of each style among {} classes": lambda: [found("accuracy")["n_classes"].max()],
    **{
        row(style, *["{:.0f}"] * 3): partial(accuracy, style)
        for style in ("photo", *DRAWN, "cartoon", "silhouette", "sketch")
    },
}
