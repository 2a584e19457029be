"""The trials of smaller masks: what they learn from, how circuits are cut, and how they are measured."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from circuitry import Task
from circuitry.analysis import QuickstartModel
from circuitry.data.drawn import DrawingSettings, write_toy
from circuitry.interventions import AblationSettings, measure_circuits, propose_circuits
from circuitry.judging import planted_convolution
from experiments.unseen_images import ClassImages
from tests.support.assert_same import assert_same
from tests.support.scripts import script
from tests.support.work import QUIET

trials = script("mask_trials")


def test_selectivity_is_that_of_curves() -> None:
    planted = planted_convolution()
    images, sites = planted.images(16, 0), tuple(planted.nodes)
    images = images[planted.metric(planted.encoder(images)).argsort(descending=True)]  # the class has the most
    task = Task(planted.encoder, images[:6], planted.metric, others=images[6:], sites=sites, work=QUIET)
    circuits = propose_circuits(task, [0.3, 0.8], method="gradient")
    curve = measure_circuits(task, circuits, AblationSettings(random_draws=0))
    assert_same(
        np.array(trials.selectivity(task, ClassImages(images[:6], images[6:]), circuits)),
        curve.selectivity,
        at_least=0.1,
    )


def test_half_of_a_score_is_the_mean_over_the_blocks_of_a_stage() -> None:
    scores = {"stem": np.array([9.0]), "blocks.0": np.array([0.0, 4.0]), "blocks.1": np.array([2.0, 0.0])}
    halved = {site: of_site.tolist() for site, of_site in trials.half_of_stage(scores).items()}
    assert halved == {"stem": [9.0], "blocks.0": [0.5, 3.0], "blocks.1": [1.5, 1.0]}


def test_trials_learn_from_no_image_that_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = DrawingSettings(n_train=0, n_test=3, classes=("fish", "key", "star"), styles=("clipart", "real"))
    toy = write_toy(tmp_path / "toy", drawn, workers=1, progress=False)
    monkeypatch.setattr(trials, "STEPS", 2)
    subject = {"model": QuickstartModel.model, "data": toy, "domain": "real", "first_site": "layer2.0"}
    config = trials.Config(**subject, judged=("fish",), results=tmp_path)
    trials.main(config)
    table = pd.read_csv(tmp_path / "trials.csv")
    assert table.groupby("trial").size().tolist() == [len(trials.SIZES)] * 3  # masks are cut in two ways
    made = trials.Trials(config)
    measured = {one for part in made.contest.records("fish")[1] for one in part}
    others = made.others("fish")
    assert not measured & set(others)
    assert {(one.class_name, one.domain) for one in others} == {("key", "real"), ("star", "real")}
    n_gated, n_counted = sum(made.n_units[site] for site in made.gated), sum(made.n_units.values())
    kept = [round(made.of_gated(size) * n_gated) + n_counted - n_gated for size in trials.SIZES]
    assert kept == [round(size * n_counted) for size in trials.SIZES]
