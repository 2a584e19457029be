"""The causal checks of a folder of circuits: on the right images, shared out, kept as they are made, gone on with."""

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from circuitry import (
    CausalStudy,
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
from circuitry.circuits import AttributionSettings
from circuitry.interventions import (
    AblationSettings,
    CausalSettings,
    StudyOptions,
    faithfulness_curve,
    transfer_circuits,
)
from circuitry.models import SparseAutoencoder, Task, class_margin, load_sae
from tests.support.tiny_clip import Tiny, saved
from tests.support.work import QUIET

CLASSES, DOMAINS = ("axe", "cat", "fish"), ("real", "sketch")
FAST = {"fractions": (0.1, 1.0), "random_draws": 1, "work": QUIET}


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
def study(clip: Clip, folder: Path) -> CausalStudy:
    return study_of(clip, folder)


def study_of(clip: Clip, folder: Path, **settings: object) -> CausalStudy:
    chosen = CausalSettings(**({"n_images": 2, "n_others": 2} | settings))  # type: ignore[arg-type]
    return CausalStudy(clip, DomainFolder(folder / "images"), GraphFolder(folder / "graphs"), chosen)


def with_settings(study: CausalStudy, **settings: object) -> CausalStudy:
    return replace(study, settings=replace(study.settings, **settings))  # type: ignore[arg-type]


def copied(folder: Path, tmp_path: Path) -> Path:
    """A copy of images and circuits, to be damaged."""
    return Path(shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("cache")))


def contents(path: Path) -> dict[str, bytes]:
    return {str(f.relative_to(path)): f.read_bytes() for f in sorted(path.rglob("*")) if f.is_file()}


def read(clip: Clip, folder: Path, class_name: str, domain: str) -> torch.Tensor:
    """All images of a class in a domain, in the order of the seeded choice."""
    records = DomainFolder(folder / "images").select(class_name, domain, None, 0)
    return torch.stack([clip.preprocess(Image.open(record.path)) for record in records])


def test_images_are_none_of_those_that_circuits_were_found_on(study: CausalStudy, clip: Clip, folder: Path) -> None:
    everything = read(clip, folder, "cat", "real")

    def own(**settings: object) -> torch.Tensor:
        return with_settings(study, **settings).read(("cat", "real"), QUIET).own

    assert torch.equal(study.found_on("cat", "real"), everything[:2])
    assert torch.equal(own(), everything[2:4])
    assert torch.equal(own(n_images=9), everything[2:])
    assert torch.equal(own(seen=True), everything[:2])
    following = [read(clip, folder, name, "real")[2] for name in ("fish", "axe")]
    others = study.read(("cat", "real"), QUIET).others
    assert others is not None
    assert torch.equal(others, torch.stack(following))
    assert with_settings(study, n_others=0).read(("cat", "real"), QUIET).others is None


def test_curves_are_those_of_the_function(study: CausalStudy, tmp_path: Path) -> None:
    curves = study.extract_faithfulness(tmp_path / "x", rankings=("absolute",), **FAST)  # type: ignore[arg-type]
    assert [(c.class_name, c.domain) for c in curves] == study.keys == [(c, d) for c in CLASSES for d in DOMAINS]
    images = study.read(("fish", "sketch"), QUIET)
    task = Task(study.clip.encoder, images.own, study.metric_of("fish", "sketch"), others=images.others, work=QUIET)
    settings = AblationSettings(fractions=(0.1, 1.0), random_draws=1)
    direct = faithfulness_curve(task, study.graphs["fish", "sketch"], settings)
    assert np.array_equal(curves[-1].kept, direct.kept)
    assert curves[-1].own.tolist() == [True, True, False, False]
    alone = study.extract_faithfulness(
        tmp_path / "y", rankings=("absolute",), fractions=(0.1,), random_draws=0, one_site=True, work=QUIET
    )
    sites = [site for site in study.clip.encoder.sites if site != "input"]
    assert [curve.settings["sites"] for curve in alone[: len(sites)]] == [[site] for site in sites]


def both(study: CausalStudy, out: Path) -> None:
    """Make a folder of curves and one of tables."""
    study.extract_faithfulness(out / "f", rankings=("signed",), **FAST)  # type: ignore[arg-type]
    study.extract_transfer(out / "t", work=QUIET)


def remove(path: Path) -> None:
    path.unlink()


def flip_a_bit(path: Path) -> None:
    found = bytearray(path.read_bytes())
    found[len(found) // 2] ^= 1
    path.write_bytes(bytes(found))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [remove, flip_a_bit, empty])
