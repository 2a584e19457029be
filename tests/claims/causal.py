"""Claims about causal checks, edges and shared masks."""

from tests.claims.scoreboard import alike_words, beyond_masks, by_masks, counted, in_classes, sizes_for, verdict
from tests.support.committed_tables import Numbers, alike, comparison, listed, one, rows, span, table

ACROSS = "faithfulness/scores_across_sites"


def kept(measure: str, circuit: str) -> list[float]:
    return list(rows(f"faithfulness/{measure}_absolute", circuit=circuit, fraction=0.1)["value"])


def at_site(site: str, circuit: str) -> float:
    return float(rows("faithfulness/selectivity_one_site", sites=site, circuit=circuit)["value"].mean())


def transfers(column: str) -> tuple[float, float]:
    return span(rows("transfer/correlations", sites=["layer1.0", "layer2.0", "layer3.0"])[f"selectivity: {column}"])


def elsewhere() -> tuple[float, float]:
    found = table("transfer/correlations").set_index("sites")["selectivity: rho"]
    return span(found.drop(["all", "layer1.0", "layer2.0", "layer3.0"]))


def corrected_transfers() -> tuple[str, int]:
    """Return how many correlations are significant after correction, and of how many tests."""
    found = table("transfer/correlations").filter(like="(Holm)")
    return {0: "none"}[int((found < 0.05).to_numpy().sum())], found.size


EDGE_NAMES = {"path": "path", "atp-star": "AtP\\*", "relp": "RelP", "gradient": "gradient", "exact": "exact cuts"}


def edges_beyond(of: str) -> list[tuple[str, list[float]]]:
    return [
        (name, beyond_masks("toy_vit_edges", method, "logit"))
        for method, name in EDGE_NAMES.items()
        if verdict("toy_vit_edges", method, "logit") == of
    ]


def edges_in_words(of: str) -> str:
    return ", ".join(f"{name} {mean:.0f} [{low:.0f}, {high:.0f}]" for name, (mean, low, high) in edges_beyond(of))


def exact_cuts_lie(size: float) -> str:
    named = {"measure": "selectivity", "circuit": "kept", "size": size}
    exact, masks = (rows("scoreboard/toy_vit_edges/curves", method=m, **named)["value"] for m in ("exact", "learned"))
    return comparison(exact, masks)


def exact_cuts_above() -> tuple[str, float, float]:
    """Return that exact cuts lie above masks, and the first and the last size where they do by more than 0.005."""
    sizes = sorted(rows("scoreboard/toy_vit_edges/curves", method="exact", circuit="kept")["size"].unique())
    shown = [size for size in sizes if 0.1 < size < 0.5]
    assert exact_cuts_lie(0.5) == "below"
    return alike_words(exact_cuts_lie(size) for size in shown), 100 * shown[0], 100 * shown[-1]


def edges_for(methods: list[str], circuit: str) -> tuple[float, float]:
    return span(100 * sizes_for("toy_vit_edges", methods, circuit, "logit")["value"])


def selective(method: str, of: str) -> float:
    named = {"what": "selectivity with only the circuit", "images of": of}
    return float(rows("shared_masks/work", method=method, **named)["value"].iloc[0])


def overlap(method: str, what: str, ceiling: str = "other images") -> float:
    return one("shared_masks/levels", method=method, what=what, ceiling=ceiling)


def overlaps(method: str) -> list[float]:
    whats = (
        *("two parts of the same images", "the same class in two domains, parts", "two classes in one domain"),
        *("two classes in two domains", "random units"),
    )
    return [overlap(method, what) for what in whats]


def into_attention() -> tuple[float, float]:
    methods = ["left 10", "Gauss-Radau 5", "midpoint 10", "gradient x activation"]
    found = rows("scoreboard/toy_body/planted", network="attention", kind="edge", site="attention", method=methods)
    return span(found["auroc"])


