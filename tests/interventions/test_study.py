"""The causal checks of a folder of circuits: on the right images, kept as they are made, and gone on with."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from circuitry import (
    Clip,
    DomainFolder,
    GraphFolder,
    InputError,
    SparseAutoencoder,
    Subject,
    extract,
    left_rule,
    load_clip,
    load_sae,
    study_faithfulness,
    study_transfer,
)
from circuitry.circuits.attribution import AttributionSettings
from circuitry.interventions.faithfulness import faithfulness_curve
from circuitry.interventions.study import pixels_of_a_circuit
from circuitry.interventions.subject import SubjectSettings
from circuitry.interventions.transfer import transfer_circuits
from circuitry.models.metrics import class_margin
from circuitry.runs.workers import Work
from tests.support.tiny_clip import Tiny, saved

CLASSES, DOMAINS = ("axe", "cat", "fish"), ("real", "sketch")
QUIET = Work(progress=False)
FAST = {"fractions": (0.1, 1.0), "random_draws": 1, "progress": False}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circuitry.models.clip.user_cache_path", lambda name: tmp_path / "cache")


@pytest.fixture(scope="module")
def folder(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five images of every class in every domain, and the circuits found on two of them."""
    root = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(0)
    for class_name in CLASSES:
        for domain in DOMAINS:
            place = root / "images" / domain / class_name
            place.mkdir(parents=True)
            for i in range(5):
                Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(place / f"{i}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("circuitry.models.clip.user_cache_path", lambda name: root / "cache")
        settings = AttributionSettings(rule=left_rule(1), edge_rule=left_rule(2))
        extract(clip, DomainFolder(root / "images"), root / "graphs", n_images=2, settings=settings, work=QUIET)
    return root


@pytest.fixture
def subject(clip: Clip, folder: Path) -> Subject:
    return Subject(clip, DomainFolder(folder / "images"), GraphFolder(folder / "graphs"), n_images=2, n_others=2)


def read(clip: Clip, folder: Path, class_name: str, domain: str) -> torch.Tensor:
    """All images of a class in a domain, in the order of the seeded choice."""
    records = DomainFolder(folder / "images").select(class_name, domain, None, 0)
    return torch.stack([clip.preprocess(Image.open(record.path)) for record in records])


def test_images_are_none_of_those_that_circuits_were_found_on(subject: Subject, clip: Clip, folder: Path) -> None:
    everything = read(clip, folder, "cat", "real")
    assert torch.equal(subject.found_on("cat", "real"), everything[:2])
    assert torch.equal(subject.batch("cat", "real"), everything[2:4])
    assert torch.equal(replace(subject, n_images=9).batch("cat", "real"), everything[2:])
    assert torch.equal(replace(subject, seen=True).batch("cat", "real"), everything[:2])
    following = [read(clip, folder, name, "real")[2] for name in ("fish", "axe")]
    others = subject.others("cat", "real")
    assert others is not None
    assert torch.equal(others, torch.stack(following))
    assert replace(subject, n_others=0).others("cat", "real") is None


def test_curves_are_those_of_the_function(subject: Subject, tmp_path: Path) -> None:
    curves = study_faithfulness(subject, tmp_path / "x", rankings=("absolute",), **FAST)  # type: ignore[arg-type]
    assert [(c.class_name, c.domain) for c in curves] == subject.keys == [(c, d) for c in CLASSES for d in DOMAINS]
    direct = faithfulness_curve(
        subject.clip.encoder,
        subject.batch("fish", "sketch"),
        subject.of_class("fish"),
        subject.graphs["fish", "sketch"],
        others=subject.others("fish", "sketch"),
        **FAST,  # type: ignore[arg-type]
    )
    assert np.array_equal(curves[-1].kept, direct.kept)
    assert curves[-1].own.tolist() == [True, True, False, False]
    alone = study_faithfulness(
        subject, tmp_path / "y", rankings=("absolute",), fractions=(0.1,), random_draws=0, one_site=True, progress=False
    )
    sites = [site for site in subject.clip.encoder.sites if site != "input"]
    assert [curve.settings["sites"] for curve in alone[: len(sites)]] == [[site] for site in sites]


def test_what_is_there_is_not_measured_again(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study_faithfulness(subject, tmp_path / "f", rankings=("signed",), **FAST)  # type: ignore[arg-type]
    first = study_transfer(subject, tmp_path / "t", one_site=True, progress=False)
    (tmp_path / "f" / "cat" / "real.signed.all.safetensors").unlink()
    (tmp_path / "t" / "transfer" / "cat" / "layer2.0.csv").unlink()
    measured = []

    def counted(*args: object, **kwargs: object) -> object:
        measured.append("curve")
        return faithfulness_curve(*args, **kwargs)  # type: ignore[arg-type]

    def counted_transfer(*args: object, **kwargs: object) -> object:
        measured.append("transfer")
        return transfer_circuits(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr("circuitry.interventions.study.faithfulness_curve", counted)
    monkeypatch.setattr("circuitry.interventions.study.transfer_circuits", counted_transfer)
    study_faithfulness(subject, tmp_path / "f", rankings=("signed",), **FAST)  # type: ignore[arg-type]
    again = study_transfer(subject, tmp_path / "t", one_site=True, progress=False)
    assert measured == ["curve", "transfer"]
    for kind, table in first.items():
        pd.testing.assert_frame_equal(again[kind], table)
    assert set(first["transfer"]["sites"]) == {"all", *subject.clip.encoder.sites[1:]}
    assert len(first["interchange"]) == len(CLASSES) * 4


def test_other_settings_are_refused(subject: Subject, tmp_path: Path) -> None:
    study_faithfulness(subject, tmp_path, rankings=("signed",), **FAST)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"another configuration \(metric: 'logit' -> 'margin'\)"):
        study_faithfulness(replace(subject, metric="margin"), tmp_path, rankings=("signed",), **FAST)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"\(random_draws: 1 -> 2\)"):
        study_faithfulness(subject, tmp_path, **(FAST | {"random_draws": 2}))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="has format 'circuitry faithfulness 1', but this version reads 'circuitry tr"):
        study_transfer(subject, tmp_path, progress=False)


