"""Are domains separate in an embedding space? Distances, silhouettes, probes and the modality gap, without torch.

All vectors have length 1. `compare_distances` compares the domains class by class. `mean_distances` compares whole
domains; its Euclidean distance is the study's. Distances, spread, silhouettes and the gap do not change when the space
is rotated. Separate domains are refuted by distances that are no larger than the distances of two folds of one domain,
or by a probe of the domain that guesses.

Maps: UMAP (McInnes et al. 2018, arXiv 1802.03426) keeps neighbours together. Its variant densMAP (Narayan et al. 2021,
doi 10.1038/s41587-020-00801-7) also keeps dense regions dense. On both maps distances between far groups mean little.
Principal components keep large distances, but may put distant groups on top of each other.
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
"""Measures of the distance between the means of two sets of vectors; see `distance`."""

ALL = "all"
"""Name of the row in which all domains are taken together."""
N_FOLDS = 4  # folds of the images of a class in a domain
MOST_IMAGES = 10_000  # the most images whose silhouettes are computed


def distance(
    a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"], measure: str = "cosine"
) -> float:
    """Return the distance between the means p and q of two sets of vectors.

    - ``cosine``: 1 - p.q / (|p| |q|), in 0..2;
    - ``euclidean``: |p - q|;
    - ``standardised``: |p - q| / sqrt((v + w) / 2). Here v and w are the variances of the two sets (divided by n - 1),
      summed over the axes. This is the distance in units of the spread. It does not change when the whole space
      shrinks.

    The cosine distance is NaN if a mean is zero. The standardised distance is NaN if a set has one vector, or if both
    sets have no spread.
    """
    p, v = _moments(a)
    q, w = _moments(b)
    return float(_apart(p[None], np.array([v]), q[None], np.array([w]), measure)[0])


def _moments(vectors: Float[np.ndarray, "n d"]) -> tuple[np.ndarray, float]:
    """Return the mean [d] and the summed variance of a set of vectors; NaN for the variance of one vector."""
    # Vectors are single precision, in which sums over many images lose digits.
    mean = vectors.mean(0, dtype=np.float64)
    # numpy would warn about the variance of one vector.
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
    """Compare each class between all pairs of domains by the distance between the means of the class.

    A small distance means that the domains are near. The means of a finite number of images differ by chance. So the
    mean distance between two folds of the images of a class takes the place of a ceiling. Two domains that are no
    farther apart, with equally many images, cannot be distinguished.
    """

    # A class in a domain is described by d + 1 numbers: its mean [d], then its variance.
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
    """Return the distance between the means of every two whole domains, a column for each of `DISTANCES`."""
    rows = list[tuple[object, ...]]()
    vectors = _by_domain(images)
    for a, b in combinations(vectors, 2):
        row = [distance(vectors[a], vectors[b], measure) for measure in DISTANCES]
        rows.append((a, b, *row))
    return pd.DataFrame(rows, columns=["domain_a", "domain_b", *DISTANCES])


def _by_domain(images: Embeddings) -> dict[str, np.ndarray]:
    """Return the vectors of each domain; domains are in alphabetical order."""
    domains = sorted(set(images.domain.tolist()))
    return {domain: images.vectors[images.domain == domain] for domain in domains}


def _of_groups(images: Embeddings, values: np.ndarray) -> pd.DataFrame:
    """Average a value of images over each class in each domain: columns class, domain, value."""
    groups = images.groups().items()
    rows = [(*key, float(values[group].mean())) for key, group in groups]
    return pd.DataFrame(rows, columns=["class", "domain", "value"])


def image_spread(images: Embeddings) -> pd.DataFrame:
    """Return the mean Euclidean distance of images to their mean, for each class in each domain."""
    spread = np.empty(len(images))
    # The mean is the mean of the class in the domain, in double precision.
    for rows in images.groups().values():
        vectors = images.vectors[rows]
        apart = vectors - vectors.mean(0, dtype=np.float64)
        spread[rows] = np.linalg.norm(apart, axis=1)
    return _of_groups(images, spread)


def silhouettes(
    images: Embeddings, by: Literal["domain", "class"] = "domain", *, seed: int = 0
) -> pd.DataFrame:
    """Return mean silhouettes of the images of each class in each domain, with cosine distances.

    The silhouette of an image is (b - a) / max(a, b). Here a is its mean distance to all other images of its group, and
    b is its mean distance to the images of the nearest other group. Groups are domains (all classes together) or
    classes (all domains together), as ``by`` says. The time grows with the square of the number of images. So at most
    `MOST_IMAGES` images are taken, evenly over classes and domains, at random by ``seed``.
    """
    if len(images) > MOST_IMAGES:
        images = images.sample(MOST_IMAGES, seed)
    labels = images.domain if by == "domain" else images.class_name
    vectors = images.vectors.astype(np.float64)
    return _of_groups(images, silhouette_samples(vectors, labels, metric="cosine"))


def domain_probe(images: Embeddings, *, seed: int = 0) -> pd.DataFrame:
    """Return how well a linear classifier separates each domain from all other domains, in every fold.

    The value is a balanced accuracy, for which the chance level is 1/2. Rows of the domain `ALL` are of one classifier
    that names the domain. Its chance level is one over the number of domains. Images of one item are in one fold.
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
    """Return ``|mean of the images - mean of all texts|``, for all images and for the images of each domain."""
    rows = list[tuple[str, float]]()
    for domain, vectors in ({ALL: images.vectors} | _by_domain(images)).items():
        rows.append((domain, distance(vectors, texts.vectors, "euclidean")))
    return pd.DataFrame(rows, columns=["domain", "value"])