CLAIMS: dict[str, Numbers] = {
    "removing a unit is {:.2f} times its score at layer4.0 and {:.2f} times at act3": lambda: (
        one(ACROSS, "exact_per_score", site=site) for site in ("layer4.0", "act3")
    ),
    "Of the strongest 20 % by score {:.0f} are at the embedding, by exact effect {}.": lambda: (
        one(ACROSS, "strongest_by_score", site="attnpool"),
        {0: "none"}[int(one(ACROSS, "strongest_by_exact", site="attnpool"))],
    ),
    "largest scores reach faithfulness {:.2f} to {:.2f} by style (random units {:.1f})": lambda: (
        *span(kept("faithfulness", "kept")),
        alike(kept("faithfulness", "random"), 1),
    ),
    "the lead over images of other classes, {:.2f}.": lambda: [alike(kept("selectivity", "kept"))],
    "{:.2f} at layer3.0 (random units {:.2f}), {:.2f} at layer4.0 ({:.2f}); "
    "all *but* the circuit keeps {:.2f} and {:.2f}": lambda: (
        *(at_site(site, circuit) for site in ("layer3.0", "layer4.0") for circuit in ("kept", "random")),
        *(at_site(site, "complement") for site in ("layer3.0", "layer4.0")),
    ),
    "(rank correlation of selectivity {:.2f} to {:.2f}, Mantel p {:.2f} to {:.2f}), at the other sites less "
    "({:.2f} to {:.2f}); {} of the correlations is significant after correction for {} tests": lambda: (
        *transfers("rho"),
        *transfers("p"),
        *elsewhere(),
        *corrected_transfers(),
    ),
    "Learned masks reach selectivity 0.8 of the logit with {:.0f} % [{:.0f}, {:.0f}] of the {} edges between heads "
    "and MLPs, mean of {} classes. The {} need {}ly more ({:.0f} to {:.0f} points, paired by class); {} ({:.0f} to "
    "{:.0f} %) do not; random edges need {:.0f} %. The picture shows mean selectivity by share of edges: there "
    "exact cuts lie {} masks from {:.0f} to {:.0f} %.": lambda: (
        *by_masks("toy_vit_edges", "logit"),
        counted("toy_vit_edges").split()[0],
        {6: "six"}[len(in_classes("toy_vit_edges", "learned", "learned", "logit"))],
        listed(name for name, _ in edges_beyond("significant")),
        "significant",
        *span(numbers[0] for _, numbers in edges_beyond("significant")),
        listed(name for name, _ in edges_beyond("not significant")),
        *edges_for([m for m, name in EDGE_NAMES.items() if name in dict(edges_beyond("not significant"))], "kept"),
        edges_for(["gradient"], "random")[0],
        *exact_cuts_above(),
    ),
    "takes learned masks {:.0f} % [{:.0f}, {:.0f}] of the {} edges between heads and MLPs, scores and exact cuts "
    "{:.0f} to {:.0f} %, random edges {:.0f} %. Paired by class, these need significantly more than masks: {} "
    "points. These do not: {}. By mean selectivity at a size, which the figure shows, exact cuts lie {} "
    "masks from {:.0f} to {:.0f} %.": lambda: (
        *by_masks("toy_vit_edges", "logit"),
        counted("toy_vit_edges").split()[0],
        *edges_for(list(EDGE_NAMES), "kept"),
        edges_for(["gradient"], "random")[0],
        edges_in_words("significant"),
        edges_in_words("not significant"),
        *exact_cuts_above(),
    ),
    "selective in their own style ({:.2f}) and, less, in the others ({:.2f}); those of site paths in neither "
    "({:.2f})": lambda: (
        *(selective("learned", of) for of in ("own domain", "other domains")),
        alike(selective("site-path", of) for of in ("own domain", "other domains")),
    ),
    "overlap by {:.2f}, on other images of the style by {:.2f}, in another style by {:.2f}, with another class by "
    "{:.2f} and {:.2f}, where random units of these sizes overlap by {:.2f}": lambda: (
        overlap("learned", "two parts of the same images", "other seed"),
        *overlaps("learned"),
    ),
    "attributed circuits does ({:.2f}, {:.2f}, {:.2f} and {:.2f}, random {:.2f})": lambda: overlaps("site-path"),
    "(AUROC {:.2f} to {:.2f}, guessing 0.5); cuts do ({:.1f})": lambda: (
        *into_attention(),
        alike(rows("scoreboard/toy_body/planted", network="attention", kind="edge", method="edge cuts")["auroc"]),
    ),
}
