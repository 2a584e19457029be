"""Explanations of one picture against plain hooks of PyTorch, captum by itself, and loops over cells."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from PIL import Image
from torch import Tensor

import circuitry
from circuitry import Clip, InputError
from circuitry.encoder import ClassLogOdds
from circuitry.interventions import Explanation, explain
from circuitry.interventions.explaining import N_DRAWS, PATH_POINTS
from circuitry.interventions.explanation import ORDERS, TABLES
from circuitry.reports import Strip, plot, write_explanations

TEXTS = ["cup", "clock", "star"]


@pytest.fixture(scope="module")
def clip() -> Clip:
    return circuitry.load_clip("rn-tiny").in_components()


@pytest.fixture(scope="module")
def vit() -> Clip:
    return circuitry.load_clip("vit-tiny").in_components()


@pytest.fixture(scope="module")
def picture(clip: Clip) -> Tensor:
    """A dark disc on noise [3, H, W]."""
    generator = torch.Generator().manual_seed(1)
    height, width = clip.encoder.image_size
    x = torch.randn(3, height, width, generator=generator) * 0.3
    rows, columns = torch.meshgrid(
        torch.arange(height), torch.arange(width), indexing="ij"
    )
    x[:, (rows - 20) ** 2 + (columns - 40) ** 2 < 150] -= 2
    return x


@pytest.fixture(scope="module")
def why(clip: Clip, picture: Tensor) -> Explanation:
    return explain(clip, picture, TEXTS, n_units=4)


def plain_log_odds(clip: Clip, embeddings: Tensor, text: str) -> np.ndarray:
    """Return log p - log(1 - p) of a text, by the formula."""
    weights = clip.text_weights(TEXTS, templates=["{}"], progress=False)
    cosines = torch.nn.functional.normalize(embeddings, dim=-1) @ weights.T
    p = (clip.scale * cosines.double()).softmax(-1)[:, TEXTS.index(text)]
    return (p.log() - (1 - p).log()).detach().numpy()


def test_the_answer_is_the_softmax_of_the_models_own_logits(
    clip: Clip, picture: Tensor, why: Explanation
) -> None:
    weights = clip.text_weights(TEXTS, templates=["{}"], progress=False)
    with torch.no_grad():
        embedding = clip.encoder.tower(picture[None])
    shares = clip.pair_logits(embedding, weights).softmax(-1)[0].tolist()
    expected = dict(zip(TEXTS, shares, strict=True))
    assert why.probabilities == pytest.approx(expected, rel=1e-5)  # of single precision
    assert why.answer == max(why.probabilities, key=lambda t: why.probabilities[t])
    assert why.log_odds == pytest.approx(
        plain_log_odds(clip, embedding, why.answer)[0], rel=1e-4
    )


def test_effects_of_units_are_those_of_plain_hooks(
    clip: Clip, picture: Tensor, why: Explanation
) -> None:
    tower = clip.encoder.tower
    blank = torch.zeros_like(picture)[None]

    def without(units: list[tuple[str, int]]) -> float:
        ends: dict[str, Tensor] = {}
        hooks = []
        for site, _ in units:
            module = tower.get_submodule(site)

            def keep(_m: object, _i: object, output: Tensor, s: str = site) -> None:
                ends[s] = output

            hooks.append(module.register_forward_hook(keep))
        with torch.no_grad():
            tower(blank)
        for hook in hooks:
            hook.remove()
        hooks = []
        for site in {s for s, _ in units}:
            of_site = [unit for s, unit in units if s == site]

            def replace(
                _m: object,
                _i: object,
                output: Tensor,
                s: str = site,
                chosen: tuple[int, ...] = tuple(of_site),
            ) -> Tensor:
                changed = output.clone()
                changed[:, list(chosen)] = ends[s][:, list(chosen)]
                return changed

            module = tower.get_submodule(site)
            hooks.append(module.register_forward_hook(replace))
        with torch.no_grad():
            embedding = tower(picture[None])
        for hook in hooks:
            hook.remove()
        return float(plain_log_odds(clip, embedding, why.text)[0])

    units = list(zip(why.units["site"], why.units["unit"], strict=True))
    for unit, effect in zip(units, why.units["effect"], strict=True):
        assert why.log_odds - without([unit]) == pytest.approx(effect, abs=1e-3)
    runs = why.tests.set_index(["run", "units"])["log_odds"]
    assert runs["after removing", "strongest units"] == pytest.approx(
        without(units), abs=1e-3
    )
    assert list(why.units["effect"]) == sorted(why.units["effect"], reverse=True)


def test_gradients_of_pixels_are_captums(
    clip: Clip, picture: Tensor, why: Explanation
) -> None:
    weights = clip.text_weights(TEXTS, templates=["{}"], progress=False)
    order = [why.text, *(text for text in TEXTS if text != why.text)]
    rows = weights[[TEXTS.index(text) for text in order]]

    def target(x: Tensor) -> Tensor:
        z = torch.nn.functional.normalize(clip.encoder.tower(x), dim=-1)
        logits = clip.scale * (z @ rows.T)
        return logits[:, 0] - logits[:, 1:].logsumexp(-1)

    effects = IntegratedGradients(target).attribute(
        picture[None], n_steps=PATH_POINTS, method="gausslegendre"
    )
    cells = why.cells["integrated gradients"]
    size = picture.shape[1] // len(cells)
    by_loop = [
        [
            effects[0, :, i * size : (i + 1) * size, j * size : (j + 1) * size].sum()
            for j in range(len(cells))
        ]
        for i in range(len(cells))
    ]
    expected = torch.tensor(by_loop).detach().numpy() / size**2
    np.testing.assert_allclose(cells, expected, atol=1e-3 * np.abs(expected).max())


def test_a_point_of_the_curves_is_a_loop_over_cells(
    clip: Clip, picture: Tensor, why: Explanation
) -> None:
    cells = why.cells["units"]
    size = picture.shape[1] // len(cells)
    largest = np.argsort(-cells, axis=None, kind="stable")[: round(0.4 * cells.size)]
    deleted, inserted = picture.clone(), torch.zeros_like(picture)
    for place in largest:
        i, j = divmod(int(place), cells.shape[1])
        where = (
            slice(None),
            slice(i * size, i * size + size),
            slice(j * size, j * size + size),
        )
        deleted[where] = 0
        inserted[where] = picture[where]
    with torch.no_grad():
        embeddings = clip.encoder.tower(torch.stack([deleted, inserted]))
    expected = plain_log_odds(clip, embeddings, why.text)
    curves = why.curves.set_index(["order", "change", "share"])["log_odds"]
    for change, value in zip(("deletion", "insertion"), expected, strict=True):
        assert curves["units", change, 0.4] == pytest.approx(value, abs=1e-3)
    assert set(why.areas.index) == set(ORDERS)


def test_random_units_are_a_mean_over_draws_at_the_same_sites(why: Explanation) -> None:
    counts = why.tests.set_index(["run", "units"])["n_units"]
    kept = why.tests.set_index(["run", "units"])["keeps_answer"]
    assert counts["after removing", "strongest units"] == 4
    assert counts["after removing", "random units"] == 4
    assert (kept["after removing", "random units"] * N_DRAWS) % 1 == pytest.approx(0)
    assert kept["whole model", ""] == 1


def test_with_two_texts_all_others_are_the_runner_up(
    clip: Clip, picture: Tensor
) -> None:
    pair = TEXTS[:2]
    all_others = explain(clip, picture, pair, n_units=2)
    runner_up = explain(clip, picture, pair, n_units=2, against="runner-up")
    assert all_others.log_odds == runner_up.log_odds
    assert all_others.units.equals(runner_up.units)


def test_another_text_turns_the_sign_over(clip: Clip, picture: Tensor) -> None:
    pair = TEXTS[:2]
    first, second = (
        explain(clip, picture, pair, text=text, n_units=1) for text in pair
    )
    assert first.log_odds == pytest.approx(-second.log_odds)


def test_heads_show_what_the_class_token_attends_to(vit: Clip, picture: Tensor) -> None:
    encoder = vit.encoder
    x = picture[None, :, : encoder.image_size[0], : encoder.image_size[1]]
    why = explain(vit, x, TEXTS, n_units=40)
    heads = [unit for unit in why.maps if unit[0].endswith("attn")]
    assert heads
    _, cache = encoder.run_with_cache(x)
    for site, unit in heads:
        block = int(site.split(".")[2])
        pattern = cache[f"blocks.{block}.attn.hook_pattern"]
        attended = pattern[0, unit, 0, 1:].reshape(4, 4)
        np.testing.assert_allclose(why.maps[site, unit], attended, atol=1e-6)


def test_units_of_a_part_are_named(
    clip: Clip, picture: Tensor, why: Explanation
) -> None:
    again = explain(clip, picture, TEXTS, n_units=4, parts={"cup in real": why.circuit})
    assert set(again.units["own part of"]) == {"cup in real"}
    other = circuitry.load_clip("rn-tiny")
    with torch.no_grad():
        next(other.encoder.tower.parameters()).mul_(1.1)
    with pytest.raises(InputError, match="differ in weights"):
        explain(
            other.in_components(), picture, TEXTS, parts={"cup in real": why.circuit}
        )


def test_two_pictures_of_one_text_are_compared_unit_by_unit(
    clip: Clip, picture: Tensor
) -> None:
    first = explain(clip, picture, TEXTS, text="cup", n_units=3)
    second = explain(clip, -picture, TEXTS, text="cup", n_units=3)
    table = first.beside(second)
    scores = first.circuit.source.node_scores
    for site, unit, score in zip(
        table["site"], table["unit"], table["first"], strict=True
    ):
        assert score == scores[site][unit]
    expected = table["first"] - table["second"]
    np.testing.assert_allclose(table["difference"], expected)
    assert 3 <= len(table) <= 6
    with pytest.raises(InputError, match="one text, but 'cup'"):
        first.beside(explain(clip, picture, TEXTS, text="star", n_units=1))


def test_files_pictures_and_tensors_are_one(clip: Clip, tmp_path: Path) -> None:
    drawn = Image.fromarray(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3))
    drawn.save(tmp_path / "one.png")
    by_path = explain(clip, tmp_path / "one.png", TEXTS, n_units=1)
    by_picture = explain(clip, drawn, TEXTS, n_units=1)
    by_tensor = explain(clip, clip.preprocess(drawn), TEXTS, n_units=1)
    assert str(by_picture) == str(by_tensor)
    assert str(by_path) == str(by_picture).replace("picture:", "one.png:")


def test_every_table_and_the_page_show_the_numbers(
    why: Explanation, tmp_path: Path
) -> None:
    for kind in TABLES:
        assert len(why.to_pandas(kind))
    unit = (str(why.units["site"][0]), int(why.units["unit"][0]))
    page = write_explanations(
        [why], tmp_path / "why.html", {unit: Strip("stripes", [b"x"])}
    )
    html = page.report.read_text()
    assert f"{why.units['effect'][0]:+.2f}" in html
    assert "stripes" in html
    assert "no place in the picture" in html or len(why.maps) == len(why.units)
    assert f"'{why.text}'" in plot(why).layout.title.text
    assert why.answer in why._repr_html_()


@pytest.mark.parametrize(
    ("texts", "options", "words"),
    [
        (["cup"], {}, r"at least two texts .*\['cup'\] was given"),
        (None, {}, r"at least two texts .*\[\] was given"),
        (["cup", "key", " "], {}, r"at least two texts that are not empty, .*' '"),
        (TEXTS, {"text": "giraffe"}, "no text 'giraffe' here"),
        (TEXTS, {"against": "giraffe"}, "no text 'giraffe' here; available: all, run"),
    ],
)
def test_texts_that_cannot_be_asked_are_refused(
    clip: Clip,
    picture: Tensor,
    texts: list[str] | None,
    options: dict[str, Any],
    words: str,
) -> None:
    with pytest.raises(InputError, match=words):
        explain(clip, picture, texts, **options)


def test_pictures_that_are_none_are_refused(clip: Clip, tmp_path: Path) -> None:
    (tmp_path / "none.png").write_text("no picture")
    with pytest.raises(InputError, match=r"none\.png"):
        explain(clip, tmp_path / "none.png", TEXTS)
    with pytest.raises(InputError, match=r"takes a picture \[3, 64, 64\]"):
        explain(clip, torch.zeros(2, 3, 64, 64), TEXTS)


def test_log_odds_are_a_metric_of_their_own(clip: Clip, picture: Tensor) -> None:
    weights = clip.text_weights(TEXTS, templates=["{}"], progress=False)
    metric = ClassLogOdds(weights, 1, scale=clip.scale)
    embedding = clip.encoder.tower(picture[None])
    assert float(metric(embedding)) == pytest.approx(
        plain_log_odds(clip, embedding, TEXTS[1])[0], rel=1e-4
    )
