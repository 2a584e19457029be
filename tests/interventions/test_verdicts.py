"""Answers of runs against own hooks and scipy, measures of curves on paper, and the verdict at every border."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import special, stats
from torch import Tensor, nn

from circuitry import (
    Clip,
    Encoder,
    InputError,
    Task,
    class_logit,
    class_margin,
    in_components,
)
from circuitry.interventions import (
    AblationSettings,
    FaithfulnessCurve,
    circuit_of,
    measure_circuits,
    pool_curves,
    weights_touched,
)
from circuitry.interventions.faithfulness import measure_answers
from circuitry.interventions.judgement import _beside_random as beside_random
from circuitry.interventions.verdicts import (
    AS_ANOTHERS,
    IN_PART,
    NOTHING,
    OPEN,
    OWN,
    TO_ALL,
    WORKS,
    describe_leak,
    does_work,
    verdict_of,
    why_open,
)
from circuitry.models import Classifier
from tests.support.towers import make_tower
from tests.support.work import QUIET

SITES = ("layer2.0", "layer4.0")
WEIGHTS = F.normalize(
    torch.randn(5, 16, generator=torch.Generator().manual_seed(1)), dim=-1
).double()
SCALE = 20.0


def by_hooks(
    tower: nn.Module, images: Tensor, kept: dict[str, list[int]]
) -> np.ndarray:
    """Embeddings of the tower's own run with all other units of some modules at 0."""

    def hook(units: list[int]) -> Any:
        return lambda module, given, out: (
            out
            * torch.isin(torch.arange(out.shape[1]), torch.tensor(units))[:, None, None]
        )

    handles = [
        tower.get_submodule(site).register_forward_hook(hook(units))
        for site, units in kept.items()
    ]
    with torch.no_grad():
        found = tower(images).numpy()
    for handle in handles:
        handle.remove()
    return np.asarray(found)


