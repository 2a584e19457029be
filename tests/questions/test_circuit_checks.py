"""The causal checks of a folder of circuits: on the right images, and with the numbers of the functions themselves."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from circuitry import (
    CausalChecks,
    Clip,
    DomainFolder,
    GraphFolder,
    InputError,
    class_logit,
    extract,
    left_rule,
    load_clip,
    mean_baseline,
)
from circuitry.bases import SparseAutoencoder
from circuitry.encoder import Task, class_margin
from circuitry.interventions import (
    AblationSettings,
    CheckSettings,
    FaithfulnessCurve,
    check_attribution,
    faithfulness_curve,
    measure_circuits,
)
from circuitry.models import load_sae
from tests.support.tiny_clip import Tiny, saved
from tests.support.work import AS_STUDIED, QUIET

CLASSES, DOMAINS = ("axe", "cat", "fish"), ("real", "sketch")
FAST: dict[str, Any] = {"sizes": (0.1, 1.0), "random_draws": 1, "work": QUIET}
RULES: dict[str, Any] = {
    "rule": left_rule(1),
    "edge_rule": left_rule(1),
    "sites": ("layer4.0", "attnpool"),
}


@pytest.fixture(scope="module")
def folder(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checks")
    rng = np.random.default_rng(0)
    for class_name in CLASSES:
        for domain in DOMAINS:
            place = root / "images" / domain / class_name
            place.mkdir(parents=True)
            for i in range(5):
                Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
                    place / f"{i}.png"
                )
    images, out = DomainFolder(root / "images"), root / "graphs"
    extract(
        clip,
        images,
        out,
        n_images=2,
        work=QUIET,
        rule=left_rule(1),
        edge_rule=left_rule(2),
        **AS_STUDIED,
    )
    return root


def checks_of(
    clip: Clip, folder: Path, /, classes: Any = None, **settings: Any
) -> CausalChecks:
    chosen = CheckSettings(**({"n_images": 2, "n_others": 2} | settings))
    return CausalChecks(
        clip,
        DomainFolder(folder / "images", classes=classes),
        GraphFolder(folder / "graphs"),
        chosen,
    )


def faithfulness(
    checks: CausalChecks, out: Path, **asked: Any
) -> list[FaithfulnessCurve]:
    return checks.extract_faithfulness(
        out, **({"rankings": ("signed",)} | FAST | asked)
    )


def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def read(clip: Clip, folder: Path, class_name: str, domain: str) -> torch.Tensor:
    """All images of a class in a domain, in the order of the seeded choice."""
    records = DomainFolder(folder / "images").select(class_name, domain, None, 0)
    return torch.stack([clip.preprocess(Image.open(record.path)) for record in records])


def test_images_are_none_of_those_that_circuits_were_found_on(
    clip: Clip, folder: Path
) -> None:
    everything, key = read(clip, folder, "cat", "real"), ("cat", "real")

    def own(**settings: Any) -> torch.Tensor:
        return checks_of(clip, folder, **settings).images_of(key)[0]

    checks = checks_of(clip, folder)
    assert torch.equal(checks.found_on(*key), everything[:2])
    assert torch.equal(own(), everything[2:4])
    assert torch.equal(own(n_images=9), everything[2:])
    assert torch.equal(own(seen=True), everything[:2])
    _, others = checks.images_of(key)
    assert others is not None
    assert torch.equal(
        others,
        torch.stack([read(clip, folder, name, "real")[2] for name in ("fish", "axe")]),
    )
    assert checks_of(clip, folder, n_others=0).images_of(key)[1] is None


def test_a_picture_in_other_bytes_that_found_its_circuit_is_told(
    clip: Clip, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = copied(folder, tmp_path)
    ranked = DomainFolder(place / "images").select("cat", "real", None, 0)
    Image.open(ranked[0].path).save(ranked[2].path, compress_level=0)
    assert ranked[0].path.read_bytes() != ranked[2].path.read_bytes()
    faithfulness(checks_of(clip, place), tmp_path / "f")
    (told,) = [line for line in caplog.messages if "images that found" in line]
    assert told.startswith("Faithfulness is measured on")
    assert "images of cat in real (1)" in told
    caplog.clear()
    faithfulness(checks_of(clip, place, seen=True), tmp_path / "seen")
    assert not [line for line in caplog.messages if "images that found" in line]


@pytest.mark.parametrize(
    "baseline", ["zero", "mean-unit", "other-domains", "counterfactual"]
)
def test_numbers_are_those_of_the_functions(
    baseline: str, clip: Clip, folder: Path, tmp_path: Path
) -> None:
    checks = checks_of(clip, folder, baseline=baseline)
    # By default circuits are ranked in two ways.
    asked = {} if baseline == "zero" else {"rankings": ("signed",)}
    curves = checks.extract_faithfulness(tmp_path / "f", **(FAST | asked))
    signed = [curve for curve in curves if curve.ranking == "signed"]
    assert len(curves) == len(signed) * (2 if baseline == "zero" else 1)
    assert [(c.class_name, c.domain) for c in signed] == [
        (c, d) for c in CLASSES for d in DOMAINS
    ]
    curve, key, (own, others) = (
        signed[3],
        ("cat", "sketch"),
        checks.images_of(("cat", "sketch")),
    )
    given = checks.baseline.of(*key, 4)
    assert given.n_images == (4 if baseline == "counterfactual" else None)
    task = Task(
        clip.encoder,
        own,
        checks.metric_of(*key),
        baseline=given,
        others=others,
        work=QUIET,
    )
    settings = AblationSettings(ranking="signed", sizes=(0.1, 1.0), random_draws=1)
    direct = faithfulness_curve(
        task,
        checks.graphs[key],
        settings,
        [checks.graphs[name, "sketch"] for name in ("fish", "axe")],
    )
    assert np.array_equal(curve.kept, direct.kept)
    assert np.array_equal(curve.foreign, direct.foreign)
    assert curve.foreign.shape == (3, 2, 2, 4)
    assert np.abs(curve.kept).max() > 0.01
    assert curve.own.tolist() == [True, True, False, False]
    assert curve.settings["baseline"] == baseline
    assert (tmp_path / "f" / "baseline_images.json").is_file() == (baseline != "zero")


def test_one_site_at_a_time_and_class_by_class(
    clip: Clip, folder: Path, tmp_path: Path
) -> None:
    two, sites = CLASSES[:2], list(clip.encoder.sites[1:])
    checks = checks_of(clip, folder, two)
    alone = checks.extract_faithfulness(
        tmp_path / "f",
        rankings=("absolute",),
        sizes=(0.1,),
        random_draws=0,
        one_site=True,
        work=QUIET,
    )
    assert [curve.settings["sites"] for curve in alone[: len(sites)]] == [
        [site] for site in sites
    ]


def test_other_settings_and_images_are_refused_by_name(
    clip: Clip, folder: Path, tmp_path: Path
) -> None:
    ones, twos = (
        mean_baseline(clip.encoder, [n * torch.ones(1, 3, 64, 64)]) for n in (1, 2)
    )
    faithfulness(checks_of(clip, folder, baseline=ones), tmp_path / "f")
    refused: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({"metric": "margin"}, {}, "metric: 'logit' -> 'margin'"),
        ({"texts": "own-style"}, {}, "texts: 'pooled' -> 'own-style'"),
        ({"n_images": 1}, {}, "n_images: 2 -> 1; images: 6 gone, first real/axe"),
        ({"seed": 1}, {}, "seed: 0 -> 1"),
        ({"baseline": twos}, {}, r"baseline_digest: '\w+' -> '\w+'"),
        ({}, {"random_draws": 2}, "random_draws: 1 -> 2"),
        ({}, {"rankings": ("signed", "absolute")}, "rankings: 'absolute' is new"),
    ]
    for settings, asked, words in refused:
        with pytest.raises(InputError, match=rf"\({words}"):
            faithfulness(
                checks_of(clip, folder, **({"baseline": ones} | settings)),
                tmp_path / "f",
                **asked,
            )


def test_unreadable_classes_are_absent(
    clip: Clip, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = copied(folder, tmp_path)
    checks = checks_of(clip, copy)
    for domain in DOMAINS:
        for record in checks.chosen.own(("cat", domain)):
            record.path.write_bytes(b"")
    caplog.set_level(logging.WARNING)
    with pytest.warns(UserWarning, match="the file is empty"):
        curves = checks.extract_faithfulness(
            tmp_path / "f", rankings=("signed",), **FAST
        )
    left_out = {line.split(" is left out")[0] for line in caplog.messages}
    assert {"cat in sketch", "cat in real"} <= left_out
    assert {curve.class_name for curve in curves} == {"axe", "fish"}
    # The first of the empty images was one of the two others of each class.
    assert all((~curve.own).sum() == 1 for curve in curves)
    with pytest.raises(InputError, match="the file is empty"):
        faithfulness(
            checks,
            tmp_path / "strict",
            work=type(QUIET)(strict=True, progress=False),
        )
    for record in checks.chosen.found_on(("cat", "real")):
        record.path.write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="the file is empty"),
        pytest.raises(InputError, match="'cat' in 'real'"),
    ):
        checks.found_on("cat", "real")
    only = checks_of(clip, copy, ("cat",))
    with (
        pytest.warns(UserWarning, match="empty"),
        pytest.raises(InputError, match="can be read: look at"),
    ):
        faithfulness(only, tmp_path / "y")


def test_what_is_asked_is_what_the_circuits_were_found_by(
    clip: Clip, folder: Path, tmp_path: Path
) -> None:
    images = DomainFolder(folder / "images", classes=("cat", "axe"))
    asked: dict[str, Any] = {
        "n_images": 2,
        "metric": "margin",
        "texts": "own-style",
        "baseline": "mean-unit",
    }
    graphs = extract(clip, images, tmp_path / "graphs", work=QUIET, **asked, **RULES)
    checks = CausalChecks(clip, images, graphs)
    assert {
        "metric": "margin",
        "texts": "own-style",
        "baseline": "mean-unit",
    }.items() <= checks.provenance.items()
    pooled = CausalChecks(
        clip,
        images,
        graphs,
        CheckSettings(metric="logit", texts="pooled", baseline="zero"),
    )
    scales = [vars(one.metric_of("cat", "real"))["scale"] for one in (pooled, checks)]
    assert scales == pytest.approx([clip.scale] * 2)
    stretches = [
        vars(one.metric_of("cat", "real"))["stretch"] for one in (pooled, checks)
    ]
    assert stretches == pytest.approx([1, 3 / 2])  # a margin's weights are longer
    assert pooled.provenance["baseline"] == "zero"
    embeddings = torch.randn(2, 16)
    for domain, style in (("real", "photo"), ("sketch", "sketch")):
        weights = clip.text_weights(
            CLASSES, [f"a {style} of a {{}}.", f"a {style} of the {{}}."]
        )
        assert torch.equal(
            checks.metric_of("cat", domain)(embeddings),
            class_margin(weights, 1)(embeddings),
        )
        expected = class_logit(clip.text_weights(CLASSES), 1)(embeddings)
        assert torch.equal(pooled.metric_of("cat", domain)(embeddings), expected)
    for asked_now in (checks, pooled):  # whatever they are checked by
        found_with = asked_now.task_found_with(("cat", "real"))
        assert found_with.baseline.name == "mean-unit"
        assert torch.equal(
            torch.as_tensor(found_with.images), checks.found_on("cat", "real")
        )
        assert torch.equal(
            found_with.metric(embeddings), checks.metric_of("cat", "real")(embeddings)
        )
        check_attribution(found_with, graphs["cat", "real"], top=1, random=0)


def test_circuits_that_do_not_fit(
    clip: Clip, tiny: Tiny, folder: Path, tmp_path: Path
) -> None:
    other = load_clip(
        tiny.config,
        saved(tiny.state | {"logit_scale": torch.tensor(1.0)}, tmp_path / "x.pt"),
    )
    with pytest.raises(
        InputError,
        match=f"{clip.identity['text_encoder']}.*{other.identity['text_encoder']}",
    ):
        checks_of(other, folder)
    (tmp_path / "empty").mkdir()
    shutil.copy(folder / "graphs" / "manifest.json", tmp_path / "empty")
    images = DomainFolder(folder / "images")
    with pytest.raises(InputError, match=r"No circuit in .*empty"):
        CausalChecks(clip, images, GraphFolder(tmp_path / "empty"))
    used_up = extract(
        clip,
        images,
        tmp_path / "all",
        n_images=5,
        leave_unseen=False,
        work=QUIET,
        **RULES,
    )
    with pytest.raises(
        InputError, match=r"'axe' in 'real'.* 5 images.*--n-images.*seen=True"
    ):
        CausalChecks(clip, images, used_up).images_of(("axe", "real"))
    seen = CausalChecks(clip, images, used_up, CheckSettings(n_images=2, seen=True))
    assert len(seen.images_of(("axe", "real"))) == 2


def test_circuits_of_features_and_their_error(
    clip: Clip, folder: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    w, b = torch.randn(256, 20) / 16, torch.randn(256) / 16
    SparseAutoencoder(w, torch.zeros(20), w.T.contiguous(), b).save(tmp_path / "sae")
    features = clip.in_basis({"layer4.0": load_sae(tmp_path / "sae")})
    images = DomainFolder(folder / "images", classes=("cat",))
    asked = RULES | {
        "size": 1.0,
        "n_images": 2,
        "texts": ["a {}."],
        "sites": ("layer2.0", "layer4.0"),
    }
    graphs = extract(features, images, tmp_path / "graphs", work=QUIET, **asked)
    assert len(graphs["cat", "real"].node_scores["layer4.0"]) == 20
    with pytest.raises(InputError, match="differ in basis"):
        CausalChecks(clip, images, graphs)
    checks = CausalChecks(features, images, graphs, CheckSettings(n_images=2))
    curve, *_ = checks.extract_faithfulness(
        tmp_path / "f", rankings=("signed",), **FAST
    )
    assert not np.array_equal(curve.kept[0, -1], curve.full[0])
    whole = replace(checks.circuit(("cat", "real")), keep_error=True)
    curve = measure_circuits(
        checks.task(("cat", "real"), *checks.images_of(("cat", "real"))), [whole]
    )
    assert np.array_equal(curve.kept[0, -1], curve.full[0])
