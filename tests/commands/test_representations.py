"""Autoencoders, shared features and representations by scripts, and their reports."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from circuitry import Comparison, DomainFolder
from circuitry.comparison import compare_models
from circuitry.comparison.models import OVER_MODELS
from circuitry.models import load_sae
from circuitry.representations import compare_representations
from circuitry.representations.grams import Grams
from circuitry.runs import InputError
from circuitry.study import StudyRun
from circuitry.training import SaeTraining
from tests.comparison.similarities import similarities
from tests.support.assert_same import assert_same
from tests.support.scripts import CLASSES, STYLES, assert_drawn, command_module, figure_of, needs_browser, study_config


def test_a_sparse_autoencoder_is_trained_and_measured(
    quickstart: Path, model_of_the_quickstart: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    module = command_module("train-sae")
    out = quickstart / "sae"
    short = SaeTraining(steps=5)
    config = module.Config(**model_of_the_quickstart, out=out, site="layer3.0", positions_per_image=2, training=short)
    module.main(config)
    printed = capsys.readouterr().out
    assert "768 features of 192 units at layer3.0" in printed
    assert "explained_variance" in printed
    assert load_sae(out / "sae.safetensors").about["training"]["samples"] == 2 * 5 * len(CLASSES) * len(STYLES)
    assert pd.read_csv(out / "history.csv")["step"].tolist() == [5]
    assert not (out / "state.safetensors").exists()
    module.main(config)  # finished: read again
    assert "768 features of 192 units at layer3.0" in capsys.readouterr().out
    table = quickstart / "more.tsv"
    table.write_text("filepath\n" + "".join(f"{path}\n" for path in (quickstart / "run" / "toy").glob("real/*/*.png")))
    with pytest.raises(InputError, match=r"another configuration \(tables: .* is new\)"):
        module.main(replace(config, more_tables=(table,)))
    given = {**model_of_the_quickstart, "out": out / "study", "more_tables": (table,)}
    study = study_config("train-sae", "--steps", "3", "--piece", "20", **given)
    module.main(study)
    trained = load_sae(out / "study" / "sae.safetensors").about["training"]
    photographs = 5 * len(CLASSES)  # that are trained on without the table, too, and count once
    assert trained["samples"] == photographs * len(STYLES) + len(table.read_text().splitlines()) - 1 - photographs
    assert len(list((out / "study" / "activations").glob("*.npy"))) == -(-trained["samples"] // 20)


@needs_browser
def test_shared_features_are_found_and_drawn(quickstart: Path, model_of_the_quickstart: dict[str, object]) -> None:
    module = command_module("features")
    out = quickstart / "shared_features"
    short = {"training": SaeTraining(steps=5), "held_out": ("Key",)}
    (checkpoint,) = (quickstart / "run" / "clip" / "checkpoints").glob("epoch_1.pt")
    model = model_of_the_quickstart | {"checkpoint": checkpoint}
    config = module.Config(**model, **short, out=out, results=out / "results")
    module.main(config)
    assert study_config("features").training == study_config("train-sae").training
    summary = pd.read_csv(out / "results" / "feature_sharing_summary.csv")
    assert set(summary["group"]) == {"all", "held-out"}
    trained_on = module.trained_on(config)
    assert (trained_on["setting"], trained_on["test_domain"]) == ("cg-high", "quickdraw")
    StudyRun(config.checkpoint.parents[1], "rn-tiny", "cg-low", "quickdraw", ("key",)).write()
    assert module.trained_on(config)["setting"] == "cg-low"
    (config.checkpoint.parents[1] / "run.json").unlink()
    assert_drawn(out / "report.html")
    names = set(pd.read_csv(out / "tables" / "features.csv")["name"])
    toy = DomainFolder(quickstart / "run" / "toy")
    assert names <= set(module.words(module.Config(data=toy.root), config.clip(), toy))
    assert "random features" in figure_of("feature_sharing", out / "results").layout.title.subtitle.text
    assert Comparison.load(out / "results" / "feature_sharing").groups["held-out"] == ("key",)
    words = quickstart / "words.txt"
    words.write_text("cat\n\n dog \n")
    given = module.Config(**model, autoencoder=out / "sae.safetensors", vocabulary=words, out=out / "again")
    module.main(given)
    assert set(pd.read_csv(out / "again" / "tables" / "features.csv")["name"]) <= {"cat", "dog"}
    assert not (out / "again" / "sae.safetensors").exists()
    with pytest.raises(InputError, match=r"none\.txt"):
        module.words(module.Config(vocabulary=quickstart / "none.txt"), config.clip(), toy)


def test_sharing_is_set_side_by_side_over_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = command_module("features-over-settings")

    def results(name: str, setting: str | None, seed: int, sketch: float) -> str:
        folder = tmp_path / name
        folder.mkdir()
        rows = [
            (g, d, v, v - 0.1, v + 0.1, 4) for g in ("all", "held-out") for d, v in (("real", 0.5), ("sketch", sketch))
        ]
        columns = ["group", "domain", "value", "low", "high", "n_classes"]
        pd.DataFrame(rows, columns=columns).to_csv(folder / "feature_sharing_summary.csv", index=False)
        run = {"model": "RN50", "setting": setting, "test_domain": "sketch", "seed": seed}
        about = {"model": "RN50", "trained_on": None if setting is None else run}
        (folder / "provenance.json").write_text(json.dumps(about))
        similarities(4, seed=len([*tmp_path.iterdir()])).save(folder / "feature_sharing")
        return str(folder)

    low = [results(f"low{seed}", "cg-low", seed, value) for seed, value in enumerate((0.1, 0.3, 0.6))]
    high, other = results("high", "cg-high", 0, 0.4), results("other", None, 0, 0.2)
    folders = (*low, high, f"openai={other}")
    module.main(module.Config(features=folders, group="all", test_domain="real", out=tmp_path / "out"))
    table = pd.read_csv(tmp_path / "out" / "tables" / "sharing_over_settings.csv").set_index("setting")
    assert table.index.tolist() == ["cg-low", "cg-high", "openai"]
    assert table["test_domain"].tolist() == ["sketch", "sketch", "real"]
    assert table["score"].tolist() == pytest.approx([1 / 3, 0.4, 0.5])
    assert table["deviation"]["cg-low"] == pytest.approx(
        ((0.7 / 3) ** 2 + (0.1 / 3) ** 2 + (0.8 / 3) ** 2) ** 0.5 / 2**0.5
    )
    assert table[["lowest", "models"]].to_numpy().tolist() == [[2, 3], [1, 1], [0, 1]]
    assert "cg-high" in capsys.readouterr().out
    tests = pd.read_csv(tmp_path / "out" / "tables" / "sharing_tests.csv")
    models = [similarities(4, seed=seed) for seed in (1, 2, 3, 4)]  # all whose test domain is sketch
    pd.testing.assert_frame_equal(tests[list(OVER_MODELS)], compare_models(models), check_dtype=False)
    assert set(tests["test_domain"]) == {"sketch"}
    for wrong, words in (((), "--features"), ((str(tmp_path),), str(tmp_path)), ((other,), f"name={other}")):
        with pytest.raises(InputError, match=words):
            module.main(module.Config(features=wrong))
    with pytest.raises(InputError, match=r"'ink'.*'held-out'.*real, sketch"):
        module.main(module.Config(features=(f"x={other}",), test_domain="ink"))


@needs_browser
def test_representations_are_compared_and_drawn(quickstart: Path) -> None:
    module = command_module("represent")
    run, out = quickstart / "run", quickstart / "representations"
    config = module.Config(
        checkpoint=run / "clip" / "checkpoints" / "epoch_1.pt",
        data=run / "toy",
        sites=("layer3.0", "attnpool"),
        n_images=4,
        parts=2,
        apart="quickdraw",
        permutations=20,
        folds=2,
        out=out,
        results=out / "results",
    )
    module.main(config)
    assert_drawn(out / "report.html", figures=6)
    committed = {path.name for path in (out / "results").iterdir()}
    names = ("cka", "cka_over_depth", "cka_apart", "cka_ceilings", "probes", "probes_left_out")
    assert committed == {*(f"{name}.csv" for name in names), "provenance.json", "classes.txt", "images.txt"}
    for name in ("cka_over_depth", "probes_over_depth"):
        figure = figure_of(name, out / "results")
        assert len(figure.data) > 0


def test_groups_of_classes_for_cka_are_those_held_out_and_the_others() -> None:
    module, classes = command_module("represent"), [f"class_{i}" for i in range(9)]
    held_out = ("Class 0", "class-3", "class_5", "class_8")
    groups = module.class_groups_of(module.Config(held_out=held_out), classes)
    assert groups["held-out"] == ("class_0", "class_3", "class_5", "class_8")
    assert groups["seen"] == ("class_1", "class_2", "class_4", "class_6", "class_7")
    assert groups["all"] == tuple(classes)
    with pytest.raises(InputError, match="at least 4 classes, but the group 'held-out' has 1: give more --held-out"):
        module.class_groups_of(module.Config(held_out=("class_1",)), classes)
    with pytest.raises(InputError, match="no held-out class 'aircraft carrier' here"):
        module.class_groups_of(study_config("represent"), classes)


def test_all_pairs_of_domains_are_compared_over_the_classes_that_all_have() -> None:
    module, classes = command_module("represent"), tuple("abcdefg")
    rng, rows = np.random.default_rng(0), {}
    for domain in ("painting", "real", "sketch"):
        rows[domain] = rng.normal(size=(len(classes), 5))
    rows["painting"][2] = np.nan  # it has no image of c
    grams = [Grams(domain, classes, {"site": own @ own.T}) for domain, own in rows.items()]
    groups = module.in_all_domains({"all": classes, "held-out": ("a", "c")}, grams)
    assert groups == {"all": tuple("abdefg"), "held-out": ("a",)}
    found = compare_representations([one.only(groups["all"]) for one in grams], ("linear",), permutations=1).pairs
    value = found.query("domain_a == 'real' and domain_b == 'sketch'")["value"].item()

    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        n = len(k)
        k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
        ones = k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 * (k @ m).sum() / (n - 2)
        return float(np.trace(k @ m) + ones) / (n * (n - 3))

    kept = [0, 1, 3, 4, 5, 6]  # painting's classes, for the pair without painting, too
    k, m = (rows[domain][kept] @ rows[domain][kept].T for domain in ("real", "sketch"))
    assert_same(value, hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m)), at_least=0.01)
    assert study_config("represent").common_classes


def test_too_few_classes_for_cka_are_told_before_the_model_is_loaded(tmp_path: Path) -> None:
    module = command_module("represent")
    for name in ("car/a.png", "fish/a.png", "key/a.png"):
        for style in ("clipart", "real"):
            (tmp_path / style / name).parent.mkdir(parents=True)
            (tmp_path / style / name).touch()
    with pytest.raises(InputError, match="at least 4 classes with images in both domains, but clipart and real have 3"):
        module.main(module.Config(checkpoint=tmp_path / "none.pt", data=tmp_path, split=None, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
