"""Transfer of circuits between domains: do domains share circuits in the causal sense?

1. `transfer_circuits` runs images of domain B through the encoder while only the circuit of the same class in domain A
   is kept. It returns faithfulness[A, B], and how often the class is still recognised.
2. `interchange` runs images of domain B, but the units of the circuit of domain A get the activations that they have
   for images of A (Geiger et al. 2021, arXiv 2106.02997).

`transfer_matrix` turns a table into a matrix. The closer the values off the diagonal are to the values on the diagonal,
the more the domains share.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from circuitry.circuits.asked_alike import ANY_TEXTS, check_made_with, named_sites
from circuitry.circuits.found_on import tell_seen
from circuitry.circuits.graph import Circuit
from circuitry.circuits.graph_folder import Key
from circuitry.encoder.baselines import Counterfactual
from circuitry.encoder.modes import own_modes
from circuitry.encoder.task import Task
from circuitry.encoder.tensor_batches import one_tensor
from circuitry.interventions.curve_reading import CURVE_NUMBERS, faithfulness_ratio
from circuitry.interventions.faithfulness import measure_answers
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
"""The columns of a table of `interchange`. A table without rows has them, too."""


@own_modes()
@checked
def transfer_circuits(
    tasks: Mapping[Key, Task], circuits: Mapping[Key, Circuit]
) -> pd.DataFrame:
    """Measure how well the circuit of each domain works on images of each domain, class by class.

    While images of a domain run through the encoder, only the units of one circuit are kept.

    Args:
        tasks: A task for each (class, domain): images and metric, the baseline of ablated units, and the sites where
            units are ablated. If the tasks have ``others``, the table also says how many of them are classified as the
            circuit's class. `transfer_matrix` can then return the selectivity: whether the circuit separates its class
            from other classes (see `FaithfulnessCurve`). A baseline with one activation per image must list the
            activations of ``task.images`` first, then the activations of ``task.others``.
        circuits: A circuit for each (class, domain). Its units are kept; its edges are ignored.

    Returns:
        A table with a row for each class, domain of the circuit and domain of the images. Columns:

        - class, circuit_domain, image_domain.
        - faithfulness, reason: if the model does no better than the baseline, faithfulness is NaN, and the reason is a
          text which says so. Otherwise the reason is empty.
        - metric, full_metric, empty_metric: the mean metric of the circuit alone, of the whole model, and of the model
          with every unit ablated.
        - accuracy, full_accuracy: the share of images that are classified as the class, with the circuit alone and by
          the whole model. The candidates are the classes of a `ClassLogit`; for another metric accuracies are NaN.
        - n_images: the number of images.
        - other_metric, other_accuracy, other_full_metric, other_full_accuracy, other_empty_metric: the same for the
          images of ``others``, if the tasks have them.

    Raises:
        InputError: if no class has both a circuit and images, if a circuit was found with another encoder or metric
            than a task has, or if the baseline does not fit the images.

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
        # The first two runs are the whole model and nothing kept. All runs share the batches of images.
        full, empty, *of_circuits = _means(task, [nothing.complement(), nothing, *kept])
        for circuit_domain, means in zip(by_domain, of_circuits, strict=True):
            faithfulness, reason = faithfulness_ratio(
                means["metric"], full["metric"], empty["metric"]
            )
            row: dict[str, Any] = {
                "class": key[0],
                "circuit_domain": circuit_domain,
                "image_domain": key[1],
                "faithfulness": faithfulness,
                "reason": reason,
            }
            for prefix in ("", "other_"):
                if f"{prefix}metric" in full:
                    row[f"{prefix}metric"] = means[f"{prefix}metric"]
                    row[f"{prefix}accuracy"] = means[f"{prefix}accuracy"]
                    row[f"{prefix}full_metric"] = full[f"{prefix}metric"]
                    row[f"{prefix}full_accuracy"] = full[f"{prefix}accuracy"]
                    row[f"{prefix}empty_metric"] = empty[f"{prefix}metric"]
            row["n_images"] = full["n_images"]
            rows.append(row)
    return pd.DataFrame(rows)


