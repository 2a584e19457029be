"""Transfer of circuits between domains: shared circuitry in the causal sense.

1. `transfer_circuits`: only the circuit of (class, domain A) is kept while images of domain B of the same class run
   through the encoder: faithfulness[A, B], and how often the class is still recognised;
2. `interchange`: the activations of A's circuit units, from images of A, are put into runs on images of B
   (Geiger et al. 2021, arXiv 2106.02997).

`transfer_matrix` makes a table a matrix; the more its off-diagonal keeps of the diagonal, the more the domains share.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from circuitry.circuits.graph import AttributionGraph
from circuitry.circuits.graph_folder import Key
from circuitry.interventions.ablation import ablated_embeddings
from circuitry.interventions.circuit_sets import KeptUnits, add_error_units, take_complement, take_kept_units
from circuitry.interventions.curve_reading import faithfulness_ratio
from circuitry.interventions.faithfulness import AblationSettings
from circuitry.models.baselines import Counterfactual
from circuitry.models.encoder import Encoder
from circuitry.models.metrics import Metric, MetricOfClass, checked_metric, class_logit
from circuitry.runs.errors import InputError
from circuitry.runs.workers import Work


@dataclass(frozen=True, eq=False)
class ClassScorer:
    """How embeddings are scored for a class: by its metric, and by whether they are taken for it."""

    weights: Float[Tensor, "classes d"] | Mapping[str, Tensor]
    """Text weights [K, D] of all classes among which an image is classified; or those by the image's domain."""
    labels: Mapping[str, int]
    """Row of the weights by class."""
    metric: MetricOfClass = class_logit
    """From text weights and a row of them to the metric."""

    def metric_of(self, class_name: str, domain: str) -> Metric:
        """Return the metric of a class on images of a domain."""
        return self.metric(self._weights_of(domain), self.labels[class_name])

    def score(self, embeddings: Float[Tensor, "images d"], class_name: str, domain: str) -> tuple[float, float]:
        """Return the mean metric of a class on images of a domain, and the share of them classified as it."""
        label, weights = self.labels[class_name], self._weights_of(domain)
        values = checked_metric(self.metric(weights, label), embeddings)
        # Nothing kept leaves a zero embedding, whose logits are all equal: that recognises no class.
        logits = embeddings @ weights.T
        right = (logits.argmax(-1) == label) & (logits.max(-1).values > logits.min(-1).values)
        return float(values.double().mean()), float(right.double().mean())

    def _weights_of(self, domain: str) -> Tensor:
        return self.weights if isinstance(self.weights, Tensor) else self.weights[domain]


def transfer_circuits(
    encoder: Encoder,
    images: Mapping[Key, Tensor],
    graphs: Mapping[Key, AttributionGraph],
    scorer: ClassScorer,
    settings: AblationSettings = AblationSettings(),
    *,
    others: Mapping[Key, Tensor] | None = None,
    work: Work = Work(),
) -> pd.DataFrame:
    """Keep the circuit of each domain on the images of each domain, class by class.

    Args:
        encoder: The encoder under study.
        images: Images [B, 3, H, W] by (class, domain).
        graphs: Circuits by (class, domain), e.g. a `GraphFolder`; their kept units are the circuits.
        scorer: The metric of a class, and the classes among which an image is classified.
        settings: Of these, baseline, sites and keep_error. A baseline with an activation for every image has them for
            the images of a key and then for its others.
        others: For every key of the images, images of other classes in that domain: which share of them the circuit
            alone takes for its class, and how well it tells its class from them (see `FaithfulnessCurve`).
        work: Memory and progress.

    Returns:
        Columns class, circuit_domain, image_domain, faithfulness, reason, metric, full_metric, empty_metric,
        accuracy (with the circuit alone), full_accuracy, n_images; with ``others`` also metric, full_metric,
        empty_metric and accuracy of those, each with ``other_`` before it. Faithfulness is NaN, with the reason,
        where the model does no better than the baseline.

    Raises:
        InputError: when no class has both a circuit and images, a class has no label, or the baseline does not fit
            the images.

    Example:
        >>> scorer = ClassScorer(clip.text_weights(names), {name: i for i, name in enumerate(names)})
        >>> table = transfer_circuits(clip.encoder, images, graphs, scorer)
        >>> transfer_matrix(table)                    # faithfulness, rows: circuit of, columns: images of
        >>> transfer_matrix(table, "accuracy")
    """
    rows: list[dict[str, Any]] = []
    for key, batch, circuits in _jobs(images, graphs, scorer, work):
        units: list[KeptUnits] = [take_kept_units(graph, settings.sites) for graph in circuits.values()]
        if settings.keep_error:
            units = [add_error_units(encoder, circuit) for circuit in units]
        nothing: dict[str, Sequence[int]] = dict.fromkeys(units[0], ())
        everything = take_complement(nothing, next(iter(circuits.values())))
        sets = {"": batch} | ({} if others is None else {"other_": others[key]})
        found = ablated_embeddings(
            encoder,
            torch.cat(list(sets.values())),
            [everything, nothing, *units],
            baseline=settings.baseline,
            work=replace(work, progress=False),
        )
        parts = dict(zip(sets, torch.split(found, [len(part) for part in sets.values()], 1), strict=True))
        scores = {prefix: [scorer.score(one, *key) for one in part] for prefix, part in parts.items()}
        (full, _), (empty, _) = scores[""][:2]
        for run, circuit_domain in enumerate(circuits, start=2):
            row: dict[str, Any] = {"class": key[0], "circuit_domain": circuit_domain, "image_domain": key[1]}
            row["faithfulness"], row["reason"] = faithfulness_ratio(scores[""][run][0], full, empty)
            for prefix, by_run in scores.items():
                row |= {f"{prefix}metric": by_run[run][0], f"{prefix}accuracy": by_run[run][1]}
                row |= {f"{prefix}full_metric": by_run[0][0], f"{prefix}full_accuracy": by_run[0][1]}
                row[f"{prefix}empty_metric"] = by_run[1][0]
            rows.append(row | {"n_images": len(batch)})
    return pd.DataFrame(rows)


