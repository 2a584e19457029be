"""Methods of units: CONTRIBUTING's recipe for one from outside, and every one in graphs as in `score_units`."""

from pathlib import Path

import numpy as np
import pytest
import torch

from circuitry import Clip, InputError, Task, attribute, class_logit, compare, find_circuit, left_rule
from circuitry.circuits import METHODS, AttributionSettings, attribute_parts, register_method, score_units
from circuitry.circuits.methods import SCORED_BY
from tests.support.extraction import run, tensors
from tests.support.work import QUIET


def by_activation(task: Task, settings: AttributionSettings) -> dict[str, np.ndarray]:
    """Score units by their mean activation."""
    with task.running():
        (batch,) = task.batches()
        clean = batch.clean(task.sites)
    units = {site: x.movedim(task.encoder.unit_dim(site), 1) for site, x in clean.items()}
    return {site: x.reshape(*x.shape[:2], -1).mean((0, 2)).numpy() for site, x in units.items()}


def test_a_method_from_outside_is_one_call(
    clip: Clip, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for known in (METHODS, SCORED_BY):
        monkeypatch.setitem(known, "activation", None)  # taken back afterwards
    register_method("activation", by_activation, "activation")
    graphs = run(clip, root, tmp_path / "x", classes=["axe"], method="activation")
    task = Task(
        clip.encoder,
        tensors(clip, root, "axe", "real"),
        class_logit(clip.text_weights(["axe", "cat", "fish"], ["a {}."]), 0),
        work=QUIET,
    )
    expected = score_units(task, "activation")
    graph = attribute(task.encoder, task.images, task.metric, method="activation", rule=left_rule(1), progress=False)
    found = find_circuit(task, method="activation", size=0.1)
    for one in (graph, graphs["axe", "real"], found.source):
        assert one.settings["scored_by"] == "activation"
        for site, scores in expected.items():
            np.testing.assert_allclose(one.node_scores[site], scores, rtol=1e-5, atol=1e-6)
    assert len(compare(graphs, "node_overlap")) == len(expected)
    with pytest.raises(InputError, match=r"'activation' .* 'gradient'"):
        compare(
            [
                graphs["axe", "real"],
                run(clip, root, tmp_path / "y", classes=["axe"], method="gradient")["axe", "sketch"],
            ]
        )


@pytest.mark.parametrize("method", ["input-path", "gradient", "patching", "fisher", "learned"])
def test_graphs_have_the_scores_of_their_method(clip: Clip, root: Path, method: str) -> None:
    images = tensors(clip, root, "axe", "real")
    images = torch.cat([images, images.flip(-1)])
    task = Task(clip.encoder, images, lambda e: e[:, 0], work=QUIET, sites=clip.encoder.sites[-3:])
    settings = AttributionSettings(rule=left_rule(1), method=method)
    whole, half = (score_units(some, method, settings) for some in (task, task.of_some(images, slice(0, None, 2))))
    found = attribute_parts(task, settings, np.arange(len(images)) % 2)
    for scores, graph in ((whole, found.whole), (half, found.parts[0])):
        assert graph.settings["method"] == method
        assert set(graph.edge_scores) == {(task.sites[0], task.sites[1]), (task.sites[1], task.sites[2])}
        for site, of_site in scores.items():
            assert np.array_equal(graph.node_scores[site], of_site)