def probabilities(embeddings: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = embeddings / np.where(lengths == 0, 1, lengths) @ WEIGHTS.numpy().T
    return np.asarray(special.softmax(SCALE * cosines, axis=1))


@pytest.mark.parametrize("make", [class_logit, class_margin])
def test_answers_are_those_of_own_hooks(make: Any) -> None:
    tower = make_tower("resnet").double()
    encoder, images = (
        Encoder.from_tower(tower),
        torch.randn(6, 3, 64, 64, dtype=torch.double),
    )
    task = Task(
        encoder,
        images[:4],
        make(WEIGHTS, 2, scale=SCALE),
        others=images[4:],
        sites=SITES,
        work=QUIET,
    )
    chosen = [
        {"layer2.0": list(range(40)), "layer4.0": list(range(5, 250))},
        {"layer2.0": [3], "layer4.0": [0, 9]},
    ]
    circuits = [
        circuit_of(task, {site: np.array(units) for site, units in one.items()})
        for one in chosen
    ]
    curve = measure_circuits(
        task, circuits[:1], AblationSettings(random_draws=1), foreign=[circuits[1:]]
    )
    whole = probabilities(by_hooks(tower, images, {}))
    runs: Any = {
        "full": {},
        "empty": {site: [] for site in SITES},
        "kept": chosen[0],
        "foreign": chosen[1],
    }
    for name, kept in runs.items():
        found, p = (
            getattr(curve, name).reshape(3, -1, 6)[:, 0],
            probabilities(by_hooks(tower, images, kept)),
        )
        assert found[1] == pytest.approx(
            stats.entropy(whole, p, axis=1), rel=1e-6, abs=1e-9
        )
        top = [all(row[2] > row[k] for k in (0, 1, 3, 4)) for row in p]
        assert found[2].tolist() == top
    assert curve.random.shape == (3, 1, 1, 6)
    with pytest.raises(InputError, match=r"each of the 1 sizes, but 2"):
        measure_circuits(task, circuits[:1], foreign=[circuits])


def test_logit_and_margin_give_the_same_answers() -> None:
    embeddings = torch.randn(7, 16).double()
    expected = torch.distributions.Categorical(
        logits=30 * F.normalize(embeddings, dim=-1) @ WEIGHTS.T
    )
    for make in (class_logit, class_margin):
        found = make(WEIGHTS, 1, scale=30.0).log_answers(embeddings)
        torch.testing.assert_close(found, expected.logits)
        assert make(WEIGHTS, 1, scale=30.0).made_with == make(WEIGHTS, 1).made_with
    flat = class_logit(WEIGHTS, 1).log_answers(torch.zeros(1, 16))
    torch.testing.assert_close(flat.exp(), torch.full((1, 5), 0.2, dtype=torch.double))


def test_a_metric_without_candidates_has_the_metric_alone() -> None:
    encoder = Encoder.from_tower(make_tower("resnet"))
    images = torch.randn(4, 3, 64, 64)
    given: dict[str, Any] = {"others": images[2:], "sites": SITES[1:], "work": QUIET}
    for metric in (lambda e: e[:, 0], class_logit(WEIGHTS[:1].float(), 0)):
        task = Task(encoder, images[:2], metric, **given)
        curve = measure_circuits(
            task, [circuit_of(task, {"layer4.0": np.arange(200)})], AblationSettings()
        )
        assert curve.numbers == ("metric",)
        assert verdict_of(curve) == OPEN
        assert (
            why_open(curve)
            == curve.reason("right")
            == "the metric has no candidate classes to choose from"
        )
        assert curve.to_pandas("false")["value"].isna().all()


def curve_by_hand(**given: Any) -> FaithfulnessCurve:
    """Ten images of the class and ten of others: shares of right and false answers, and the mean KL, of each run.

    The whole model has 1.0, 0.1 and 0; with nothing kept 0.2, 0.2 and 2 nats.
    """
    known = {
        "full": (1.0, 0.1, 0.0),
        "empty": (0.2, 0.2, 2.0),
        "kept": (0.9, 0.1, 0.5),
        "foreign": (0.2, 0.2, 1.9),
    }
    shape = {
        "full": (),
        "empty": (),
        "kept": (1,),
        "complement": (1,),
        "random": (0, 1),
        "foreign": (1, 1),
    }
    own = np.arange(20) < 10
    arrays: Any = {}
    for name, sizes in shape.items():
        right, false, kl = (known | given).get(name) or (0.0, 0.0, 2.0)
        rank = np.arange(20) % 10 + 0.5
        top = np.where(own, rank < 10 * right, rank < 10 * false).astype(float)
        numbers = np.stack([np.where(own, right, false), np.full(20, kl), top])
        arrays[name] = np.broadcast_to(
            numbers.reshape(3, *(1 for _ in sizes), 20), (3, *sizes, 20)
        ).copy()
    if given.get("foreign", ()) is None:
        arrays["foreign"] = arrays["foreign"][:, :0]
    return FaithfulnessCurve(
        (0.1,), "absolute", (9,), **arrays, own=own, group=np.zeros(20, int)
    )


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        ({}, OWN),
        ({"kept": (0.8, 0.2, 1.0)}, OWN),  # each at its border
        ({"kept": (0.7, 0.2, 1.0)}, IN_PART),
        ({"kept": (0.8, 0.3, 1.0)}, IN_PART),
        ({"kept": (0.8, 0.2, 1.01)}, IN_PART),
        ({"foreign": None}, WORKS),
        ({"foreign": (0.8, 0.2, 1.0)}, AS_ANOTHERS),
        ({"foreign": (0.7, 0.2, 0.5)}, WORKS),  # as much of the answers
        ({"foreign": (0.8, 0.3, 1.0)}, OWN),
        ({"kept": (0.8, 0.5, 1.9)}, TO_ALL),
        ({"kept": (0.7, 0.5, 1.9)}, IN_PART),
        ({"kept": (0.8, 0.4, 1.9)}, IN_PART),
        (
            {"kept": (0.8, 0.5, 1.0), "full": (1.0, 0.4, 0.0)},
            OWN,
        ),  # as the whole model does
        ({"kept": (0.2, 0.2, 1.81)}, NOTHING),
        ({"kept": (0.2, 0.2, 1.8)}, IN_PART),
        ({"kept": (0.3, 0.2, 1.9)}, IN_PART),
        ({"kept": (0.0, 0.0, 3.0)}, NOTHING),
        ({"full": (0.0, 0.1, 0.0)}, OPEN),
        ({"empty": (0.2, 0.2, 0.0009)}, OPEN),  # nothing recovers the answers already
    ],
)
def test_each_verdict_at_its_borders(given: dict[str, Any], verdict: str) -> None:
    assert verdict_of(curve_by_hand(**given)) == verdict


ENDS = ("kept", "foreign", "empty", "full")


