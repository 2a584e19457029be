"""Claims about the study in small; its page is made of the tables as a whole."""

from experiments.study.toy_claims import ALL_MODELS, BORNE_OUT, BY_SET, OPEN, REFUTED
from experiments.study.toy_claims import CLAIMS as OF_THE_STUDY
from experiments.study.toy_page import N_COUNTS, agreeing, published_or_again
from tests.support.committed_tables import Numbers, one, rows, table

STUDY, AGAIN = "toy_study", "toy_recounted"
SHARED_BY_REPRESENTATIONS = ("cka", "features")


def points(claim: str, models: str = ALL_MODELS) -> list[float]:
    """Return a difference with its interval, in points."""
    (measure, *_) = next(one for one in OF_THE_STUDY if one.name == claim).measures
    return [
        100 * one(f"{AGAIN}/claims", column, measure=measure.name, models=models)
        for column in ("value", "low", "high")
    ]


def published() -> list[int]:
    """Return how many claims had been said to be borne out, refuted, and neither."""
    claims = rows(f"{STUDY}/claims", models=ALL_MODELS).drop_duplicates("claim")[
        "verdict"
    ]
    return [int((claims == verdict).sum()) for verdict in (BORNE_OUT, REFUTED, OPEN)]


def in_each_count() -> list[int]:
    """Return how many claims there are, and how many have each verdict in all counts."""
    counted = published_or_again(table(f"{STUDY}/claims"), table(f"{AGAIN}/claims"))
    told = [agreeing(counted[claim.name]) for claim in OF_THE_STUDY]
    return [
        len(told),
        *(
            told.count((verdict, N_COUNTS, N_COUNTS))
            for verdict in (BORNE_OUT, REFUTED, OPEN)
        ),
    ]


def n_seeds() -> list[str]:
    """Return in words how many seeds the ResNets have, and the transformers."""
    seeds = table(f"{STUDY}/points").groupby("model")["seed"].nunique()
    assert list(seeds.index) == ["rn-tiny", "vit-tiny-8"]
    return [["one", "two", "three", "four"][n - 1] for n in seeds]


def held_out(setting: str) -> float:
    """Return the accuracy on held-out classes in quickdraw, in percent."""
    same = {"setting": setting, "test_domain": "quickdraw", "model": "rn-tiny"}
    return 100 * one(f"{AGAIN}/told_apart", "held_out", **same)


def n_models() -> int:
    return int(table(f"{STUDY}/points")["run"].nunique())


def of_one_class() -> int:
    """Return how many models share the held-out classes of those that were judged on one class."""
    few = rows(f"{AGAIN}/told_apart", n_classes_screened=1)["held_out_classes"].unique()
    return int(rows(f"{AGAIN}/points", held_out_classes=list(few))["run"].nunique())


def related(what: str, *columns: str) -> list[float]:
    return [
        one(f"{AGAIN}/relations", column, what=what, **{"with": "held_out"})
        for column in columns
    ]


def of_representations(*columns: str) -> list[float]:
    return [
        number
        for what in SHARED_BY_REPRESENTATIONS
        for number in related(what, *columns)
    ]


def of_circuits() -> tuple[int, int, str]:
    """Return how many other numbers there are, how many go with accuracy after correction, and the word for it."""
    others = rows(f"{AGAIN}/relations", **{"with": "held_out"})
    others = others[~others["what"].isin(SHARED_BY_REPRESENTATIONS)]
    assert {"overlap", "edges", "part"} <= set(others["what"])
    return len(others), int((others["p_holm"] < 0.05).sum()), "significant"


CLAIMS: dict[str, Numbers] = {
    "{} tiny CLIPs of forty drawn things, ResNets of {} seeds and transformers of {}; held-out classes in quickdraw, "
    "ResNets, as in the picture: {:.0f} % are right after photographs alone, {:.0f} % with photographs and quickdraw, "
    "{:.0f} % with all styles, {:.0f} % with all styles but quickdraw, and {:.0f} % where the classes were seen "
    "there.": lambda: (
        n_models(),
        *n_seeds(),
        *map(
            held_out, ("natural-only", "cg-low", "cg-high", "leave-out", "upper-high")
        ),
    ),
    "Of {} claims of the study {} is borne out in each of three counts, {} is refuted, and {} cannot be told in "
    "any": in_each_count,
    "raise this accuracy by {:.0f} points [{:.0f}, {:.0f}], *against* the claim": lambda: (
        points("alignment-accuracy")
    ),
    "We had published {} borne out, {} refuted and {} open: a screen had left one held-out class of ten to {} of these "
    "models": lambda: [*published(), of_one_class()],
    "Rank correlations over these {} models": lambda: [n_models()],
    "CKA {:.2f} [{:.2f}, {:.2f}], corrected p {:.4f}, and shared features {:.2f} [{:.2f}, {:.2f}], corrected p "
    "{:.4f}": lambda: of_representations("rho", "low", "high", "p_holm"),
    "they are {:.2f} [{:.2f}, {:.2f}] and {:.2f} [{:.2f}, {:.2f}]; given accuracy on the other domains": lambda: (
        of_representations("rho", "low_set", "high_set")
    ),
    "given accuracy on the other domains {:.2f} (p {:.2g}) and {:.2f} (p {:.2g})": lambda: (
        of_representations("partial", "partial_p")
    ),
    "Of {} other numbers, among them node overlap, edges and own parts, {} are {} after correction": of_circuits,
    "by held-out sets lesions tell nothing ({:.0f} points [{:.0f}, {:.0f}])": lambda: (
        points("own-part", BY_SET)
    ),
    "CKA with a rank correlation of {:.2f} [{:.2f}, {:.2f}], shared features with {:.2f} [{:.2f}, {:.2f}]": lambda: (
        of_representations("rho", "low", "high")
    ),
}
