"""Similarities of folds of simulated circuits as a comparison, for tests."""

import numpy as np
import pandas as pd

from circuitry import Comparison
from circuitry.comparison import FOLDS
from experiments.simulation import Planted, jaccard, keep

PLANTED = Planted(n_units=40, n_kept=6, n_domains=3, n_folds=4)


def similarities(
    n_classes: int = 6, sites: tuple[str, ...] = ("u", "v"), seed: int = 0
) -> Comparison:
    """Return a comparison with all folds of all classes in all domains, written row by row."""
    rng = np.random.default_rng(seed)
    classes, domains = [f"c{i:03}" for i in range(n_classes)], PLANTED.domains
    folds, values = [], []
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
            for p in range(PLANTED.n_folds)
        }
        cells = list(own)
        for i, (c, d) in enumerate(cells):
            for other, e in cells[i:]:
                for p in range(PLANTED.n_folds):
                    for q in range(PLANTED.n_folds):
                        if p < q or (p > q and (c, d) != (other, e)):
                            value = float(jaccard(kept[c, d, p], kept[other, e, q]))
                            folds.append((c, other, d, e, p, q, site, value))
                if c == other and d != e:
                    values.append(
                        (c, d, e, site, float(jaccard(kept[c, d, 0], kept[c, e, 0])))
                    )
    return Comparison(
        "node_overlap",
        pd.DataFrame(
            values, columns=["class", "domain_a", "domain_b", "site", "value"]
        ),
        pd.DataFrame(folds, columns=list(FOLDS)),
        pd.DataFrame({"site": list(sites), "value": PLANTED.chance}),
        about={"n": 40, "n_per_fold": 10},
    )
