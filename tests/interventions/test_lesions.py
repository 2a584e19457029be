"""What lesions and own parts refuse or tell: cells that are asked differently, and answers that are none."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from circuitry import Circuit, Task, class_logit, class_margin
from circuitry.circuits import own_part
from circuitry.circuits.own_part_of_class import ImagesOfClass
from circuitry.encoder import Encoder, Stage
from circuitry.encoder.chain import ModelScale
from circuitry.interventions import circuit_of, lesion, part_overlaps
from circuitry.interventions.ablated_units import ablations
from circuitry.runs import InputError
from tests.support.planted_classes import planted_classes
from tests.support.work import QUIET

NET = planted_classes()
SITE = "units"
REAL, CLIPART = ("clock", "real"), ("clock", "clipart")


def task_of(label: int, *, n: int = 4, seed: int = 0, **change: Any) -> Task:
    return replace(NET.task(label, n, seed), work=QUIET, **change)


@pytest.fixture(scope="module")
def part() -> Circuit:
    return own_part(task_of(2, n=6), share=0.1)


# In the encoder of the nets below an image is its own embedding, by a site with as many units.


def as_they_are(width: int = 3) -> Encoder:
    stages = (
        Stage("numbers", lambda x: x[:, 0, 0, :width], 1),
        Stage("code", lambda x: x, 1),
    )
    return Encoder(nn.Linear(1, 1), stages, (1, 4))


def images_of(rows: list[list[float]]) -> Tensor:
    images = torch.zeros(len(rows), 3, 1, 4)
    images[:, 0, 0, : len(rows[0])] = torch.tensor(rows)
    return images


def test_every_cell_is_read_by_its_own_label_and_other_candidates_are_refused_by_name(
    part: Circuit,
) -> None:
    of_eight = {REAL: task_of(2)}
    alone = lesion(of_eight, {REAL: part}).iloc[0]
    assert alone["whole_right"] == 1.0
    few = class_logit(NET.weights[2:5], 0, 20.0)  # the same class is the first of three
    mixed = of_eight | {CLIPART: task_of(2, seed=1, metric=few)}
    with pytest.raises(
        InputError,
        match=r"clock in real and clock in clipart differ in candidates \(6 and 3\)",
    ):
        lesion(mixed, {REAL: part})
    with pytest.raises(
        InputError,
        match=r"clock in real and clock in clipart differ in label of clock \(2 and 3\)",
    ):
        lesion(of_eight | {CLIPART: task_of(3)}, {REAL: part})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"metric": class_logit(NET.weights, 2, 100.0)}, r"scale \(20.0 and 100.0\)"),
        ({"baseline": "zero"}, r"baseline \('mean-position' and 'zero'\)"),
        ({"metric": class_logit(NET.weights.flip(0), 2, 20.0)}, "text weights"),
        (
            {"metric": class_margin(NET.weights, 2, 20.0)},
            r"metric \('logit' and 'margin'\)",
        ),
    ],
)
def test_cells_of_a_table_and_styles_of_a_part_are_asked_alike(
    change: dict[str, Any], words: str, part: Circuit
) -> None:
    one, other = task_of(2), task_of(2, seed=1, **change)
    with pytest.raises(
        InputError, match=f"clock in real and clock in clipart differ in {words}"
    ):
        lesion({REAL: one, CLIPART: other}, {REAL: part})
    with pytest.raises(InputError, match=f"task 1 and task 2 differ in {words}"):
        own_part([one, other], share=0.1)


def test_a_part_of_two_styles_says_the_baselines_of_both() -> None:
    one, two = task_of(2), task_of(2, seed=1)
    made = own_part([one, two], share=0.1).source.settings
    assert made["baseline_digest"] == [one.baseline.digest, two.baseline.digest]
    assert (
        own_part([one, one], share=0.1).source.settings["baseline_digest"]
        == one.baseline.digest
    )


def test_another_baseline_than_that_which_found_the_part_is_told(
    part: Circuit, caplog: pytest.LogCaptureFixture
) -> None:
    table = lesion({REAL: task_of(2, seed=1)}, {REAL: part})
    told = table[["candidates", "scale", "baseline", "part_baseline"]].drop_duplicates()
    assert told.to_numpy().tolist() == [[6, 20.0, "mean-position", "mean-position"]]
    assert not caplog.text
    at_zero = lesion({REAL: task_of(2, seed=1, baseline="zero")}, {REAL: part})
    assert set(zip(at_zero["baseline"], at_zero["part_baseline"], strict=True)) == {
        ("zero", "mean-position")
    }
    assert (
        "found with the baseline 'mean-position', and are tested with 'zero'"
        in caplog.text
    )
    found_at_zero = own_part(task_of(2, n=6, baseline="zero"), share=0.1)
    with pytest.raises(
        InputError,
        match="part of clock in real and the part of clock in clipart differ in baseline",
    ):
        lesion({REAL: task_of(2)}, {REAL: part, CLIPART: found_at_zero})


def test_the_class_of_a_part_without_a_task_is_known_by_its_candidates_or_not_at_all(
    part: Circuit,
) -> None:
    cup = ("cup", "real")
    together = lesion({REAL: task_of(2), cup: task_of(1)}, {REAL: part}, random_draws=0)
    alone = lesion({cup: task_of(1)}, {REAL: part}, random_draws=0)
    assert (
        alone["taken_for"].tolist()
        == together.loc[together["class"] == "cup", "taken_for"].tolist()
    )
    unsaid = circuit_of(task_of(2), part.units)
    unsaid = replace(unsaid, source=replace(unsaid.source, settings={}))
    assert np.isnan(
        lesion({cup: task_of(1)}, {REAL: unsaid}, random_draws=0)["taken_for"]
    ).all()


@pytest.mark.parametrize("label", range(3))
def test_no_class_is_right_by_its_place_where_all_answers_are_equal(label: int) -> None:
    encoder, rows = as_they_are(), [[0.0, 0.0, 0.0]]
    rows[0][label] = 1.0
    task = Task(encoder, images_of(rows), class_logit(torch.eye(3), label), work=QUIET)
    everything = circuit_of(
        task, {"numbers": [0, 1, 2]}
    )  # without all of them the embedding is zero
    row = lesion({("x", "a"): task}, {("x", "a"): everything}, random_draws=0).iloc[0]
    assert row["whole_right"] == 1.0
    assert row["right"] == row["taken_for"] == 0.0
    assert row["log_odds"] == pytest.approx(np.log(1 / 2))
    assert row["rank"] == 1.0  # no other class has a larger answer


def test_no_class_is_right_among_two_texts_that_are_one() -> None:
    texts = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    tasks = {
        (name, "a"): Task(
            as_they_are(2),
            images_of([[1.0, 0.1]]),
            class_logit(texts, label),
            work=QUIET,
        )
        for label, name in enumerate("xy")
    }
    parts = {("x", "a"): circuit_of(tasks["x", "a"], {"numbers": [1]})}
    for key, task in tasks.items():
        assert lesion({key: task}, parts, random_draws=0)["whole_right"].tolist() == [
            0.0
        ]


def test_embeddings_that_are_not_finite_are_no_answer_and_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stages = (
        Stage("numbers", lambda x: x[:, 0, 0, :2], 1),
        Stage("code", lambda x: x / x.norm(dim=-1, keepdim=True), 1),  # a norm of zero
    )
    encoder = Encoder(nn.Linear(1, 1), stages, (1, 4))
    task = Task(
        encoder,
        images_of([[1.0, 0.1], [1.0, 0.2]]),
        class_logit(torch.eye(2), 0),
        work=QUIET,
    )
    part = circuit_of(task, {"numbers": [0, 1]})
    row = lesion({("x", "a"): task}, {("x", "a"): part}, random_draws=0).iloc[0]
    assert (row["whole_right"], row["right"], row["taken_for"]) == (1.0, 0.0, 0.0)
    assert np.isnan(row["log_odds"])
    assert np.isnan(row["rank"])
    assert "2 without the part units of x in a" in caplog.text
    assert "not finite" in caplog.text


def test_images_without_an_answer_are_no_contrast() -> None:
    """Of images of other classes those that get no class have no log-odds of the model's own answer."""
    rows = [
        [0.0, 1.0, 0.1, 0.0],
        [0.0, 0.1, 1.0, 0.0],
        [0.0, 1.0, 1.0, 0.0],
    ]  # the last is of no class
    encoder = as_they_are(4)
    own = images_of([[1.0, 0.2, 0.1, 0.3], [1.0, 0.1, 0.3, 0.2]])
    task = Task(
        encoder,
        own,
        class_logit(torch.eye(4)[:3], 0, 20.0),
        others=images_of(rows),
        work=QUIET,
    )
    with task.running(gradients=True):
        others = ImagesOfClass(replace(task, sites=("numbers",))).others
        assert others.tolist() == [2, 3]


