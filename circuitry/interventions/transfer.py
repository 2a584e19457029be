"""Transfer of circuits between domains: shared circuitry in the causal sense.

1. `transfer_circuits`: only the circuit of (class, domain A) is kept while images of domain B of the same class run
   through the encoder: faithfulness[A, B], and how often the class is still recognised;
2. `interchange`: the activations of A's circuit units, from images of A, are put into runs on images of B.

`transfer_results.transfer_matrix` makes a table a matrix; the more its off-diagonal keeps of the diagonal, the more
the domains share. (method.md, section 6; interchange: Geiger et al. 2021, arXiv 2106.02997.)
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from circuitry.circuits.graph import AttributionGraph
from circuitry.interventions.curve_reading import faithfulness_ratio
from circuitry.interventions.faithfulness import KeptUnits, chosen_sites, complement, kept_embeddings, with_error
from circuitry.models.baselines import ZERO, Baseline
from circuitry.models.encoder import Encoder
from circuitry.models.metrics import MetricOfClass, checked_metric, class_logit
from circuitry.runs.errors import InputError

ByClassAndDomain = tuple[str, str]
"""A key (class, domain)."""


def transfer_circuits(
    encoder: Encoder,
    images: Mapping[ByClassAndDomain, Tensor],
    graphs: Mapping[ByClassAndDomain, AttributionGraph],
    weights: Float[Tensor, "classes d"],
    labels: Mapping[str, int],
    *,
    others: Mapping[ByClassAndDomain, Tensor] | None = None,
    metric: MetricOfClass = class_logit,
    sites: Sequence[str] | None = None,
    source: Baseline = ZERO,
    keep_error: bool = False,
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
        others: For every key of the images, images of other classes in that domain: which share of them the circuit
            alone takes for its class, and how well it tells its class from them (see `FaithfulnessCurve`).
        metric: From text weights and a row of them to the metric.
        sites: Sites to ablate at; all unless told.
        source: What stands in for the units outside the circuit.
        keep_error: See `faithfulness_curve`.
        memory_gib: Budget for activations, in GiB.
        progress: Show a bar over (class, domain of the images).

    Returns:
        Columns class, circuit_domain, image_domain, faithfulness, reason, metric, full_metric, empty_metric,
        accuracy (with the circuit alone), full_accuracy, n_images; with ``others`` also metric, full_metric,
        empty_metric and accuracy of those, each with ``other_`` before it. Faithfulness is NaN, with the reason,
        where the model does no better than the baseline.

    Raises:
        InputError: when no class has both a circuit and images, or a class has no label.

    Example:
        >>> table = transfer_circuits(clip.encoder, images, graphs, clip.text_weights(names), labels)
        >>> transfer_matrix(table)                    # faithfulness, rows: circuit of, columns: images of
        >>> transfer_matrix(table, "accuracy")
    """
    rows: list[dict[str, Any]] = []
    for class_name, domain, batch, circuits in _jobs(images, graphs, labels, progress):
        score = partial(_score, metric=metric, weights=weights, label=labels[class_name])
        units = [_circuit(graph, sites) for graph in circuits.values()]
        nothing: dict[str, Sequence[int]] = dict.fromkeys(units[0], ())
        everything = complement(nothing, next(iter(circuits.values())))
        runs: list[KeptUnits] = [everything, nothing, *(with_error(encoder, u) if keep_error else u for u in units)]
        together = batch if others is None else torch.cat([batch, others[class_name, domain]])
        found = kept_embeddings(encoder, together, runs, source=source, memory_gib=memory_gib)
        parts = {"": found[:, : len(batch)]} | ({} if others is None else {"other_": found[:, len(batch) :]})
        scores = {prefix: [score(embeddings) for embeddings in part] for prefix, part in parts.items()}
        for i, circuit_domain in enumerate(circuits, start=2):
            row: dict[str, Any] = {"class": class_name, "circuit_domain": circuit_domain, "image_domain": domain}
            full, empty, kept = (scores[""][k][0] for k in (0, 1, i))
            row["faithfulness"], row["reason"] = faithfulness_ratio(kept, full, empty)
            for prefix, by_run in scores.items():
                row[f"{prefix}metric"], row[f"{prefix}accuracy"] = by_run[i]
                row[f"{prefix}full_metric"], row[f"{prefix}full_accuracy"] = by_run[0]
                row[f"{prefix}empty_metric"] = by_run[1][0]
            rows.append(row | {"n_images": len(batch)})
    return pd.DataFrame(rows)


def interchange(
    encoder: Encoder,
    images: Mapping[ByClassAndDomain, Tensor],
    graphs: Mapping[ByClassAndDomain, AttributionGraph],
    weights: Float[Tensor, "classes d"],
    labels: Mapping[str, int],
    *,
    metric: MetricOfClass = class_logit,
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
        metric: From text weights and a row of them to the metric.
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
        score = partial(_score, metric=metric, weights=weights, label=labels[class_name])
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
            full, mixed, random = (score(e) for e in found)
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
    """Yield class, domain, its images, and the circuits of the class by domain; one class in memory at a time."""
    with_circuit = {class_name for class_name, _ in graphs}
    classes = [name for name in dict.fromkeys(name for name, _ in images) if name in with_circuit]
    if missing := sorted(set(classes) - set(labels)):
        raise InputError(f"Every class needs its row of the text weights, but labels lack {', '.join(missing)}.")
    bar = tqdm(desc="transfer", unit="job", disable=not progress, total=sum(name in with_circuit for name, _ in images))
    found = False
    with bar:
        for class_name in classes:
            circuits = {domain: graphs[name, domain] for name, domain in graphs if name == class_name}
            for domain in [domain for name, domain in images if name == class_name]:
                batch = images[class_name, domain]
                if len(batch):
                    found = True
                    yield class_name, domain, batch, circuits
                bar.update()
    if not found:
        raise InputError("Transfer needs a class with both circuits and images, but there is none.")


def _circuit(graph: AttributionGraph, sites: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    return {site: graph.kept_units[site] for site in chosen_sites(graph, sites)}


def _score(embeddings: Tensor, metric: MetricOfClass, weights: Tensor, label: int) -> tuple[float, float]:
    """Return the mean metric of the class and the share of images classified as it."""
    values = checked_metric(metric(weights, label), embeddings)
    # Nothing kept leaves a zero embedding, whose logits are all equal: that recognises no class.
    logits = embeddings @ weights.T
    right = (logits.argmax(-1) == label) & (logits.max(-1).values > logits.min(-1).values)
    return float(values.double().mean()), float(right.double().mean())


def _partners(n: int, donors: int, same: bool, rng: np.random.Generator) -> Tensor:
    """Return an index of a donor for each image; where images are their own donors, never the image itself."""
    if same and n == donors > 1:
        return torch.from_numpy((np.arange(n) + rng.integers(1, n, n)) % n)
    return torch.from_numpy(rng.integers(0, donors, n))
