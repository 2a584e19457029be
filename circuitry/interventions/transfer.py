"""Transfer of circuits between domains: shared circuitry in the causal sense.

1. `transfer_circuits`: only the circuit of (class, domain A) is kept while images of domain B of the same class run
   through the encoder: faithfulness[A, B], and how often the class is still recognised;
2. `interchange`: the activations of A's circuit units, from images of A, are put into runs on images of B
   (Geiger et al. 2021, arXiv 2106.02997).

`transfer_matrix` makes a matrix of a table. The nearer the values off its diagonal are to those on it, the more the
domains share.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

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
from circuitry.runs.arguments import Seed, checked
from circuitry.runs.errors import InputError
from circuitry.runs.progress import Bar

INTERCHANGE_COLUMNS = [
    "class",
    "circuit_domain",
    "image_domain",
    "change",
    "random_change",
    "accuracy",
    "full_accuracy",
    "n_images",
]
"""Columns of a table of `interchange`, which it has without rows, too."""


@own_modes()
@checked
def transfer_circuits(
    tasks: Mapping[Key, Task], circuits: Mapping[Key, Circuit]
) -> pd.DataFrame:
    """Keep the circuit of each domain on the images of each domain, class by class.

    Args:
        tasks: By (class, domain): images and metric, the baseline of ablated units, and the sites where units are
            ablated. With others, the table also says how many of them the circuit alone takes for its class, and
            `transfer_matrix` whether it tells its class from them (selectivity, see `FaithfulnessCurve`). If the
            baseline has an activation for every image, it has them for the images and then for the others.
        circuits: By (class, domain); their units are kept.

    Returns:
        Columns class, circuit_domain, image_domain, faithfulness, reason, metric, full_metric, empty_metric,
        accuracy (with the circuit alone), full_accuracy, n_images; with ``others`` also metric, full_metric,
        empty_metric and accuracy of the others, each with ``other_`` before it. Faithfulness is NaN, with the reason,
        where the model does no better than the baseline. Accuracies are the shares of images that get the class among
        the classes of a `ClassLogit`, and NaN for another metric.

    Raises:
        InputError: when no class has both a circuit and images, a circuit is of another encoder or metric than a task,
            or the baseline does not fit the images.

    Example:
        >>> tasks = {("clock", "real"): task}
        >>> of_sketch = graphs["clock", "sketch"]
        >>> circuits = {("clock", "real"): graph.circuit(None), ("clock", "sketch"): of_sketch.circuit(None)}
        >>> table = transfer_circuits(tasks, circuits)
        >>> table["circuit_domain"].tolist()
        ['real', 'sketch']
    """
    rows = list[dict[str, Any]]()
    tested = {" in ".join(key): task.images for key, task in tasks.items()}
    tell_seen(tested, [circuit.source for circuit in circuits.values()], "Transfer")
    for key, task, by_domain in _jobs(tasks, circuits):
        sites = named_sites(task)
        kept = list(by_domain.values())
        if sites is not None:
            kept = [circuit.at(sites) for circuit in kept]
        nothing = kept[0].nothing()
        together, n_own = with_others(task)
        # The whole model and nothing kept come first; all runs share their batches of images.
        embeddings = kept_embeddings(
            replace(together, images=one_tensor(together.images)),
            [nothing.complement(), nothing, *kept],
        )
        groups = {"": embeddings[:, :n_own]}
        if task.others is not None:
            groups["other_"] = embeddings[:, n_own:]
        scores = dict[str, list[_Score]]()
        for prefix, of_group in groups.items():
            scores[prefix] = [_score(of_run, task.metric) for of_run in of_group]
        for run, circuit_domain in enumerate(by_domain, start=2):
            full, empty = scores[""][:2]
            faithfulness, reason = faithfulness_ratio(
                scores[""][run].metric, full.metric, empty.metric
            )
            row: dict[str, Any] = {
                "class": key[0],
                "circuit_domain": circuit_domain,
                "image_domain": key[1],
                "faithfulness": faithfulness,
                "reason": reason,
            }
            for prefix, by_run in scores.items():
                row[f"{prefix}metric"] = by_run[run].metric
                row[f"{prefix}accuracy"] = by_run[run].accuracy
                row[f"{prefix}full_metric"] = by_run[0].metric
                row[f"{prefix}full_accuracy"] = by_run[0].accuracy
                row[f"{prefix}empty_metric"] = by_run[1].metric
            row["n_images"] = n_own
            rows.append(row)
    return pd.DataFrame(rows)


@own_modes()
@checked
def interchange(
    tasks: Mapping[Key, Task], circuits: Mapping[Key, Circuit], *, seed: Seed = 0
) -> pd.DataFrame:
    """Put the activations of A's circuit units, from images of A, into runs on images of B, class by class.

    Every image of B gets an image of A at random, another image than itself where A is B. A control exchanges random
    units, as many at every site: any exchange of that size has this effect. Pairs of images and random units are drawn
    by ``seed``; for other arguments and errors see `transfer_circuits`. Baselines, sites and others of the tasks are
    not used.

    Returns:
        Columns class, circuit_domain, image_domain, change (of the metric, mean over images of B), random_change (by
        the control), accuracy, full_accuracy, n_images. Pairs without images of A are absent.

    Example:
        >>> table = interchange({("clock", "real"): task}, {("clock", "real"): graph.circuit(None)})
        >>> table.columns.tolist()[3:5]
        ['change', 'random_change']
    """
    rows = list[dict[str, Any]]()
    rng = np.random.default_rng(seed)
    for (class_name, domain), task, by_domain in _jobs(tasks, circuits):
        own = one_tensor(task.images)
        for circuit_domain, circuit in by_domain.items():
            if (class_name, circuit_domain) not in tasks:
                continue
            donors = one_tensor(tasks[class_name, circuit_domain].images)
            # Exchanged units are "ablated" to the donor's activations, so the circuits that run are complements.
            # Error units stay with the image: they are no units of the circuit.
            exchanged = replace(circuit, keep_error=False)
            # Random units are drawn before the donors; the order is part of the seed.
            random = exchanged.random(rng)
            runs = [
                circuit.nothing().complement(),
                exchanged.complement(),
                random.complement(),
            ]
            same = circuit_domain == domain
            chosen = donors[_partners(len(own), len(donors), same, rng)]
            mixing = replace(
                task, images=own, others=None, baseline=Counterfactual(chosen)
            )
            embeddings = kept_embeddings(mixing, runs)
            scores = [_score(of_run, task.metric) for of_run in embeddings]
            full, mixed, by_chance = scores
            row = {
                "class": class_name,
                "circuit_domain": circuit_domain,
                "image_domain": domain,
                "change": mixed.metric - full.metric,
                "random_change": by_chance.metric - full.metric,
                "accuracy": mixed.accuracy,
                "full_accuracy": full.accuracy,
                "n_images": len(own),
            }
            rows.append(row)
    return pd.DataFrame(rows, columns=INTERCHANGE_COLUMNS)


class _Score(NamedTuple):
    """Mean metric of images, and the share of them that get its class, NaN without candidate classes."""

    metric: float
    accuracy: float


def _score(embeddings: Float[Tensor, "images d"], metric: Metric) -> _Score:
    mean = float(in_double(checked_metric(metric, embeddings)).mean())
    accuracy = float("nan")
    if isinstance(metric, ClassLogit) and len(metric.weights) > 1:
        answers = metric.log_answers(embeddings)
        accuracy = float(in_double(metric.is_given(answers)).mean())
    return _Score(mean, accuracy)


def _jobs(
    tasks: Mapping[Key, Task], circuits: Mapping[Key, Circuit]
) -> Iterator[tuple[Key, Task, dict[str, Circuit]]]:
    """Yield the task of every (class, domain) with the units of the class's circuits by domain."""
    by_class = dict[str, dict[str, Circuit]]()
    for (name, domain), circuit in circuits.items():
        by_class.setdefault(name, {})[domain] = replace(circuit, edges=None)
    jobs = [key for key in tasks if key[0] in by_class]
    if not jobs:
        raise InputError(
            "Transfer needs a class with both a circuit and images, but there is none."
        )
    # Class by class, in the order of the first task of each: rows and random draws follow it.
    classes = list(dict.fromkeys(name for name, _ in jobs))
    jobs.sort(key=lambda key: classes.index(key[0]))
    progress = any(task.work.progress for task in tasks.values())
    for key in Bar(jobs, desc="transfer", unit="job", disable=not progress):
        name, domain = key
        of_class = by_class[name]
        task = tasks[key]
        # The texts may be in the style of a domain, so they agree within one domain only.
        check_made_with(task, [c.source for c in of_class.values()], ANY_TEXTS)
        if domain in of_class:
            check_made_with(task, [of_class[domain].source])
        yield key, replace(task, work=replace(task.work, progress=False)), of_class


def _partners(n: int, donors: int, same: bool, rng: np.random.Generator) -> Tensor:
    """Return an index of a donor for each image; where images are their own donors, never the image itself."""
    if same and n == donors > 1:
        # A shift of 1 to n - 1 places around the circle never ends at its start.
        return torch.from_numpy((np.arange(n) + rng.integers(1, n, n)) % n)
    return torch.from_numpy(rng.integers(0, donors, n))
