"""Transfer of circuits between domains: shared circuitry in the causal sense.

1. `transfer_circuits`: only the circuit of (class, domain A) is kept while images of domain B of the same class run
   through the encoder: faithfulness[A, B], and how often the class is still recognised;
2. `interchange`: the activations of A's circuit units, from images of A, are put into runs on images of B.

`causal_results.transfer_matrix` makes a table a matrix; the more its off-diagonal keeps of the diagonal, the more
the domains share. (method.md, section 6; interchange: Geiger et al. 2021, arXiv 2106.02997.)
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from circuitry.baselines import ZERO, Baseline
from circuitry.causal_results import faithfulness_ratio
from circuitry.circuit import INPUT, AttributionGraph
from circuitry.encoder import Encoder
from circuitry.errors import InputError
from circuitry.faithfulness import complement, kept_embeddings
from circuitry.metrics import class_logit

ByClassAndDomain = tuple[str, str]
"""A key (class, domain)."""


def transfer_circuits(
    encoder: Encoder,
    images: Mapping[ByClassAndDomain, Tensor],
    graphs: Mapping[ByClassAndDomain, AttributionGraph],
    weights: Float[Tensor, "classes d"],
    labels: Mapping[str, int],
    *,
    source: Baseline = ZERO,
    memory_gib: float = 1.0,
    progress: bool = True,
) -> pd.DataFrame:
    """Keep the circuit of each domain on the images of each domain, class by class.

    Args:
        encoder: The encoder under study.
        images: Images [B, 3, H, W] by (class, domain).
        graphs: Circuits by (class, domain), e.g. a `GraphFolder`; their kept units are the circuits.
        weights: Text weights [K, D] of all classes among which an image is classified.
        labels: Row of the weights by class.
        source: What stands in for the units outside the circuit.
        memory_gib: Budget for activations, in GiB.
        progress: Show a bar over (class, domain of the images).

    Returns:
        Columns class, circuit_domain, image_domain, faithfulness, reason, metric, full_metric, empty_metric,
        accuracy (with the circuit alone), full_accuracy, n_images. Faithfulness is NaN, with the reason, where the
        model does no better than the baseline.

    Raises:
        InputError: when no class has both a circuit and images, or a class has no label.

    Example:
        >>> table = transfer_circuits(clip.encoder, images, graphs, clip.text_weights(names), labels)
        >>> transfer_matrix(table)                    # faithfulness, rows: circuit of, columns: images of
        >>> transfer_matrix(table, "accuracy")
    """
    rows = []
    for class_name, domain, batch, circuits in _jobs(images, graphs, labels, progress):
        first = next(iter(circuits.values()))
        units = [_circuit(graph) for graph in circuits.values()]
        nothing: dict[str, Sequence[int]] = dict.fromkeys(units[0], ())
        everything = complement(nothing, first)
        found = kept_embeddings(encoder, batch, [everything, nothing, *units], source=source, memory_gib=memory_gib)
        full, empty, *kept = (_score(e, weights, labels[class_name]) for e in found)
        for circuit_domain, (metric, accuracy) in zip(circuits, kept, strict=True):
            value, reason = faithfulness_ratio(metric, full[0], empty[0])
            ends = (full[0], empty[0], accuracy, full[1], len(batch))
            rows.append((class_name, circuit_domain, domain, value, reason, metric, *ends))
    columns = "class circuit_domain image_domain faithfulness reason metric full_metric empty_metric accuracy"
    return pd.DataFrame(rows, columns=[*columns.split(), "full_accuracy", "n_images"])


def interchange(
    encoder: Encoder,
    images: Mapping[ByClassAndDomain, Tensor],
    graphs: Mapping[ByClassAndDomain, AttributionGraph],
    weights: Float[Tensor, "classes d"],
    labels: Mapping[str, int],
    *,
    seed: int = 0,
    memory_gib: float = 1.0,
    progress: bool = True,
) -> pd.DataFrame:
    """Put the activations of A's circuit units, from images of A, into runs on images of B, class by class.

    Every image of B gets an image of A at random, another one where A is B. A control takes random units, as many at
    every site: what any exchange of that size does. Arguments and errors are those of `transfer_circuits`.

    Args:
        encoder: The encoder under study.
        images: Images [B, 3, H, W] by (class, domain).
        graphs: Circuits by (class, domain).
        weights: Text weights [K, D].
        labels: Row of the weights by class.
        seed: Seed of the pairs of images and of the random units.
        memory_gib: Budget for activations, in GiB.
        progress: Show a bar over (class, domain of the images).

    Returns:
        Columns class, circuit_domain, image_domain, change (of the metric, mean over images of B), random_change (by
        the control), accuracy, full_accuracy, n_images. Pairs without images of A are absent.
    """
    rows = []
    rng = np.random.default_rng(seed)
    for class_name, domain, batch, circuits in _jobs(images, graphs, labels, progress):
        for circuit_domain, graph in circuits.items():
            donors = images.get((class_name, circuit_domain))
            if donors is None or len(donors) == 0:
                continue
            circuit = _circuit(graph)
            control = {s: rng.permutation(len(graph.node_scores[s]))[: len(u)] for s, u in circuit.items()}
            nothing: dict[str, Sequence[int]] = dict.fromkeys(circuit, ())
            runs = [complement(nothing, graph), complement(circuit, graph), complement(control, graph)]
            chosen = donors[_partners(len(batch), len(donors), circuit_domain == domain, rng)]
            found = kept_embeddings(encoder, batch, runs, source=chosen, memory_gib=memory_gib)
            full, mixed, random = (_score(e, weights, labels[class_name]) for e in found)
            changes = (mixed[0] - full[0], random[0] - full[0])
            rows.append((class_name, circuit_domain, domain, *changes, mixed[1], full[1], len(batch)))
    columns = "class circuit_domain image_domain change random_change accuracy full_accuracy n_images"
    return pd.DataFrame(rows, columns=columns.split())


def _jobs(
    images: Mapping[ByClassAndDomain, Tensor],
    graphs: Mapping[ByClassAndDomain, AttributionGraph],
    labels: Mapping[str, int],
    progress: bool,
) -> Iterator[tuple[str, str, Tensor, dict[str, AttributionGraph]]]:
    """Yield class, domain, its images, and the circuits of the class by domain."""
    by_class: dict[str, dict[str, AttributionGraph]] = {}
    for (class_name, domain), graph in graphs.items():
        by_class.setdefault(class_name, {})[domain] = graph
    keys = [key for key in images if key[0] in by_class and len(images[key])]
    if not keys:
        raise InputError("Transfer needs a class with both circuits and images, but there is none.")
    if missing := sorted({class_name for class_name, _ in keys} - set(labels)):
        raise InputError(f"Every class needs its row of the text weights, but labels lack {', '.join(missing)}.")
    for class_name, domain in tqdm(keys, desc="transfer", unit="job", disable=not progress):
        yield class_name, domain, images[class_name, domain], by_class[class_name]


def _circuit(graph: AttributionGraph) -> dict[str, np.ndarray]:
    return {site: units for site, units in graph.kept_units.items() if site != INPUT}


def _score(embeddings: Tensor, weights: Tensor, label: int) -> tuple[float, float]:
    """Return the mean cosine logit of the class and the share of images classified as it."""
    metric = class_logit(weights, label)(embeddings)
    # Nothing kept leaves a zero embedding, whose logits are all equal: that recognises no class.
    logits = embeddings @ weights.T
    right = (logits.argmax(-1) == label) & (logits.max(-1).values > logits.min(-1).values)
    return float(metric.double().mean()), float(right.double().mean())


def _partners(n: int, donors: int, same: bool, rng: np.random.Generator) -> Tensor:
    """Return an index of a donor for each image; where images are their own donors, never the image itself."""
    if same and n == donors > 1:
        return torch.from_numpy((np.arange(n) + rng.integers(1, n, n)) % n)
    return torch.from_numpy(rng.integers(0, donors, n))