def test_only_what_is_missing_or_damaged_is_measured_again(
    study: CausalStudy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    both(study, tmp_path)
    first, before = study.extract_transfer(tmp_path / "t", work=QUIET), contents(tmp_path)
    damage(tmp_path / "f" / "cat" / "real.signed.all.safetensors")
    damage(tmp_path / "t" / "interchange" / "fish.csv")
    assert contents(tmp_path) != before
    measured = []

    def counted(*args: object, **kwargs: object) -> object:
        measured.append("curve")
        return faithfulness_curve(*args, **kwargs)  # type: ignore[arg-type]

    def counted_transfer(*args: object, **kwargs: object) -> object:
        measured.append("transfer")
        return transfer_circuits(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr("circuitry.interventions.study.faithfulness_curve", counted)
    monkeypatch.setattr("circuitry.interventions.study.transfer_circuits", counted_transfer)
    with caplog.at_level(logging.WARNING):
        both(study, tmp_path)
    assert measured == ["curve", "transfer"]  # those of one circuit, and of a class in all domains
    assert contents(tmp_path) == before
    assert "cat in real is made again" in caplog.text
    assert "fish is made again" in caplog.text
    for kind, table in study.extract_transfer(tmp_path / "t", work=QUIET).items():
        pd.testing.assert_frame_equal(table, first[kind])


def test_tables_are_class_by_class(study: CausalStudy, tmp_path: Path) -> None:
    found = study.extract_transfer(tmp_path, one_site=True, work=QUIET)
    assert found["transfer"]["sites"].unique().tolist() == ["all", *study.clip.encoder.sites[1:]]
    assert len(found["interchange"]) == len(CLASSES) * 4
    assert found["transfer"]["class"].unique().tolist() == list(CLASSES)
    assert set(study.extract_transfer(tmp_path / "x", exchange=False, work=QUIET)) == {"transfer"}


def test_other_settings_are_refused_by_name(study: CausalStudy, tmp_path: Path) -> None:
    study.extract_faithfulness(tmp_path, rankings=("signed",), **FAST)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"another configuration \(metric: 'logit' -> 'margin'\)"):
        with_settings(study, metric="margin").extract_faithfulness(tmp_path, rankings=("signed",), **FAST)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"\(random_draws: 1 -> 2; rankings: 'absolute' is new\)"):
        study.extract_faithfulness(tmp_path, **(FAST | {"random_draws": 2}))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"\(texts: 'pooled' -> 'own-style'\)"):
        with_settings(study, texts="own-style").extract_faithfulness(tmp_path, rankings=("signed",), **FAST)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="has format 'circuitry faithfulness 2', but this version reads 'circuitry tr"):
        study.extract_transfer(tmp_path, work=QUIET)
    ones = mean_baseline(study.clip.encoder, [torch.ones(1, 3, 64, 64)])
    twos = mean_baseline(study.clip.encoder, [2 * torch.ones(1, 3, 64, 64)])
    out = tmp_path / "mean"
    with_settings(study, baseline=ones).extract_transfer(out, exchange=False, work=QUIET)
    with pytest.raises(InputError, match=r"another configuration \(baseline_digest: '\w+' -> '\w+'\)"):
        with_settings(study, baseline=twos).extract_transfer(out, exchange=False, work=QUIET)


def test_other_and_replaced_images_are_refused_by_name(clip: Clip, folder: Path, tmp_path: Path) -> None:
    both(study_of(clip, folder), tmp_path)
    copy = copied(folder, tmp_path)
    both(study_of(clip, copy), tmp_path)  # the same images elsewhere
    tested = study_of(clip, copy).own_records(("axe", "sketch"))[0]
    Image.new("RGB", (64, 64), "red").save(tested.path)
    replaced = rf"\(images: 1 replaced, first {tested.relative}\)"
    with pytest.raises(InputError, match=replaced):
        study_of(clip, copy).extract_transfer(tmp_path / "t", work=QUIET)
    with pytest.raises(InputError, match=replaced):
        study_of(clip, copy).extract_faithfulness(tmp_path / "f", rankings=("signed",), **FAST)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"\(n_images: 2 -> 1; images: 6 gone, first real/axe"):
        study_of(clip, folder, n_images=1).extract_transfer(tmp_path / "t", work=QUIET)


