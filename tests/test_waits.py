"""How often Python waits for a GPU, and how many runs an own part takes.

The waits do not depend on the number of sites, of cuts, or of circuits in a run.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from circuitry import Task, class_logit, load_clip
from circuitry.circuits import own_part, score_edges
from circuitry.circuits.circuit_settings import AttributionSettings
from circuitry.circuits.own_part_of_class import ImagesOfClass, contrast
from circuitry.circuits.unit_scores import score_folds
from circuitry.encoder import Encoder, OperationCounter
from circuitry.gates import UnitsUnderGates
from circuitry.gates.fisher import default_answers, gate_importance
from circuitry.interventions import circuit_of, kept_embeddings
from tests.support.second_device import DEVICE, counted_waits, second_device
from tests.support.work import QUIET

Job = Callable[[Task], object]
FEW, MANY = 3, 12
"""Numbers of sites."""


def task_of(encoder: Encoder, n_sites: int) -> Task:
    """Return a task with images of noise that the model takes for their class."""
    noise = torch.Generator().manual_seed(0)
    images = torch.randn(5, 3, *encoder.image_size, generator=noise).clamp(-1.7, 2.1)
    with encoder.running():
        embeddings = encoder(images.to(encoder.device)).cpu()
    # Rows of the pseudoinverse, each orthogonal to the embeddings of all other images.
    of_images = torch.linalg.pinv(embeddings).T
    texts = torch.cat([of_images[:2].sum(0, keepdim=True), of_images[2:]])
    return Task(
        encoder,
        images[:2],
        class_logit(F.normalize(texts, dim=-1), 0),
        others=images[2:],
        sites=encoder.sites[-n_sites:],
        work=QUIET,
    )


def waits(n_sites: int, job: Job) -> Counter[str]:
    """Return how often each operation waits when a job runs on the last sites."""
    with second_device():
        clip = load_clip("rn-tiny", device=DEVICE)
        task = task_of(clip.in_components().encoder, n_sites)
        job(task)  # what a model needs once is known after the first run
        with counted_waits() as counter:
            job(task)
    return counter


def kept(n_circuits: int, task: Task) -> object:
    """Run circuits that part at the first, the second and later sites."""
    units = {site: np.arange(4) for site in task.sites}
    circuits = [circuit_of(task, units)]
    circuits *= n_circuits
    for number in range(1, n_circuits):
        site = task.sites[number % FEW]
        circuits[number] = circuit_of(task, units | {site: np.arange(number)})
    return kept_embeddings(task, circuits)


def gates(task: Task) -> object:
    with task.running(gradients=True):
        runs = UnitsUnderGates(task)
        return gate_importance(runs, default_answers(task.metric))


def scores(method: str, task: Task) -> object:
    with task.running(gradients=True):
        return score_folds(task, AttributionSettings(method=method))


JOBS: dict[str, Job] = {
    "own part": lambda task: own_part(task, share=0.01),
    "circuits": lambda task: kept(3, task),
    "gates": gates,
    "conductance": lambda task: scores("conductance", task),
    "gradient": lambda task: scores("gradient", task),
}


@pytest.mark.parametrize("name", JOBS)
def test_sites_add_no_waits(name: str) -> None:
    few = waits(FEW, JOBS[name])
    assert few
    assert waits(MANY, JOBS[name]) == few


def test_cuts_add_no_waits() -> None:
    few = waits(FEW, lambda task: own_part(task, share=0.02))
    assert waits(FEW, lambda task: own_part(task, share=0.2)) == few


def test_units_of_edges_add_no_waits() -> None:
    def scored(n_units: int, task: Task) -> object:
        # Runs of an image at a time, so that each unit takes runs of its own.
        task = replace(task, work=replace(QUIET, memory_gib=1e-6))
        units = {site: np.arange(n_units) for site in task.sites[:-1]}
        return score_edges(task, units)

    few = waits(FEW, lambda task: scored(1, task))
    assert few
    assert waits(FEW, lambda task: scored(4, task)) == few


def test_circuits_in_a_run_add_no_waits() -> None:
    few = waits(FEW, lambda task: kept(2, task))
    many = waits(FEW, lambda task: kept(4, task))
    each = waits(FEW, lambda task: circuit_of(task, {}))
    assert many - few <= each + each


@pytest.mark.parametrize("share", [0.005, 0.01])
def test_an_own_part_takes_two_runs_a_cut_and_image_but_one_for_the_last(
    share: float,
) -> None:
    encoder = load_clip("rn-tiny").in_components().encoder
    task = task_of(encoder, MANY)
    with OperationCounter() as forward:
        encoder(encoder.blank())
    with task.running(gradients=True):
        with OperationCounter() as clean:
            images = ImagesOfClass(task)
        opened = torch.ones(images.runs.n_gates)
        with OperationCounter() as with_gradient:
            list(images.slopes(images.own[:1], opened))
        with OperationCounter() as alone:
            images.log_odds(images.own[:1], opened)
        with OperationCounter() as counter:
            n_cuts = len(contrast([images], share).tried)
    n_own, n_others = len(images.own), len(images.others)
    assert (n_own, n_others) == (2, 3)
    assert clean.total == pytest.approx(5 * forward.total, rel=1e-3)
    assert alone.total < forward.total
    assert with_gradient.total == pytest.approx(2 * alone.total, rel=0.05)
    runs = n_own * n_cuts + n_others
    assert counter.total == runs * with_gradient.total + n_own * alone.total
