"""Are domains separate in an embedding space? Distances, silhouettes, probes, modality gap. No torch.

All vectors have length 1. Between domains, `compare_distances` compares class by class, `mean_distances` whole domains
(the study's: Euclidean). Distances, spread, silhouettes and gap do not change when the space is rotated.

Maps: UMAP (McInnes et al. 2018, arXiv 1802.03426) keeps neighbours together; its densMAP variant (Narayan et al. 2021,
doi 10.1038/s41587-020-00801-7) also keeps dense regions dense. Distances between far groups mean little on it.
Principal components keep large distances and may put distant groups on top of each other.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal

from circuitry.runs import InputError
from circuitry.comparison import Comparison, both_directions, mean_interval
from circuitry.data import chosen_names
from experiments.representations.cells import compare_by_folds
from experiments.representations.embedding_set import Embeddings
from experiments.representations.probes import probe_accuracy

import numpy as np
import pandas as pd
from jaxtyping import Float
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_samples

DISTANCES = ("cosine", "euclidean", "standardised")
"""Distances between the means of two sets of vectors; see `distance`."""

ALL = "all"
"""Row of all domains together."""
N_FOLDS = 4  # folds of the images of a class in a domain
MOST_IMAGES = 10_000  # images whose silhouettes are computed at most


def distance(
    a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"], measure: str = "cosine"
) -> float:
    """Return the distance between the means p and q of two sets of vectors.

    - ``cosine``: 1 - p.q / (|p| |q|), in 0..2;
    - ``euclidean``: |p - q|;
    - ``standardised``: |p - q| / sqrt((v + w) / 2), where v and w are the summed variances (divided by n - 1) of the
      two sets: the distance in units of their spread, which does not change when the whole space shrinks.

    NaN if a mean is zero (cosine), or if a set has one vector or both have no spread (standardised).
    """
    p, v = _moments(a)
    q, w = _moments(b)
    return float(_apart(p[None], np.array([v]), q[None], np.array([w]), measure)[0])


def _moments(vectors: Float[np.ndarray, "n d"]) -> tuple[np.ndarray, float]:
    """Return the mean [d] and the summed variance of a set of vectors; NaN for the variance of one vector."""
    # Vectors are single precision, in which sums over many images lose digits.
    mean = vectors.mean(0, dtype=np.float64)
    if len(vectors) < 2:
        return mean, np.nan
    return mean, float(vectors.var(0, dtype=np.float64, ddof=1).sum())


def _apart(
    p: np.ndarray, v: np.ndarray, q: np.ndarray, w: np.ndarray, measure: str
) -> np.ndarray:
    """Return the distances of pairs of means p and q [pairs, d] with summed variances v and w [pairs]."""
    if measure == "cosine":
        # Vectors have length 1, but their means are shorter.
        norms = np.linalg.norm(p, axis=1) * np.linalg.norm(q, axis=1)
        return np.asarray(1 - (p * q).sum(1) / np.where(norms > 0, norms, np.nan))
    apart = np.linalg.norm(p - q, axis=1)
    if measure == "euclidean":
        return np.asarray(apart)
    variance = (v + w) / 2
    return np.asarray(apart / np.sqrt(np.where(variance > 0, variance, np.nan)))


def compare_distances(
    images: Embeddings, measure: str = "cosine", *, seed: int = 0
) -> Comparison:
    """Compare each class between all pairs of domains by the distance of its means; small means near.

    A finite number of images separates means by itself. So the mean distance of two folds of a class's images takes the
    place of ceilings: two domains that are no farther apart, at equal numbers of images, cannot be distinguished.
    """

    # A cell is described by d + 1 numbers: its mean, then its variance.
    def describe(rows: np.ndarray) -> np.ndarray:
        mean, variance = _moments(images.vectors[rows])
        return np.append(mean, variance)

    def compare(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return _apart(a[:, :-1], a[:, -1], b[:, :-1], b[:, -1], measure)

    return compare_by_folds(
        f"{measure}_distance",
        images.table(),
        N_FOLDS,
        describe,
        compare,
        alike=False,
        about={"seed": seed},
        seed=seed,
    )


def mean_distances(images: Embeddings) -> pd.DataFrame:
    """Return the distances between the means of whole domains, by every measure."""
    rows = list[dict[str, object]]()
    for (a, x), (b, y) in combinations(_by_domain(images).items(), 2):
        row: dict[str, object] = {"domain_a": a, "domain_b": b}
        for measure in DISTANCES:
            row[measure] = distance(x, y, measure)
        rows.append(row)
    return pd.DataFrame(rows, columns=["domain_a", "domain_b", *DISTANCES])


def _by_domain(images: Embeddings) -> dict[str, np.ndarray]:
    """Return the vectors of each domain, in alphabetical order."""
    domains = sorted(set(images.domain.tolist()))
    return {domain: images.vectors[images.domain == domain] for domain in domains}


def _of_groups(images: Embeddings, values: np.ndarray) -> pd.DataFrame:
    """Return the mean of a value of images for each class in each domain: columns class, domain, value."""
    groups = images.groups().items()
    rows = [(*key, float(values[group].mean())) for key, group in groups]
    return pd.DataFrame(rows, columns=["class", "domain", "value"])


def image_spread(images: Embeddings) -> pd.DataFrame:
    """Return the mean Euclidean distance of images to their mean, for each class in each domain."""
    spread = np.empty(len(images))
    for rows in images.groups().values():
        vectors = images.vectors[rows]
        apart = vectors - vectors.mean(0, dtype=np.float64)
        spread[rows] = np.linalg.norm(apart, axis=1)
    return _of_groups(images, spread)


def silhouettes(
    images: Embeddings, by: Literal["domain", "class"] = "domain", *, seed: int = 0
) -> pd.DataFrame:
    """Return mean silhouettes of the images of each class in each domain, with cosine distances.

    An image's silhouette is (b - a) / max(a, b): a is its mean distance to the others of its group, b to the images
    of the nearest other group. Groups are domains (all classes together) or classes (all domains together). Time grows
    with the square of the number of images, so at most `MOST_IMAGES` are taken, evenly over classes and domains, at
    random by ``seed``.
    """
    if len(images) > MOST_IMAGES:
        images = images.sample(MOST_IMAGES, seed)
    labels = images.domain if by == "domain" else images.class_name
    vectors = images.vectors.astype(np.float64)
    return _of_groups(images, silhouette_samples(vectors, labels, metric="cosine"))


def domain_probe(images: Embeddings, *, seed: int = 0) -> pd.DataFrame:
    """Return how well a linear classifier separates each domain from all others, in every fold.

    Guessing reaches a balanced accuracy of 1/2. Rows of domain `ALL` are of one classifier that names the domain:
    guessing reaches one over the number of domains. Images of one item are in one fold.
    """
    rows = list[tuple[str, int, float]]()
    for domain in [*_by_domain(images), ALL]:
        inside = images.domain if domain == ALL else images.domain == domain
        labels = inside.astype(str).tolist()
        # Images of one item in two folds would let the probe recognise the item.
        folds = probe_accuracy(images.vectors, labels, images.items(), seed=seed)
        rows += [(domain, fold, float(value)) for fold, value in enumerate(folds)]
    return pd.DataFrame(rows, columns=["domain", "fold", "value"])


def modality_gap(images: Embeddings, texts: Embeddings) -> pd.DataFrame:
    """Return ``|mean of the images - mean of all texts|``, for all images and for those of each domain."""
    rows = list[tuple[str, float]]()
    for domain, vectors in ({ALL: images.vectors} | _by_domain(images)).items():
        rows.append((domain, distance(vectors, texts.vectors, "euclidean")))
    return pd.DataFrame(rows, columns=["domain", "value"])


def class_accuracy(images: Embeddings, texts: Embeddings) -> pd.DataFrame:
    """Return the share of images whose nearest text is that of their class, by class and domain."""
    nearest = texts.class_name[(images.vectors @ texts.vectors.T).argmax(1)]
    return _of_groups(images, nearest == images.class_name)


NEIGHBOURS = 15  # UMAP's default; fewer with fewer points
COMPONENTS = "principal components"  # first words of the name of a map without UMAP
PER_DOMAIN = 2000  # images of a domain that the study maps


def embedding_map(
    vectors: Float[np.ndarray, "n d"], method: str = "auto", seed: int = 0
) -> tuple[Float[np.ndarray, "n 2"], str]:
    """Return the points of vectors in the plane, and the name of the map; the same arguments give the same points."""
    installed = importlib.util.find_spec("umap") is not None
    if method == "umap" and not installed:
        raise InputError(
            "A map by UMAP needs umap-learn, which is not installed: pip install umap-learn, or choose pca."
        )
    if method == "pca" or not installed:
        # The one solver that is neither random nor squares the numbers.
        pca = PCA(2, svd_solver="full")
        points = pca.fit_transform(vectors.astype(np.float64))
        share = pca.explained_variance_ratio_.sum()
        return points, f"{COMPONENTS} ({share:.0%} of the variance)"
    import umap  # slow to import, and an extra

    neighbours = min(NEIGHBOURS, len(vectors) - 1)
    # n_jobs: with a seed UMAP runs on one thread, and warns where it is not told so.
    mapper = umap.UMAP(
        n_neighbors=neighbours, densmap=True, random_state=seed, n_jobs=1
    )
    points = np.asarray(mapper.fit_transform(vectors), dtype=np.float64)
    return points, "UMAP with density"


def map_table(
    images: Embeddings,
    method: str = "auto",
    *,
    per_domain: int | None = PER_DOMAIN,
    without: str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Map random images of each domain, by one model, as the study does."""
    domains = sorted(set(images.domain.tolist()))
    if without is not None:
        domains.remove(*chosen_names("domain", (without,), domains))
    rng = np.random.default_rng(seed)
    rows = list[np.ndarray]()
    for domain in domains:
        # All are permuted, so that a larger map holds the images of a smaller one.
        permuted = rng.permutation(np.flatnonzero(images.domain == domain))
        rows.append(permuted[:per_domain])
    chosen = images.take(np.sort(np.concatenate(rows)))
    points, name = embedding_map(chosen.vectors, method, seed)
    x, y = points.T
    table = chosen.table()[["domain", "class"]]
    return table.assign(x=x, y=y, method=name, kind="image", without=without or "")


