"""Claims about the study in small; its page is made of the tables as a whole."""

import pandas as pd

from experiments.study.toy_claims import BORNE_OUT, OPEN, REFUTED
from experiments.study.toy_claims import CLAIMS as OF_THE_STUDY
from tests.support.committed_tables import Numbers, one, table

STUDY = "toy_study"


def first(claim: str) -> "pd.Series[float]":
    """Return the row of a claim over all models."""
    claims = table(f"{STUDY}/claims")
    return claims[(claims["claim"] == claim) & (claims["models"] == "all")].iloc[0]


def points(claim: str) -> list[float]:
    """Return a difference with its interval, in points."""
    return [100 * first(claim)[column] for column in ("value", "low", "high")]


def verdicts() -> list[int]:
    """Return how many claims there are, and how many are borne out, refuted, and neither."""
    found = [str(first(claim.name)["verdict"]) for claim in OF_THE_STUDY]
    return [len(found), *(found.count(verdict) for verdict in (BORNE_OUT, REFUTED, OPEN))]


def n_seeds() -> list[str]:
    """Return in words how many seeds the ResNets have, and the transformers."""
    seeds = table(f"{STUDY}/points").groupby("model")["seed"].nunique()
    assert list(seeds.index) == ["rn-tiny", "vit-tiny-8"]
    return [["one", "two", "three", "four"][n - 1] for n in seeds]


def held_out(setting: str) -> float:
    """Return the accuracy on held-out classes in quickdraw, in percent."""
    same = {"setting": setting, "test_domain": "quickdraw", "domain": "quickdraw", "model": "rn-tiny"}
    return 100 * one(f"{STUDY}/told_apart", "held_out", **same)


def n_models() -> int:
    return int(table(f"{STUDY}/points")["run"].nunique())


def related(what: str, accuracy: str, *columns: str) -> list[float]:
    return [one(f"{STUDY}/relations", column, what=what, **{"with": accuracy}) for column in columns]


def least_p(what: str, accuracy: str) -> list[str | float]:
    """Return the correlation that has the least p, after this word."""
    least = table(f"{STUDY}/relations").sort_values("p").iloc[0]
    assert (least["what"], least["with"]) == (what, accuracy)
    return ["least", *related(what, accuracy, "rho", "low", "high", "p_holm")]


def significant() -> tuple[str, str]:
    """Return how many correlations hold after correction, in words."""
    return {0: "none"}[int((table(f"{STUDY}/relations")["p_holm"] < 0.05).sum())], "significant"


CLAIMS: dict[str, Numbers] = {
    "{} tiny CLIPs of forty drawn things, ResNets of {} seeds and transformers of {}; held-out classes in quickdraw, "
    "ResNets, as in the picture: {:.0f} % are right after photographs alone, {:.0f} % with photographs and quickdraw, "
    "{:.0f} % with all styles, {:.0f} % with all styles but quickdraw, and {:.0f} % where the classes were seen there. "
    "Of {} claims of the study {} are borne out over models, {} is refuted, and {}": lambda: (
        n_models(),
        *n_seeds(),
        *map(held_out, ("natural-only", "cg-low", "cg-high", "leave-out", "upper-high")),
        *((n := verdicts())[0], n[1], ["none"][n[2]], n[3]),
    ),
    "**We did {} that sharing explains generalization.** Of {} rank correlations over these {} models {} is {} after "
    "correction. Among held-out classes alone, as in the picture, CKA has {:.2f} [{:.2f}, {:.2f}], and answers kept by "
    "other styles' circuits have {:.2f} [{:.2f}, {:.2f}], *against* the claim. The {} p has CKA among all classes: "
    "{:.2f} [{:.2f}, {:.2f}], p {:.2f}.": lambda: (
        "not find",  # since none is significant
        len(table(f"{STUDY}/relations")),
        n_models(),
        *significant(),
        *related("cka", "alone", "rho", "low", "high"),
        *related("transfer", "alone", "rho", "low", "high"),
        *least_p("cka", "held_out"),
    ),
    "- **We did {} that sharing explains generalization.** {} of": lambda: ("not find", significant()[0].capitalize()),
    "without it it loses {:.0f} points [{:.0f}, {:.0f}] more of these answers": lambda: points("own-part"),
    "Of {} claims of the study {} are borne out over {} small CLIPs, {} is refuted, and {} cannot be told.": lambda: (
        (n := verdicts())[0],
        n[1],
        n_models(),
        ["none"][n[2]],
        n[3],
    ),
    "{} of {} rank correlations between what styles share and accuracy on held-out classes {} {}": lambda: (
        significant()[0].capitalize(),
        len(table(f"{STUDY}/relations")),
        "is",
        significant()[1],
    ),
}