def test_classes_of_which_no_image_can_be_read_are_left_out(
    clip: Clip, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = copied(folder, tmp_path)
    study = study_of(clip, copy)
    for domain in DOMAINS:
        for record in study.own_records(("cat", domain)):
            record.path.write_bytes(b"")
    caplog.set_level(logging.WARNING)
    with pytest.warns(UserWarning, match="the file is empty"):
        curves = study.extract_faithfulness(tmp_path / "f", rankings=("signed",), **FAST)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="the file is empty"):
        tables = study.extract_transfer(tmp_path / "t", work=QUIET)
    assert "cat in sketch is left out: none of the images can be read" in caplog.text
    assert "cat is left out: none of the images can be read" in caplog.text
    assert {curve.class_name for curve in curves} == {"axe", "fish"}
    # The first of the empty images was one of the two others of each class.
    assert all((~curve.own).sum() == 1 for curve in curves)
    assert set(tables["transfer"]["class"]) == set(tables["interchange"]["class"]) == {"axe", "fish"}
    with pytest.raises(InputError, match=r"Cannot read .*the file is empty"):
        study.extract_transfer(tmp_path / "strict", work=replace(QUIET, strict=True))
    with pytest.warns(UserWarning, match="the file is empty"), pytest.raises(InputError, match="No image of 'cat' in"):
        study.pixels("cat", "real")
    only = replace(study, images=DomainFolder(copy / "images", classes=("cat",)))
    for name, run in (("x", only.extract_faithfulness), ("y", only.extract_transfer)):
        with (
            pytest.warns(UserWarning, match="empty"),
            pytest.raises(InputError, match="None of the images that the circ"),
        ):
            run(tmp_path / name, work=QUIET)


def test_tables_of_classes_with_and_without_others(clip: Clip, folder: Path, tmp_path: Path) -> None:
    copy = copied(folder, tmp_path)
    study = study_of(clip, copy, n_others=1)
    (other,) = study.other_records(("cat", "real"))
    other.path.write_bytes(b"")  # it is also an image of its own class, of which another one can be read
    with pytest.warns(UserWarning, match="the file is empty"):
        table = study.extract_transfer(tmp_path / "t", exchange=False, work=QUIET)["transfer"]
    missing = table[table["other_metric"].isna()]
    assert {*zip(missing["class"], missing["image_domain"], strict=True)} == {("cat", "real")}
    assert table["other_metric"].dtype == float


@pytest.mark.parametrize("name", ["mean-unit", "other-domains", "counterfactual"])
def test_baselines_by_name(study: CausalStudy, tmp_path: Path, name: str) -> None:
    named = with_settings(study, baseline=name)
    curve = named.extract_faithfulness(tmp_path / "f", rankings=("signed",), **FAST)[3]  # type: ignore[arg-type]
    key, images = ("cat", "sketch"), named.read(("cat", "sketch"), QUIET)
    baseline = named.baseline_of(key, 4)
    assert baseline.n_images == (4 if name == "counterfactual" else None)
    task = Task(named.clip.encoder, images.own, named.metric_of(*key), baseline=baseline, others=images.others)
    settings = AblationSettings(ranking="signed", fractions=(0.1, 1.0), random_draws=1)
    direct = faithfulness_curve(task, named.graphs[key], settings)
    assert np.array_equal(curve.kept, direct.kept)
    assert curve.settings["baseline"] == name
    table = named.extract_transfer(tmp_path / "t", exchange=False, work=QUIET)["transfer"]
    row = table.query("`class` == 'cat' and circuit_domain == 'sketch' and image_domain == 'sketch'").iloc[0]
    assert row["empty_metric"] == pytest.approx(direct.empty[:2].mean(), rel=1e-6)
    assert row["other_empty_metric"] == pytest.approx(direct.empty[2:].mean(), rel=1e-6)
    shown, maps = named.pixels("cat", "sketch", n_images=2)
    assert len(shown) == len(maps["circuit at all sites"]) == 2
    reference = tmp_path / "f" / "baseline_images.json"
    assert reference.is_file()


def test_metric_and_texts_are_those_that_the_circuits_were_found_by(clip: Clip, folder: Path, tmp_path: Path) -> None:
    images = DomainFolder(folder / "images", classes=("cat", "axe"))
    attribution = AttributionSettings(rule=left_rule(1), edge_rule=left_rule(1), sites=("attnpool",))
    extract(
        clip,
        images,
        tmp_path / "graphs",
        n_images=2,
        settings=attribution,
        metric="margin",
        texts="own-style",
        work=QUIET,
    )
    study = CausalStudy(clip, images, GraphFolder(tmp_path / "graphs"), CausalSettings(1, 1))
    assert (study.config["metric"], study.config["texts"]) == ("margin", "own-style")
    embeddings = torch.randn(2, 16)
    for domain, style in (("real", "photo"), ("sketch", "sketch")):
        weights = clip.text_weights(CLASSES, [f"a {style} of a {{}}.", f"a {style} of the {{}}."])
        expected = class_margin(weights, 1)(embeddings)
        assert torch.equal(study.metric_of("cat", domain)(embeddings), expected)
        pooled = with_settings(study, metric="logit", texts="pooled").metric_of("cat", domain)
        assert torch.equal(pooled(embeddings), class_logit(clip.text_weights(CLASSES), 1)(embeddings))
    assert study.baseline_found_with(("cat", "real"), 2).name == "zero"


