"""No public function that runs a model gives other numbers under the modes of its caller, and no cache keeps such."""

import inspect
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from circuitry import (
    Clip,
    DomainFolder,
    Encoder,
    Patch,
    Task,
    attribute,
    class_logit,
    extract,
    faithfulness_curve,
    find_circuit,
    in_feature_basis,
    judge_circuit,
    left_rule,
    mean_baseline,
    patch_effects,
    patched,
    score_edges,
)
from circuitry.bases import ResidualStream
from circuitry.circuits import (
    AttributionSettings,
    attribute_parts,
    count_operations,
    direct_effects,
    direct_vectors,
    edges_by_position,
    image_path_effects,
    moves_between_positions,
    pooling_pairs,
    score_units,
)
from circuitry.circuits.rule_errors import RuleErrors
from circuitry.encoder import Counterfactual
from circuitry.encoder.modes import own_modes
from circuitry.interventions import (
    AblationSettings,
    CausalChecks,
    CheckSettings,
    ClassScorer,
    MaskSettings,
    ablate_all_but,
    check_attribution,
    compare_rules,
    cut_effects,
    interchange,
    kept_embeddings,
    learn_masks,
    logit_pixels,
    mean_ablation_accuracy,
    measure_circuits,
    propose_circuits,
    site_roles,
    transfer_circuits,
    unit_pixels,
)
from circuitry.judging import edge_movements
from circuitry.models import FolderBaseline, activations, image_batches, linear_probe, read_images
from circuitry.representations import (
    embed_images,
    embed_texts,
    extract_features,
    extract_representations,
    image_features,
    name_features,
)
from circuitry.training import (
    SaeTraining,
    extract_samples,
    predictions,
    sample_activations,
    train_sae_on_images,
    zero_shot_accuracy,
)
from circuitry.training.samples import ImageFiles
from tests.representations.test_embeddings import draw
from tests.support.feature_bases import make_sae
from tests.support.tiny_clip import Tiny
from tests.support.towers import timm_vit
from tests.support.work import QUIET

EDGE = [("blocks.0.attn.1", "blocks.1.attn.0.v")]
LAST = ("layer3.0", "layer4.0", "attnpool")
FEW = AblationSettings(fractions=(0.5, 1.0), random_draws=1)
MASKS = MaskSettings(steps=4, batch_size=4)


@contextmanager
def hostile() -> Iterator[None]:
    """Autocast and a default of bfloat16, inference mode, and another default device."""
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16), torch.device("meta"):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


@dataclass
class World:
    """A CLIP model, a transformer, images, tasks and a circuit."""

    tiny: Tiny
    folder: Path
    n: Iterator[int]

    def __post_init__(self) -> None:
        self.clip: Clip = self.tiny.load()
        self.data: DomainFolder = draw(self.folder / "data")
        self.encoder, self.images, self.others = self.clip.encoder, torch.randn(3, 3, 64, 64), torch.randn(3, 3, 64, 64)
        self.weights = F.normalize(torch.randn(4, 16), dim=-1)
        self.metric = class_logit(self.weights, 1)
        self.task = Task(
            self.encoder, self.images, self.metric, baseline=self.others[:1], others=self.others, sites=LAST, work=QUIET
        )
        self.graph = attribute(
            self.encoder, self.images, self.metric, 0.2, left_rule(1), self.others[:1], LAST, progress=False
        )
        self.circuit = self.graph.circuit(None)
        self.stream = ResidualStream.of(Encoder.from_tower(timm_vit().eval()))
        self.photos = torch.randn(2, 3, 16, 16)
        self.in_stream = Task(self.stream.components, self.photos, self.metric, work=QUIET)
        self.sae = make_sae(16, dtype=torch.float32)
        self.graphs = self.extract()
        self.key, self.scorer = ("axe", "ink"), ClassScorer(self.weights, {"axe": 1})

    def out(self) -> Path:
        return self.folder / str(next(self.n))

    def extract(self, **more: Any) -> Any:
        settings = {
            "classes": ["axe"],
            "sites": LAST[1:],
            "n_images": 1,
            "rule": left_rule(1),
            "node_fraction": 0.02,
            "texts": ["a {}."],
        }
        return extract(self.clip, self.data, self.out(), work=QUIET, **settings | more)  # type: ignore[arg-type]

    def on_sae(self) -> Any:
        return replace(self.sae, site="attnpool")

    def patched(self, patch: Patch) -> Any:
        with patched(self.encoder, patch):
            return attribute(self.encoder, self.images, self.metric, rule=left_rule(1), sites=LAST, progress=False)

    def checks(self) -> CausalChecks:
        settings = CheckSettings(n_images=2, n_others=2, seen=True)
        return CausalChecks(self.clip, self.data, self.graphs, settings)


