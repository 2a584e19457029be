"""Claims about parts that are a class's own."""

from tests.support.committed_tables import one, rows, table

OWN, OTHERS = "own class", "other classes"
NETWORKS = ("lite0_photo", "lite1_photo", "lite2_photo")


def left(folder: str, share: float, answers: str = OWN, cut: str = "part", styles: str = "its own style") -> float:
    named = {"share": share, "answers": answers, "cut": cut, "styles": styles}
    return one(f"own_parts/{folder}/by_share", **named)


def classes(folder: str) -> int:
    return int(rows(f"own_parts/{folder}/by_share", answers=OWN, styles="its own style")["n_classes"].min())


def row(folder: str, share: float) -> list[float]:
    """Return what own class, other classes, and the own class without random units keep."""
    return [left(folder, share), left(folder, share, OTHERS), left(folder, share, cut="random")]


def across(found_on: str, images: str, answers: str = OWN) -> float:
    return one("own_parts/lite0_styles/by_style", part_domain=found_on, domain=images, answers=answers, cut="part")


def overlaps(folder: str) -> list[float]:
    kinds = ("one class in two styles", "two classes in one style")
    chance = rows(f"own_parts/{folder}/overlap")["chance"]
    return [*(one(f"own_parts/{folder}/overlap", parts=kind) for kind in kinds), float(chance.mean())]


def verdicts(folder: str, verdict: str) -> int:
    return int((table(f"own_parts/{folder}/verdicts")["verdict"] == verdict).sum())


def rival(method: str, share: float, answers: str = OWN) -> float:
    named = {"method": method, "share": share, "answers": answers, "cut": "part", "styles": "its own style"}
    return one("own_parts/rivals/rivals", **named)


def steered(units: str) -> float:
    return float(rows("own_parts/rivals/steering", units=units)["after"].mean())


def recall(method: str, copies: int) -> float:
    return one("own_parts/rivals/planted", "recall", method=method, copies=copies)


def depth(sites: str, answers: str = OWN, styles: str = "its own style") -> float:
    return one("own_parts/lite0_depth/by_depth", sites=sites, answers=answers, cut="part", styles=styles)