def test_studies_that_do_not_fit(study: CausalStudy, tiny: Tiny, folder: Path, tmp_path: Path) -> None:
    other = load_clip(tiny.config, saved(tiny.state | {"logit_scale": torch.tensor(1.0)}, tmp_path / "x.pt"))
    with pytest.raises(InputError, match="give the checkpoint that they were found in"):
        replace(study, clip=other)
    with pytest.raises(InputError, match=r"one of the metrics logit, margin, or a function .* but 'loss' was given"):
        with_settings(study, metric="loss")
    with pytest.raises(InputError, match="the string 'photo' was given"):
        with_settings(study, texts="photo")
    with pytest.raises(InputError, match=r"Expected one of the baselines zero, mean-position, .* but 'one' was given"):
        with_settings(study, baseline="one")
    with pytest.raises(InputError, match="under one baseline, but one with an activation for every image was given"):
        with_settings(study, baseline=torch.zeros(2, 3, 64, 64))
    with pytest.raises(InputError, match="n_images=0 and n_others=2 were given"):
        with_settings(study, n_images=0)
    used_up = extract(
        study.clip,
        study.images,
        tmp_path / "all",
        n_images=5,
        settings=AttributionSettings(rule=left_rule(1), edge_rule=left_rule(1), sites=("layer4.0", "attnpool")),
        work=QUIET,
    )
    with pytest.raises(InputError, match="'axe' in 'real' was found on all of its 5 images, so none is left"):
        replace(study, graphs=used_up).read(("axe", "real"), QUIET)
    assert len(with_settings(replace(study, graphs=used_up), seen=True).read(("axe", "real"), QUIET).own) == 2


def test_options_load_a_study(tiny: Tiny, folder: Path, tmp_path: Path) -> None:
    options = StudyOptions(
        model=str(tiny.config),
        checkpoint=tiny.config.with_suffix(".safetensors"),
        data=folder / "images",
        split=None,
        circuits=folder / "graphs",
        classes=("cat",),
        metric="margin",
        baseline="mean-unit",
    )
    study = options.study()
    assert study.keys == [("cat", "real"), ("cat", "sketch")]
    embedding = torch.randn(2, 16)
    expected = class_margin(study.clip.text_weights(CLASSES), 1)(embedding)
    assert torch.equal(study.metric_of("cat", "real")(embedding), expected)
    assert study.provenance()["circuits"]["n_images"] == 2
    assert study.provenance()["baseline"] == "mean-unit"
    with pytest.raises(InputError, match=r"no circuits at .*none: run experiments/quickstart.py"):
        replace(options, circuits=tmp_path / "none").study()
    with pytest.raises(InputError, match=r"No circuit in .* is of a class and domain of"):
        _ = replace(study, graphs=GraphFolder(_empty(folder, tmp_path))).keys


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
    options = StudyOptions(
        model=str(tiny.config),
        checkpoint=tiny.config.with_suffix(".safetensors"),
        data=folder / "images",
        split=None,
        circuits=tmp_path / "graphs",
        classes=("cat",),
        sae=(f"layer4.0={tmp_path / 'sae'}",),
    )
    with pytest.raises(InputError, match="give the checkpoint that they were found in, in the same feature basis, if"):
        replace(options, sae=()).study()
    for keep_error in (False, True):
        study = replace(options, keep_error=keep_error).study()
        out = tmp_path / f"{keep_error}"
        curve, *_ = study.extract_faithfulness(out / "f", rankings=("signed",), **FAST)  # type: ignore[arg-type]
        assert np.array_equal(curve.kept[-1], curve.full) == keep_error
        table = study.extract_transfer(out / "t", exchange=False, work=QUIET)["transfer"]
        assert np.allclose(table["metric"], table["full_metric"], rtol=1e-6) == keep_error
        _, maps = study.pixels("cat", "real", n_images=1)
        assert np.array_equal(maps["circuit at all sites"], maps["whole model"]) == keep_error
    with pytest.raises(InputError, match=r"another configuration \(keep_error: True -> False\)"):
        with_settings(study, keep_error=False).extract_faithfulness(out / "f", rankings=("signed",), **FAST)  # type: ignore[arg-type]


def _empty(folder: Path, tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "manifest.json").write_bytes((folder / "graphs" / "manifest.json").read_bytes())
    return tmp_path / "empty"


def test_pixels_are_shown_as_they_were(study: CausalStudy, folder: Path) -> None:
    shown, maps = study.pixels("cat", "real", n_images=2)
    path = study.images.select("cat", "real", None, 0)[2].path
    assert np.abs(shown[0].astype(int) - np.asarray(Image.open(path)).astype(int)).max() <= 1
    last = study.clip.encoder.sites[-2]
    unit = study.graphs["cat", "real"].kept_units[last][0]
    assert list(maps) == ["whole model", f"circuit at {last}", "circuit at all sites", f"unit {last}/{unit}"]
    assert all(found.shape == (2, 64, 64) and found.any() for found in maps.values())
