"""Claims about own parts in three real networks."""

import math
from functools import partial
from itertools import combinations

import pandas as pd
from scipy import stats
from scipy.special import logit

from circuitry.comparison.lesion_reading import known_cells
from tests.support.committed_tables import RESULTS, Numbers, alike, span, table

OWN, OTHERS, PHOTO = "own class", "other classes", "photo"
DRAWN = ["clipart", "noto", "fluent3d", "openmoji"]
NAMES = {f"efficientnet-lite{n}": f"EfficientNet-Lite{n}" for n in range(3)}
PAIRS = list(combinations(NAMES, 2))
KINDS = [
    "one class in two styles",
    "two classes in one style",
    "two classes in two styles",
]
VERDICTS = ["the same part", "other parts", "no own part"]
OWN_CELLS = ["own_a", "own_b"]


def found(name: str, **equal: object) -> pd.DataFrame:
    """Return the rows of a table of the three networks."""
    rows = table(f"real_networks/{name}")
    for column, value in equal.items():
        rows = rows[rows[column] == value]
    assert len(rows), f"{name} has no row with {equal}"
    return rows


def one(name: str, column: str = "value", **equal: object) -> float:
    (value,) = found(name, **equal)[column]
    return float(value)


def left(model: str, found_on: str, style: str, answers: str, cut: str) -> float:
    return one(
        "left",
        model=model,
        part_domain=found_on,
        domain=style,
        answers=answers,
        cut=cut,
    )


def cells(model: str, pairs: list[tuple[str, str]]) -> list[float]:
    """Return of styles (found on, tested on) what own class, other classes, and own class without random units keep."""
    kinds = ((OWN, "part"), (OTHERS, "part"), (OWN, "random"))
    return [left(model, *pair, *kind) for pair in pairs for kind in kinds]


def across(
    found_on: str | None, answers: str = OWN, cut: str = "part"
) -> tuple[float, float]:
    """Return the span over networks and drawn styles of what is left there, or in photographs, without a part."""
    pairs = [(model, style) for model in NAMES for style in DRAWN]
    return span(
        left(m, found_on or style, style if found_on else PHOTO, answers, cut)
        for m, style in pairs
    )


def of_pairs(photo: bool, model: str | None = None) -> pd.DataFrame:
    """Return the verdicts of pairs of photographs with drawings, or of two drawn styles."""
    pairs = found("verdicts") if model is None else found("verdicts", model=model)
    return pairs[(pairs["domain_a"] == PHOTO) == photo]


def taken(pairs: pd.DataFrame) -> int:
    """Return in how many pairs each part leaves a fifth of the class or less in the other style."""
    return int((pairs[["a_on_b", "b_on_a"]].max(axis=1) <= 0.2).sum())


def tested() -> pd.DataFrame:
    """Return the verdicts of cases whose part was tested in both styles that found it."""
    cases = found("verdicts")
    return cases[cases[OWN_CELLS].notna().all(axis=1)]


def said_same() -> pd.DataFrame:
    """Return the cases that the verdict calls the same part, tested or not."""
    return found("verdicts", verdict=VERDICTS[0])


def same_parts() -> list[int]:
    """Return in how many tested cases it is the same part, and in how many of these of cups."""
    same = tested().query("verdict == @VERDICTS[0]")
    return [len(same), int((same["class"] == "cup").sum())]


def falls(cut: str = "part") -> pd.DataFrame:
    """Return by class and style its log-odds (``whole``), and what a cut of the other style's part takes (``fall``)."""
    lesions = known_cells(table("own_parts/lite0_margins/lesions"))
    of_class = lesions[lesions["part_class"] == lesions["class"]]
    across = of_class[
        (of_class["part_domain"] != of_class["domain"]) & (of_class["cut"] == cut)
    ]
    whole = logit(across["whole_probability"])
    told = across.assign(whole=whole, fall=whole - logit(across["probability"]))
    return told.pivot(
        index="class", columns="domain", values=["whole", "fall"]
    ).dropna()


