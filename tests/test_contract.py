"""Each main job runs what it states: operations that are counted, against forwards that a plan says beforehand.

A job that does more shows here on the day it comes. What lies outside the tower is named: the products of edges.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from circuitry import (
    Encoder,
    Task,
    Work,
    class_logit,
    find_circuit,
    judge_circuit,
    lesion,
    load_clip,
    own_part,
)
from circuitry.circuits import AttributionSettings, MaskSettings, unit_methods
from circuitry.circuits.edge_forwards import edge_forwards
from circuitry.circuits.edge_methods import score_edges
from circuitry.circuits.masks import learn_masks, mask_forwards
from circuitry.circuits.own_part_of_class import own_part_forwards
from circuitry.circuits.unit_methods import Counts
from circuitry.circuits.unit_scores import (
    score_folds,
    scoring_forwards,
)
from circuitry.data import drawn_images
from circuitry.data.drawn_names import DRAWN_IMAGES
from circuitry.encoder import OperationCounter, counted_sites, forward_operations
from circuitry.gates import patch_effects
from circuitry.gates.patching import patching_forwards
from circuitry.interventions import AblationSettings, faithfulness_curve
from circuitry.interventions.ablated_units import lesion_forwards
from circuitry.interventions.faithfulness import curve_forwards
from circuitry.interventions.finding_circuits import search_forwards
from circuitry.interventions.judgement import judge_forwards
from circuitry.models import read_images
from circuitry.runs import Forwards
from tests.support.scripts import command_module

CLASSES = ("car", "clock", "cup", "fish", "star")
N_OWN, N_OTHERS = 3, 4
SIZES = (0.2, 0.5)
SHARE = 0.1
FOLDS = np.array([0, 0, 1])
BY_CUTS = AttributionSettings(edges="cuts")


class World(NamedTuple):
    """A task on images that the model recognises."""

    encoder: Encoder
    task: Task
    one: int  #: Operations of a run of an image.


@pytest.fixture(scope="module", params=["rn-tiny", "vit-tiny"])
def world(request: pytest.FixtureRequest) -> World:
    clip = load_clip(request.param).in_components()
    weights = clip.text_weights(CLASSES)
    images = drawn_images(domains=["real"])
    encoder = clip.encoder
    metric = class_logit(weights, 0)

    def recognised(name: str, n: int) -> torch.Tensor:
        _, read = read_images(clip, images.select(name, "real", 20))
        answers = (encoder(read) @ weights.T).argmax(1)
        return read[answers == CLASSES.index(name)][:n]

    own = recognised("car", N_OWN)
    others = torch.cat([recognised(name, 1) for name in CLASSES[1:]])
    task = Task(
        encoder,
        own,
        metric,
        baseline="mean-position",
        others=others,
        sites=counted_sites(encoder, progress=False),
        work=Work(progress=False),
    )
    # What a process does once: the digest of the weights, answers to noise, the mean.
    assert task.identity
    return World(encoder, task, forward_operations(encoder))


Job = tuple[Callable[[World], object], Callable[[World], Forwards]]


def counts_of(world: World) -> Counts:
    units = world.encoder.count_units(world.task.sites)
    return Counts(N_OWN, N_OTHERS, len(units), sum(units.values()))


def scoring(method: str, folds: np.ndarray | None = None) -> Job:
    settings = AttributionSettings(method=method)

    def run(world: World) -> None:
        with world.task.running(gradients=True):
            score_folds(world.task, settings, folds)

    n_folds = 0 if folds is None else len(set(folds))
    return run, lambda world: scoring_forwards(settings, counts_of(world), n_folds)


def some_units(world: World) -> dict[str, np.ndarray]:
    return {site: np.arange(3) for site in world.task.sites}


def first_units(world: World) -> dict[str, np.ndarray]:
    return {site: np.arange(1) for site in world.task.sites}


def share_of_units(world: World) -> dict[str, np.ndarray]:
    units = world.encoder.count_units(world.task.sites)
    return {site: np.arange(round(SHARE * n)) + 1 for site, n in units.items()}


JOBS: dict[str, Job] = {
    "gradient": scoring("gradient"),
    "conductance": scoring("conductance"),
    "Fisher": scoring("fisher"),
    "Fisher in rounds": scoring("iterative-fisher"),
    "Fisher in rounds, folds": scoring("iterative-fisher", FOLDS),
    "gradient, folds": scoring("gradient", FOLDS),
    "own part": (
        lambda world: own_part(world.task, share=0.02),
        lambda world: own_part_forwards(N_OWN, N_OTHERS, 0.02),
    ),
    "site path": scoring("site-path"),
    "patching": (
        lambda world: patch_effects(world.task, units=some_units(world)),
        lambda world: patching_forwards(
            N_OWN, len(world.task.sites), 3 * len(world.task.sites)
        ),
    ),
    "a circuit of a selectivity": (
        lambda world: find_circuit(world.task, selectivity=0.5),
        lambda world: search_forwards(
            counts_of(world), "iterative-fisher", selectivity=True
        ),
    ),
    "curve": (
        lambda world: faithfulness_curve(
            world.task,
            find_circuit(world.task, method="gradient").source,
            AblationSettings(sizes=SIZES, random_draws=2),
        ),
        lambda world: (
            curve_forwards(N_OWN + N_OTHERS, SIZES, 2)
            + scoring_forwards(AttributionSettings(method="gradient"), counts_of(world))
        ),
    ),
    "tests": (
        lambda world: judge_circuit(
            world.task, find_circuit(world.task, method="gradient"), minimality=False
        ),
        lambda world: (
            judge_forwards(N_OWN + N_OTHERS)
            + scoring_forwards(AttributionSettings(method="gradient"), counts_of(world))
        ),
    ),
    "lesions": (
        lambda world: lesion(
            {("car", "real"): world.task},
            {("car", "real"): find_circuit(world.task, method="gradient", size=0.02)},
            random_draws=4,
        ),
        lambda world: (
            lesion_forwards(N_OWN, 5)
            + scoring_forwards(AttributionSettings(method="gradient"), counts_of(world))
        ),
    ),
    "edges": (
        lambda world: score_edges(world.task, share_of_units(world)),
        lambda world: edge_forwards(world.encoder, world.task.sites, SHARE, N_OWN),
    ),
    "edges by cuts": (
        lambda world: score_edges(world.task, first_units(world), method="cuts"),
        lambda world: edge_forwards(
            world.encoder, world.task.sites, 1e-9, N_OWN, BY_CUTS
        ),
    ),
}


def test_attention_is_counted_as_its_two_products() -> None:
    queries, keys, values = torch.randn(3, 2, 3, 7, 8)
    with OperationCounter() as counter:
        torch.nn.functional.scaled_dot_product_attention(queries, keys, values)
    # Of 2 images and 3 heads: 7 x 7 products of length 8, and as many sums of 7 values of length 8.
    assert counter.total == 2 * 3 * (7 * 7 * 8 + 7 * 7 * 8) * 2


def share_run(world: World, job: Job) -> float:
    """Run a job, and return the share of what it states that it runs."""
    run, stated = job
    with world.encoder.running(gradients=True):
        # Each of many jobs of a process begins with it: answers to noise, which tell the tower.
        assert world.encoder.identity
        with OperationCounter() as counter:
            run(world)
    share: float = counter.total / world.one / stated(world).count
    return share


@pytest.mark.parametrize("name", JOBS)
def test_a_job_runs_what_it_states(world: World, name: str) -> None:
    # Runs under gates begin at the first site: 2 % of the tower lie before it in rn-tiny, 14 % in vit-tiny. Small
    # circuits begin later. Edges of other units and of more images take other products.
    low, high = (0.7, 1.3) if name.startswith("edges") else (0.8, 1.01)
    assert low < share_run(world, JOBS[name]) < high


def test_masks_are_learned_for_each_fold(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = MaskSettings(steps=4)
    for function in (learn_masks, mask_forwards):
        few_steps = partial(function, settings=settings)
        monkeypatch.setattr(unit_methods, function.__name__, few_steps)
    assert 0.8 < share_run(world, scoring("learned", FOLDS)) < 1.01


def test_a_plan_of_runs_for_each_edge_or_unit_runs_few(world: World) -> None:
    sites = world.task.sites
    with OperationCounter() as planning:
        plan = edge_forwards(world.encoder, sites, 0.5, 30, BY_CUTS)
    assert plan.count > 10_000
    assert planning.total < 20 * world.one
    if world.encoder.sites[1] == "act1":  # a CNN, whose later units are exact
        with OperationCounter() as planning:
            plan = edge_forwards(world.encoder, sites, 0.5, 30)
        assert planning.total < 0.05 * plan.count * world.one


FEW = {"model": "rn-tiny", "data": DRAWN_IMAGES, "domains": ("real", "clipart")}
# The model recognises all images of both halves of these classes: of others a search runs less than is planned.
KNOWN = ("bicycle", "house", "sailboat")
CELLS = FEW | {"classes": KNOWN, "n_images": 2, "progress": False}


def test_commands_run_what_they_plan(tmp_path: Path) -> None:
    """Nothing is written by the plan, and after the run nothing is left."""
    found = tmp_path / "own"
    cards = {"circuits": found / "circuits", "exact_units": 1, "vocabulary": ("star",)}
    compared = {"folds": 2, "least_accuracy": 0.0, "shares": ()}
    one = FEW | {"class_name": "car", "domain": "real", "n_images": 2, "n_others": 2}
    # Accuracy is measured again by each call of compare.
    configs: dict[str, tuple[Path, dict[str, Any]]] = {
        "own-parts": (found, CELLS | {"n_others": 4}),
        "cards": (found / "cards", CELLS | cards),
        "find": (tmp_path / "find", one),
        "compare": (
            tmp_path / "compare",
            CELLS | compared | {"classes": ("car", "cup")},
        ),
        "evaluate": (tmp_path / "evaluate", FEW | {"classes": ("car", "clock")}),
    }
    # The tower for texts runs once, and is no part of a plan.
    load_clip("rn-tiny").text_weights(drawn_images().all_classes)
    shares = dict[str, float]()
    for name, (out, given) in configs.items():
        module = command_module(name)
        config = module.Config(out=out, **given)
        plan = module.plan(config)
        assert not out.exists()
        encoder = config.clip(components=name != "evaluate").encoder
        with OperationCounter() as counter:
            module.main(config)
        planned = sum(step.forwards.count for step in plan.steps)
        shares[name] = counter.total / forward_operations(encoder) / planned
        # An evaluation keeps no results of single images to go on from.
        if name != "evaluate":
            assert module.plan(config).steps[:-1] == []
    # Among so few images the digest of the tower counts, by which each job begins; it is one forward each time.
    assert all(0.9 < share < 1.1 for share in shares.values()), shares