def test_subjects_that_do_not_fit(subject: Subject, tiny: Tiny, folder: Path, tmp_path: Path) -> None:
    other = load_clip(tiny.config, saved(tiny.state | {"logit_scale": torch.tensor(1.0)}, tmp_path / "x.pt"))
    with pytest.raises(InputError, match="give the checkpoint that they were found in"):
        replace(subject, clip=other)
    with pytest.raises(InputError, match="one of the metrics logit, margin, but 'loss' was given"):
        replace(subject, metric="loss")
    with pytest.raises(InputError, match="n_images=0 and n_others=2 were given"):
        replace(subject, n_images=0)
    used_up = extract(
        subject.clip,
        subject.images,
        tmp_path / "all",
        n_images=5,
        settings=AttributionSettings(rule=left_rule(1), edge_rule=left_rule(1), sites=("layer4.0", "attnpool")),
        work=QUIET,
    )
    with pytest.raises(InputError, match="'axe' in 'real' was found on all of its 5 images, so none is left"):
        replace(subject, graphs=used_up).batch("axe", "real")
    assert len(replace(subject, graphs=used_up, seen=True).batch("axe", "real")) == 2


def test_settings_load_a_subject(tiny: Tiny, clip: Clip, folder: Path, tmp_path: Path) -> None:
    settings = SubjectSettings(
        str(tiny.config),
        checkpoint=tiny.config.with_suffix(".safetensors"),
        data=folder / "images",
        split=None,
        circuits=folder / "graphs",
        classes=("cat",),
        metric="margin",
        baseline="mean-unit",
    )
    subject = settings.load()
    assert subject.keys == [("cat", "real"), ("cat", "sketch")]
    images = torch.cat([subject.batch("cat", domain)[:1] for domain in DOMAINS])
    act = clip.encoder(images, stop="act1").mean((0, 2, 3))
    assert torch.allclose(subject.baseline.values["act1"][0, :, 0, 0], act, atol=1e-5)
    embedding = clip.encoder(images)
    expected = class_margin(subject.weights, 1)(embedding)
    assert torch.equal(subject.of_class("cat")(embedding), expected)
    assert subject.provenance()["circuits"]["n_images"] == 2
    with pytest.raises(InputError, match="one of the baselines zero, mean-position, mean-unit, but 'one' was given"):
        replace(settings, baseline="one").load()
    with pytest.raises(InputError, match=r"no circuits at .*none: run experiments/quickstart.py"):
        replace(settings, circuits=tmp_path / "none").load()
    with pytest.raises(InputError, match=r"No circuit in .* is of a class and domain of"):
        _ = replace(subject, graphs=GraphFolder(_empty(folder, tmp_path))).keys


