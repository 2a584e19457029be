"""The graphs of `extract`: of the images, texts, metrics, baselines and methods asked for."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from circuitry import (
    Clip,
    DomainFolder,
    GraphFolder,
    InputError,
    attribute,
    class_logit,
    class_margin,
    compare,
    extract,
    find_circuit,
    left_rule,
)
from circuitry.circuits import (
    METHODS,
    AttributionSettings,
    MaskSettings,
    Method,
    attribute_folds,
    learn_masks,
    register_method,
    score_units,
    unit_methods,
)
from circuitry.data import fold_numbers
from circuitry.encoder import (
    AnyBaseline,
    Counterfactual,
    MetricOfClass,
    Task,
    counted_sites,
    mean_baseline,
)
from circuitry.encoder.choices import BASELINE_NAMES
from circuitry.encoder.metrics import ClassLogit
from circuitry.models import FolderBaseline, templates_of
from tests.support.extraction import (
    COUNTS,
    CUT,
    SETTINGS,
    TEMPLATES,
    assert_close,
    run,
    tensors,
)
from tests.support.work import AS_STUDIED, QUIET

pytestmark = pytest.mark.filterwarnings("ignore:Skipped an image")


def test_every_combination_that_has_images_becomes_a_graph(
    clip: Clip, root: Path, made: Path
) -> None:
    graphs = GraphFolder(made)
    assert set(graphs) == {(class_name, domain) for domain, class_name in COUNTS}
    assert len(graphs) == 5
    graph = graphs["cat", "sketch"]
    assert (graph.class_name, graph.domain, graph.n_images) == ("cat", "sketch", 3)
    assert graph.sites == clip.encoder.sites
    expected = {
        "size": 0.1,
        "node_rule": "left-2",
        "metric": "logit",
        "texts": TEMPLATES,
    }
    assert graph.settings.items() >= expected.items()
    assert clip.identity.items() <= graph.settings.items()
    assert graph.settings["seed"] == 0
    assert ("fish", "sketch") not in graphs
    with pytest.raises(
        KeyError, match=r"\('fish', 'sketch'\).*\['axe', 'cat', 'fish'\]"
    ):
        graphs["fish", "sketch"]
    assert repr(graphs) == (
        f"GraphFolder({str(made)!r}: 5 of 5 circuits, 3 classes, 2 domains, model {clip.name})"
    )


def test_the_folder_says_which_images_a_circuit_was_found_on(
    root: Path, made: Path
) -> None:
    graphs = GraphFolder(made)
    chosen = [
        record.relative for record in DomainFolder(root).select("cat", "sketch", 50, 0)
    ]
    read = [name for name in chosen if name != "sketch/cat/1.png"]
    assert graphs["cat", "sketch"].provenance["images"] == read
    folds = graphs.folds("cat", "sketch")
    numbers = fold_numbers(
        {
            ("cat", d): DomainFolder(root).select("cat", d, 50, 0)
            for d in ("real", "sketch")
        }
    )
    cut = dict(zip(chosen, numbers["cat", "sketch"].tolist(), strict=True))
    assert graphs.n_folds == 4
    for fold in range(4):
        expected = [name for name in read if cut[name] == fold]
        assert (folds[fold].provenance["images"] if fold in folds else []) == expected
    listed = json.loads((made / "images.json").read_text())
    assert set(listed) == {
        f"{d}/{c}/{i}.png" for (d, c), count in COUNTS.items() for i in range(count)
    }


@pytest.mark.parametrize(
    ("class_name", "domain"), [("axe", "real"), ("cat", "sketch"), ("fish", "real")]
)
def test_graphs_of_attribute(
    class_name: str, domain: str, clip: Clip, root: Path, made: Path, tmp_path: Path
) -> None:
    weights = clip.text_weights(["axe", "cat", "fish"], TEMPLATES)
    metric = class_logit(weights, ["axe", "cat", "fish"].index(class_name))
    images = tensors(clip, root, class_name, domain)
    rule, graphs = left_rule(2), GraphFolder(made)
    found, whole = graphs.folds(class_name, domain), graphs[class_name, domain]
    assert_close(
        whole,
        attribute(
            clip.encoder, images, metric, rule=rule, progress=False, **AS_STUDIED
        ),
    )
    names = list(graphs[class_name, domain].provenance["images"])
    assert sum(fold.n_images for fold in found.values()) == len(images)
    for fold in found.values():
        chosen = images[[names.index(name) for name in fold.provenance["images"]]]
        assert_close(
            fold,
            attribute(
                clip.encoder, chosen, metric, rule=rule, progress=False, **AS_STUDIED
            ),
        )
    edges = graphs.fold_edges(class_name, domain)
    for pair, scores in whole.edge_scores.items():
        shares = [fold.n_images / whole.n_images for fold in found.values()]
        np.testing.assert_allclose(
            np.tensordot(shares, edges[pair], 1), scores, rtol=1e-9
        )


def test_by_default_units_are_ranked_on_images_of_other_classes_too(
    clip: Clip, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = DomainFolder(root)
    asked: dict[str, Any] = {"rule": left_rule(2), "baseline": "zero"}
    graphs = extract(
        clip,
        data,
        tmp_path / "x",
        ["cat"],
        n_others=1,
        work=QUIET,
        texts=TEMPLATES,
        **asked,
    )
    asked |= {"sites": counted_sites(clip.encoder), "progress": False}
    assert "gradient" not in caplog.text
    metric = class_logit(clip.text_weights(["axe", "cat", "fish"], TEMPLATES), 1)
    for domain, follows in (
        ("real", "fish"),
        ("sketch", "axe"),
    ):  # there is no sketch of a fish
        (other,) = (record.relative for record in data.select(follows, domain, 1))
        images, others = (
            tensors(clip, root, "cat", domain),
            tensors(clip, root, follows, domain, 1),
        )
        names = list(graphs["cat", domain].provenance["images"])
        for graph in (graphs["cat", domain], *graphs.folds("cat", domain).values()):
            chosen = images[[names.index(name) for name in graph.provenance["images"]]]
            by_hand = attribute(clip.encoder, chosen, metric, others=others, **asked)
            assert_close(graph, by_hand)
            assert graph.importance is not None
            assert by_hand.importance is not None
            for site, ranks in by_hand.importance.items():
                np.testing.assert_allclose(
                    graph.importance[site], ranks, rtol=1e-4, atol=1e-9
                )
            assert graph.provenance["others"] == [other]
            told = {"method": "iterative-fisher", "budget": "global", "n_others": 1}
            assert graph.settings | told == graph.settings
        assert other in json.loads((tmp_path / "x" / "images.json").read_text())


def test_without_other_classes_the_gradient_ranks_and_a_line_says_so(
    clip: Clip, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = DomainFolder(root, classes=["cat"])
    graphs = extract(
        clip,
        data,
        tmp_path / "x",
        work=QUIET,
        rule=left_rule(2),
        texts=TEMPLATES,
        baseline="zero",
        leave_unseen=False,
    )
    (line,) = (line for line in caplog.messages if "gradient" in line)
    assert "cat in real, cat in sketch" in line
    metric = class_logit(clip.text_weights(["axe", "cat", "fish"], TEMPLATES), 1)
    images, sites = tensors(clip, root, "cat", "real"), counted_sites(clip.encoder)
    by_hand = attribute(
        clip.encoder, images, metric, rule=left_rule(2), sites=sites, progress=False
    )
    assert "others=" in caplog.messages[-1]
    assert_close(graphs["cat", "real"], by_hand)
    for graph in (graphs["cat", "real"], by_hand):
        assert (graph.settings["method"], graph.importance) == ("gradient", None)


def test_some_of_the_classes_keep_their_labels(
    clip: Clip, root: Path, made: Path, tmp_path: Path
) -> None:
    chosen_late = run(clip, root, tmp_path / "late", classes=["cat"], domains=["real"])
    images = DomainFolder(root, classes=["cat"], domains=["real"])
    chosen_early = extract(clip, images, tmp_path / "x", work=QUIET, **SETTINGS)
    for graphs in (chosen_late, chosen_early):
        assert list(graphs) == [("cat", "real")]
        assert_close(graphs["cat", "real"], GraphFolder(made)["cat", "real"])


def own_lead(weights: Tensor, label: int) -> ClassLogit:
    return class_logit(2 * weights, label)


@pytest.mark.parametrize("metric", ["margin", own_lead])
def test_metrics_are_names_or_functions(
    metric: str | MetricOfClass, clip: Clip, root: Path, tmp_path: Path
) -> None:
    graphs = run(
        clip, root, tmp_path / "x", classes=["axe"], domains=["real"], metric=metric
    )
    weights = clip.text_weights(["axe", "cat", "fish"], TEMPLATES)
    by_hand = {"margin": class_margin, own_lead: own_lead}[metric](weights, 0)
    images = tensors(clip, root, "axe", "real")
    expected = attribute(
        clip.encoder, images, by_hand, rule=left_rule(2), progress=False, **AS_STUDIED
    )
    assert_close(graphs["axe", "real"], expected)
    assert graphs["axe", "real"].settings["metric"] == (
        "margin" if metric == "margin" else "own_lead"
    )


def test_texts_in_the_images_own_style_differ_by_domain(
    clip: Clip, root: Path, tmp_path: Path
) -> None:
    graphs = run(clip, root, tmp_path / "x", classes=["axe"], texts="own-style")
    scores = []
    for domain, templates in (
        ("real", ["a photo of a {}.", "a photo of the {}."]),
        ("sketch", ["a sketch of a {}.", "a sketch of the {}."]),
    ):
        weights = clip.text_weights(["axe", "cat", "fish"], templates)
        images, metric = tensors(clip, root, "axe", domain), class_logit(weights, 0)
        by_hand = attribute(
            clip.encoder,
            images,
            metric,
            rule=left_rule(2),
            progress=False,
            **AS_STUDIED,
        )
        assert_close(graphs["axe", domain], by_hand)
        scores.append(by_hand.completeness["attnpool"].metric_difference)
    assert compare(graphs, "node_overlap")["value"].notna().all()
    assert graphs["axe", "real"].settings["classes"] == ["axe", "cat", "fish"]
    assert graphs.manifest["config"]["templates"]["sketch"] == list(
        templates_of("own-style", "sketch")
    )
    assert scores[0] != pytest.approx(scores[1], abs=1e-4)


def pixels(clip: Clip, root: Path, names: Sequence[str]) -> Tensor:
    return torch.stack([clip.preprocess(Image.open(root / name)) for name in names])


@pytest.mark.parametrize("name", BASELINE_NAMES)
def test_a_baseline_by_name_is_the_one_made_by_hand(
    name: str, clip: Clip, root: Path, tmp_path: Path
) -> None:
    chosen = {"n_images": 2, "seed": 4}
    graphs = run(clip, root, tmp_path / "x", classes=["axe"], baseline=name, **chosen)
    data = DomainFolder(root)
    weights = clip.text_weights(data.all_classes, TEMPLATES)
    for domain, other in (("real", "sketch"), ("sketch", "real")):
        baseline: AnyBaseline = "zero"
        if name.startswith("mean-"):
            everything = torch.cat([tensors(clip, root, c, d, 2, 4) for d, c in COUNTS])
            baseline = mean_baseline(
                clip.encoder, [everything], name.removeprefix("mean-")
            )
        elif name == "other-domains":
            baseline = mean_baseline(
                clip.encoder, [tensors(clip, root, "axe", other, 2, 4)]
            )
        elif name == "counterfactual":
            records = FolderBaseline(name, clip, data, 2, 4).records("axe", domain)
            drawn = [r.relative for r in records if r.path.stat().st_size != CUT]
            baseline = Counterfactual(pixels(clip, root, (drawn * 2)[:2]))
        images = tensors(clip, root, "axe", domain, 2, 4)
        task = Task(
            clip.encoder, images, class_logit(weights, 0), baseline=baseline, work=QUIET
        )
        settings = AttributionSettings(rule=left_rule(2), **AS_STUDIED)
        by_hand = attribute_folds(task, settings, np.arange(len(images))).whole
        assert_close(graphs["axe", domain], by_hand)
        assert graphs["axe", domain].settings["baseline"] == name
    assert graphs.manifest["config"]["baseline"] == name


def test_counterfactual_images_go_round_the_other_classes(
    clip: Clip, root: Path
) -> None:
    data = DomainFolder(root)
    draws = {
        seed: FolderBaseline("counterfactual", clip, data, 3, seed).records(
            "cat", "real"
        )
        for seed in range(5)
    }
    for records in draws.values():
        assert {record.domain for record in records} == {"real"}
        assert sorted(record.class_name for record in records) == [
            "axe",
            "axe",
            "fish",
        ]  # there is one fish
        assert {record.class_name for record in records[:2]} == {"axe", "fish"}
    assert len(set(draws.values())) > 1
    assert draws[0] == FolderBaseline("counterfactual", clip, data, 3, 0).records(
        "cat", "real"
    )
    few = DomainFolder(root, classes=["axe", "fish"])
    of_other = FolderBaseline("counterfactual", clip, few, 3, 0).records("cat", "real")
    assert len(of_other) == 3
    more = FolderBaseline("counterfactual", clip, data, 50, 0).of("cat", "real", 6)
    assert isinstance(more, Counterfactual)
    assert torch.equal(
        more.images[:2], more.images[4:]
    )  # there are four, and then they come again


def by_activation(task: Task, settings: AttributionSettings) -> dict[str, np.ndarray]:
    with task.running():
        (batch,) = task.batches()
        clean = batch.clean(task.sites)
    units = {
        site: x.movedim(task.encoder.unit_dim(site), 1) for site, x in clean.items()
    }
    return {
        site: x.reshape(*x.shape[:2], -1).mean((0, 2)).numpy()
        for site, x in units.items()
    }


def test_a_method_from_outside(
    clip: Clip, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        METHODS, "activation", Method("activation")
    )  # taken back afterwards
    register_method("activation", by_activation, effects=False)
    graphs = run(clip, root, tmp_path / "x", classes=["axe"], method="activation")
    metric = class_logit(clip.text_weights(["axe", "cat", "fish"], ["a {}."]), 0)
    task = Task(clip.encoder, tensors(clip, root, "axe", "real"), metric, work=QUIET)
    expected = score_units(task, "activation")
    graph = attribute(
        task.encoder,
        task.images,
        task.metric,
        method="activation",
        rule=left_rule(1),
        progress=False,
    )
    found = find_circuit(task, method="activation", size=0.1)
    for one in (graph, graphs["axe", "real"], found.source):
        assert one.importance is not None
        for site, scores in expected.items():
            np.testing.assert_allclose(
                one.importance[site], scores, rtol=1e-5, atol=1e-6
            )
    assert len(compare(graphs, "node_overlap")) == len(expected)
    others = run(clip, root, tmp_path / "y", classes=["axe"], method="gradient")
    with pytest.raises(InputError, match=r"'activation' .* 'gradient'"):
        compare([graphs["axe", "real"], others["axe", "sketch"]])


@pytest.mark.parametrize(
    "method", ["gradient", "patching", "fisher", "iterative-fisher", "learned"]
)
def test_graphs_have_the_scores_of_their_method(
    clip: Clip, root: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        unit_methods,
        "learn_masks",
        partial(learn_masks, settings=MaskSettings(steps=10)),
    )
    images = tensors(clip, root, "axe", "real")
    images = torch.cat([images, images.flip(-1)])
    others = tensors(clip, root, "cat", "real")
    task = Task(
        clip.encoder,
        images,
        lambda e: e[:, 0],
        others=others,
        work=QUIET,
        sites=clip.encoder.sites[-3:],
    )
    settings = AttributionSettings(rule=left_rule(1), method=method)
    whole, half = (
        score_units(some, method, settings)
        for some in (task, task.of_some(images, slice(0, None, 2)))
    )
    found = attribute_folds(task, settings, np.arange(len(images)) % 2)
    for scores, graph in ((whole, found.whole), (half, found.folds[0])):
        assert graph.settings["method"] == method
        assert set(graph.edge_scores) == {
            (task.sites[0], task.sites[1]),
            (task.sites[1], task.sites[2]),
        }
        for (
            site,
            of_site,
        ) in (
            scores.items()
        ):  # Fisher's folds are run together, in larger batches: alike up to rounding
            within = {
                "fisher": 1e-5 * np.abs(of_site).max(),
                "iterative-fisher": 0.02,
            }.get(method, 0)
            np.testing.assert_allclose(
                graph.ranked_by[site], of_site, rtol=0, atol=within
            )
