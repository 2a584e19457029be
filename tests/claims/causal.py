"""Claims about causal checks, edges and shared masks."""

from tests.claims.scoreboard import counted, pair, sizes, spread
from tests.support.committed_tables import Numbers, alike, one, rows, span, table

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


EDGES, ANSWERS = "toy_vit_edges", "size for 0.8 kl recovered, kept"
EDGE_SCORES = ["gradient", "path", "atp-star", "relp"]


def edges_by(methods: list[str], what: str = ANSWERS) -> tuple[float, float]:
    """Return the span over methods of the median share of edges that recovers 0.8 of the answers, in percent."""
    return span(sizes(EDGES, method, what).median() for method in methods)


def of_edges() -> list[object]:
    """Return how many edges masks, other methods and random edges take, and how the others lie to masks by class."""
    scores = [pair(EDGES, method, "learned", ANSWERS) for method in EDGE_SCORES]
    exact = pair(EDGES, "exact", "learned", ANSWERS)
    n = len(sizes(EDGES, "learned", ANSWERS))
    assert {row[3] for row in scores} == {n}
    return [
        *spread(EDGES, "learned", ANSWERS),
        counted(EDGES).split()[0],
        n,
        *edges_by([*EDGE_SCORES, "exact"]),
        alike(edges_by(EDGE_SCORES, ANSWERS.replace("kept", "random")), 0),
        *span(row[0] for row in scores),
        alike((row[4] for row in scores), 3),
        exact[0],
        exact[3],
        exact[4],
    ]


def into_attention() -> tuple[float, float]:
    methods = ["left 10", "Gauss-Radau 5", "midpoint 10", "gradient x activation"]
    found = rows("scoreboard/toy/planted", network="attention", kind="edge", site="attention", method=methods)
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
    "Learned masks recover 0.8 of the answers with {:.0f} % ({:.0f} to {:.0f} %) of the {} edges between heads and "
    "MLPs, median of {} classes; gradient, path, AtP\\*, RelP and exact cuts take {:.0f} to {:.0f} %, random edges "
    "{:.0f} %. The four scores need {:.0f} to {:.0f} points more, in every class (p {:.3f}); exact cuts {} points, in "
    "{} classes (p {:.3f}).": of_edges,
    "(AUROC {:.2f} to {:.2f}, guessing 0.5); cuts do ({:.1f})": lambda: (
        *into_attention(),
        alike(rows("scoreboard/toy/planted", network="attention", kind="edge", method="edge cuts")["auroc"]),
    ),
}