CASES: dict[str, Callable[[World], Any]] = {
    "attribute": lambda w: attribute(w.encoder, w.images, w.metric, 0.2, left_rule(1), sites=LAST, progress=False),
    "attribute_parts": lambda w: attribute_parts(w.task, AttributionSettings(rule=left_rule(1)), np.arange(3) % 2),
    "count_operations": lambda w: count_operations(w.encoder, w.metric, AttributionSettings(0.02, rule=left_rule(1))),
    "direct_effects": lambda w: direct_effects(w.stream, w.photos, w.weights[1]),
    "direct_vectors": lambda w: direct_vectors(w.stream, w.photos),
    "edges_by_position": lambda w: edges_by_position(w.in_stream, EDGE),
    "extract": lambda w: dict(w.extract(baseline="mean-unit")),
    "image_path_effects": lambda w: in_run(w.task, lambda: image_path_effects(w.task, left_rule(2))),
    "moves_between_positions": lambda w: moves_between_positions(w.in_stream, EDGE),
    "pooling_pairs": lambda w: pooling_pairs(w.encoder, w.images),
    "score_edges": lambda w: score_edges(w.in_stream, method="exact-softmax"),
    "RuleErrors": lambda w: RuleErrors(w.task, reference=left_rule(3)).nodes(left_rule(1)),
    "check_attribution": lambda w: check_attribution(w.task, w.graph, top=2, random=1),
    "compare_rules": lambda w: compare_rules(w.task, {"left": left_rule(1)}),
    "cut_effects": lambda w: cut_effects(w.task, w.graph.edges.strongest(2)),
    "faithfulness_curve": lambda w: faithfulness_curve(w.task, w.graph, FEW),
    "measure_circuits": lambda w: measure_circuits(w.task, [w.circuit], FEW),
    "kept_embeddings": lambda w: kept_embeddings(w.task, [w.circuit]),
    "ablate_all_but": lambda w: ablate_all_but(w.encoder, w.circuit, w.others[:1]),
    "judge_circuit": lambda w: judge_circuit(replace(w.task, sites=("attnpool",)), w.circuit, FEW, minimality=False),
    "learn_masks": lambda w: learn_masks(w.task, [0.3], MASKS),
    "patch_effects": lambda w: patch_effects(w.task, by="site"),
    "patched": lambda w: w.patched(Patch("layer4.0", Counterfactual(w.others[:1]), units=[0, 2])),
    "Counterfactual": lambda w: Counterfactual(w.others).run(w.encoder, LAST),
    "logit_pixels": lambda w: logit_pixels(w.task, w.circuit),
    "unit_pixels": lambda w: unit_pixels(w.task, "layer4.0", 1),
    "find_circuit": lambda w: find_circuit(replace(w.task, sites=LAST[1:]), size=0.3, masks=MASKS, settings=FEW),
    "propose_circuits": lambda w: propose_circuits(w.task, [0.3], method="gradient"),
    "interchange": lambda w: interchange({w.key: w.task}, {("axe", "photo"): w.circuit, w.key: w.circuit}, w.scorer),
    "transfer_circuits": lambda w: transfer_circuits({w.key: w.task}, {w.key: w.circuit}, w.scorer),
    "site_roles": lambda w: site_roles(w.task),
    "score_units": lambda w: score_units(w.task, "input-path"),
    "CausalChecks": lambda w: (
        w.checks().extract_faithfulness(w.out(), rankings=["absolute"], fractions=(0.5,), random_draws=1),
        w.checks().pixels(*w.key, n_images=1),
    ),
    "mean_baseline": lambda w: mean_baseline(w.encoder, w.images, "unit"),
    "FolderBaseline": lambda w: FolderBaseline("mean-unit", w.clip, w.data).of("axe", "ink", 2),
    "in_feature_basis": lambda w: in_feature_basis(w.encoder, {"attnpool": w.sae}).read_unhooked(
        w.images, ["attnpool"]
    ),
    "load_clip": lambda w: w.tiny.load().model.state_dict(),
    "Clip.text_weights": lambda w: w.clip.text_weights(["axe", "cat"], cache_dir=w.out()),
    "Clip.shown": lambda w: w.clip.shown(w.images),
    "activations": lambda w: [found for _, found in activations(w.encoder, w.clip.preprocess, w.data.records, LAST)],
    "image_batches": lambda w: [batch for _, batch in image_batches(w.encoder, w.clip.preprocess, w.data.records)],
    "read_images": lambda w: read_images(w.clip, w.data.records)[1],
    "embed_images": lambda w: embed_images(w.clip, w.data, cache_dir=w.out(), work=QUIET),
    "embed_texts": lambda w: embed_texts(w.clip, ["axe"], ["ink"], cache_dir=w.out()),
    "extract_representations": lambda w: list(extract_representations(w.clip, w.data, w.out(), work=QUIET))[:2],
    "extract_features": lambda w: extract_features(w.clip, w.on_sae(), w.data, w.out(), work=QUIET),
    "image_features": lambda w: image_features(w.clip, w.on_sae(), w.data, work=QUIET),
    "name_features": lambda w: name_features(w.on_sae(), w.clip, ["axe", "cat"]),
    "predictions": lambda w: predictions(
        w.encoder, {"texts": lambda found: found @ w.weights[:2].T}, w.clip.preprocess, w.data, work=QUIET
    ),
    "linear_probe": lambda w: linear_probe(w.clip, w.data.records).rows,
    "zero_shot_accuracy": lambda w: zero_shot_accuracy(w.clip, w.data, work=QUIET),
    "extract_samples": lambda w: list(
        extract_samples(
            w.encoder,
            w.clip.preprocess,
            ImageFiles.of(w.data.records),
            w.out(),
            {"site": "layer4.0", "positions_per_image": 2, "seed": 0, "piece": 8},
            work=QUIET,
        )
    ),
    "sample_activations": lambda w: sample_activations(
        w.encoder, w.clip.preprocess, w.data.records, "layer4.0", positions_per_image=2, work=QUIET
    ),
    "train_sae_on_images": lambda w: train_sae_on_images(w.clip, w.data, SaeTraining(steps=3), work=QUIET),
    "mean_ablation_accuracy": lambda w: mean_ablation_accuracy(w.stream, w.photos, np.arange(2), w.weights, work=QUIET),
    "edge_movements": lambda w: edge_movements(replace(w.task, sites=("act1", "act2"))),
}
"""By public function, or class, that runs a model: a call."""
ELSEWHERE = {
    "compare": "reads graphs",
    "in_components": "runs nothing",
    "site_named": "runs nothing",
    "score_methods": "calls the functions above",
    "counted_sites": "calls site_roles",
}
"""Public functions that take a model and have no case, and why."""


