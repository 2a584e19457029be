"""How few (head, unit) pairs of a CLIP ResNet's attention pooling carry its answers, and are they a style's own?

The embedding is exactly a sum over pairs of a head of the pooling and a unit of the last block (`pooling_pairs`, arXiv
2509.19943), and each pair writes along one direction, which texts can name.

1. Sparsity: pairs are ranked on one half of the images of each class and domain, by the deviation of what they add to
   the logits; on the other half, images are classified by the strongest alone, all others at their mean, and compared
   with equally many random pairs. The same accuracy of random pairs refutes that few carry the answers.
2. Sharing: the 20 pairs of an image that add most to the lead of its class are compared between domains, as features
   are (`compare_features`), against parts of the same images, other classes and chance.
3. Names: the strongest pairs, each with the text whose lead over the mean text is nearest to its direction.

    python experiments/pooling_pairs.py      # the quickstart's model
    python experiments/pooling_pairs.py --model RN50 --pretrained openai --data DomainNet --n-images 50
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from circuitry.runs import run_script
from circuitry import Clip, Comparison, DomainFolder
from circuitry.analysis import QuickstartModel
from circuitry.circuits import PoolingPairs, pooling_pairs
from circuitry.comparison import mean_interval
from circuitry.data import readable
from circuitry.models import image_batches, style_templates
from circuitry.models.prompts import style_word
from circuitry.reports.result_tables import KeepSettings
from circuitry.representations import ImageFeatures, compare_features
from circuitry.representations.features import NO_FEATURE, STRONGEST

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

MEASURE = "pair_sharing"
RANDOM_DRAWS, RANDOM_DIRECTIONS = 5, 200
SHOWN = 12


@dataclass(frozen=True)
class Config(QuickstartModel, KeepSettings):
    """Settings; the defaults are the quickstart's model and images."""

    n_images: int = 20
    """Images per class and domain, half of them for ranking pairs."""
    fractions: tuple[float, ...] = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
    """Shares of the pairs that are kept."""
    seed: int = 0
    """Seed of images, random pairs and directions."""


class Decomposed(NamedTuple):
    """Images split into pairs, and the candidate classes."""

    images: pd.DataFrame
    """Columns relative (path below the root), domain, class, label."""
    pairs: PoolingPairs
    leads: Float[np.ndarray, "classes d"]
    """Of the text weight of each class over the mean of all: directions of logits that separate classes."""


def main(config: Config) -> None:
    """Decompose, measure, print and write the tables."""
    clip, images = config.clip(), config.images()
    seen = decompose(config, clip, images)
    shared, (names, reach) = sharing(config, seen).tables(), named_pairs(config, clip, images, seen)
    print(f"Random directions reach a cosine of {reach:.2f} with the nearest text.")
    small = {name: shared[name] for name in (f"{MEASURE}_{table}" for table in ("ratios", "levels", "summary"))}
    config.keep({"accuracy": accuracy_curves(config, seen), "names": names} | small, model_digest=clip.digest)


def decompose(config: Config, clip: Clip, images: DomainFolder) -> Decomposed:
    """Decompose the readable images, by domain and class."""
    chosen = [
        r for d in images.domains for c in images.classes for r in images.select(c, d, config.n_images, config.seed)
    ]
    rows: list[tuple[str, str, str, int]] = []

    def pixels() -> Iterator[Tensor]:
        for there, batch in image_batches(clip.encoder, clip.preprocess, chosen):
            rows.extend((r.relative, r.domain, r.class_name, images.label(r.class_name)) for r in there)
            yield batch

    pairs = pooling_pairs(clip.encoder, pixels())
    weights = clip.text_weights(images.all_classes).cpu().numpy()
    table = pd.DataFrame(rows, columns=["relative", "domain", "class", "label"])
    return Decomposed(table, pairs, weights - weights.mean(0))


