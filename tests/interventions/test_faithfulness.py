"""Faithfulness against paper, the ends of the curve, the areas of MIB, and the bootstrap over images."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from circuitry import (
    AttributionGraph,
    Encoder,
    InputError,
    Task,
    attribute,
    class_logit,
    mean_baseline,
    midpoint_rule,
)
from circuitry.encoder import AnyBaseline
from circuitry.interventions import (
    MIB_SIZES,
    AblationSettings,
    FaithfulnessCurve,
    curves_by_domain,
    faithfulness_curve,
    kept_embeddings,
    pool_curves,
)
from tests.interventions.test_gated_units import IMAGES, by_hand, first
from tests.support.assert_same import assert_same
from tests.support.circuits import curve_of
from tests.support.towers import make_tower
from tests.support.work import QUIET


def graph_with(scores: dict[str, list[float]]) -> AttributionGraph:
    arrays = {site: np.array(s) for site, s in scores.items()}
    return AttributionGraph(tuple(scores), arrays, {}, 1, "cat", "sketch")


SCORES = {"input": [0.0, 0, 0], "first": [-3.0, -2, 1], "second": [-5.0, -4]}


def measured(
    settings: AblationSettings, images: Tensor = IMAGES, **given: Any
) -> FaithfulnessCurve:
    return faithfulness_curve(by_hand(images, **given), graph_with(SCORES), settings)


def test_hand_worked_curve() -> None:
    curve = measured(AblationSettings(sizes=(0.1, 0.5, 1.0), random_draws=3))
    # 0.1: u0; v0: the product misses u1. 0.5: u0, u1; v0: 6 and 1; the means first, then 3.5 / 6.
    assert curve.n_units == (2, 3, 5)
    assert curve.kept[0].tolist() == [[0, 0], [6, 1], [11, 1]]
    assert curve.faithfulness.tolist() == [0, pytest.approx(3.5 / 6), 1]
    # All but them: u1, u2; v1: 5 and 0. u2; v1: the same. Nothing.
    assert curve.completeness.tolist() == [
        pytest.approx(2.5 / 6),
        pytest.approx(2.5 / 6),
        0,
    ]
    assert curve.random.shape == (1, 3, 3, 2)
    assert np.array_equal(curve.random[0, :, 2], np.broadcast_to(curve.full[0], (3, 2)))
    table = curve.to_pandas()
    columns = "class domain circuit measure value low high fraction n_units weights ranking n_images reason"
    assert list(table.columns) == columns.split()
    row = table[(table["circuit"] == "kept") & (table["fraction"] == 0.5)].iloc[0]
    assert row["class"] == "cat"
    assert (row["n_units"], row["n_images"], row["reason"], row["ranking"]) == (
        3,
        2,
        "",
        "absolute",
    )
    # Images drawn twice, once each or mixed: 6/11, 3.5/6 or 1.
    assert (row["low"], row["high"]) == (pytest.approx(6 / 11), 1)
    assert set(table["circuit"]) == {"kept", "complement", "random"}


def test_rankings() -> None:
    graph = graph_with({"input": [1.0], "a": [-1.0, 5, -2, 0.5]})
    assert graph.strongest(0.5).units["a"].tolist() == [1, 2]
    assert graph.strongest(0.5, "signed").units["a"].tolist() == [1, 3]
    assert "input" not in graph.strongest(1.0).units
    assert graph.strongest(0.5).complement().units["a"].tolist() == [0, 3]


@pytest.mark.parametrize("tower", ["resnet", "vit", "convnext"])
@pytest.mark.parametrize("kind", ["zero", "mean", "images"])
def test_ends_of_the_curve(tower: str, kind: str) -> None:
    encoder = Encoder.from_tower(
        make_tower(tower).double()
    )  # stacking many circuits only rounds otherwise
    images = torch.randn(4, 3, *encoder.image_size, dtype=torch.double)
    reference = torch.randn(4, 3, *encoder.image_size, dtype=torch.double)
    with torch.no_grad():  # the model does better on its images than on the baseline
        direction = encoder(images).mean(0) - (
            0 if kind == "zero" else encoder(reference).mean(0)
        )

    def metric(e: Tensor) -> Any:
        return e @ direction

    graph = attribute(encoder, images, metric, rule=midpoint_rule(2), progress=False)
    given: dict[str, AnyBaseline] = {
        "zero": "zero",
        "mean": mean_baseline(encoder, [reference]),
        "images": reference,
    }
    task = Task(encoder, images, metric, baseline=given[kind], work=QUIET)
    curve = faithfulness_curve(
        task, graph, AblationSettings(sizes=(0.2, 1.0), random_draws=1)
    )
    with torch.no_grad():
        assert curve.full[0] == pytest.approx(metric(encoder(images)).numpy(), rel=1e-9)
        if kind == "images":
            assert curve.empty[0] == pytest.approx(
                metric(encoder(reference)).numpy(), rel=1e-9
            )
    assert (curve.faithfulness[-1], curve.completeness[-1]) == pytest.approx(
        (1, 0), abs=1e-12
    )
    assert np.array_equal(curve.kept[:, -1], curve.full)
    assert np.array_equal(curve.complement[:, -1], curve.empty)
    assert (
        curve.settings["baseline"]
        == {"zero": "zero", "mean": "mean-position", "images": "counterfactual"}[kind]
    )


def test_chosen_sites_only_and_any_cut() -> None:
    encoder = Encoder.from_tower(make_tower("resnet"))
    images = torch.randn(5, 3, 64, 64)
    metric = class_logit(F.normalize(torch.randn(3, 16), dim=-1), 1)
    graph = attribute(encoder, images, metric, rule=midpoint_rule(1), progress=False)
    others = torch.randn_like(images)
    task = Task(
        encoder,
        images,
        metric,
        baseline=others,
        sites=["layer2.0", "layer4.0"],
        work=QUIET,
    )
    settings = AblationSettings(sizes=(0.1,))
    whole = faithfulness_curve(task, graph, settings)
    parts = faithfulness_curve(
        replace(task, images=[images[:2], images[2:]]), graph, settings
    )
    assert_same(parts.kept[0], whole.kept[0], 0.01, atol=1e-6)
    assert_same(parts.random[0], whole.random[0], 0.01, atol=1e-6)
    assert whole.n_units == (7 + 26,)  # of 64 and 256
    again = faithfulness_curve(task, graph, replace(settings, seed=1))
    assert not np.array_equal(again.random, whole.random)


def test_areas_of_known_curves() -> None:
    def areas(level: float) -> dict[str, float]:
        table = curve_of(np.full((10, 3), level)).areas()
        assert set(table["ranking"]) == {"signed"}
        return dict(zip(table["measure"], table["value"], strict=True))

    assert areas(1.0) == {"CPR": pytest.approx(0.999), "CMD": 0}
    assert areas(0.0) == {"CPR": 0, "CMD": pytest.approx(0.999)}
    assert areas(1.5) == {
        "CPR": pytest.approx(1.5 * 0.999),
        "CMD": pytest.approx(0.5 * 0.999),
    }
    # Faithfulness equal to the fraction: the trapezoid of a straight line is exact, (1 - 0.001^2) / 2.
    line = np.repeat(np.array(MIB_SIZES)[:, None], 2, 1)
    assert curve_of(line).areas()["value"].iloc[0] == pytest.approx((1 - 1e-6) / 2)


def test_bands_resample_images() -> None:
    rng = np.random.default_rng(0)
    noisy = rng.normal(0.5, 1, (10, 400))
    table = curve_of(noisy).to_pandas()
    kept = table[table["circuit"] == "kept"]
    half_width = (kept["high"] - kept["low"]) / 2
    assert half_width.to_numpy() == pytest.approx(
        np.full(10, 1.96 / 20), rel=0.2
    )  # 1.96 sd / sqrt(n)
    assert ((kept["low"] < kept["value"]) & (kept["value"] < kept["high"])).all()
    # What all images share has no spread, whatever they differ in besides.
    shift = rng.normal(0, 5, 400)
    shared = curve_of(
        np.full((10, 400), 0.25) + shift, full=1 + shift, empty=shift
    ).to_pandas()
    shared = shared[shared["circuit"] == "kept"]
    for column in ("value", "low", "high"):
        assert shared[column].to_numpy() == pytest.approx(0.25)
    pd.testing.assert_frame_equal(
        curve_of(noisy).to_pandas(), curve_of(noisy).to_pandas()
    )
    assert curve_of(noisy[:, :1]).to_pandas()["low"].isna().all()


def test_no_lead_is_nan_with_the_reason() -> None:
    curve = curve_of(
        np.ones((10, 3)), full=np.array([1.0, 0, 2]), empty=np.array([2.0, 1, 0])
    )
    table = curve.to_pandas()
    assert table[["value", "low", "high"]].isna().all(axis=None)
    assert set(table["reason"]) == {
        "the model does no better than the baseline: 1 against 1"
    }
    assert curve.areas()["value"].isna().all()
    # A lead within the noise: no quotient of it.
    close = curve_of(
        np.ones((10, 3)), full=np.array([1.0, 0, 2.1]), empty=np.array([2.0, 1, 0])
    ).to_pandas()
    assert close[["value", "low", "high"]].isna().all(axis=None)
    assert set(close["reason"]) == {
        "the lead of the model over the baseline is within the noise: 1.033 against 1"
    }


@given(
    st.floats(-5, 5),
    st.floats(-5, 5),
    st.floats(-5, 5),
    st.floats(0.1, 10),
    st.floats(-10, 10),
)
def test_a_ratio_knows_no_scale(
    kept: float, full: float, empty: float, scale: float, shift: float
) -> None:
    value, reason = ratio(kept, full, empty)
    assert np.isnan(value) == bool(reason)
    if full - empty > 1e-2:
        moved, _ = ratio(*(scale * x + shift for x in (kept, full, empty)))
        assert moved == pytest.approx(value, abs=1e-6)
        assert ratio(full, full, empty) == (1, "")
        assert ratio(empty, full, empty) == (0, "")


def ratio(kept: float, full: float, empty: float) -> tuple[float, str]:
    """Faithfulness of one circuit on one image, and why it is unknown."""
    table = curve_of(
        np.full((1, 1), kept), (0.5,), full=np.array([full]), empty=np.array([empty])
    ).to_pandas()
    row = table[table["circuit"] == "kept"].iloc[0]
    return row["value"], row["reason"]


def test_hand_worked_selectivity() -> None:
    # Metric u0 u1 + u2: 11 and 1 for the class, 2 * 1 + 6 = 8 for another class.
    other = torch.tensor([2.0, 1, 6])[None, :, None, None]
    settings = AblationSettings(sizes=(0.5, 1.0), random_draws=2)
    curve = measured(settings, others=other)
    # With u0, u1; v0 kept: 6 and 1 for the class, 2 for the other.
    assert curve.own.tolist() == [True, True, False]
    assert np.isnan(
        curve.selectivity
    ).all()  # the model itself puts the other class first: 6 against 8
    noisy = measured(settings, other, others=IMAGES)  # 8 against 11 and 1
    assert (
        noisy.reason("selectivity")
        == "the lead of the model over the baseline is within the noise: 2 against 0"
    )
    swapped = measured(settings, other, others=IMAGES[1:])
    assert swapped.selectivity.tolist() == [pytest.approx((2 - 1) / (8 - 1)), 1]
    assert swapped.faithfulness.tolist() == [pytest.approx(2 / 8), 1]
    reasons = curve.to_pandas("selectivity")["reason"]
    assert reasons.str.startswith(
        "the model does no better than the baseline: -2"
    ).all()
    assert set(swapped.to_pandas("selectivity")["measure"]) == {"selectivity"}


def test_a_deaf_circuit_is_faithful_but_not_selective() -> None:
    n = 12
    rng = np.random.default_rng(0)
    own = np.arange(n) < 4
    full = np.where(own, 0.8, 0.1) + rng.normal(0, 0.01, n)
    deaf = np.full((10, n), 0.8)
    group = np.arange(n) % 4
    curve = curve_of(deaf, full=full, own=own, group=group)
    assert curve.faithfulness == pytest.approx(np.full(10, 1), abs=0.05)
    table = curve.to_pandas("selectivity")
    for column in ("value", "low", "high"):
        assert table[column].to_numpy() == pytest.approx(np.zeros(20), abs=1e-9)
    without = curve_of(deaf).to_pandas("selectivity")
    assert without["value"].isna().all()
    assert set(without["reason"]) == {"no images of other classes"}
    with pytest.raises(InputError, match=r"faithfulness or selectivity.*'accuracy'"):
        curve.to_pandas("accuracy")


def curve_of_classes(
    shares: Float[np.ndarray, "classes images"],
    leads: Float[np.ndarray, "classes images"],
) -> Any:
    """One size of circuits that keep a share of each image's lead."""
    group = np.repeat(np.arange(len(shares)), shares.shape[1])
    return curve_of((shares * leads).reshape(1, -1), full=leads.ravel(), group=group)


