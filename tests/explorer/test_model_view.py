"""What the model tells the explorer equals runs by hooks, and the exact decompositions of the logit."""

from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F

from circuitry import AttributionGraph, CausalChecks, Clip, load_clip
from circuitry.bases import ResidualStream
from circuitry.circuits import direct_effects, pooling_pairs
from circuitry.explorer import ModelView, view_model
from circuitry.explorer.model_view import STRONGEST_COMPONENTS
from circuitry.models.classifier import Classifier
from circuitry.models.open_clip_models import register_model
from tests.explorer.made import found_in
from tests.support.assert_same import assert_same
from tests.support.tiny_clip import saved
from tests.support.work import QUIET

WORDS = ("stripes", "fur")


@pytest.fixture(scope="module")
def view(checks: CausalChecks) -> ModelView:
    return view_model(
        checks, n_images=2, vocabulary=("Axe", *WORDS), work=QUIET
    )  # the class axe to every model


def images_of(checks: CausalChecks, class_name: str) -> tuple[list[str], torch.Tensor]:
    records = checks.chosen.own((class_name, "real"))
    return [record.relative for record in records], checks.read(records)


def kept(graph: AttributionGraph, inside: bool) -> list[Any]:
    """Hooks that set all units outside, or inside, of a circuit to zero."""

    def at(site: str) -> Any:
        def hook(activation: torch.Tensor, hook: object) -> torch.Tensor:
            mask = torch.zeros(activation.shape[1], dtype=torch.bool)
            mask[torch.from_numpy(graph.kept_units[site])] = True
            return torch.where(
                (mask == inside).reshape(-1, *[1] * (activation.ndim - 2)),
                activation,
                0.0,
            )

        return hook

    return [(site, at(site)) for site in graph.inner_sites]


def test_answers_are_those_of_runs_by_hooks(
    checks: CausalChecks, view: ModelView
) -> None:
    clip = checks.clip
    graph = checks.graphs["cat", "real"]
    paths, images = images_of(checks, "cat")
    sides = [[], kept(graph, True), kept(graph, False)]
    runs = [clip.encoder.run_with_hooks(images, fwd_hooks=hooks) for hooks in sides]
    weights = clip.text_weights(["axe", "cat"], ["a {}."])
    scale = clip.model.logit_scale.exp()  # type: ignore[operator]
    for run, embedding in enumerate(runs):
        shares = (
            (scale * F.normalize(embedding, dim=-1) @ weights.T).softmax(-1).detach()
        )
        for path, share in zip(paths, shares, strict=True):
            order = share.argsort(descending=True)
            assert_same(view.answers[path].shares[run], share[order], 0.1, rtol=1e-3)
            assert view.answers[path].classes[run].tolist() == order.tolist()


def test_direct_effects_of_a_resnet_are_those_of_its_pooling_pairs(
    checks: CausalChecks, view: ModelView
) -> None:
    assert view.reason == ""
    assert view.words == ("axe", "cat", *WORDS)
    _, images = images_of(checks, "cat")
    pairs = pooling_pairs(checks.clip.encoder, images)
    lengths = np.linalg.norm(pairs.embeddings, axis=1)
    direct = view.direct["cat"]
    assert len(direct.components) == STRONGEST_COMPONENTS
    for word, text in zip(view.words, view.texts, strict=True):
        of_images = pairs.read * (pairs.directions @ text) / lengths[:, None, None]
        effects = of_images.mean(0)
        site = checks.clip.encoder.sites[-2]
        named = [
            name.removeprefix("head ").split(f" x {site}/")
            for name in direct.components
        ]
        expected = [effects[int(head), int(unit)] for head, unit in named]
        assert_same(direct.vectors[0] @ text, np.array(expected), 1e-6)
        if word == "cat":
            strongest = np.sort(np.abs(effects).ravel())[::-1][:STRONGEST_COMPONENTS]
            assert_same(np.abs(expected), strongest, 1e-6)


def random_vit(folder: Path) -> Clip:
    weights = saved(
        open_clip.create_model(register_model("vit-tiny")).state_dict(),
        folder / "weights.pt",
    )
    return load_clip("vit-tiny", checkpoint=weights)


def test_direct_effects_of_a_transformer_add_up_to_the_logit(tmp_path: Path) -> None:
    checks = found_in(random_vit(tmp_path), tmp_path)
    view = view_model(checks, n_images=2, vocabulary=WORDS, work=QUIET)
    _, images = images_of(checks, "axe")
    stream = ResidualStream.of(checks.clip.encoder)
    found = direct_effects(stream, images, torch.from_numpy(view.texts[2]).float())
    by_writer = dict(zip(found.writers, found.effects.mean(0), strict=True))
    direct = view.direct["axe"]
    expected = np.array([by_writer[name] for name in direct.components])
    assert_same(direct.vectors[0] @ view.texts[2], expected, 1e-6, rtol=1e-3)


def test_the_words_of_a_classifier_are_its_classes(tmp_path: Path) -> None:
    clip = random_vit(tmp_path)
    known = {
        name: getattr(clip, name)
        for name in ("name", "model", "encoder", "preprocess", "tokenizer")
    }
    rows = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    classes = {"axe": (0, 2), "cat": (1,)}
    checks = found_in(
        Classifier(**known, rows=rows, bias=torch.zeros(3), classes=classes), tmp_path
    )
    view = view_model(checks, n_images=1, vocabulary=WORDS, work=QUIET)
    assert (view.words, view.reason, set(view.direct)) == (
        ("axe", "cat"),
        "",
        {"axe", "cat"},
    )
    paths, images = images_of(checks, "cat")
    cosines = F.normalize(clip.encoder(images[:1]), dim=-1) @ checks.weights("real").T
    assert_same(
        view.answers[paths[0]].shares[0],
        cosines.softmax(-1).sort(descending=True).values[0],
        0.1,
        rtol=1e-3,
    )