def test_circuits_of_features_with_and_without_what_they_miss(
    tiny: Tiny, clip: Clip, folder: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    w, b = torch.randn(256, 20) / 16, torch.randn(256) / 16
    SparseAutoencoder(w, torch.zeros(20), w.T.contiguous(), b).save(tmp_path / "sae")
    attribution = AttributionSettings(
        node_fraction=1.0, rule=left_rule(1), edge_rule=left_rule(1), sites=("layer2.0", "layer4.0")
    )
    features = clip.in_basis({"layer4.0": load_sae(tmp_path / "sae")})
    images = DomainFolder(folder / "images", classes=("cat",))
    graphs = extract(
        features, images, tmp_path / "graphs", n_images=2, settings=attribution, texts=["a {}."], work=QUIET
    )
    assert len(graphs["cat", "real"].node_scores["layer4.0"]) == 20
    settings = SubjectSettings(
        str(tiny.config),
        checkpoint=tiny.config.with_suffix(".safetensors"),
        data=folder / "images",
        split=None,
        circuits=tmp_path / "graphs",
        classes=("cat",),
        sae=(f"layer4.0={tmp_path / 'sae'}",),
    )
    with pytest.raises(InputError, match="give the checkpoint that they were found in, in the same feature basis, if"):
        replace(settings, sae=()).load()
    for keep_error in (False, True):
        subject = replace(settings, keep_error=keep_error).load()
        out = tmp_path / f"{keep_error}"
        curve, *_ = study_faithfulness(subject, out / "f", rankings=("signed",), **FAST)  # type: ignore[arg-type]
        assert np.array_equal(curve.kept[-1], curve.full) == keep_error
        table = study_transfer(subject, out / "t", exchange=False, progress=False)["transfer"]
        assert np.allclose(table["metric"], table["full_metric"], rtol=1e-6) == keep_error
        _, maps = pixels_of_a_circuit(subject, "cat", "real", n_images=1)
        assert np.array_equal(maps["circuit at all sites"], maps["whole model"]) == keep_error
    with pytest.raises(InputError, match=r"another configuration \(keep_error: True -> False\)"):
        study_faithfulness(replace(subject, keep_error=False), out / "f", rankings=("signed",), **FAST)  # type: ignore[arg-type]


def _empty(folder: Path, tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "manifest.json").write_bytes((folder / "graphs" / "manifest.json").read_bytes())
    return tmp_path / "empty"


def test_pixels_are_shown_as_they_were(subject: Subject, folder: Path) -> None:
    shown, maps = pixels_of_a_circuit(subject, "cat", "real", n_images=2)
    path = subject.images.select("cat", "real", None, 0)[2].path
    assert np.abs(shown[0].astype(int) - np.asarray(Image.open(path)).astype(int)).max() <= 1
    last = subject.clip.encoder.sites[-2]
    unit = subject.graphs["cat", "real"].kept_units[last][0]
    assert list(maps) == ["whole model", f"circuit at {last}", "circuit at all sites", f"unit {last}/{unit}"]
    assert all(found.shape == (2, 64, 64) and found.any() for found in maps.values())
