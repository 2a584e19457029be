"""Tables of models with made-up accuracies and shares, on which claims are judged."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import pandas as pd

from circuitry.training import AMONG_GROUP, CLASSIFIER, FALSE_ALARMS, MEASURE
from experiments.study.claims import (
    AS_WRITTEN,
    CASE,
    COMPOSITIONAL,
    TRAINED_WORDS,
    WHOLE,
    Tables,
)

PAIRS = (("dog", "horse"), ("house", "person"), ("dog", "house"))
SHARED = ["run", *CASE, "setting", "what", "site", "domain", "value"]
Accuracy = Callable[[dict[str, Any]], float]


def made_up(
    accuracy: Accuracy,
    settings: Sequence[str] = ("cg-low", "cg-high"),
    domains: Sequence[str] = ("sketch",),
    models: Sequence[str] = ("lite0",),
    pairs: Sequence[tuple[str, str]] = PAIRS,
    shared: Sequence[dict[str, Any]] = (),
) -> Tables:
    """Return tables of a model for each setting, test domain, architecture and pair, with accuracies by a function."""
    rows = list[dict[str, Any]]()
    kinds = product((MEASURE, AMONG_GROUP, FALSE_ALARMS), (1, 3))
    for (measure, epoch), texts in product(kinds, (TRAINED_WORDS, CLASSIFIER)):
        of_models = product(settings, domains, models, enumerate(pairs))
        for setting, domain, model, (seed, pair) in of_models:
            for name in pair:
                about = {
                    "run": f"{model} {setting} {domain} {seed}",
                    "model": model,
                    "setting": setting,
                    "test_domain": domain,
                    "seed": seed,
                    "held_out": ", ".join(pair),
                    "epoch": epoch,
                    "texts": texts,
                    "domain": domain,
                    "class": name,
                    "measure": measure,
                    "n_images": 32,
                }
                rows.append(about | {"value": accuracy(about)})
    table = pd.DataFrame(shared, columns=SHARED)
    return Tables(pd.DataFrame(rows), table, "sketch")


def one(judgements: pd.DataFrame, claim: str, way: str = AS_WRITTEN) -> Any:
    """Return the row of a claim's first measure in one way to count."""
    rows = judgements.query("claim == @claim and way == @way and first")
    assert len(rows) == 1
    return rows.iloc[0]


def spread(about: dict[str, Any]) -> float:
    """Return small differences between pairs, without which no interval is known."""
    return 0.01 * int(about["seed"])


def shared_rows(
    value: Callable[[str, str, int], float], what: str, site: str = WHOLE
) -> list[dict[str, Any]]:
    """Return what three domains share in models of sketch, by setting, domain and seed."""
    rows = list[dict[str, Any]]()
    domains = ("sketch", "photo", "cartoon")
    for setting, domain, (seed, pair) in product(
        COMPOSITIONAL, domains, enumerate(PAIRS)
    ):
        rows.append(
            {
                "run": f"{setting} {seed}",
                "model": "lite0",
                "test_domain": "sketch",
                "seed": seed,
                "held_out": ", ".join(pair),
                "setting": setting,
                "what": what,
                "site": site,
                "domain": domain,
                "value": value(setting, domain, seed),
            }
        )
    return rows