def test_intervals_of_several_classes_are_over_classes() -> None:
    shares = np.array([0.2, 0.5, 0.9, 0.4, 0.7])
    found = (
        curve_of_classes(shares[:, None] * np.ones((5, 3)), np.ones((5, 3)))
        .to_pandas()
        .iloc[0]
    )
    expected = stats.t.interval(
        0.95, 4, shares.mean(), stats.sem(shares)
    )  # leads are equal: a mean of five numbers
    assert found["value"] == pytest.approx(shares.mean())
    assert (found["low"], found["high"]) == pytest.approx(
        expected, abs=0.02
    )  # 2,000 resamples: a fortieth of its width
    # Image noise counts once: classes that differ by it alone get Student's interval of it.
    noisy = np.random.default_rng(0).normal(0.5, 0.3, (40, 2))
    found = curve_of_classes(noisy, np.ones((40, 2))).to_pandas().iloc[0]
    expected = stats.t.interval(0.95, 39, noisy.mean(), stats.sem(noisy.mean(1)))
    assert found["high"] - found["low"] == pytest.approx(
        expected[1] - expected[0], rel=0.1
    )


@pytest.mark.parametrize(
    ("own", "group", "measures"),
    [
        ([1, 1], [0, 1], ["faithfulness"]),
        ([1, 1, 1], [0, 0, 1], ["faithfulness"]),
        ([1, 1, 0], [0, 0, 0], ["faithfulness"]),
        ([1, 0, 1, 0], [0, 0, 1, 1], ["faithfulness", "selectivity"]),
        ([1, 1, 0, 0], [0, 0, 0, 0], ["faithfulness", "selectivity"]),
        ([1, 0, 0], [0, 0, 0], []),
    ],
    ids=[
        "classes of one",
        "one class of one",
        "one other",
        "classes of one with others",
        "twos",
        "one image",
    ],
)
def test_one_class_with_a_single_image_has_no_interval(
    own: list[int], group: list[int], measures: list[str]
) -> None:
    kept = np.ones((10, 1)) * np.linspace(0.4, 0.6, len(own)) * own
    curve = curve_of(
        kept, full=np.array(own, float), own=np.array(own, bool), group=np.array(group)
    )
    for measure in ("faithfulness", "selectivity")[: 1 if all(own) else 2]:
        table = curve.to_pandas(measure)
        assert table["value"].notna().all()
        assert (
            table["low"].notna().all()
            == table["high"].notna().all()
            == (measure in measures)
        )
        assert table["low"].isna().all() == (measure not in measures)
    assert curve.areas()["low"].isna().all() == ("faithfulness" not in measures)


