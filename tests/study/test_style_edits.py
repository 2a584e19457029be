"""Edits of a style against plain arithmetic on made-up embeddings, and edits of units against hooks on a tiny model."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn.functional import normalize

from circuitry.circuits import Circuit
from circuitry.data import DomainFolder
from circuitry.interventions import kept_embeddings
from circuitry.models import load_clip
from experiments.study.style_edits import (
    CENTRED,
    COSTLIEST,
    LAST_SITE,
    LEACE,
    MOVED,
    OF_MEANS,
    OF_TEXT,
    RANDOM_COSTLY,
    REFITTED,
    SHARES,
    STACKED,
    STRENGTHS,
    Answers,
    Pictures,
    StyleQuestion,
    embedding_edits,
    in_order,
    removing,
    unit_rivals,
)
from tests.study.made_up_styles import (
    CLASSES,
    SKETCH,
    STYLES,
    MadeUp,
    pictures_of,
    write_drawings,
)

CELLS = [(style, name, 20) for style in STYLES for name in CLASSES]
FITTING = [cell for cell in CELLS if cell[:2] != ("sketch", "car")]
HALF, LAST = STRENGTHS[4], STRENGTHS[-1]
TEXTS = torch.randn(3, 8, generator=torch.Generator().manual_seed(2))


def question() -> MadeUp:
    return MadeUp(given=pictures_of(FITTING), texts=normalize(TEXTS, dim=1))


def after(name: str, strength: float, pictures: Pictures) -> Answers:
    (answers,) = embedding_edits(question())[name].answers(pictures, [strength])
    return answers


def test_embeddings_move_by_plain_arithmetic() -> None:
    pictures = pictures_of(CELLS)
    z, of_style = pictures.embeddings, pictures.styles == SKETCH
    # On these pictures the model calls the style right.
    assert question().called(z).equal(of_style)
    fitting = pictures_of(FITTING)
    means = [fitting.embeddings[fitting.styles == i].mean(0) for i in range(3)]
    between = means[SKETCH] - (means[0] + means[1]) / 2
    # The directions of styles are rows 3, 4 and 5 of the identity.
    text = torch.tensor([0, 0, 0, -0.5, -0.5, 1, 0, 0])
    for name, change in {
        MOVED: -torch.outer(of_style.float(), between),
        OF_MEANS: -torch.outer(z @ between, between) / between.square().sum(),
        OF_TEXT: -torch.outer(z @ text, text) / 1.5,
    }.items():
        for strength in (HALF, 1.0, LAST):
            expected = normalize(z + strength * change, dim=1)
            found = after(name, strength, pictures)
            torch.testing.assert_close(found.embeddings, expected)
            torch.testing.assert_close(found.logits, expected @ question().texts.T)


def test_logits_are_centred_or_raised_in_the_style_alone() -> None:
    pictures = pictures_of(CELLS)
    z, texts = pictures.embeddings, question().texts
    fitting = pictures_of(FITTING)
    mean = fitting.embeddings[fitting.styles == SKETCH].mean(0)
    logits = z @ texts.T
    for name, added in {
        CENTRED: -(texts @ mean),
        STACKED: torch.tensor([0.1, 0, 0]),  # cars are held out
    }.items():
        expected = logits.clone()
        expected[pictures.styles == SKETCH] += LAST * added
        found = after(name, LAST, pictures)
        torch.testing.assert_close(found.logits, expected)
        assert found.embeddings.equal(z)


def test_a_picture_that_is_not_called_by_the_style_keeps_its_answer() -> None:
    pictures = pictures_of(CELLS)
    # Some sketches look like photographs to the model, and some photographs like sketches.
    z = pictures.embeddings.clone()
    z[::3] = z[::3][:, [0, 1, 2, 3, 5, 4, 6, 7]]
    mixed = pictures._replace(embeddings=z)
    called = question().called(z)
    assert called.ne(pictures.styles == SKETCH).any()
    for name in (MOVED, CENTRED, STACKED):
        changed = (after(name, LAST, mixed).logits - z @ question().texts.T).abs()
        assert (changed.amax(1) > 1e-3).equal(called), name


def test_the_head_is_fitted_on_the_fitting_pictures_and_put_in_step_by_step() -> None:
    pictures, fitting = pictures_of(CELLS), pictures_of(FITTING)
    head = LogisticRegression(C=1000, fit_intercept=False, max_iter=1000)
    rows = head.fit(fitting.embeddings, fitting.labels).coef_
    fitted = normalize(torch.from_numpy(rows).float(), dim=1)
    for strength, share in ((0, 0), (LAST / 2, 0.5), (LAST, 1)):
        texts = (1 - share) * question().texts + share * fitted
        expected = pictures.embeddings @ texts.T
        found = after(REFITTED, strength, pictures).logits
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_after_leace_no_head_tells_the_style() -> None:
    fitting = pictures_of(FITTING)
    z, is_style = fitting.embeddings, fitting.styles == SKETCH
    found = after(LEACE, 1.0, fitting).embeddings
    covariance = (z - z.mean(0)).T @ (is_style.float() - is_style.float().mean())
    # The result has length 1, so the change along the covariance is solved for: found = k (z - a covariance).
    erased = list[Tensor]()
    for row, given in zip(found.double(), z.double(), strict=True):
        both = torch.stack([given, covariance.double()], dim=1)
        solution = torch.linalg.lstsq(both, row[:, None]).solution
        torch.testing.assert_close(both @ solution, row[:, None], atol=1e-6, rtol=0)
        erased.append(row / solution[0])
    x = torch.stack(erased)
    torch.testing.assert_close(x[is_style].mean(0), x[~is_style].mean(0), atol=1e-5, rtol=0)  # fmt: skip
    probe = LogisticRegression(C=100, class_weight="balanced")
    chosen = probe.fit(x, is_style).predict(x)
    right = [np.mean(chosen[is_style]), np.mean(~chosen[~is_style])]
    assert np.mean(right) == pytest.approx(0.5, abs=0.05)
    assert probe.fit(z, is_style).score(z, is_style) == 1


def test_the_weakest_strength_changes_nothing() -> None:
    pictures = pictures_of(CELLS)
    whole = question().answered(pictures.embeddings)
    for name, edit in embedding_edits(question()).items():
        assert edit.strengths[0] == 0
        assert list(edit.strengths) == sorted(edit.strengths)
        assert not edit.n_units
        (found,) = edit.answers(pictures, [0.0])
        torch.testing.assert_close(found.embeddings, whole.embeddings, msg=name)
        torch.testing.assert_close(found.logits, whole.logits, msg=name)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> StyleQuestion:
    """A question about the drawings of a tiny model, in which folders tell the style."""
    root = write_drawings(tmp_path_factory.mktemp("drawings") / "root", 26, CLASSES, 0)
    folder = DomainFolder(root, None)
    return StyleQuestion(load_clip("rn-tiny"), folder, "sketch", ("car",), named=False)


@pytest.fixture(scope="module")
def part(drawn: StyleQuestion) -> Circuit:
    return drawn.part.find(share=SHARES[-1])


def test_units_are_removed_as_by_hooks(drawn: StyleQuestion, part: Circuit) -> None:
    pictures = drawn.fitting.where(drawn.fitting.styles != SKETCH)
    circuits = {0.0: Circuit(part.source, {}), 0.02: part}
    of_sketches = drawn.mean_over("sketch")
    for baseline in (None, of_sketches):
        edit = removing(drawn, circuits, baseline)
        nothing, removed = edit.answers(pictures, edit.strengths)
        torch.testing.assert_close(nothing.embeddings, pictures.embeddings)
        task = replace(drawn.part.task, images=pictures.images, others=None)
        if baseline is not None:
            task = replace(task, baseline=baseline)
        (expected,) = kept_embeddings(task, [part.complement()])
        expected = normalize(expected.float(), dim=1)
        torch.testing.assert_close(removed.embeddings, expected, atol=1e-4, rtol=0)
        moved = (removed.embeddings - pictures.embeddings).abs().max()
        assert moved > 0.01
        assert edit.n_units == {0.0: 0, 0.02: part.count}
    # The means are of sketches that neither find the part nor fit an edit.
    used = drawn.part.records(12, 10, ["sketch"])
    assert {record.domain for record in used} == {"sketch"}
    assert not {record.class_name for record in used} & {"car"}
    first = drawn.part.task.encoder.stages[0]
    units = first.run(drawn.run(used).images)
    values = of_sketches.values[first.site]
    torch.testing.assert_close(values[0, :, 0, 0], units.mean((0, 2, 3)))


def test_a_part_is_removed_in_its_order(part: Circuit) -> None:
    circuits = in_order(part)
    assert tuple(circuits) == SHARES
    for smaller, larger in pairwise(SHARES):
        few, many = circuits[smaller], circuits[larger]
        assert few.count < many.count
        for site, units in few.units.items():
            assert set(units) <= set(many.units[site])


def test_other_units_are_as_many(part: Circuit) -> None:
    rivals = unit_rivals(part, 0.01, 0)
    n = in_order(part)[0.01].count
    assert {circuit.count for circuit in rivals.values()} == {n}
    costs = part.source.node_scores
    every = np.sort(np.concatenate(list(costs.values())))[::-1]
    for name, least in ((COSTLIEST, every[n - 1]), (RANDOM_COSTLY, every[len(every) // 10 - 1])):  # fmt: skip
        for site, units in rivals[name].units.items():
            assert (costs[site][units] >= least).all(), name
    last = list(costs)[-1]
    at_the_end = rivals[LAST_SITE].units
    assert {site for site, units in at_the_end.items() if len(units)} == {last}
    expected = np.argsort(-costs[last], kind="stable")[:n]
    assert set(at_the_end[last]) == set(expected)
