"""Results of two models, metrics or searches are never taken for one: each refusal names the entry that differs."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor

from circuitry import (
    AttributionGraph,
    Clip,
    DomainFolder,
    Encoder,
    GraphFolder,
    InputError,
    Patch,
    Task,
    attribute,
    class_logit,
    compare_domains,
    extract,
    faithfulness_curve,
    find_circuit,
    in_feature_basis,
    left_rule,
    mean_baseline,
    node_overlap,
    patched,
)
from circuitry.bases import in_components
from circuitry.circuits import METHODS, own_part, register_measure, register_method
from circuitry.circuits.consensus import find_consensus
from circuitry.circuits.measures import MEASURES
from circuitry.encoder import class_margin
from circuitry.explorer import export_explorer
from circuitry.explorer.view_files import ModelView
from circuitry.interventions import check_attribution, measure_circuits, part_overlaps
from circuitry.runs.arrays import read_arrays, write_arrays
from circuitry.training import SaeTraining, train_sae_on_images
from experiments.drawn import DrawingSettings, write_toy
from experiments.over_models import compare_models
from experiments.representations.embeddings import embed_images
from tests.explorer.made import make_curve
from tests.support.tiny_clip import Tiny
from tests.support.work import QUIET

IMAGES = torch.linspace(-1, 1, 2 * 3 * 64 * 64).sin().reshape(2, 3, 64, 64)
WEIGHTS = torch.eye(4, 16)


def first_weight(clip: Clip) -> Tensor:
    return next(clip.encoder.tower.parameters()).data


class World:
    """Two models of one architecture, images, and circuits of the first model."""

    def __init__(self, tiny: Tiny, root: Path) -> None:
        self.clip, self.other, self.root = tiny.load(), tiny.load(), root
        first_weight(self.other).mul_(2)
        drawn = DrawingSettings(
            n_train=0,
            n_test=4,
            classes=("fish", "key"),
            styles=("real", "sketch"),
            size=16,
        )
        write_toy(root / "toy", drawn, workers=1, progress=False)
        self.images = DomainFolder(root / "toy")
        self.graphs = self.extract("graphs")

    def extract(self, name: str, **changes: Any) -> GraphFolder:
        asked: dict[str, Any] = {
            "n_images": 2,
            "leave_unseen": False,
            "folds": 2,
            "rule": left_rule(1),
            "sites": self.clip.encoder.sites[-3:-1],
        } | changes
        return extract(self.clip, self.images, self.root / name, work=QUIET, **asked)

    def copy(self, out: Path) -> Path:
        return Path(shutil.copytree(self.graphs.path, out))

    def task(self, clip: Clip | None = None, metric: Any = None, **more: Any) -> Task:
        chosen = self.clip if clip is None else clip
        return Task(
            chosen.encoder,
            IMAGES,
            class_logit(WEIGHTS, 1) if metric is None else metric,
            work=QUIET,
            **more,
        )

    def graph(self, **more: Any) -> AttributionGraph:
        task = self.task(**more)
        given: dict[str, Any] = {
            "baseline": task.baseline,
            "rule": left_rule(1),
            "progress": False,
        }
        found = attribute(task.encoder, IMAGES, task.metric, **given)
        return replace(found, class_name="fish", domain="real")


@pytest.fixture(scope="module")
def world(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tiny, tmp_path_factory.mktemp("world"))


def margins_of_other_classes(w: World, out: Path) -> None:
    one = w.graph(metric=class_margin(WEIGHTS, 1))
    node_overlap(
        one, replace(w.graph(metric=class_margin(WEIGHTS[:2], 0)), class_name="key")
    )


def a_fold_in_the_place_of_the_whole(w: World, out: Path) -> None:
    graphs = w.copy(out) / "graphs" / "fish"
    shutil.copy(graphs / "real.fold-0.safetensors", graphs / "real.all.safetensors")
    compare_domains(GraphFolder(out))


def a_graph_of_another_seed(w: World, out: Path) -> None:
    other = w.extract(f"{out.name}-seed", seed=1, classes=["fish"], domains=["real"])
    shutil.copy(
        other.file("fish", "real"),
        w.copy(out) / "graphs" / "fish" / "real.all.safetensors",
    )
    GraphFolder(out)["fish", "real"]


def comparisons_of_other_circuits(w: World, out: Path) -> None:
    export_explorer(
        w.graphs,
        out,
        comparisons=compare_domains(w.extract(f"{out.name}-more", n_images=3)),
    )


def curves_of_other_circuits(w: World, out: Path) -> None:
    curve = make_curve("fish", "real")
    export_explorer(
        w.graphs,
        out,
        curves=[replace(curve, settings=curve.settings | {"circuits": "0123"})],
    )


def answers_of_other_circuits(w: World, out: Path) -> None:
    export_explorer(
        w.graphs,
        out,
        model=ModelView((), {}, "zero", (), np.zeros((0, 0)), {}, "no", "0123"),
    )


def curves_of_another_model(w: World, out: Path) -> None:
    curve = faithfulness_curve(w.task(w.other), w.graph(clip=w.other))
    export_explorer(w.graphs, out, curves=[curve])


def an_autoencoder_of_another_model(w: World, out: Path) -> None:
    training = SaeTraining(steps=2, batch_size=4)
    sae = train_sae_on_images(w.other, w.images, training, site="layer4.0", work=QUIET)
    in_feature_basis(w.clip.encoder, {"layer4.0": sae})


def a_patch_of_another_models_mean(w: World, out: Path) -> None:
    with patched(
        w.clip.encoder, Patch("layer2.0", mean_baseline(w.other.encoder, IMAGES))
    ):
        pass


def weights_that_change_within_a_run(w: World, out: Path) -> None:
    task, weight = w.task(), first_weight(w.clip)
    try:
        with task.running():
            w.graph()
            weight.mul_(2)
            w.graph()
    finally:
        weight.div_(2)


def a_metric_of_the_same_name(w: World, out: Path) -> None:
    for sign in (1, -1):
        w.extract(
            out.name,
            metric=lambda weights, label, sign=sign: (
                lambda e: sign * e @ weights[label]
            ),
        )


def of_sign(
    weights: Tensor, label: int, *, sign: int = 1
) -> Callable[[Tensor], Tensor]:
    return lambda embeddings: sign * embeddings @ weights[label]


@dataclass
class Signed:
    sign: int

    def of_class(self, weights: Tensor, label: int) -> Callable[[Tensor], Tensor]:
        return of_sign(weights, label, sign=self.sign)


def with_keyword_default(sign: int) -> Any:
    def metric(
        weights: Tensor, label: int, *, factor: int = sign
    ) -> Callable[[Tensor], Tensor]:
        return of_sign(weights, label, sign=factor)

    return metric


def in_module(sign: int) -> Any:
    found: dict[str, Any] = {"sign": sign}
    exec(
        "def metric(weights, label):\n    return lambda e: sign * e @ weights[label]",
        found,
    )
    return found["metric"]


def within_a_function(sign: int) -> Any:
    if sign > 0:
        return lambda weights, label: lambda e: F.normalize(e, dim=-1) @ weights[label]
    return lambda weights, label: lambda e: -(F.normalize(e, dim=-1) @ weights[label])


METRICS: dict[str, Callable[[int], Any]] = {
    "a function within": within_a_function,
    "a keyword-only default": with_keyword_default,
    "a global": in_module,
    "the object of a method": lambda sign: Signed(sign).of_class,
    "a partial": lambda sign: partial(of_sign, sign=sign),
    "a closure": lambda sign: lambda weights, label: of_sign(weights, label, sign=sign),
}
"""Metrics that are equal but for a sign, by where it stands."""


@pytest.mark.parametrize("place", METRICS)
def test_a_folder_is_of_one_metric_wherever_its_functions_differ(
    place: str, world: World, tmp_path: Path
) -> None:
    def found(sign: int) -> GraphFolder:
        one = {"classes": ["fish"], "domains": ["real"], "method": "gradient"}
        return world.extract(str(tmp_path / "out"), metric=METRICS[place](sign), **one)

    graph = found(1)["fish", "real"]
    np.testing.assert_array_equal(
        found(1)["fish", "real"].node_scores["layer3.0"], graph.node_scores["layer3.0"]
    )
    with pytest.raises(InputError, match="metric_code"):
        found(-1)


def test_a_metric_that_cannot_be_read_reaches_no_folder_unless_it_says_what_it_is(
    world: World, tmp_path: Path
) -> None:
    numbers = iter([1.0])  # whatever it gives is gone then

    def metric(weights: Tensor, label: int) -> Callable[[Tensor], Tensor]:
        return lambda e: e @ weights[label] * next((one for one in numbers), 1.0)

    opened = (tmp_path / "file").open("w")
    unreadable = partial(lambda file, weights, label: of_sign(weights, label), opened)
    with (
        opened,
        pytest.raises(
            InputError, match=r"(?s)'metric_code'.*the metric.*attribute identity"
        ),
    ):
        world.extract(str(tmp_path / "out"), metric=unreadable)
    assert not (tmp_path / "out").exists()
    metric.identity = "mine 1"  # type: ignore[attr-defined]
    few = {"classes": ["fish"], "domains": ["real"], "method": "gradient"}
    world.extract(str(tmp_path / "out"), metric=metric, **few)
    world.extract(str(tmp_path / "out"), metric=metric, **few)
    metric.identity = "mine 2"  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="metric_code"):
        world.extract(str(tmp_path / "out"), metric=metric, **few)


def scores_of_sign(sign: int) -> Any:
    return lambda task, settings: {
        s: sign + np.arange(float(w)) for s, w in widths(task).items()
    }


def widths(task: Task) -> dict[str, int]:
    _, cache = task.encoder.run_with_cache(task.encoder.blank())
    return {site: cache[site].shape[task.encoder.unit_dim(site)] for site in task.sites}


@pytest.fixture
def _no_more_methods() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for registered in (METHODS, MEASURES):
            patch.setitem(registered, "mine", None)  # taken out again afterwards
        yield


@pytest.mark.usefixtures("_no_more_methods")
def test_a_method_is_its_function_not_its_name(world: World, tmp_path: Path) -> None:
    few = {"classes": ["fish"], "domains": ["real"], "method": "mine"}
    register_method("mine", scores_of_sign(1))
    world.extract(str(tmp_path / "out"), **few)
    one = world.graph()
    first = attribute(
        world.clip.encoder,
        IMAGES,
        class_logit(WEIGHTS, 1),
        method="mine",
        progress=False,
    )
    register_method("mine", scores_of_sign(1))
    world.extract(str(tmp_path / "out"), **few)
    again = attribute(
        world.clip.encoder,
        IMAGES,
        class_logit(WEIGHTS, 1),
        method="mine",
        progress=False,
    )
    assert "layer3.0" in node_overlap(first, again)
    register_method("mine", scores_of_sign(2))
    with pytest.raises(InputError, match="method_code"):
        world.extract(str(tmp_path / "out"), **few)
    other = attribute(
        world.clip.encoder,
        IMAGES,
        class_logit(WEIGHTS, 1),
        method="mine",
        progress=False,
    )
    with pytest.raises(InputError, match="method code"):
        node_overlap(first, other)
    assert one.settings["method_code"].startswith("circuitry: ")
    register_method("mine", scores_of_sign(1), effects=False)
    with pytest.raises(InputError, match="method_code"):
        world.extract(str(tmp_path / "out"), **few)


@pytest.mark.usefixtures("_no_more_methods")
def test_a_measure_is_its_function_not_its_name(world: World) -> None:
    def always(factor: float) -> Any:
        return lambda circuits: {None: np.full((len(circuits),) * 2, factor)}

    found = []
    for factor in (0.5, 0.25):
        register_measure("mine", always(factor))
        found.append(compare_domains(world.graphs, measures=["mine"])["mine"])
    with pytest.raises(InputError, match="measure code"):
        compare_models(found)
    assert compare_domains(world.graphs, measures=["node_overlap"])[
        "node_overlap"
    ].about["measure_code"] == ("node_overlap")


def rotated(encoder: Encoder, seed: int, site: str = "layer2.0") -> Encoder:
    """The same tower with one site in the basis of a random rotation."""
    place = encoder.sites.index(site)
    stages = list(encoder.stages)
    at, after = stages[place - 1 : place + 1]
    generator = torch.Generator().manual_seed(seed)
    width = encoder(encoder.blank(), stop=site).shape[1]
    turn = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]

    def to_new(x: Tensor) -> Tensor:
        return torch.einsum("bchw,cd->bdhw", at.run(x), turn)

    def back(x: Tensor) -> Tensor:
        return after.run(torch.einsum("bdhw,cd->bchw", x, turn))

    stages[place - 1] = replace(at, run=to_new, fast=None, narrow=None)
    stages[place] = replace(after, run=back, fast=None, narrow=None)
    return Encoder.from_stages(encoder.tower, stages, encoder.image_size)


def test_encoders_of_other_stages_are_others(world: World) -> None:
    plain = world.clip.encoder
    first, again, second = (rotated(plain, seed) for seed in (1, 1, 2))
    torch.testing.assert_close(first(IMAGES), second(IMAGES))
    assert first.identity == again.identity
    assert {"layer2.0", "layer2.1"} <= {*first.identity["stages"]}
    assert plain.identity["stages"] == in_components(plain).identity["stages"] == {}
    given: dict[str, Any] = {
        "rule": left_rule(1),
        "method": "gradient",
        "progress": False,
    }
    graphs = [
        attribute(one, IMAGES, class_logit(WEIGHTS, 1), **given)
        for one in (plain, first, second)
    ]
    for other in (plain, second):
        assert other.identity != first.identity
    for one, two in ((0, 1), (1, 2)):
        with pytest.raises(InputError, match=r"stages.*layer2\.0"):
            node_overlap(graphs[one], graphs[two])
    mean = mean_baseline(first, IMAGES)
    mean.check_made_of(again)
    with pytest.raises(InputError, match="stages"):
        mean.check_made_of(second)
    names = [
        replace(stage, units=replace(stage.kind, made_of="turned by 1"))
        if stage.site == "layer2.0"
        else stage
        for stage in first.stages
    ]
    assert Encoder.from_stages(plain.tower, names, plain.image_size).identity[
        "basis"
    ] == {"layer2.0": "turned by 1"}


def parts_of_two_models(w: World, out: Path) -> None:
    models = {"real": w.clip, "sketch": w.other}
    part_overlaps(
        {
            ("fish", d): find_circuit(w.task(c), method="gradient", size=0.1)
            for d, c in models.items()
        }
    )


def folds_in_another_model(w: World, out: Path) -> None:
    graph = w.graph(clip=w.other)
    edges = {
        pair: np.stack([scores, scores]) for pair, scores in graph.edge_scores.items()
    }
    find_consensus(w.graph().circuit(), [graph, graph], edges)


def parts_of_other_scales(w: World, out: Path) -> None:
    seen = [w.clip.encoder(images).detach().mean(0) for images in (IMAGES, -IMAGES)]
    metrics = [
        class_logit(F.normalize(torch.stack(seen), dim=-1), 0, scale=scale)
        for scale in (1.0, 100.0)
    ]
    tasks = [w.task(metric=metric, others=-IMAGES) for metric in metrics]
    node_overlap(*(own_part(task, share=0.05) for task in tasks))


SITUATIONS: dict[Callable[[World, Path], object], str] = {
    margins_of_other_classes: "text weights",
    a_fold_in_the_place_of_the_whole: r"fish in real \(all\).*\(0\)",
    a_graph_of_another_seed: "seed",
    comparisons_of_other_circuits: "comparisons.*circuitry compare",
    curves_of_other_circuits: "curves.*0123.*circuitry check",
    curves_of_another_model: "weights",
    answers_of_other_circuits: "answers.*0123.*circuitry explore",
    an_autoencoder_of_another_model: "weights",
    a_patch_of_another_models_mean: "weights",
    weights_that_change_within_a_run: "within a run",
    a_metric_of_the_same_name: "metric_code",
    parts_of_two_models: "weights",
    folds_in_another_model: "weights",
    parts_of_other_scales: "scale",
    lambda w, _: w.graph(baseline=mean_baseline(w.other.encoder, IMAGES)): "weights",
    lambda w, _: faithfulness_curve(w.task(w.other), w.graph()): "weights",
    lambda w, _: measure_circuits(w.task(w.other), [w.graph().circuit(None)]): "weights",
    lambda w, _: check_attribution(w.task(metric=class_logit(WEIGHTS, 2)), w.graph(), top=1, random=0): "text weights",
    lambda w, _: node_overlap(w.graph(), w.graph(metric=class_logit(WEIGHTS.roll(1, 1), 1))): "text weights",
    lambda w, _: node_overlap(w.graph(), w.graph(clip=w.other)): "weights",
}  # fmt: skip


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda one: one.__name__)
def test_results_that_do_not_belong_together_are_refused(
    situation: Callable[[World, Path], object], world: World, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"(?s){SITUATIONS[situation]}"):
        situation(world, tmp_path / "out")


OTHER_CLIPS: dict[str, Callable[[Clip], Clip]] = {
    "large pictures": lambda clip: replace(
        clip, preprocess=partial(brighter_where_large, clip.preprocess)
    ),
    "small pictures": lambda clip: replace(
        clip, preprocess=partial(brighter_where_small, clip.preprocess)
    ),
    "tokens": lambda clip: replace(
        clip, tokenizer=lambda texts: clip.tokenizer([f"{text}s" for text in texts])
    ),
}


def brighter_where_small(
    preprocess: Callable[[Image], Tensor], picture: Image
) -> Tensor:
    return preprocess(picture) + (picture.width < 64)


def brighter_where_large(
    preprocess: Callable[[Image], Tensor], picture: Image
) -> Tensor:
    return preprocess(picture) + (picture.width > 400 and picture.height > 400)


def test_folders_are_of_the_tokens_of_their_own_texts(
    world: World, tmp_path: Path
) -> None:
    def other(texts: Sequence[str]) -> Tensor:
        return world.clip.tokenizer([text.replace("key", "lock") for text in texts])

    few: dict[str, Any] = {
        "classes": ["fish"],
        "domains": ["real"],
        "n_images": 1,
        "method": "gradient",
    }
    extract(world.clip, world.images, tmp_path / "out", work=QUIET, **few)
    extract(replace(world.clip), world.images, tmp_path / "out", work=QUIET, **few)
    with pytest.raises(InputError, match="tokens"):
        extract(
            replace(world.clip, tokenizer=other),
            world.images,
            tmp_path / "out",
            work=QUIET,
            **few,
        )


@pytest.mark.parametrize("change", OTHER_CLIPS)
def test_a_model_is_another_one_by_whatever_shapes_an_embedding(
    change: str, world: World
) -> None:
    assert (
        OTHER_CLIPS[change](world.clip).digest
        != world.clip.digest
        == replace(world.clip).digest
    )


def test_precision_is_an_entry(world: World) -> None:
    assert world.clip.identity["precision"] == []
    before = world.clip.digest
    torch.set_float32_matmul_precision("high")
    try:
        assert world.clip.identity["precision"] == ["high products"]
        assert world.clip.digest != before
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_kept_array_that_does_not_fit_is_made_again(
    world: World, tmp_path: Path
) -> None:
    for what in (
        partial(embed_images, world.clip, world.images, work=QUIET),
        partial(world.clip.text_weights, ["fish"]),
    ):
        folder = tmp_path / str(what.func.__name__)
        expected = what(cache_dir=folder)
        (path,) = folder.iterdir()
        about = {
            "embed_images": ("circuitry embeddings 2", "embeddings"),
            "text_weights": ("circuitry text weights 1", ""),
        }
        header, arrays = read_arrays(path, *about[folder.name])
        write_arrays(
            path,
            about[folder.name][0],
            header,
            {name: np.concatenate([a, a]) for name, a in arrays.items()},
        )
        again = what(cache_dir=folder)
        np.testing.assert_array_equal(
            getattr(again, "vectors", again), getattr(expected, "vectors", expected)
        )


@pytest.mark.parametrize("site", ["input", "layer1.0", "layer3.0", "attnpool"])
def test_scores_are_of_the_model_with_a_whole_site_patched(
    world: World, site: str
) -> None:
    encoder, metric = world.clip.encoder, class_logit(WEIGHTS, 1)
    with patched(encoder, Patch(site, 0.0)):
        graph = attribute(
            encoder,
            IMAGES,
            metric,
            rule=left_rule(1),
            method="gradient",
            progress=False,
        )
    place = encoder.sites.index(site)
    for i, one in enumerate(encoder.sites[1:], start=1):
        assert graph.node_scores[one].any() == (i > place)