def margins() -> list[float]:
    """Return log-odds in photographs and in OpenMoji, what the other style's part takes there, classes, and p."""
    by_class = falls()
    in_photographs, in_emoji = (
        by_class["fall"][style] for style in (PHOTO, "openmoji")
    )
    numbers = [
        by_class[of][style].mean()
        for of in ("whole", "fall")
        for style in (PHOTO, "openmoji")
    ]
    return [*numbers, len(by_class), stats.wilcoxon(in_photographs, in_emoji).pvalue]


def in_common(kind: str, column: str = "value") -> tuple[float, float]:
    return span(found("overlap", parts=kind)[column])


def units_in_common(model: str) -> list[float]:
    """Return what parts share by kind, with intervals over classes, and chance."""
    shared = [
        one("overlap", column, model=model, parts=kind)
        for kind in KINDS
        for column in ("value", "low", "high")
    ]
    return [*shared, found("overlap", model=model)["chance"].mean()]


def of_stage(stage: str) -> list[float]:
    """Return by network what parts share there: of one class in two styles, and of two classes in one."""
    return [
        one("depth", "overlap", stage=stage, model=model, parts=kind)
        for model in NAMES
        for kind in KINDS[:2]
    ]


def agree(model: str, with_model: str, what: str, cause: str) -> list[float]:
    """Return a rank correlation over pairs of styles, and its p value."""
    (found_one,) = found(
        "agreement", model=model, with_model=with_model, what=what, **{"with": cause}
    )[["rho", "p"]].values
    return list(found_one)


def colours(what: str) -> list[float]:
    """Return within each network the span of the rank correlations with colours over levels, and the least p."""
    each = [
        found("agreement", model=m, what=what).query("`with`.str.startswith('colours')")
        for m in NAMES
    ]
    return [number for rows in each for number in (*span(rows["rho"]), rows["p"].min())]


def agreed(what: str) -> list[float]:
    """Return by pair of networks how alike they order the pairs of styles, and p."""
    return [number for pair in PAIRS for number in agree(*pair, what, what)]


def ends() -> list[float]:
    """Return what the two styles share that share the fewest units, by network, and those that share the most."""
    pairs = [
        found("pairs", model=model).set_index(["domain_a", "domain_b"])["one class"]
        for model in NAMES
    ]
    assert {shared.idxmin() for shared in pairs} == {(PHOTO, "openmoji")}
    assert {shared.idxmax() for shared in pairs} == {("noto", "fluent3d")}
    return [*(shared.min() for shared in pairs), *(shared.max() for shared in pairs)]


def accuracy(style: str) -> list[float]:
    return [100 * one("accuracy", model=model, domain=style) for model in NAMES]


def emoji(name: str) -> pd.DataFrame:
    return table(f"real_networks/emoji/{name}")


def of_emoji(kind: str) -> list[float]:
    (found_one,) = (
        emoji("overlap").query("parts == @kind")[["value", "low", "high"]].values
    )
    return list(found_one)


def with_colours() -> list[float]:
    """Return the pairs of styles, and the span of correlations of parts with colours and the least p."""
    rows = emoji("agreement").query(
        "what == 'one class' and `with`.str.startswith('colours')"
    )
    return [rows["n_pairs"].max(), *span(rows["rho"]), rows["p"].min()]


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


