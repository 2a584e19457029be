"""Similarities of parts of simulated circuits as a comparison, for tests."""

import numpy as np
import pandas as pd

from circuitry import Comparison
from circuitry.comparison import PARTS
from experiments.simulation import Planted, jaccard, keep

PLANTED = Planted(n_units=40, n_kept=6, n_domains=3, n_parts=4)


def similarities(
    n_classes: int = 6, sites: tuple[str, ...] = ("u", "v"), seed: int = 0
) -> Comparison:
    """Return a comparison with all parts of all classes in all domains, written row by row."""
    rng = np.random.default_rng(seed)
    classes, domains = [f"c{i:03}" for i in range(n_classes)], PLANTED.domains
    parts, values = [], []
    for site in sites:
        scores = {c: rng.normal(size=PLANTED.n_units) for c in classes}
        own = {
            (c, d): scores[c] + 0.6 * rng.normal(size=PLANTED.n_units)
            for c in classes
            for d in domains
        }
        kept = {
            (*key, p): keep(of + 0.5 * rng.normal(size=PLANTED.n_units), PLANTED.n_kept)
            for key, of in own.items()
            for p in range(PLANTED.n_parts)
        }
        cells = list(own)
        for i, (c, d) in enumerate(cells):
            for other, e in cells[i:]:
                for p in range(PLANTED.n_parts):
                    for q in range(PLANTED.n_parts):
                        if p < q or (p > q and (c, d) != (other, e)):
                            value = float(jaccard(kept[c, d, p], kept[other, e, q]))
                            parts.append((c, other, d, e, p, q, site, value))
                if c == other and d != e:
                    values.append(
                        (c, d, e, site, float(jaccard(kept[c, d, 0], kept[c, e, 0])))
                    )
    return Comparison(
        "node_overlap",
        pd.DataFrame(
            values, columns=["class", "domain_a", "domain_b", "site", "value"]
        ),
        pd.DataFrame(parts, columns=list(PARTS)),
        pd.DataFrame({"site": list(sites), "value": PLANTED.chance}),
        about={"n": 40, "n_per_part": 10},
    )