def two_curves() -> list[FaithfulnessCurve]:
    other = torch.tensor([2.0, 1, 6])[None, :, None, None]
    settings = AblationSettings(sizes=(0.5, 1.0), random_draws=1)
    one, two = (
        measured(settings, images, others=other) for images in (IMAGES[:1], IMAGES[1:])
    )
    return [one, replace(two, class_name="dog")]


def test_pooling_averages_before_dividing() -> None:
    pooled = pool_curves(two_curves())
    whole = measured(AblationSettings(sizes=(0.5, 1.0), random_draws=1))
    assert (
        pooled.faithfulness.tolist()
        == whole.faithfulness.tolist()
        == [pytest.approx(3.5 / 6), 1]
    )
    assert (pooled.class_name, pooled.domain) == (None, "sketch")
    assert pooled.group.tolist() == [0, 0, 1, 1]
    assert pooled.own.tolist() == [True, False, True, False]
    table = curves_by_domain(two_curves())
    assert set(table["domain"]) == {"sketch"}
    assert set(table["sites"]) == {"all"}
    assert table["n_images"].unique().tolist() == [2]
    with pytest.raises(InputError, match="their sizes agree, but there are"):
        pool_curves([whole, replace(whole, sizes=(0.4, 1.0))])
    with pytest.raises(InputError, match="curves"):
        pool_curves([])


