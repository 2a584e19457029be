"""All measures of embedding separation in one table, over models and seeds, with intervals. No torch."""

from collections.abc import Mapping, Sequence

from circuitry.comparison import both_directions, mean_interval
from circuitry.representations import Embeddings
from experiments.study.separation import (
    class_accuracy,
    compare_distances,
    domain_probe,
    image_spread,
    modality_gap,
    silhouettes,
)

import pandas as pd


def separation_measures(
    images: Embeddings, texts: Embeddings, held_out: Sequence[str] = (), *, seed: int = 0
) -> pd.DataFrame:
    """Return all measures of one model, by class if they have classes.

    Args:
        images: Images of at least two domains and two classes.
        texts: One text per class.
        held_out: Classes with an accuracy of their own.
        seed: Seed of folds and samples.

    Returns:
        Columns measure, class (None for measures without classes), domain, value. Distances are means over the other
        domains.
    """
    accuracy = class_accuracy(images, texts)
    out = accuracy["class"].isin(held_out)
    cosine, standardised = compare_distances(images), compare_distances(images, "standardised")
    parts = {
        "distance": _to_others(cosine.values),
        "distance of parts": cosine.ceilings,
        "standardised distance": _to_others(standardised.values),
        "standardised distance of parts": standardised.ceilings,
        "spread": image_spread(images).dropna(subset="class"),
        "silhouette by domain": silhouettes(images, "domain", seed=seed),
        "silhouette by class": silhouettes(images, "class", seed=seed),
        "domain probe": domain_probe(images, seed=seed).groupby("domain")["value"].mean().reset_index(),
        "modality gap": modality_gap(images, texts),
        "accuracy, seen classes": accuracy[~out],
        "accuracy, held-out classes": accuracy[out],
    }
    columns = ["measure", "class", "domain", "value"]
    tables = [part.assign(measure=name).reindex(columns=columns) for name, part in parts.items() if len(part)]
    table = pd.concat([part.astype({"class": object}) for part in tables], ignore_index=True)
    return table.assign(**{"class": table["class"].where(table["class"].notna(), None)})


def _to_others(table: pd.DataFrame) -> pd.DataFrame:
    return both_directions(table).groupby(["class", "domain"])["value"].mean().reset_index()


def gather(measures: Mapping[tuple[str, int], pd.DataFrame]) -> pd.DataFrame:
    """Join tables of `separation_measures` by (model, seed): columns model, seed in front."""
    parts = [table.assign(model=m, seed=s)[["model", "seed", *table.columns]] for (m, s), table in measures.items()]
    return pd.concat(parts, ignore_index=True)


def summarise(measures: pd.DataFrame) -> pd.DataFrame:
    """Average over seeds, then over classes, with Student's 95 % intervals over classes.

    How much models of different seeds differ is not in the intervals: look at the seeds one by one, `by_seed`.

    Returns:
        Columns measure, model, domain, value, low, high (NaN where the measure is not of a class), n_classes, n_seeds.
    """
    rows = []
    for key, part in measures.groupby(["measure", "model", "domain"], sort=False):
        values = part.groupby("class", dropna=False)["value"].mean().to_numpy(dtype=float)
        rows.append((*key, *mean_interval(values), part["class"].nunique(), part["seed"].nunique()))
    columns = ["measure", "model", "domain", "value", "low", "high", "n_classes", "n_seeds"]
    return pd.DataFrame(rows, columns=columns)


def by_seed(measures: pd.DataFrame) -> pd.DataFrame:
    """Average over classes only: columns measure, model, domain, seed, value."""
    return measures.groupby(["measure", "model", "domain", "seed"], sort=False)["value"].mean().reset_index()


def differences(measures: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    """Return what changes from model a to model b, paired by class, after averaging over seeds.

    Returns:
        Columns measure, domain, difference (b - a), low, high (Student's 95 % interval over classes), n_classes.
    """
    rows = []
    for key, part in measures.groupby(["measure", "domain"], sort=False):
        by_model = part.groupby(["class", "model"], dropna=False)["value"].mean().unstack()
        if {a, b} <= set(by_model.columns):
            change = (by_model[b] - by_model[a]).dropna().to_numpy(dtype=float)
            rows.append((*key, *mean_interval(change), part["class"].nunique()))
    return pd.DataFrame(rows, columns=["measure", "domain", "difference", "low", "high", "n_classes"])