def test_one_image_of_the_class_is_told(caplog: pytest.LogCaptureFixture) -> None:
    task = task_of(2)
    own_part(task, share=0.1)
    assert "one image" not in caplog.text
    own_part(task_of(2, n=1), share=0.1)
    assert "one image of the class" in caplog.text


def test_a_site_without_units_of_a_part_is_left_out_of_its_lesion() -> None:
    empty = circuit_of(task_of(2), {SITE: []})
    (ablated,) = ablations(REAL, empty, [])
    assert ablated.units == {}
    table = lesion({REAL: task_of(2)}, {REAL: empty}, random_draws=1)
    assert table["log_odds"].tolist() == pytest.approx(table["whole_log_odds"].tolist())


def test_overlaps_say_the_sizes_of_both_parts() -> None:
    """A part of 2 % inside one of 5 % has an overlap of at most .4."""
    task, n = task_of(2), len(own_part(task_of(2), share=0.1).source.node_scores[SITE])
    small, large = (circuit_of(task, {SITE: list(range(count))}) for count in (2, 5))
    row: pd.Series[Any] = part_overlaps({REAL: small, CLIPART: large}).iloc[0]
    assert (row["overlap"], row["size_a"], row["size_b"]) == (0.4, 2 / n, 5 / n)


def test_scales_that_differ_by_rounding_are_one_scale(part: Circuit) -> None:
    """A classifier's scale is measured, so it differs in its last digits between machines."""
    rounded = task_of(2, seed=1, metric=class_logit(NET.weights, 2, 20.0 * (1 + 1e-7)))
    assert (
        len(lesion({REAL: task_of(2), CLIPART: rounded}, {REAL: part}, random_draws=0))
        == 2
    )


def test_the_scale_of_a_model_is_read_once_a_task() -> None:
    """A classifier runs images of noise to tell it."""
    read = list[Encoder]()

    def telling(encoder: Encoder, known_by: Tensor) -> float:
        read.append(encoder)
        return 20.0

    encoder = Encoder(NET.encoder.tower, NET.encoder.stages, NET.encoder.image_size)
    encoder = encoder.of_model(ModelScale(torch.ones(1), telling))
    one, two = (
        task_of(2, seed=seed, encoder=encoder, metric=class_logit(NET.weights, 2))
        for seed in (0, 1)
    )
    part = own_part(one, share=0.1)
    assert len(read) == 1
    assert part.source.settings["scale"] == 20.0
    assert lesion({REAL: one, CLIPART: two}, {REAL: part})[
        "scale"
    ].unique().tolist() == [20.0]
    assert len(read) == 3