def test_a_baseline_for_every_image_goes_on_with_the_others() -> None:
    other, settings = (
        torch.tensor([2.0, 1, 6])[None, :, None, None],
        AblationSettings(sizes=(0.5, 1.0)),
    )
    baseline = torch.cat([IMAGES.flip(0), IMAGES[:1]])
    curve = measured(settings, baseline=baseline, others=other)
    assert (
        curve.empty[0].tolist()
        == first(by_hand().encoder(baseline)).tolist()
        == [1, 11, 11]
    )
    circuit = graph_with(SCORES).strongest(0.5)
    kept = curve.kept[0, 0]
    for images, ends, found in (
        (IMAGES, baseline[:2], kept[:2]),
        (other, baseline[2:], kept[2:]),
    ):
        assert (
            first(
                kept_embeddings(by_hand(images, baseline=ends), [circuit])[0]
            ).tolist()
            == found.tolist()
        )
    in_batches: Any = [IMAGES[:1], IMAGES[1:]]
    batches = measured(settings, in_batches, baseline=baseline, others=[other])
    assert np.array_equal(batches.kept, curve.kept)
    with pytest.raises(InputError, match=r"2 activations.*'input'.*3 images"):
        measured(settings, baseline=IMAGES, others=other)


def test_intervals_of_classes_that_differ_hold_the_truth() -> None:
    # Classes vary much, images little. Over images alone, intervals held 0.5 in about a fifth of such studies.
    rng, n = np.random.default_rng(0), 150
    held = 0
    for _ in range(n):
        shares = rng.normal(0.5, 0.3, (8, 1)) + rng.normal(0, 0.05, (8, 4))
        leads = rng.gamma(4, 0.25, (8, 1)) * np.ones((1, 4))
        found = curve_of_classes(shares, leads).to_pandas().iloc[0]
        held += found["low"] <= 0.5 <= found["high"]
    assert stats.binomtest(int(held), n, 0.95).pvalue > 0.01
    assert held / n > 0.9