def interchange(
    encoder: Encoder,
    images: Mapping[Key, Tensor],
    graphs: Mapping[Key, AttributionGraph],
    scorer: ClassScorer,
    *,
    seed: int = 0,
    work: Work = Work(),
) -> pd.DataFrame:
    """Put the activations of A's circuit units, from images of A, into runs on images of B, class by class.

    Every image of B gets an image of A at random, another one where A is B. A control takes random units, as many at
    every site: what any exchange of that size does. Pairs of images and random units are drawn by ``seed``; the other
    arguments and the errors are those of `transfer_circuits`.

    Returns:
        Columns class, circuit_domain, image_domain, change (of the metric, mean over images of B), random_change (by
        the control), accuracy, full_accuracy, n_images. Pairs without images of A are absent.
    """
    rows = []
    rng = np.random.default_rng(seed)
    quiet = replace(work, progress=False)
    for (class_name, domain), batch, circuits in _jobs(images, graphs, scorer, work):
        for circuit_domain, graph in circuits.items():
            donors = images.get((class_name, circuit_domain))
            if donors is None or len(donors) == 0:
                continue
            circuit = take_kept_units(graph)
            control = {s: rng.permutation(len(graph.node_scores[s]))[: len(u)] for s, u in circuit.items()}
            nothing: dict[str, Sequence[int]] = dict.fromkeys(circuit, ())
            runs = [take_complement(exchanged, graph) for exchanged in (nothing, circuit, control)]
            chosen = donors[_partners(len(batch), len(donors), circuit_domain == domain, rng)]
            found = ablated_embeddings(encoder, batch, runs, baseline=Counterfactual(chosen), work=quiet)
            full, mixed, random = (scorer.score(e, class_name, domain) for e in found)
            changes = (mixed[0] - full[0], random[0] - full[0])
            rows.append((class_name, circuit_domain, domain, *changes, mixed[1], full[1], len(batch)))
    columns = "class circuit_domain image_domain change random_change accuracy full_accuracy n_images"
    return pd.DataFrame(rows, columns=columns.split())


def _jobs(
    images: Mapping[Key, Tensor],
    graphs: Mapping[Key, AttributionGraph],
    scorer: ClassScorer,
    work: Work,
) -> Iterator[tuple[Key, Tensor, dict[str, AttributionGraph]]]:
    """Yield the images of every (class, domain) with the class's circuits by domain, those of one class in memory."""
    with_circuit = {class_name for class_name, _ in graphs}
    classes = [name for name in dict.fromkeys(name for name, _ in images) if name in with_circuit]
    if missing := sorted(set(classes) - set(scorer.labels)):
        raise InputError(f"Every class needs its row of the text weights, but labels lack {', '.join(missing)}.")
    total = sum(name in with_circuit for name, _ in images)
    found = False
    with tqdm(desc="transfer", unit="job", disable=not work.progress, total=total) as bar:
        for class_name in classes:
            circuits = {domain: graphs[name, domain] for name, domain in graphs if name == class_name}
            for domain in [domain for name, domain in images if name == class_name]:
                batch = images[class_name, domain]
                if len(batch):
                    found = True
                    yield (class_name, domain), batch, circuits
                bar.update()
    if not found:
        raise InputError("Transfer needs a class with both circuits and images, but there is none.")


def _partners(n: int, donors: int, same: bool, rng: np.random.Generator) -> Tensor:
    """Return an index of a donor for each image; where images are their own donors, never the image itself."""
    if same and n == donors > 1:
        return torch.from_numpy((np.arange(n) + rng.integers(1, n, n)) % n)
    return torch.from_numpy(rng.integers(0, donors, n))