def test_measures_on_paper() -> None:
    values = curve_by_hand(kept=(0.9, 0.3, 0.5)).at(0)
    assert values["kl recovered"]["kept"] == pytest.approx(1 - 0.5 / 2)
    assert values["kl recovered"]["foreign"] == pytest.approx(1 - 1.9 / 2)
    assert [values["right"][one] for one in ENDS] == pytest.approx([0.9, 0.2, 0.2, 1.0])
    assert [values["false"][one] for one in ENDS] == pytest.approx([0.3, 0.2, 0.2, 0.1])
    # Images of the class and others have half the weight each, however many there are.
    curve = curve_by_hand()
    curve.kept[1, 0, curve.own] = 0.0
    few = replace(
        curve,
        **{name: getattr(curve, name)[..., 8:] for name in (*ARRAYS, "own", "group")},
    )
    assert few.at(0)["kl recovered"]["kept"] == pytest.approx(1 - (0.0 + 0.5) / 2 / 2)
    table = curve.to_pandas("right").set_index("circuit")
    assert table["value"]["full"] == 1
    low, high = table.loc["kept", ["low", "high"]].to_numpy(dtype=float)
    assert 0.6 < low <= 0.9 <= high <= 1
    ends = replace(
        curve, kept=curve.full[:, None], complement=curve.empty[:, None]
    ).to_pandas("kl recovered")
    assert ends.set_index("circuit").loc[["kept", "complement"], "value"].tolist() == [
        1,
        0,
    ]


ARRAYS = ("full", "empty", "kept", "complement", "random", "foreign")


def test_classes_count_alike_and_are_averaged_before_dividing() -> None:
    one, two = (
        curve_by_hand(kept=(1.0, 0.0, 0.0)),
        curve_by_hand(kept=(0.2, 0.2, 2.0), empty=(0.2, 0.2, 6.0)),
    )
    chosen = {name: getattr(two, name)[..., 5:15] for name in (*ARRAYS, "own", "group")}
    pooled = pool_curves([one, replace(two, **chosen)])
    values = pooled.at(0)
    assert values["kl recovered"]["kept"] == pytest.approx(
        1 - (0 + 2) / (2 + 6)
    )  # no mean of 1 and 2 / 3
    assert values["right"]["kept"] == pytest.approx((1.0 + 0.0) / 2)
    assert values["false"]["kept"] == pytest.approx((0.0 + 0.4) / 2)
    # A class without others has no part where others count.
    alone = {name: getattr(two, name)[..., :10] for name in (*ARRAYS, "own", "group")}
    assert pool_curves([one, replace(two, **alone)]).at(0)["kl recovered"]["kept"] == 1
    assert pool_curves([one, curve_by_hand(foreign=None)]).foreign.shape[1] == 0


@pytest.mark.parametrize(
    ("kept", "holds"),
    [((0.9, 0.1, 0.5), True), ((0.9, 0.4, 0.5), False), ((0.5, 0.1, 0.5), False)],
)
def test_a_circuit_holds_only_where_it_works(
    kept: tuple[float, float, float], holds: bool
) -> None:
    curve = curve_by_hand(
        kept=kept
    )  # selectivity 0.89, 0.56 and 0.44, of random circuits 0
    none = np.zeros((40, 20))
    rows = beside_random(
        curve,
        np.concatenate([curve.kept[0], none, curve.complement[0], none]),
        "selectivity",
    )
    told = {row["test"]: row["holds"] for row in rows}
    assert told["circuit"] == told["sufficiency"] == holds


def test_scales_are_those_of_the_models(clip: Clip) -> None:
    assert clip.scale == pytest.approx(float(clip.model.logit_scale.exp()))  # type: ignore[operator]
    values: Any = {
        name: getattr(clip, name)
        for name in ("name", "model", "encoder", "preprocess", "tokenizer")
    }
    rows = 3 * F.normalize(torch.randn(4, 16), dim=-1)
    one = Classifier(
        **values, rows=rows, bias=torch.zeros(4), classes={"cat": (1,), "dog": (0, 2)}
    )
    embeddings = clip.encoder(torch.randn(40, 3, *clip.encoder.image_size))
    assert one.scale == pytest.approx(
        3 * float(embeddings.norm(dim=-1).mean()), rel=0.1
    )
    assert clip.scale == pytest.approx(float(clip.model.logit_scale.exp()))  # type: ignore[operator]  # still its own
    # So answers are about those of its own logits.
    weights = one.text_weights(["cat"])
    found = class_logit(torch.cat([weights, weights]), 0)(embeddings) * one.scale
    torch.testing.assert_close(found, one.logits(embeddings)[:, 1], rtol=0.2, atol=0.01)


