"""What a patch does is a part of every identity; while a function acts, no cache and no folder is read or written."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from circuitry import (
    AttributionGraph,
    CausalChecks,
    Clip,
    DomainFolder,
    GraphFolder,
    InputError,
    Patch,
    attribute,
    class_logit,
    left_rule,
    node_overlap,
    patched,
)
from circuitry.bases import SparseAutoencoder
from circuitry.cards import unit_cards
from circuitry.data import load_image
from circuitry.encoder import Baseline
from circuitry.models import FolderBaseline
from circuitry.questions import Extraction, ExtractionSettings
from circuitry.runs.identity import UNKNOWN
from circuitry.training.samples import extract_samples, image_files
from experiments.representations.embeddings import embed_images
from experiments.representations.representation_folder import extract_representations
from experiments.representations.strongest_features import (
    extract_features,
    image_features,
)
from tests.study.representations.test_embeddings import draw
from tests.support.extraction import planned, run
from tests.support.feature_bases import make_sae
from tests.support.work import QUIET

SITE = "layer3.0"
PATCH = Patch(SITE, 0.7, units=[0, 1, 2, 3])
FUNCTION = Patch(SITE, lambda activation: 0.7 + 0 * activation, units=[0, 1, 2, 3])
OTHERS = (
    replace(PATCH, units=[4, 5]),
    replace(PATCH, value=0.8),
    replace(PATCH, site="layer2.0"),
)


@pytest.fixture(scope="module")
def root(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hooked")
    names = tuple(
        f"{d}/{c}/{i}.png"
        for d in ("ink", "photo")
        for c in ("axe", "cat")
        for i in (0, 1)
    )
    settings = ExtractionSettings(
        n_images=1, rule=left_rule(1), edge_rule=left_rule(1), texts=["a {}."]
    )
    Extraction(clip, draw(folder / "data", names), folder / "graphs", settings).run(
        QUIET
    )
    return folder


def own_vectors(clip: Clip, images: DomainFolder, *, with_patch: bool) -> Tensor:
    """By the model's own modules, the patch by PyTorch's hook."""

    def write(module: object, inputs: object, output: Tensor) -> Tensor:
        output = output.clone()
        output[:, :4] = 0.7
        return output

    tower: Any = clip.encoder.tower
    handle = (
        tower.get_submodule(SITE).register_forward_hook(write) if with_patch else None
    )
    with torch.no_grad():
        found = tower(
            torch.stack(
                [clip.preprocess(load_image(record.path)) for record in images.records]
            )
        )
    if handle is not None:
        handle.remove()
    return F.normalize(found, dim=-1)


@pytest.mark.parametrize(("patch", "kept"), [(PATCH, 1), (FUNCTION, 0)])
def test_embeddings_of_a_patched_model_are_its_own(
    clip: Clip, root: Path, tmp_path: Path, patch: Patch, kept: int
) -> None:
    images = DomainFolder(root / "data")
    expected = {
        which: own_vectors(clip, images, with_patch=which).numpy()
        for which in (True, False)
    }
    assert (expected[True] * expected[False]).sum(1).max() < 0.999
    for round_ in range(2):  # the second time with both in the cache
        with patched(clip.encoder, patch):
            under = embed_images(clip, images, cache_dir=tmp_path, work=QUIET)
        assert len(list(tmp_path.iterdir())) == kept + round_
        clean = embed_images(clip, images, cache_dir=tmp_path, work=QUIET)
        np.testing.assert_allclose(under.vectors, expected[True], atol=1e-5)
        np.testing.assert_allclose(clean.vectors, expected[False], atol=1e-5)


def _sae(**about: object) -> SparseAutoencoder:
    return replace(
        make_sae(16, dtype=torch.float32), site="attnpool", about=dict(about)
    )


def _sampled(clip: Clip, images: DomainFolder, out: Path) -> object:
    about = {"site": "attnpool", "positions_per_image": None, "seed": 0, "piece": 4}
    return extract_samples(
        clip.encoder,
        clip.preprocess,
        image_files(images.records, []),
        out,
        about,
        work=QUIET,
    )


Making = Callable[[Clip, DomainFolder, GraphFolder, Path], object]
FOLDERS: dict[str, Making] = {
    "circuits": lambda clip, images, _, out: run(clip, images.root, out),
    "representations": lambda clip, images, _, out: extract_representations(
        clip, images, out, work=QUIET
    ),
    "features": lambda clip, images, _, out: extract_features(
        clip, _sae(), images, out, work=QUIET
    ),
    "samples": lambda clip, images, _, out: _sampled(clip, images, out),
    "cards": lambda clip, images, graphs, out: unit_cards(
        clip, images, graphs, out, work=QUIET
    ),
    "faithfulness": lambda clip, *of: CausalChecks(clip, *of[:2]).extract_faithfulness(
        of[2], work=QUIET
    ),
}
"""Whatever fills a folder with what a model does."""


@pytest.mark.parametrize("kind", FOLDERS)
def test_folders_of_a_patched_model_are_its_own(
    kind: str, clip: Clip, root: Path, tmp_path: Path
) -> None:
    images, graphs = DomainFolder(root / "data"), GraphFolder(root / "graphs")
    with (
        patched(clip.encoder, FUNCTION),
        pytest.raises(InputError, match=f"(?s){SITE}.*unknown"),
    ):
        FOLDERS[kind](clip, images, graphs, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    if kind in (
        "faithfulness",
        "cards",
    ):  # of circuits that were found without the patch
        with patched(clip.encoder, PATCH), pytest.raises(InputError, match=SITE):
            FOLDERS[kind](clip, images, graphs, tmp_path / "out")
        return
    with patched(clip.encoder, PATCH):
        FOLDERS[kind](clip, images, graphs, tmp_path / "out")
    for another in ((), *([one] for one in OTHERS)):
        with patched(clip.encoder, another), pytest.raises(InputError, match="hooks"):
            FOLDERS[kind](clip, images, graphs, tmp_path / "out")


def test_work_that_is_set_up_without_a_patch_is_not_done_under_it(
    clip: Clip, root: Path, tmp_path: Path
) -> None:
    work = planned(clip, root / "data", tmp_path)
    with patched(clip.encoder, PATCH), pytest.raises(InputError, match=SITE):
        work.run(QUIET)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_graphs_are_compared_under_the_same_patches_alone(clip: Clip) -> None:
    def found(*patches: Patch) -> AttributionGraph:
        with patched(clip.encoder, patches):
            metric = class_logit(torch.eye(2, 16), 1)
            return attribute(
                clip.encoder,
                torch.ones(1, 3, 64, 64),
                metric,
                rule=left_rule(1),
                progress=False,
            )

    node_overlap(found(PATCH), found(replace(PATCH, units=torch.tensor([0, 1, 2, 3]))))
    for one, other in [
        ((), PATCH),
        (OTHERS[0], PATCH),
        (OTHERS[1], PATCH),
        (FUNCTION, FUNCTION),
    ]:
        with pytest.raises(InputError, match="hooks"):
            node_overlap(
                *(
                    found(*([some] if isinstance(some, Patch) else []))
                    for some in (one, other)
                )
            )


def test_hooks_of_all_modules_are_an_unknown_part(
    clip: Clip, root: Path, tmp_path: Path
) -> None:
    def halve(module: nn.Module, inputs: object, output: Tensor) -> Any:
        return output / 2 if isinstance(module, nn.Conv2d) else None

    images = DomainFolder(root / "data")
    handle = register_module_forward_hook(halve)
    try:
        assert clip.identity.unknown == ("hooks",)
        under = embed_images(clip, images, cache_dir=tmp_path, work=QUIET)
        clip.text_weights(["cat"], ["a {}"], cache_dir=tmp_path)
        assert not list(tmp_path.iterdir())
    finally:
        handle.remove()
    clean = embed_images(clip, images, cache_dir=tmp_path, work=QUIET)
    assert not np.allclose(clean.vectors, under.vectors, atol=1e-3)


def test_permanent_hooks_are_named_and_can_be_taken_off(clip: Clip) -> None:
    before = clip.digest
    clip.encoder.add_hook(
        "attnpool", lambda activation, hook: 2 * activation, is_permanent=True
    )
    try:
        with pytest.raises(
            InputError, match=r"attnpool.*reset_hooks\(including_permanent=True\)"
        ):
            _ = clip.digest
    finally:
        clip.encoder.reset_hooks(including_permanent=True)
    assert clip.digest == before


def test_single_calls_go_on(clip: Clip, root: Path) -> None:
    sae = _sae(**clip.identity)
    images = torch.randn(2, 3, 64, 64)
    with patched(clip.encoder, FUNCTION):
        graph = attribute(
            clip.encoder,
            images,
            class_logit(torch.eye(2, 16), 1),
            rule=left_rule(1),
            progress=False,
        )
        assert (
            len(
                image_features(
                    clip, sae, DomainFolder(root / "data"), work=QUIET
                ).images
            )
            == 8
        )
    assert graph.settings["hooks"] == {SITE: [UNKNOWN]}


def test_means_of_a_patched_model_are_its_own(clip: Clip, root: Path) -> None:
    named = FolderBaseline("mean-unit", clip, DomainFolder(root / "data"))
    with patched(clip.encoder, PATCH):
        under = named.of("axe", "ink", 1)
    clean = named.of("axe", "ink", 1)
    assert isinstance(under, Baseline)
    assert isinstance(clean, Baseline)
    assert torch.allclose(under.values[SITE][:, :4], torch.tensor(0.7))
    assert not torch.allclose(clean.values[SITE][:, :4], torch.tensor(0.7))
    assert named.of("cat", "ink", 1) is clean
    # What nobody can identify is taken anew each time.
    with clip.encoder.hooks([(SITE, lambda x, hook: 2 * x)]):
        doubled = named.of("axe", "ink", 1)
        assert named.of("axe", "ink", 1) is not doubled
    assert isinstance(doubled, Baseline)
    torch.testing.assert_close(doubled.values[SITE], 2 * clean.values[SITE])
