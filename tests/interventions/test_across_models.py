"""Results of several models of one architecture, which differ in their weights alone, are compared if asked for."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from circuitry import (
    AttributionGraph,
    Baseline,
    Circuit,
    Encoder,
    InputError,
    Task,
    attribute,
    class_logit,
    compare,
    compare_domains,
    judge_circuit,
    lesion,
    mean_baseline,
    midpoint_rule,
    own_part,
)
from circuitry.data.folds import Key
from circuitry.encoder import Stage
from circuitry.encoder.metrics import Metric
from circuitry.interventions import part_overlaps
from tests.support.work import QUIET

N_CLASSES, N_OWN, N_UNITS = 3, 4, 24
N_PIXELS = 3 * 6
SHARE = N_OWN / N_UNITS
CAT, DOG = 0, 1
SPARE = range(12, 16)
"""Units that no class needs."""


def tower_of(
    first_units: list[int], n_units: int = N_UNITS, seed: int = 0
) -> nn.Sequential:
    """Return a network in which four neighbouring units see the pixels of each class.

    Args:
        first_units: The first of these units, for each class.
        n_units: The number of all units.
        seed: Seed of the weak random weights.
    """
    generator = torch.Generator().manual_seed(seed)
    seeing, reading = nn.Linear(N_PIXELS, n_units), nn.Linear(n_units, N_CLASSES)
    with torch.no_grad():
        for layer in (seeing, reading):
            noise = torch.randn(layer.weight.shape, generator=generator)
            layer.weight.copy_(0.02 * noise)
            layer.bias.zero_()
        for label, first in enumerate(first_units):
            own = slice(first, first + N_OWN)
            seeing.weight[own, 6 * label : 6 * (label + 1)] += 0.5
            reading.weight[label, own] += 0.5
    return nn.Sequential(nn.Flatten(), seeing, nn.ReLU(), reading).eval()


def encoder_of(tower: nn.Sequential) -> Encoder:
    _, seeing, relu, reading = tower.children()
    stages = (
        Stage("units", lambda x: relu(seeing(x.flatten(1))), 1),
        Stage("code", reading, 1),
    )
    return Encoder(tower, stages, (1, 6))


BASE = tower_of([0, 4, 8])
TUNED = tower_of([SPARE[0], 4, 8], seed=1)
"""Beside the noise, only the units that see a cat are others."""
ENCODERS = {"base": encoder_of(BASE), "tuned": encoder_of(TUNED)}


def images(label: int, seed: int = 0, n: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(10 * seed + label)
    noise = 0.1 * torch.rand(n, N_CLASSES, 6, generator=generator)
    noise[:, label] += 1
    return noise.reshape(n, 3, 1, 6)


EVERY = torch.cat([images(label, 3) for label in range(N_CLASSES)])
"""Images of a mean."""


def task(
    encoder: Encoder, label: int = DOG, seed: int = 0, scale: float = 5.0, **change: Any
) -> Task:
    others = [images(other, seed) for other in range(N_CLASSES) if other != label]
    given: dict[str, Any] = {
        "baseline": "zero",
        "sites": ["units"],
        "work": QUIET,
    } | change
    metric = class_logit(torch.eye(N_CLASSES), label, scale)
    own = images(label, seed)
    return Task(encoder, own, metric, others=torch.cat(others), **given)


def part(encoder: Encoder, label: int = DOG, seed: int = 0, **change: Any) -> Circuit:
    return own_part(task(encoder, label, seed, **change), share=SHARE)


def logit_of(label: int) -> Metric:
    return lambda embeddings: embeddings[:, label]


def graph(encoder: Encoder, label: int = DOG) -> AttributionGraph:
    return attribute(
        encoder,
        images(label),
        logit_of(label),
        SHARE,
        midpoint_rule(2),
        method="gradient",
        sites=["units", "code"],
        progress=False,
        class_name=f"class {label}",
        domain="photo",
    )


def by_model(label: int, seed: int = 0) -> dict[Key, Circuit]:
    parts = dict[Key, Circuit]()
    for name, encoder in ENCODERS.items():
        parts[f"class {label}", name] = part(encoder, label, seed)
    return parts


def weights(name: str) -> str:
    return str(ENCODERS[name].identity["weights"])


# What fine-tuning changed: here the units of cats, and not those of dogs.


def test_parts_of_two_models_are_compared_with_the_ceiling_of_each() -> None:
    first = by_model(DOG) | by_model(CAT)
    second = by_model(DOG, seed=1) | by_model(CAT, seed=1)
    pairs = [(("class 1", "base"), ("class 1", "tuned"))]
    pairs.append((("class 0", "base"), ("class 0", "tuned")))
    table = part_overlaps(first, pairs, second, across="models")
    table = table.set_index(["class_a", "domain_a", "domain_b"]).sort_index()
    assert table.loc[["class 1"], "overlap"].unique().tolist() == [1.0]
    of_cat = table.loc["class 0"]["overlap"]
    assert of_cat["base", "base"] == 1.0
    assert of_cat["base", "tuned"].tolist() == [0.0, 0.0]
    for side in "ab":
        names = table.reset_index()[f"domain_{side}"]
        assert table[f"weights_{side}"].tolist() == [weights(name) for name in names]


def answers_with_hook(units: np.ndarray, ends: Tensor, shown: Tensor) -> Tensor:
    """Return the logits of the tuned network, whose units a plain hook of torch replaces."""

    def replaced(module: nn.Module, args: object, output: Tensor) -> Tensor:
        changed = output.clone()
        changed[:, units] = ends[units]
        return changed

    hook = TUNED[2].register_forward_hook(replaced)
    logits: Tensor = TUNED(shown)
    hook.remove()
    return logits


@pytest.mark.parametrize(
    ("label", "baseline", "right"),
    [(CAT, "zero", 1.0), (DOG, "zero", 0.0), (DOG, "mean-position", 1.0)],
)
def test_a_lesion_of_the_bases_part_in_the_tuned_model_is_that_of_plain_hooks(
    label: int, baseline: str, right: float
) -> None:
    tested = task(ENCODERS["tuned"], label, seed=2, baseline=baseline)
    of_base = part(ENCODERS["base"], label)
    key = (f"class {label}", "photo")
    table = lesion({key: tested}, {(key[0], "base"): of_base}, across="models")
    row = table.set_index("cut").loc["part"]
    every = torch.cat([images(each, 2) for each in range(N_CLASSES)])
    with torch.no_grad():
        ends = TUNED[:3](every).mean(0) * (baseline != "zero")
        logits = answers_with_hook(of_base.units["units"], ends, images(label, 2))
    # An embedding has length 1 before it is compared with texts.
    p = (5 * nn.functional.normalize(logits, dim=1)).softmax(1)[:, label]
    assert row["log_odds"] == pytest.approx(p.logit().mean().item(), rel=1e-5)
    assert row["right"] == (logits.argmax(1) == label).float().mean() == right
    assert row["whole_right"] == 1.0
    assert (row["part_weights"], row["weights"]) == (weights("base"), weights("tuned"))


@pytest.mark.parametrize(("label", "holds"), [(CAT, False), (DOG, True)])
def test_the_bases_circuit_is_judged_in_the_tuned_model(
    label: int, holds: bool
) -> None:
    circuit = part(ENCODERS["base"], label)
    tested = task(ENCODERS["tuned"], label, seed=2)
    table = judge_circuit(tested, circuit, minimality=False, across="models")
    assert table.set_index("test").at["necessity", "holds"] == holds
    assert set(table["circuit_weights"]) == {weights("base")}
    assert set(table["weights"]) == {weights("tuned")}


def test_units_that_changed_their_effect_are_those_that_were_changed() -> None:
    graphs = [graph(encoder, CAT) for encoder in ENCODERS.values()]
    of_base, of_tuned = (each.node_scores["units"] for each in graphs)
    changed = np.abs(of_tuned - of_base).argsort()[-2 * N_OWN :]
    assert set(changed) == {*range(N_OWN), *SPARE}


def graphs_of(models: Mapping[str, Encoder], label: int) -> dict[Key, AttributionGraph]:
    graphs = dict[Key, AttributionGraph]()
    for name, encoder in models.items():
        graphs[f"class {label}", name] = graph(encoder, label)
    return graphs


def test_graphs_of_two_models_are_compared_and_name_them() -> None:
    graphs = graphs_of(ENCODERS, DOG) | graphs_of(ENCODERS, CAT)
    table = compare(graphs, "node_overlap", across="models")
    overlap = table.set_index(["class", "site"])["value"]
    assert overlap["class 1", "units"] == 1.0
    assert overlap["class 0", "units"] == 0.0
    assert set(table["weights_a"]) == {weights("base")}
    assert set(table["weights_b"]) == {weights("tuned")}
    found = compare_domains(graphs, measures=["node_overlap"], across="models")
    values = found["node_overlap"].values
    pd.testing.assert_frame_equal(values, table[values.columns])
    of_models = found["node_overlap"].about["weights"]
    assert of_models == {name: weights(name) for name in ENCODERS}


# Levels: a model with itself, and models whose units have nothing to do with each other.

HOW: tuple[dict[str, Any], ...] = ({}, {"across": "models"})


def test_a_model_with_itself_is_the_same_as_without_across() -> None:
    models = {"base": ENCODERS["base"], "again": encoder_of(copy.deepcopy(BASE))}
    parts = {("class 1", name): part(encoder) for name, encoder in models.items()}
    graphs = graphs_of(models, DOG)
    # Without across the domain of a graph is that of its key.
    of_domains = {key: replace(one, domain=key[1]) for key, one in graphs.items()}
    tested = task(models["again"], seed=2)
    own = parts["class 1", "base"]
    calls: list[Callable[..., pd.DataFrame]] = [
        lambda **how: part_overlaps(parts, **how),
        lambda **how: lesion({("class 1", "photo"): tested}, parts, **how),
        lambda **how: judge_circuit(tested, own, minimality=False, **how),
        lambda **how: compare(of_domains, "node_overlap", **how),
        lambda **how: compare(of_domains, "edge_jaccard", **how),
    ]
    for call in calls:
        without, across = (call(**how) for how in HOW)
        pd.testing.assert_frame_equal(across[without.columns], without)
    assert part_overlaps(parts, across="models")["overlap"].tolist() == [1.0]
    for measure in ("node_overlap", "edge_jaccard", "spearman"):
        table = compare(graphs, measure, across="models")
        assert table["value"].to_numpy() == pytest.approx(1)


def shuffled(tower: nn.Sequential, seed: int) -> nn.Sequential:
    """Return a copy of a network with the same answers, whose units are in a random order."""
    order = torch.randperm(N_UNITS, generator=torch.Generator().manual_seed(seed))
    changed = copy.deepcopy(tower)
    seeing, reading = changed[1], changed[3]
    assert isinstance(seeing, nn.Linear)
    assert isinstance(reading, nn.Linear)
    with torch.no_grad():
        seeing.weight.copy_(seeing.weight[order])
        seeing.bias.copy_(seeing.bias[order])
        reading.weight.copy_(reading.weight[:, order])
    return changed


def test_random_copies_share_no_more_than_the_chance_of_the_package() -> None:
    models = {"base": ENCODERS["base"]}
    for seed in range(40):
        models[f"copy {seed}"] = encoder_of(shuffled(BASE, seed))
    parts = {("class 1", name): part(encoder) for name, encoder in models.items()}
    base, *copies = parts
    table = part_overlaps(parts, [(base, each) for each in copies], across="models")
    (chance,) = set(table["chance"])
    # Of two parts with n units each, an overlap of J is 2nJ / (1 + J) common units. Chance is that of the mean number.
    common = 2 * N_OWN * table["overlap"] / (1 + table["overlap"])
    expected = 2 * N_OWN * chance / (1 + chance)
    assert expected == pytest.approx(N_OWN * N_OWN / N_UNITS)
    error = common.std() / np.sqrt(len(common))
    assert abs(common.mean() - expected) < 3 * error
    found = compare_domains(
        graphs_of(models, DOG), measures=["node_overlap"], across="models"
    )
    level = found["node_overlap"].chance.set_index("site").at["units", "value"]
    overlaps = found["node_overlap"].values.set_index("site")["value"]
    assert level == pytest.approx(overlaps["units"].mean(), abs=0.01)


# What differs beside the weights is refused.

WIDER = encoder_of(tower_of([0, 4, 8], n_units=N_UNITS + 6))
DEEPER = Encoder(
    BASE,
    (Stage("first", lambda x: BASE[:3](x), 1), Stage("code", BASE[3], 1)),
    (1, 6),
)
SMOOTH = encoder_of(nn.Sequential(BASE[0], BASE[1], nn.GELU(), BASE[3]))
"""Its units have another activation function."""


def of_part(other: Circuit, **how: Any) -> list[Callable[[], object]]:
    """Return the uses of a part of another model in the tuned model."""
    tested = task(ENCODERS["tuned"], seed=2)
    key = ("class 1", "photo")
    both = {("class 1", "tuned"): part(ENCODERS["tuned"]), ("class 1", "base"): other}
    return [
        lambda: part_overlaps(both, **how),
        lambda: lesion({key: tested}, {key: other}, **how),
        lambda: judge_circuit(tested, other, **how),
    ]


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as told:
        call()
    return str(told.value)


def test_another_model_is_refused_if_the_caller_does_not_say_so() -> None:
    other = part(ENCODERS["base"])
    found, *tested = map(refused, of_part(other))
    assert "differ in weights" in found
    assert "across='models'" in found
    for message in tested:
        assert "differ in weights" in message
        assert "across='models' to lesion or judge_circuit" in message
    graphs = graphs_of(ENCODERS, DOG)
    of_domains = {key: replace(one, domain=key[1]) for key, one in graphs.items()}
    assert "across='models'" in refused(lambda: compare(of_domains))
    assert "across='models'" in refused(lambda: compare_domains(of_domains))


@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        (WIDER, ("units has 24 units", "30 units")),
        (DEEPER, ("units and first",)),
    ],
)
def test_another_architecture_is_refused_at_its_first_site(
    encoder: Encoder, words: tuple[str, ...]
) -> None:
    other = part(encoder, sites=[encoder.sites[1]])
    of_overlap, *tested = map(refused, of_part(other, across="models"))
    for word in words:
        assert word in of_overlap
    for message in tested:
        assert repr(encoder.sites[1]) in message
        if encoder is WIDER:
            assert "30 units, and the task's encoder 24" in message
            assert "models of one architecture" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stages", {"units": "other code"}),
        ("basis", {"units": "an autoencoder"}),
        ("hooks", {"units": ["8f"]}),
    ],
)
def test_another_encoder_is_refused_by_the_setting_that_differs(
    name: str, value: Any
) -> None:
    own = part(ENCODERS["base"])
    source = replace(own.source, settings=own.source.settings | {name: value})
    for call in of_part(replace(own, source=source), across="models"):
        assert f"differ in {name}" in refused(call)


def test_another_activation_function_is_refused() -> None:
    for call in of_part(part(SMOOTH), across="models"):
        assert "differ in modules" in refused(call)


def test_another_metric_and_another_method_are_refused() -> None:
    own = part(ENCODERS["base"])
    for name in ("metric", "method"):
        source = replace(own.source, settings=own.source.settings | {name: "another"})
        call, *_ = of_part(replace(own, source=source), across="models")
        assert f"differ in {name}" in refused(call)
    tested = task(ENCODERS["tuned"])
    other = replace(
        own, source=replace(own.source, settings=own.source.settings | {"label": CAT})
    )
    key = ("class 1", "photo")
    message = refused(lambda: lesion({key: tested}, {key: other}, across="models"))
    assert "differ in label (0 and 1)" in message


def test_means_of_other_images_are_refused_and_those_of_the_same_images_are_not() -> (
    None
):
    parts = dict[Key, Circuit]()
    for seed, (name, encoder) in enumerate(ENCODERS.items()):
        parts["class 1", name] = part(encoder, seed=seed, baseline="mean-position")
    message = refused(lambda: part_overlaps(parts, across="models"))
    assert "differ in baseline digest" in message
    assert "baseline=first.baseline" in message
    assert "mean_baseline of its encoder over the same images" in message
    # The images are the same in another order.
    means = {
        name: mean_baseline(encoder, EVERY if name == "base" else EVERY.flip(0))
        for name, encoder in ENCODERS.items()
    }
    for name, encoder in ENCODERS.items():
        parts["class 1", name] = part(encoder, baseline=means[name])
    assert len(part_overlaps(parts, across="models")) == 1
    # Activations by hand are of no images.
    by_hand = Baseline("mean-position", means["base"].values)
    parts["class 1", "base"] = part(ENCODERS["base"], baseline=by_hand)
    assert "baseline digest" in refused(lambda: part_overlaps(parts, across="models"))


def test_a_circuit_of_another_baseline_is_told_what_to_give() -> None:
    circuit = part(ENCODERS["base"])
    tested = task(ENCODERS["tuned"], baseline="mean-position")
    message = refused(lambda: judge_circuit(tested, circuit, across="models"))
    assert "differ in baseline ('zero' and 'mean-position')" in message
    assert "baseline=first.baseline" in message


def test_all_results_of_one_name_are_of_one_model() -> None:
    parts = by_model(DOG)
    parts["class 0", "tuned"] = by_model(CAT)["class 0", "base"]
    message = refused(lambda: part_overlaps(parts, across="models"))
    assert "class 1 in tuned and class 0 in tuned differ in weights" in message
    graphs = graphs_of(ENCODERS, DOG) | graphs_of(ENCODERS, CAT)
    graphs["class 0", "tuned"] = graphs["class 0", "base"]
    message = refused(lambda: compare(graphs, across="models"))
    assert "differ in weights" in message
    assert "name each model by a domain of its own" in message
    tasks = {("class 1", name): task(each, seed=2) for name, each in ENCODERS.items()}
    message = refused(lambda: lesion(tasks, by_model(DOG), across="models"))
    assert "class 1 in base and class 1 in tuned differ in weights" in message


def test_scales_of_two_models_differ_but_not_those_of_one() -> None:
    parts = by_model(DOG)
    key = ("class 1", "tuned")
    parts[key] = part(ENCODERS["tuned"], scale=9.0)
    assert part_overlaps(parts, across="models")["overlap"].tolist() == [1.0]
    tested = task(ENCODERS["tuned"], seed=2)
    assert len(lesion({("class 1", "photo"): tested}, parts, across="models")) == 4
    parts["class 0", "tuned"] = by_model(CAT)["class 0", "tuned"]
    message = refused(lambda: part_overlaps(parts, across="models"))
    assert "differ in scale" in message


def test_means_of_two_models_name_their_images_in_the_identity() -> None:
    mean = "mean-position"
    tasks = [task(encoder, baseline=mean) for encoder in ENCODERS.values()]
    one, other = (each.identity for each in tasks)
    assert one["baseline_pixels"] == other["baseline_pixels"]
    assert one["baseline_digest"] != other["baseline_digest"]
    assert "baseline_pixels" not in task(ENCODERS["base"]).identity


@pytest.mark.usefixtures("unchecked")
def test_results_can_differ_in_their_models_alone() -> None:
    how: dict[str, Any] = {"across": "domains"}
    calls = of_part(part(ENCODERS["base"]), **how)
    graphs = graphs_of(ENCODERS, DOG)
    calls.append(lambda: compare(graphs, **how))
    calls.append(lambda: compare_domains(graphs, **how))
    for call in calls:
        message = refused(call)
        assert "across" in message
        assert "'models'" in message
        assert "'domains'" in message