def separation_measures(
    images: Embeddings,
    texts: Embeddings,
    held_out: Sequence[str] = (),
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Return all measures of one model: columns measure, class (None without classes), domain, value.

    Distances are means over the other domains.
    """
    accuracy = class_accuracy(images, texts)
    out = accuracy["class"].isin(held_out)
    cosine = compare_distances(images)
    standardised = compare_distances(images, "standardised")
    probe = domain_probe(images, seed=seed)
    tables = {
        "distance": _to_others(cosine.values),
        "distance of folds": cosine.ceilings,
        "standardised distance": _to_others(standardised.values),
        "standardised distance of folds": standardised.ceilings,
        "spread": image_spread(images),
        "silhouette by domain": silhouettes(images, "domain", seed=seed),
        "silhouette by class": silhouettes(images, "class", seed=seed),
        "domain probe": probe.groupby("domain")["value"].mean().reset_index(),
        "modality gap": modality_gap(images, texts),
        "accuracy, seen classes": accuracy[~out],
        "accuracy, held-out classes": accuracy[out],
    }
    measured = {name: table for name, table in tables.items() if len(table)}
    table = pd.concat(measured, names=["measure"]).reset_index("measure")
    table = table[["measure", "class", "domain", "value"]].reset_index(drop=True)
    # Measures without classes have None, not NaN: the cells of the saved table are empty either way.
    classes = table["class"].astype(object).where(table["class"].notna(), None)
    return table.assign(**{"class": classes})


def _to_others(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of each class in each domain over the other domains."""
    by_cell = both_directions(table).groupby(["class", "domain"])
    return by_cell["value"].mean().reset_index()


def gather(measures: Mapping[tuple[str, int], pd.DataFrame]) -> pd.DataFrame:
    """Join tables of `separation_measures` by (model, seed): columns model, seed in front."""
    tables = [
        table.assign(model=m, seed=s)[["model", "seed", *table.columns]]
        for (m, s), table in measures.items()
    ]
    return pd.concat(tables, ignore_index=True)


def summarise(measures: pd.DataFrame) -> pd.DataFrame:
    """Average over seeds, then over classes, with Student's 95 % intervals over classes."""
    rows = list[tuple[object, ...]]()
    keys = ["measure", "model", "domain"]
    for key, of_group in measures.groupby(keys, sort=False):
        # Measures without classes are one group, of None: their interval is NaN.
        values = of_group.groupby("class", dropna=False)["value"].mean()
        interval = mean_interval(values.to_numpy(dtype=float))
        rows.append(
            (*key, *interval, of_group["class"].nunique(), of_group["seed"].nunique())
        )
    values_of = ["value", "low", "high", "n_classes", "n_seeds"]
    return pd.DataFrame(rows, columns=[*keys, *values_of])


def by_seed(measures: pd.DataFrame) -> pd.DataFrame:
    """Average over classes only: columns measure, model, domain, seed, value."""
    by = ["measure", "model", "domain", "seed"]
    return measures.groupby(by, sort=False)["value"].mean().reset_index()


def differences(measures: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    """Return the difference of every measure, model b minus model a, paired by class, after averaging over seeds."""
    rows = list[tuple[object, ...]]()
    for key, of_group in measures.groupby(["measure", "domain"], sort=False):
        means = of_group.groupby(["class", "model"], dropna=False)["value"].mean()
        by_model = means.unstack()
        # Accuracy on held-out classes may be of one model alone.
        if {a, b} <= set(by_model.columns):
            change = (by_model[b] - by_model[a]).dropna().to_numpy(dtype=float)
            rows.append((*key, *mean_interval(change), of_group["class"].nunique()))
    return pd.DataFrame(
        rows, columns=["measure", "domain", "difference", "low", "high", "n_classes"]
    )