def in_run(task: Task, work: Callable[[], Any]) -> Any:
    with task.running(gradients=True):
        return work()


def numbers(value: Any) -> Any:
    """Return everything in a result, to the last bit."""
    if isinstance(value, Tensor):
        return str(value.dtype), str(value.device), numbers(value.detach().double().numpy())
    if isinstance(value, pd.DataFrame):
        return {str(name): numbers(value[name].to_numpy()) for name in value}
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tolist() if value.dtype == object else value.tobytes()
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: numbers(getattr(value, one.name)) for one in fields(value) if one.name != "provenance"}
    if isinstance(value, Mapping):
        return {str(key): numbers(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [numbers(one) for one in value]
    return value if isinstance(value, int | float | str | None) else type(value).__name__


@pytest.fixture(scope="module")
def world(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.manual_seed(0)
    return World(tiny, tmp_path_factory.mktemp("world"), count())


@pytest.mark.parametrize("name", list(CASES))
def test_modes_of_the_caller_change_nothing(world: World, name: str) -> None:
    expected = numbers(CASES[name](world))
    with hostile():
        before = modes_now()
        found = CASES[name](world)
        assert modes_now() == before
    assert numbers(found) == expected


def modes_now() -> Any:
    return (
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_default_device(),
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
    )


ROOMS = ("circuits", "interventions", "models", "representations", "training", "study")
MODEL = re.compile(r"\b(Encoder|Clip|Task|ResidualStream|PlantedCircuit|CausalChecks)\b")


def test_every_public_function_of_a_model_has_a_case() -> None:
    called, taking = {name.rpartition(".")[2] for name in (*CASES, *ELSEWHERE)}, set[str]()
    for room in map(import_module, (f"circuitry.{name}" for name in ROOMS)):
        stub = Path(str(room.__file__)).with_suffix(".pyi").read_text()
        for name in re.findall(r" import (\w+) as", stub):
            function = getattr(room, name)
            if inspect.isfunction(function) and MODEL.search(
                str(list(inspect.signature(function).parameters.values()))
            ):
                taking.add(name)
    assert taking - called == set()
    assert len(taking) > 30


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_blocks_of_several_threads_share_the_default_type(dtype: torch.dtype) -> None:
    """PyTorch has one default type for all threads: the last block to end restores it."""
    inside, done = threading.Event(), threading.Event()

    def other() -> None:
        with own_modes():
            inside.set()
            done.wait(10)
            kept.append(torch.get_default_dtype())

    kept: list[torch.dtype] = []
    torch.set_default_dtype(dtype)
    try:
        with own_modes():
            thread = threading.Thread(target=other)
            thread.start()
            assert inside.wait(10)
        assert torch.get_default_dtype() == torch.float32
        done.set()
        thread.join()
        assert kept == [torch.float32]
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(torch.float32)


def test_an_exception_restores_the_modes_of_the_caller() -> None:
    @own_modes(gradients=True)
    def fail() -> None:
        assert torch.is_grad_enabled()
        assert not torch.is_autocast_enabled("cpu")
        assert torch.zeros(1).device.type == "cpu"
        raise ZeroDivisionError

    with hostile():
        before = modes_now()
        with pytest.raises(ZeroDivisionError):
            fail()
        assert modes_now() == before


def test_caches_keep_no_numbers_of_other_modes(world: World) -> None:
    def both(cache: Path) -> Any:
        return [
            numbers(world.clip.text_weights(["axe", "cat"], cache_dir=cache)),
            numbers(embed_images(world.clip, world.data, cache_dir=cache, work=QUIET)),
        ]

    filled = world.out()
    with hostile():
        both(filled)
    assert len(list(filled.iterdir())) == 2
    assert both(filled) == both(world.out())


def test_an_encoder_by_itself_follows_the_caller_as_its_tower_does(world: World) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(world.encoder(world.images), world.encoder.tower(world.images))
        assert world.encoder(world.images).dtype == torch.bfloat16