def class_accuracy(images: Embeddings, texts: Embeddings) -> pd.DataFrame:
    """Return the share of images whose nearest text is the text of their class, by class and domain."""
    # Vectors have length 1, so the nearest text has the largest inner product.
    nearest = texts.class_name[(images.vectors @ texts.vectors.T).argmax(1)]
    return _of_groups(images, nearest == images.class_name)


NEIGHBOURS = 15  # UMAP's default number of neighbours; a smaller number is used with fewer points
COMPONENTS = "principal components"  # first words of the name of a map without UMAP
PER_DOMAIN = 2000  # number of images of a domain that the study maps


def embedding_map(
    vectors: Float[np.ndarray, "n d"], method: str = "auto", seed: int = 0
) -> tuple[Float[np.ndarray, "n 2"], str]:
    """Map vectors into the plane; the same arguments give the same points.

    Args:
        method: ``umap``, ``pca``, or ``auto``: UMAP if it is installed, and otherwise principal components.

    Returns:
        The points [n, 2], and the name of the map.
    """
    installed = importlib.util.find_spec("umap") is not None
    if method == "umap" and not installed:
        raise InputError(
            "A map by UMAP needs umap-learn, which is not installed: pip install umap-learn, or choose pca."
        )
    if method == "pca" or not installed:
        # The only solver that is neither random nor squares the numbers.
        pca = PCA(2, svd_solver="full")
        points = pca.fit_transform(vectors.astype(np.float64))
        share = pca.explained_variance_ratio_.sum()
        return points, f"{COMPONENTS} ({share:.0%} of the variance)"
    import umap  # slow to import, and an extra

    neighbours = min(NEIGHBOURS, len(vectors) - 1)
    # n_jobs: with a seed UMAP runs on one thread, and warns unless it is told so.
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
    """Map random images of each domain into one plane, by the embeddings of one model, as the study does.

    Args:
        per_domain: Number of images of each domain; `None` takes all.
        without: Domain that the map leaves out.

    Returns:
        A row for each image: columns domain, class, x, y, method, kind, without.
    """
    domains = sorted(set(images.domain.tolist()))
    if without is not None:
        domains.remove(*chosen_names("domain", (without,), domains))
    rng = np.random.default_rng(seed)
    rows = list[np.ndarray]()
    for domain in domains:
        # All images are permuted, so that a larger map holds the images of a smaller one.
        permuted = rng.permutation(np.flatnonzero(images.domain == domain))
        rows.append(permuted[:per_domain])
    chosen = images.take(np.sort(np.concatenate(rows)))
    points, name = embedding_map(chosen.vectors, method, seed)
    table = chosen.table()[["domain", "class"]]
    table[["x", "y"]] = points
    return table.assign(method=name, kind="image", without=without or "")


def separation_measures(
    images: Embeddings,
    texts: Embeddings,
    held_out: Sequence[str] = (),
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Return all measures of one model.

    Returns:
        Columns measure, class (None for a measure that has no classes), domain, value. A distance is the mean distance
        to all other domains.
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
    """Average the values of each class in each domain over all other domains."""
    by_cell = both_directions(table).groupby(["class", "domain"])
    return by_cell["value"].mean().reset_index()


def gather(measures: Mapping[tuple[str, int], pd.DataFrame]) -> pd.DataFrame:
    """Join the tables of `separation_measures` of each (model, seed); model and seed become the first columns."""
    table = pd.concat(measures, names=["model", "seed"])
    return table.reset_index(["model", "seed"]).reset_index(drop=True)


def summarise(measures: pd.DataFrame) -> pd.DataFrame:
    """Average the measures over seeds and then over classes, with Student's 95 % intervals over classes.

    Returns:
        Columns measure, model, domain, value, low, high, n_classes, n_seeds.
    """
    rows = list[tuple[object, ...]]()
    keys = ["measure", "model", "domain"]
    for key, of_group in measures.groupby(keys, sort=False):
        # A measure without classes is one group, of None: its interval is NaN.
        values = of_group.groupby("class", dropna=False)["value"].mean()
        interval = mean_interval(values.to_numpy(dtype=float))
        rows.append((*key, *interval, *of_group[["class", "seed"]].nunique()))
    values_of = ["value", "low", "high", "n_classes", "n_seeds"]
    return pd.DataFrame(rows, columns=[*keys, *values_of])


def by_seed(measures: pd.DataFrame) -> pd.DataFrame:
    """Average the measures over classes alone: columns measure, model, domain, seed, value."""
    by = ["measure", "model", "domain", "seed"]
    return measures.groupby(by, sort=False)["value"].mean().reset_index()


def differences(measures: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    """Return the difference of every measure, model b minus model a, with Student's 95 % interval over classes.

    Measures are averaged over seeds first. Differences are paired by class.
    """
    rows = list[tuple[object, ...]]()
    for key, of_group in measures.groupby(["measure", "domain"], sort=False):
        means = of_group.groupby(["class", "model"], dropna=False)["value"].mean()
        by_model = means.unstack()
        # Only one of the models may have a measure, such as accuracy on held-out classes.
        if {a, b} <= set(by_model.columns):
            change = (by_model[b] - by_model[a]).dropna().to_numpy(dtype=float)
            rows.append((*key, *mean_interval(change), of_group["class"].nunique()))
    return pd.DataFrame(
        rows, columns=["measure", "domain", "difference", "low", "high", "n_classes"]
    )
