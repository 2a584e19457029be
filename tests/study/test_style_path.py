"""The path of a style: logits by plain loops, and patches against hooks on a tiny model."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from circuitry.data import DomainFolder
from circuitry.encoder import Baseline
from circuitry.models import load_clip
from experiments.study.style_edits import (
    N_FIT,
    PART,
    RANDOM,
    WHOLE,
    Pictures,
    StyleQuestion,
)
from experiments.study.style_path_command import (
    answered,
    evidence,
    later,
    path,
    units_of,
)
from tests.study.made_up_styles import (
    CLASSES,
    SKETCH,
    STYLES,
    MadeUp,
    pictures_of,
    write_drawings,
)

N_PICTURES = 48


def test_evidence_is_the_mean_of_logits_by_kind_of_class() -> None:
    question = MadeUp(given=pictures_of([("photo", "cup", 4)]))
    pictures = pictures_of([("sketch", name, 5) for name in CLASSES])
    z = pictures.embeddings
    of_edits = {WHOLE: z, PART: normalize(z + torch.eye(8)[0], dim=1)}
    rows = list(evidence(question, pictures, of_edits))
    assert len(rows) == 4
    for edit, embeddings in of_edits.items():
        # Cars alone are held out, so no picture of a car has another held-out class.
        for name, labels in (("pair", (0,)), ("seen", (1, 2))):
            own = list[float]()
            seen = list[float]()
            for row, label in zip(embeddings, pictures.labels.tolist(), strict=True):
                if label in labels:
                    own.append(10 * float(row[label]))
                    seen += [10 * float(row[i]) for i in (1, 2) if i != label]
            (found,) = (
                row for row in rows if (row["edit"], row["pictures"]) == (edit, name)
            )
            assert found["own"] == pytest.approx(np.mean(own), abs=1e-5)
            assert found["seen"] == pytest.approx(np.mean(seen), abs=1e-5)


class OfFolders(StyleQuestion):
    """A question in which the mean embeddings of classes are their weights, since a tiny model knows no such words."""

    @cached_property
    def class_weights(self) -> Tensor:
        means = list[Tensor]()
        for name in CLASSES:
            records = [r for style in STYLES for r in self.train.select(name, style)]
            means.append(self.run(records).embeddings.mean(0))
        rows = torch.stack(means)
        return normalize(rows - rows.mean(0), dim=1)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> StyleQuestion:
    root = write_drawings(
        tmp_path_factory.mktemp("path") / "root", N_PICTURES, CLASSES, 0
    )
    folder = DomainFolder(root, None)
    return OfFolders(load_clip("rn-tiny"), folder, "sketch", ("car",), named=False)


def by_hooks(
    question: StyleQuestion,
    images: Tensor,
    removed: Mapping[str, Sequence[int]],
    kept: Mapping[str, Sequence[int]],
) -> Tensor:
    """Return embeddings with some channels at their means, and some at the values of a run before."""
    task = question.part.task
    assert isinstance(task.baseline, Baseline)
    means = task.baseline.values
    before = dict[str, Tensor]()

    def save(site: str) -> Any:
        def hook(activation: Tensor, hook: object) -> None:
            before[site] = activation.clone()

        return hook

    def write(site: str) -> Any:
        def hook(activation: Tensor, hook: object) -> Tensor:
            changed = activation.clone()
            for unit in kept.get(site, ()):
                changed[:, unit] = before[site][:, unit]
            for unit in removed.get(site, ()):
                changed[:, unit] = means[site][:, unit]
            return changed

        return hook

    sites = list(removed)
    with torch.no_grad():
        with task.encoder.hooks(fwd_hooks=[(site, save(site)) for site in sites]):
            task.encoder(images)
        with task.encoder.hooks(fwd_hooks=[(site, write(site)) for site in sites]):
            return normalize(task.encoder(images), dim=1)


def test_kept_units_have_their_values_of_the_whole_model(drawn: StyleQuestion) -> None:
    part = drawn.part.find(share=0.02)
    n_units = {site: len(scores) for site, scores in part.source.node_scores.items()}
    pictures = drawn.fitting.where(drawn.fitting.styles != SKETCH)
    rng = np.random.default_rng(0)
    masks = {site: rng.random(n) < 0.3 for site, n in n_units.items()}
    nothing = {site: np.zeros(n, bool) for site, n in n_units.items()}
    removed = {site: list(part.units.get(site, [])) for site in n_units}
    margins = list[float]()
    for kept in (nothing, masks):
        units = {site: np.flatnonzero(mask).tolist() for site, mask in kept.items()}
        z = by_hooks(drawn, pictures.images, removed, units)
        logits = drawn.scale * z @ drawn.class_weights.T
        own = logits.gather(1, pictures.labels[:, None])[:, 0]
        # The first class is held out, the two others are seen.
        margin = (own - logits[:, 1:].amax(1)).mean()
        row = answered(drawn, pictures, units_of(part), kept, PART, "some")
        assert row["margin"] == pytest.approx(float(margin), abs=1e-4)
        assert row["right"] == pytest.approx(
            float((logits.argmax(1) == pictures.labels).float().mean())
        )
        assert row["n_kept"] == sum(map(len, units.values()))
        margins.append(float(margin))
    assert abs(margins[0] - margins[1]) > 1e-3


def test_the_path_begins_with_the_whole_model_and_ends_with_single_sites(
    drawn: StyleQuestion,
) -> None:
    part = drawn.part.find(share=0.02)
    test = pictures_in(drawn, 8)
    rows = list(path(drawn, test, part, part.random(np.random.default_rng(0))))
    assert [(row["edit"], row["kept"]) for row in rows[:3]] == [
        (WHOLE, "nothing"),
        (RANDOM, "nothing"),
        (PART, "nothing"),
    ]
    by_kept = {row["kept"]: row for row in rows[2:]}
    sites = list(part.source.node_scores)
    assert [name for name in by_kept if name.startswith("all units")] == [
        f"all units of {site}" for site in sites
    ]
    # Random units are as many, site by site.
    n_own = by_kept["own parts of the pair"]["n_kept"]
    assert by_kept["random units, same sites as the pair's"]["n_kept"] == n_own > 0
    # Nothing was removed before the first site, so keeping it changes nothing.
    first = by_kept[f"all units of {sites[0]}"]
    assert first["margin"] == pytest.approx(by_kept["nothing"]["margin"], abs=1e-5)


def pictures_in(question: StyleQuestion, n: int) -> Pictures:
    """Return the last pictures of each class in each style."""
    chosen = [
        record
        for style in STYLES
        for name in CLASSES
        for record in question.train.select(name, style)[-n:]
    ]
    return question.run(chosen)


def test_other_pictures_find_the_part_again(drawn: StyleQuestion) -> None:
    other = later(drawn)
    first = {record.path for record in drawn.train.records} - {
        record.path for record in other.records
    }
    n_used = drawn.part.n_used + N_FIT
    assert len(first) == n_used * len(STYLES) * len(CLASSES)
    used = drawn.part.records(0, n_used)
    assert {record.path for record in used} <= first
    assert other.classes == drawn.train.classes
    assert other.domains == drawn.train.domains
