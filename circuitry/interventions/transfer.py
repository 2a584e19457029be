"""Transfer of circuits between domains: shared circuitry in the causal sense.

1. `transfer_circuits`: only the circuit of (class, domain A) is kept while images of domain B of the same class run
   through the encoder: faithfulness[A, B], and how often the class is still recognised;
2. `interchange`: the activations of A's circuit units, from images of A, are put into runs on images of B
   (Geiger et al. 2021, arXiv 2106.02997).

`transfer_matrix` makes a table a matrix; the more its off-diagonal keeps of the diagonal, the more the domains share.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from circuitry.circuits.asked_alike import ANY_TEXTS, check_made_with, named_sites
from circuitry.circuits.found_on import tell_seen
from circuitry.circuits.graph import Circuit
from circuitry.circuits.graph_folder import Key
from circuitry.encoder.baselines import Counterfactual
from circuitry.encoder.doubles import in_double
from circuitry.encoder.metrics import ClassLogit, Metric, checked_metric
from circuitry.encoder.modes import own_modes
from circuitry.encoder.task import Task, with_others
from circuitry.encoder.tensor_batches import one_tensor
from circuitry.interventions.curve_reading import faithfulness_ratio
from circuitry.interventions.kept_circuits import kept_embeddings
from circuitry.runs.errors import InputError
from circuitry.runs.given import Seed, checked
from circuitry.runs.progress import Bar


@own_modes()
@checked
def transfer_circuits(
    tasks: Mapping[Key, Task], circuits: Mapping[Key, Circuit]
) -> pd.DataFrame:
    """Keep the circuit of each domain on the images of each domain, class by class.

    Args:
        tasks: By (class, domain) its images and metric, with what ablated units are put to, and where. With others, it
            also says how many of them the circuit alone takes for its class, and whether it tells its class from them
            (see `FaithfulnessCurve`); a baseline with an activation for every image has them for the images and then
            for the others.
        circuits: By (class, domain); their units are kept.

    Returns:
        Columns class, circuit_domain, image_domain, faithfulness, reason, metric, full_metric, empty_metric,
        accuracy (with the circuit alone), full_accuracy, n_images; with ``others`` also metric, full_metric,
        empty_metric and accuracy of those, each with ``other_`` before it. Faithfulness is NaN, with the reason,
        where the model does no better than the baseline; accuracies, the shares of images that get the class among
        those of a `ClassLogit`, are NaN for another metric.

    Raises:
        InputError: when no class has both a circuit and images, a circuit is of another encoder or metric than a task,
            or the baseline does not fit the images.

    Example:
        >>> metrics = {name: class_logit(weights, i) for i, name in enumerate(names)}
        >>> tasks = {key: Task(clip.encoder, photos, metrics[key[0]]) for key, photos in images.items()}
        >>> circuits = {key: graph.circuit(None) for key, graph in graphs.items()}
        >>> table = transfer_circuits(tasks, circuits)
        >>> transfer_matrix(table)                    # faithfulness, rows: circuit of, columns: images of
        >>> transfer_matrix(table, "accuracy")
    """
    rows: list[dict[str, Any]] = []
    tested = {" in ".join(key): task.images for key, task in tasks.items()}
    tell_seen(tested, [circuit.source for circuit in circuits.values()], "Transfer")
    for key, task, by_domain in _jobs(tasks, circuits):
        sites = named_sites(task)
        kept = [one if sites is None else one.at(sites) for one in by_domain.values()]
        nothing = kept[0].nothing()
        together, n_own = with_others(task)
        found = kept_embeddings(
            replace(together, images=one_tensor(together.images)),
            [nothing.complement(), nothing, *kept],
        )
        parts = {"": found[:, :n_own]} | (
            {} if task.others is None else {"other_": found[:, n_own:]}
        )
        scores = {
            prefix: [_score(one, task.metric) for one in part]
            for prefix, part in parts.items()
        }
        (full, _), (empty, _) = scores[""][:2]
        for run, circuit_domain in enumerate(by_domain, start=2):
            row: dict[str, Any] = {
                "class": key[0],
                "circuit_domain": circuit_domain,
                "image_domain": key[1],
            }
            row["faithfulness"], row["reason"] = faithfulness_ratio(
                scores[""][run][0], full, empty
            )
            for prefix, by_run in scores.items():
                row |= {
                    f"{prefix}metric": by_run[run][0],
                    f"{prefix}accuracy": by_run[run][1],
                }
                row |= {
                    f"{prefix}full_metric": by_run[0][0],
                    f"{prefix}full_accuracy": by_run[0][1],
                }
                row[f"{prefix}empty_metric"] = by_run[1][0]
            rows.append(row | {"n_images": n_own})
    return pd.DataFrame(rows)


@own_modes()
@checked
def interchange(
    tasks: Mapping[Key, Task], circuits: Mapping[Key, Circuit], *, seed: Seed = 0
) -> pd.DataFrame:
    """Put the activations of A's circuit units, from images of A, into runs on images of B, class by class.

    Every image of B gets an image of A at random, another one where A is B. A control takes random units, as many at
    every site: any exchange of that size has this effect. Pairs of images and random units are drawn by ``seed``; for
    other arguments and errors see `transfer_circuits`. Baselines, sites and others of the tasks are not used.

    Returns:
        Columns class, circuit_domain, image_domain, change (of the metric, mean over images of B), random_change (by
        the control), accuracy, full_accuracy, n_images. Pairs without images of A are absent.
    """
    rows = []
    rng = np.random.default_rng(seed)
    for (class_name, domain), task, by_domain in _jobs(tasks, circuits):
        own = one_tensor(task.images)
        for circuit_domain, circuit in by_domain.items():
            if (class_name, circuit_domain) not in tasks:
                continue
            donors = one_tensor(tasks[class_name, circuit_domain].images)
            exchanged = replace(circuit, keep_error=False)
            runs = [
                one.complement()
                for one in (circuit.nothing(), exchanged, exchanged.random(rng))
            ]
            chosen = donors[
                _partners(len(own), len(donors), circuit_domain == domain, rng)
            ]
            mixing = replace(
                task, images=own, others=None, baseline=Counterfactual(chosen)
            )
            scores = [_score(one, task.metric) for one in kept_embeddings(mixing, runs)]
            full, mixed, random = scores
            changes = (mixed[0] - full[0], random[0] - full[0])
            rows.append(
                (
                    class_name,
                    circuit_domain,
                    domain,
                    *changes,
                    mixed[1],
                    full[1],
                    len(own),
                )
            )
    columns = "class circuit_domain image_domain change random_change accuracy full_accuracy n_images"
    return pd.DataFrame(rows, columns=columns.split())


def _score(
    embeddings: Float[Tensor, "images d"], metric: Metric
) -> tuple[float, float]:
    """Return the mean metric of images, and the share of them that get its class, NaN without candidate classes."""
    mean, right = (
        float(in_double(checked_metric(metric, embeddings)).mean()),
        float("nan"),
    )
    if isinstance(metric, ClassLogit) and len(metric.weights) > 1:
        right = float(in_double(metric.is_given(metric.log_answers(embeddings))).mean())
    return mean, right


def _jobs(
    tasks: Mapping[Key, Task], circuits: Mapping[Key, Circuit]
) -> Iterator[tuple[Key, Task, dict[str, Circuit]]]:
    """Yield the task of every (class, domain) with the units of the class's circuits by domain."""
    with_circuit = {class_name for class_name, _ in circuits}
    classes = [
        name
        for name in dict.fromkeys(name for name, _ in tasks)
        if name in with_circuit
    ]
    if not classes:
        raise InputError(
            "Transfer needs a class with both a circuit and images, but there is none."
        )
    todo = [key for name in classes for key in tasks if key[0] == name]
    progress = any(task.work.progress for task in tasks.values())
    for key in Bar(todo, desc="transfer", unit="job", disable=not progress):
        of_class = {
            d: replace(one, edges=None)
            for (name, d), one in circuits.items()
            if name == key[0]
        }
        task = tasks[key]
        check_made_with(task, [one.source for one in of_class.values()], ANY_TEXTS)
        check_made_with(
            task, [one.source for domain, one in of_class.items() if domain == key[1]]
        )
        yield key, replace(task, work=replace(task.work, progress=False)), of_class


def _partners(n: int, donors: int, same: bool, rng: np.random.Generator) -> Tensor:
    """Return an index of a donor for each image; where images are their own donors, never the image itself."""
    if same and n == donors > 1:
        return torch.from_numpy((np.arange(n) + rng.integers(1, n, n)) % n)
    return torch.from_numpy(rng.integers(0, donors, n))