@own_modes()
@checked
def interchange(
    tasks: Mapping[Key, Task], circuits: Mapping[Key, Circuit], *, seed: Seed = 0
) -> pd.DataFrame:
    """Exchange activations between images of two domains at the units of a circuit, class by class.

    Let A and B be two domains. For the circuit that was found in A, every image of B is paired with a random image of
    A. In the run of the image of B, the circuit's units get the activations that they have for the image of A. If A is
    B, an image is never paired with itself, unless it is the only image. A control exchanges random units instead, as
    many at every site as the circuit has. It shows how much any exchange of this size changes.

    Args:
        tasks: As for `transfer_circuits`; their baselines, sites and ``others`` are ignored.
        circuits: As for `transfer_circuits`.
        seed: Seed of the pairs of images and of the random units.

    Returns:
        A table with the columns class, circuit_domain (A), image_domain (B), change, random_change, accuracy,
        full_accuracy and n_images. The column change is the change of the metric, averaged over the images of B, and
        random_change is the change in the control. Accuracy is the share of images of B that are classified as the
        class after the exchange, and full_accuracy is this share in the whole model. A pair of domains has no row if
        there are no images of A.

    Raises:
        InputError: as `transfer_circuits`.

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
            # Exchanged units are "ablated" to the activations of the donor, so the kept circuits are complements.
            # Error units are not exchanged, because they do not belong to the circuit.
            exchanged = replace(circuit, keep_error=False)
            # Random units are drawn before the donors. Another order would change the results of a seed.
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
            full, mixed, by_chance = _means(mixing, runs)
            row = {
                "class": class_name,
                "circuit_domain": circuit_domain,
                "image_domain": domain,
                "change": mixed["metric"] - full["metric"],
                "random_change": by_chance["metric"] - full["metric"],
                "accuracy": mixed["accuracy"],
                "full_accuracy": full["accuracy"],
                "n_images": len(own),
            }
            rows.append(row)
    return pd.DataFrame(rows, columns=INTERCHANGE_COLUMNS)


def _means(task: Task, circuits: Sequence[Circuit]) -> list[dict[Hashable, Any]]:
    """Return means over a task's images under each circuit. The first circuit is the whole model.

    They are metric, accuracy and n_images; if the task has ``others``, also other_metric and other_accuracy. The
    accuracy is NaN if the metric has no candidate classes.
    """
    numbers, own = measure_answers(task, circuits)
    table = pd.DataFrame({"n_images": own.sum()}, range(len(circuits)))
    for prefix, images in (("", own), ("other_", ~own)):
        if images.any():
            of_images = dict(zip(CURVE_NUMBERS, numbers[..., images], strict=False))
            metric = of_images["metric"]
            right = of_images.get("top", np.full_like(metric, np.nan))
            table[f"{prefix}metric"] = metric.mean(1)
            table[f"{prefix}accuracy"] = right.mean(1)
    return table.to_dict("records")


def _jobs(
    tasks: Mapping[Key, Task], circuits: Mapping[Key, Circuit]
) -> Iterator[tuple[Key, Task, dict[str, Circuit]]]:
    """Yield each (class, domain) with its task, and with the circuits of the class.

    The circuits are in a dictionary by the domain that they were found in. Their edges are removed.

    Raises:
        InputError: if no class has both a circuit and images, or a circuit does not fit a task.
    """
    by_class = dict[str, dict[str, Circuit]]()
    for (name, domain), circuit in circuits.items():
        by_class.setdefault(name, {})[domain] = replace(circuit, edges=None)
    jobs = [key for key in tasks if key[0] in by_class]
    if not jobs:
        raise InputError(
            "Transfer needs a class with both a circuit and images, but there is none."
        )
    # Classes are in the order of their first tasks; rows and random draws follow this order.
    classes = list(dict.fromkeys(name for name, _ in jobs))
    jobs.sort(key=lambda key: classes.index(key[0]))
    progress = any(task.work.progress for task in tasks.values())
    for key in Bar(jobs, desc="transfer", unit="job", disable=not progress):
        name, domain = key
        of_class = by_class[name]
        task = tasks[key]
        # Texts may be in the style of a domain, so they have to agree only within one domain.
        check_made_with(task, [c.source for c in of_class.values()], ANY_TEXTS)
        if domain in of_class:
            check_made_with(task, [of_class[domain].source])
        yield key, replace(task, work=replace(task.work, progress=False)), of_class


def _partners(n: int, donors: int, same: bool, rng: np.random.Generator) -> Tensor:
    """Return the index of a random donor for each image.

    Args:
        n: The number of images.
        donors: The number of donors.
        same: Whether the donors are the same images, in the same order. If so, no image gets itself as donor, unless it
            is the only image.
        rng: The generator.
    """
    if same and n == donors > 1:
        # A cyclic shift by 1 to n - 1 never returns the image itself.
        return torch.from_numpy((np.arange(n) + rng.integers(1, n, n)) % n)
    return torch.from_numpy(rng.integers(0, donors, n))