CELL = "{:.2f}, {:.2f}, {:.2f}"
INTERVAL = "{:.3f} [{:.3f}, {:.3f}]"
AGREED = {
    "units that parts of one class share": "one class",
    "what is left of the class": "left",
    "units that parts of two classes share": "two classes",
}
CLAIMS: dict[str, Numbers] = {
    "{} classes have parts with {} % of the hidden channels": lambda: [
        len(
            (RESULTS / "real_networks" / "classes.txt")
            .read_text(encoding="utf-8")
            .split()
        ),
        2,
    ],
    "a class keeps {:.2f} to {:.2f} of its right answers in photographs after removing the part that drawings found, "
    "and {:.2f} to {:.2f} after removing random units": lambda: [
        *across(None),
        *across(None, cut="random"),
    ],
    **{
        row(f"{name}, in photographs", *[CELL] * 4): partial(
            cells, model, [(style, PHOTO) for style in DRAWN]
        )
        for model, name in NAMES.items()
    },
    "a class keeps {:.2f} to {:.2f} of its right answers in drawings after removing the part that photographs found, "
    "and {:.2f} to {:.2f} after removing random units; other classes keep {:.2f} to {:.2f}": lambda: [
        *across(PHOTO),
        *across(PHOTO, cut="random"),
        *across(PHOTO, OTHERS),
    ],
    **{
        row(f"{name}, in drawings", *[CELL] * 5): partial(
            cells, model, [(PHOTO, style) for style in [PHOTO, *DRAWN]]
        )
        for model, name in NAMES.items()
    },
    "parts of one class in two styles share {:.2f} [{:.2f}, {:.2f}] of their units, parts of two classes in one style "
    "{:.3f} [{:.3f}, {:.3f}]. But few of these parts are a class's own: in {} of {} cases it is the same part, in {} "
    "there is no own part": lambda: [
        *of_emoji(KINDS[0]),
        *of_emoji(KINDS[1]),
        (emoji("verdicts")["verdict"] == VERDICTS[0]).sum(),
        len(emoji("verdicts")),
        (emoji("verdicts")["verdict"] == VERDICTS[2]).sum(),
    ],
    "the {:.0f} pairs of styles in part as these parts do (rank correlation {:.2f} to {:.2f}, p from {:.3f} on)": (
        with_colours
    ),
    "We trained a tiny CLIP on {} concepts": lambda: emoji("accuracy")[
        "n_images"
    ].unique(),
    "Parts are of {} groups of concepts, such as birds or tools, with {} % of": lambda: [
        len(
            (RESULTS / "real_networks" / "emoji" / "classes.txt")
            .read_text(encoding="utf-8")
            .split()
        ),
        2,
    ],
    "right on {:.0f} to {:.0f} % of its training images, mean over {} groups": lambda: [
        *span(100 * emoji("accuracy")["value"]),
        emoji("accuracy")["n_classes"].max(),
    ],
    "So {} pairs of parts count": lambda: emoji("overlap").query("parts == @KINDS[0]")[
        "n_pairs"
    ],
    "Cells are of {} to {} classes": lambda: span(
        found("left").query("part_domain == 'photo' or domain == 'photo'")["n_classes"]
    ),
    "In EfficientNet-Lite0 the class's log-odds are {:.1f} in photographs and {:.1f} in OpenMoji; there the part of "
    "the other style takes {:.1f} and {:.1f} of them ({} classes, Wilcoxon's p {:.2f})": margins,
    "random units {:.1f} and {:.1f}:": lambda: [
        falls("random")["fall"][style].mean() for style in (PHOTO, "openmoji")
    ],
    "each part takes the class in {} of {} cases with photographs, and in {} of {} of drawings": lambda: [
        count
        for photo in (True, False)
        for count in (taken(of_pairs(photo)), len(of_pairs(photo)))
    ],
    "Of {} cases that were tested in the two styles it is in {}, and {} of these are the cup.": lambda: [
        len(tested()),
        *same_parts(),
    ],
    "Of {} cases {} have an unseen image in each of the two styles": lambda: [
        len(found("verdicts")),
        len(tested()),
    ],
    "{} have no such image in these styles. Of the {} cases {} have the same part, {} has other parts, and in {} there "
    "is no own part": lambda: [
        found("verdicts")[OWN_CELLS].isna().all(axis=1).sum(),
        len(tested()),
        *((tested()["verdict"] == verdict).sum() for verdict in VERDICTS),
    ],
    "{} cases of *the same part*. In {} of them": lambda: [
        len(said_same()),
        said_same()[OWN_CELLS].isna().any(axis=1).sum(),
    ],
    "{} cases of the same part.** In {} the part": lambda: [
        len(said_same()),
        said_same()[OWN_CELLS].isna().any(axis=1).sum(),
    ],
    "the {} cases are of three classes": lambda: (
        [len(tested())] if tested()["class"].nunique() == 3 else []
    ),
    "In {} of {} cases the part was tested in the two styles that found it: {} are the same part, {} of them the "
    "cup": lambda: [len(tested()), len(found("verdicts")), *same_parts()],
    "The {} cases are of {} groups, and the {} of the same part are of one, food-fruit": lambda: [
        len(emoji("verdicts")),
        emoji("verdicts")["class"].nunique(),
        int(
            (
                emoji("verdicts").query("verdict == @VERDICTS[0]")["class"]
                == "food-fruit"
            ).sum()
        ),
    ],
    "so {:.3f} to {:.3f} have no ceiling": lambda: in_common(KINDS[0]),
    "Orders of five styles can give no p under {:.3f}": lambda: [1 / math.factorial(5)],
    "share {:.3f} to {:.3f} of their units in three networks, parts of two classes in one style {:.3f} to {:.3f}, and "
    "chance is {:.3f}": lambda: [
        *in_common(KINDS[0]),
        *in_common(KINDS[1]),
        alike(found("overlap", parts=KINDS[1])["chance"], 3),
    ],
    **{
        row(f"{name}, units", INTERVAL, INTERVAL, INTERVAL, "{:.3f}"): partial(
            units_in_common, model
        )
        for model, name in NAMES.items()
    },
    "in `blocks.6` {:.3f} to {:.3f}, where parts of two classes in one style share {:.3f} to {:.3f}; in "
    "`blocks.1` to `blocks.3` {:.3f} to {:.3f}": lambda: [
        *span(of_stage("blocks.6")[::2]),
        *span(of_stage("blocks.6")[1::2]),
        *span(value for n in (1, 2, 3) for value in of_stage(f"blocks.{n}")[::2]),
    ],
    **{
        row(f"`{stage}`", *["{:.3f}, {:.3f}"] * 3): partial(of_stage, stage)
        for stage in ("bn1", *(f"blocks.{n}" for n in range(1, 7)))
    },
    "(rank correlations {:.2f} to {:.2f}, p up to {:.3f}), and colours order the pairs in part so ({:.2f} to {:.2f} in "
    "Lite0, p from {:.3f} on; {:.2f} to {:.2f} in Lite1, p from {:.3f} on; {:.2f} to {:.2f} in Lite2, p from {:.3f} "
    "on)": lambda: [
        *span(agreed("one class")[::2]),
        max(agreed("one class")[1::2]),
        *colours("one class"),
    ],
    "between a photograph and OpenMoji ({:.3f}, {:.3f} and {:.3f}) and emoji of Noto and Fluent ({:.3f}, {:.3f} and "
    "{:.3f})": ends,
    **{
        row(f"{name}, two networks", *["{:.2f} ({:.3f})"] * 3): partial(agreed, what)
        for name, what in AGREED.items()
    },
    **{
        row(f"{name}, with units of two classes", *["{:.2f} ({:.3f})"] * 3): partial(
            lambda what: [
                number
                for model in NAMES
                for number in agree(model, model, what, "two classes")
            ],
            what,
        )
        for name, what in list(AGREED.items())[:2]
    },
    **{
        row(f"{name}, with colours", *["{:.2f} to {:.2f} ({:.3f})"] * 3): partial(
            colours, what
        )
        for name, what in list(AGREED.items())[:2]
    },
    "Of photographs they recognise {:.0f} to {:.0f} %, of clip art {:.0f} to {:.0f} %, of thin outlines {:.0f} to "
    "{:.0f} %": lambda: [
        end for style in (PHOTO, "clipart", "sketch") for end in span(accuracy(style))
    ],
    "Right images of each style among {} classes": lambda: [
        found("accuracy")["n_classes"].max()
    ],
    **{
        row(style, *["{:.0f}"] * 3): partial(accuracy, style)
        for style in (PHOTO, *DRAWN, "cartoon", "silhouette", "sketch")
    },
}