def accuracy_curves(config: Config, seen: Decomposed) -> pd.DataFrame:
    """Return the accuracy of the strongest and of random pairs, by domain, on images that did not rank the pairs."""
    images, pairs, leads = seen
    read = pairs.read.reshape(len(images), -1)
    slopes = pairs.directions.reshape(read.shape[1], -1) @ leads.T  # pairs, classes
    ranking = images.groupby(["domain", "class"]).cumcount().to_numpy() % 2 == 0
    mean, tested = read[ranking].mean(0), images[~ranking]
    order = np.argsort(-read[ranking].std(0) * np.linalg.norm(slopes, axis=1), kind="stable")
    rng, labels = np.random.default_rng(config.seed), tested["label"].to_numpy()
    start, moved = mean @ slopes + pairs.rest[~ranking] @ leads.T, read[~ranking] - mean
    rows = []
    for fraction in config.fractions:
        n = max(1, round(fraction * len(order)))
        draws = [rng.permutation(len(order))[:n] for _ in range(RANDOM_DRAWS)]
        for circuit, sets in (("kept", [order[:n]]), ("random", draws)):
            right = [(start + moved[:, kept] @ slopes[kept]).argmax(1) == labels for kept in sets]
            by_class = tested.assign(right=np.mean(right, axis=0)).groupby(["domain", "class"])["right"].mean()
            for domain, found in by_class.groupby("domain"):
                rows.append((domain, circuit, fraction, n, *mean_interval(found.to_numpy())))
    return pd.DataFrame(rows, columns=["domain", "circuit", "fraction", "n_pairs", "value", "low", "high"])


def sharing(config: Config, seen: Decomposed) -> Comparison:
    """Return the share of a class's strongest pairs that two domains have in common."""
    images, pairs, leads = seen
    labels = images["label"].to_numpy()
    strongest = np.full((len(images), STRONGEST), NO_FEATURE)
    effect = np.zeros((len(images), STRONGEST))
    for label in np.unique(labels):
        (rows,) = np.nonzero(labels == label)
        lead = pairs.take(rows).effects(leads[label]).reshape(len(rows), -1)
        top = np.argsort(-lead, axis=1, kind="stable")[:, :STRONGEST]
        helps = np.take_along_axis(lead, top, axis=1).clip(0)
        effect[rows, : top.shape[1]], strongest[rows, : top.shape[1]] = helps, np.where(helps > 0, top, NO_FEATURE)
    found = compare_features(ImageFeatures(images, strongest, effect, pairs.read[0].size), seed=config.seed)
    return replace(found, measure=MEASURE, chance_of="random pairs")


def named_pairs(config: Config, clip: Clip, images: DomainFolder, seen: Decomposed) -> tuple[pd.DataFrame, float]:
    """Return the strongest pairs with the text nearest to their output, and the cosine of random directions."""
    things = [readable(name) for name in images.all_classes]
    styled = [style_templates(domain)[0].replace("{}", thing) for thing in things for domain in images.domains]
    texts = list(dict.fromkeys([*things, *map(style_word, images.domains), *styled]))
    embedded = clip.text_weights(texts, ["{}"]).cpu().numpy()
    named = embedded - embedded.mean(0)
    named /= np.linalg.norm(named, axis=1, keepdims=True)
    strength = seen.pairs.read.std(0) * np.linalg.norm(seen.pairs.directions @ seen.leads.T, axis=2)
    heads, units = np.unravel_index(np.argsort(-strength, axis=None, kind="stable")[:SHOWN], strength.shape)
    found = seen.pairs.directions[heads, units]
    cosines = found / np.linalg.norm(found, axis=1, keepdims=True) @ named.T
    best = cosines.argmax(1)
    columns = {"head": heads, "unit": units, "strength": strength[heads, units], "text": [texts[i] for i in best]}
    table = pd.DataFrame(columns | {"cosine": cosines.max(1)})
    random = np.random.default_rng(config.seed).standard_normal((RANDOM_DIRECTIONS, found.shape[1]))
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    return table, float(np.median((random @ named.T).max(1)))


if __name__ == "__main__":
    run_script(Config, main, __doc__)
