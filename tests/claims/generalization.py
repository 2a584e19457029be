"""Claims about accuracy on held-out pairs, and whether sharing explains it."""

from functools import partial

import pandas as pd

from tests.support.committed_tables import Numbers, alike, comparison, one, rows, span, table


def held_out(setting: str, column: str) -> list[float]:
    name = "generalization/told_apart"
    return [100 * one(name, column, setting=setting, test_domain=d, domain=d) for d in ("quickdraw", "sketch")]


def related(what: str, accuracy: str, *columns: str) -> list[float]:
    return [one("shared_circuitry/relations", column, what=what, **{"with": accuracy}) for column in columns]


def significant(accuracy: str | None = None, *measures: str) -> pd.DataFrame:
    found = table("shared_circuitry/relations")
    found = found[found["p_holm"] < 0.05]
    found = found if accuracy is None else found[found["with"] == accuracy]
    return found[found["what"].isin(measures)] if measures else found


def counted_in_words(n: int) -> str:
    return ["none", "one", "two", "three", "four", "five", "six", "seven"][n]


def by_cka() -> tuple[float, float]:
    return span(significant(None, "cka")["rho"])


STRUCTURAL = ("overlap", "ratio", "shift", "depth_bias")

KINDS = ("held_out", "alone", "own_style")

CLAIMS: dict[str, Numbers] = {
    **{
        f"| {setting} | " + " | ".join(["{:.0f} / {:.0f} %"] * 3) + " |": partial(
            lambda of: [n for kind in KINDS for n in held_out(of, kind)], setting
        )
        for setting in ("natural-only", "leave-out", "cg-low", "cg-high", "upper-high")
    },
    "**We {} that models with more shared circuitry generalize better.** {} tiny models, one seed; rank "
    "correlation with the accuracy among held-out classes alone, as in the picture: node overlap {:.2f} [{:.2f}, "
    "{:.2f}] ({:.2f} to {:.2f} without any one model), CKA {:.2f} (p {:.2f}), {} of {} measures {}. Of four other "
    "accuracies each is {} with CKA ({:.2f} to {:.2f}), and {} with transfer of circuits, *against* the claim: "
    "{:.2f} [{:.2f}, {:.2f}], p {:.3f}.": lambda: (
        {True: "did not find"}[bool((significant(None, *STRUCTURAL, "transfer")["rho"] < 0).all())],
        int(alike(rows("shared_circuitry/relations", what="overlap")["n_models"])),
        *related("overlap", "alone", "rho", "low", "high", "least", "most"),
        *related("cka", "alone", "rho", "p_holm"),
        counted_in_words(len(significant("alone"))),
        counted_in_words(table("shared_circuitry/relations")["what"].nunique()),
        "significant",
        {4: "significant"}[len(significant(None, "cka"))],
        *by_cka(),
        counted_in_words(len(significant(None, "transfer"))),
        *related("transfer", "centred", "rho", "low", "high", "p_holm"),
    ),
    "corrected for {} tests (seven measures, five accuracies). The figure shows accuracy among the held-out "
    "classes alone: {} of the seven measures is significant with it (node overlap {:.2f} [{:.2f}, {:.2f}], {:.2f} "
    "to {:.2f} without any one model; CKA of class means at the last site {:.2f}, p {:.2f}). Among all {} tests "
    "{} are significant. {} are CKA's with the four other accuracies, {:.2f} to {:.2f}; with accuracy among all "
    "classes it is {:.2f} [{:.2f}, {:.2f}], p {:.3f}, and {:.2f} given accuracy on the other styles. The fifth is "
    "{}": lambda: (
        len(table("shared_circuitry/relations")),
        counted_in_words(len(significant("alone"))),
        *related("overlap", "alone", "rho", "low", "high", "least", "most"),
        *related("cka", "alone", "rho", "p_holm"),
        len(table("shared_circuitry/relations")),
        len(significant()),
        counted_in_words(len(significant(None, "cka"))).capitalize(),
        *by_cka(),
        *related("cka", "held_out", "rho", "low", "high", "p_holm", "partial"),
        *set(significant()["what"]) - {"cka"},
    ),
    "({:.2f} [{:.2f}, {:.2f}], p {:.3f}, {:.0f} models; {:.2f} to {:.2f} without any one of them). Transfer is "
    "read by faithfulness, a quotient that reaches {:.0f},": lambda: (
        *related("transfer", "centred", "rho", "low", "high", "p_holm", "n_models", "least", "most"),
        table("shared_circuitry/points")["transfer"].max(),
    ),
    "Structural measures of circuits are {} with any accuracy. They depend on one model: node overlap has {:.2f} "
    "[{:.2f}, {:.2f}] with accuracy among all classes, and {:.2f} to {:.2f} without any one of the models.": lambda: (
        {0: "not significant"}[len(significant(None, *STRUCTURAL))],
        *related("overlap", "held_out", "rho", "low", "high", "least", "most"),
    ),
    "Among all classes a model that never saw the style (leave-out) is {} one that saw other classes of it "
    "(cg-high); among the held-out classes alone it is {}. With own-style texts it is {} in quickdraw and {} in "
    "sketch. By all three measures cg-high is {} cg-low.": lambda: (
        *(comparison(held_out("leave-out", of), held_out("cg-high", of)) for of in ("held_out", "alone")),
        *(
            comparison([a], [b])
            for a, b in zip(held_out("leave-out", "own_style"), held_out("cg-high", "own_style"), strict=True)
        ),
        comparison(*([n for of in KINDS for n in held_out(s, of)] for s in ("cg-high", "cg-low"))),
    ),
}