@pytest.mark.parametrize("make", [class_logit, class_margin])
def test_a_metric_takes_the_scale_of_the_model_whatever_its_units_are(
    clip: Clip, make: Any
) -> None:
    weights = F.normalize(
        torch.randn(3, 16, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    images = torch.randn(
        2, 3, *clip.encoder.image_size, generator=torch.Generator().manual_seed(1)
    )
    for encoder in (
        clip.encoder,
        clip.encoder.in_channels(),
        in_components(clip.encoder),
    ):
        default, told, other = (
            Task(encoder, images, metric, work=QUIET)
            for metric in (
                make(weights, 0),
                make(weights, 0, scale=clip.scale),
                make(weights, 0, scale=100.0),
            )
        )
        cut = circuit_of(told, {encoder.sites[-2]: [0, 1]})
        whole = cut.nothing().complement()
        kl, expected, apart = (
            measure_answers(task, [whole, cut])[0][1, 1]
            for task in (default, told, other)
        )
        np.testing.assert_allclose(kl, expected, rtol=1e-6)
        assert (np.abs(apart / expected - 1) > 0.1).all()
    alone = Encoder(clip.encoder.tower, clip.encoder.stages, clip.encoder.image_size)
    assert alone.scale == 100.0  # of no model


def test_what_passes_by_all_circuits_is_said() -> None:
    curve = curve_by_hand(empty=(0.28, 0.2, 2.0))  # a contrast of 0.08 of 0.9
    assert describe_leak(curve) == ""
    assert "11%" in describe_leak(curve_by_hand(empty=(0.3, 0.2, 2.0)))
    assert describe_leak(curve_by_hand(full=(0.1, 0.1, 0.0))) == ""


@pytest.mark.parametrize(("first", "second"), [(4, 5), (2, 5), (3, 1), (0, 2), (1, 0)])
def test_weights_between_kept_units_are_touched(first: int, second: int) -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.ReLU(),
        nn.Conv2d(4, 5, 1),
        nn.ReLU(),
        nn.AvgPool2d(8),
        nn.Flatten(),
    )
    for parameter in net.parameters():
        parameter.data.uniform_(0.1, 1)
    encoder = Encoder.from_stages(net, [("0", "1"), ("2", "3"), ("4", "5")], (8, 8))
    task = Task(
        encoder, torch.rand(3, 3, 8, 8) + 0.1, class_logit(torch.eye(5), 1), work=QUIET
    )
    circuit = circuit_of(task, {"1": np.arange(first), "3": np.arange(second)})
    # Of 12 weights those of kept channels, if any goes on; of 20 those from kept channels to kept channels.
    touched = 3 * first * (second > 0) + first * second
    assert weights_touched(task, [circuit]) == (touched / 32,)
    assert not any(parameter.grad is not None for parameter in net.parameters())
    assert all(parameter.requires_grad for parameter in net.parameters())


@pytest.mark.parametrize("tower", ["resnet", "vit", "convnext"])
def test_more_units_touch_more_weights(tower: str) -> None:
    encoder = Encoder.from_tower(make_tower(tower))
    task = Task(
        encoder,
        torch.randn(2, 3, *encoder.image_size),
        class_logit(WEIGHTS.float(), 1),
        work=QUIET,
    )
    sizes = {
        site: encoder.read_unhooked(torch.zeros(1, 3, *encoder.image_size), [site])[
            site
        ]
        for site in task.sites[1:]
    }
    units = {
        site: np.arange(found.shape[encoder.unit_dim(site)])
        for site, found in sizes.items()
    }
    circuits = [
        circuit_of(
            task, {site: some[: int(share * len(some))] for site, some in units.items()}
        )
        for share in (0, 0.5, 1)
    ]
    nothing, half, whole = weights_touched(task, circuits)
    assert (nothing, whole) == (0, 1)
    assert 0 < half < 1


@pytest.mark.parametrize(
    ("right", "works"), [(0.40, True), (0.39, False), (0.50, True), (0.62, True)]
)
def test_a_circuit_works_from_four_fifths_of_the_right_answers_of_the_model(
    right: float, works: bool
) -> None:
    values = {
        "right": {"kept": right, "full": 0.5},
        "false": {"kept": 0.0, "full": 0.0},
        "kl recovered": {"kept": 0.9, "full": 1.0},
    }
    assert does_work(values, "kept") is works
