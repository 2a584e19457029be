"""The trials of smaller masks: what they learn from, how circuits are cut, and how they are measured."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from circuitry import Task
from circuitry.interventions import AblationSettings, measure_circuits, propose_circuits
from circuitry.runs import InputError
from circuitry.study import QuickstartModel, planted_convolution
from tests.support.assert_same import assert_same
from tests.support.scripts import script
from tests.support.work import QUIET

trials = script("mask_trials")


def test_selectivity_is_that_of_curves() -> None:
    planted = planted_convolution()
    images, sites = planted.images(16, 0), tuple(planted.nodes)
    task = Task(planted.encoder, images[:6], planted.metric, others=images[6:], sites=sites, work=QUIET)
    graphs = propose_circuits(task, [0.3, 0.8], method="gradient")
    circuits = [graph.kept_units for graph in graphs]
    curve = measure_circuits(task, graphs[0], circuits, AblationSettings(random_draws=0))
    assert_same(np.array(trials.selectivity(task, circuits)), curve.selectivity, rtol=1e-5)


def test_half_of_a_score_is_the_mean_over_the_blocks_of_a_stage() -> None:
    scores = {"stem": np.array([9.0]), "blocks.0": np.array([0.0, 4.0]), "blocks.1": np.array([2.0, 0.0])}
    halved = trials.half_of_stage(scores)
    assert {site: of.tolist() for site, of in halved.items()} == {
        "stem": [9.0],
        "blocks.0": [0.5, 3.0],
        "blocks.1": [1.5, 1.0],
    }


def test_trials_learn_from_no_image_that_is_measured(
    quickstart: Path, model_of_the_quickstart: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "STEPS", 2)
    out, names = quickstart / "mask_trials", ("43 other photographs", "Fisher, 43 other photographs")
    subject = {
        **model_of_the_quickstart,
        "model": QuickstartModel.model,
        "domain": "real",
        "judged": ("fish", "star"),
        "first_site": "layer2.0",
    }
    config = trials.Config(**subject, trials=names, out=out, results=out / "results")
    trials.main(config)
    table = pd.read_csv(out / "results" / "trials.csv")
    assert table.groupby("trial", sort=False).size().tolist() == [16] * 5  # 2 classes, 8 sizes
    of = trials.Trials(config)
    measured = {one for name in of.contest.classes for part in of.contest.records(name)[1] for one in part}
    for trial in trials.TRIALS.values():
        others = of.others(trial, "fish")
        assert not measured & set(others)
        assert {one.class_name for one in others if one.domain == "real"} == set(of.images.classes) - {"fish"}
    kept = [round(of.of_gated(size) * sum(of.n_units[site] for site in of.gated)) for size in trials.SIZES]
    whole = sum(n for site, n in of.n_units.items() if site not in of.gated)
    assert [n + whole for n in kept] == [round(size * sum(of.n_units.values())) for size in trials.SIZES]
    with pytest.raises(InputError, match=r"The trials are some of 12 other photographs, .*magic"):
        trials.Config(trials=("magic",))
