"""Autoencoders, shared features and representations by scripts, and their reports."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from circuitry.comparison import compare_models
from circuitry.comparison.models import OVER_MODELS
from circuitry.models import load_sae
from circuitry.runs import InputError
from circuitry.runs.presets import with_study_defaults
from circuitry.training import SaeTraining
from tests.comparison.similarities import similarities
from tests.support.scripts import CLASSES, STYLES, command_module


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
    study = with_study_defaults(module.Config)(
        **model_of_the_quickstart,
        out=out / "study",
        more_tables=(table,),
        training=SaeTraining.study(steps=3, piece=20),
    )
    module.main(study)
    trained = load_sae(out / "study" / "sae.safetensors").about["training"]
    photographs = 5 * len(CLASSES)  # that are trained on without the table, too, and count once
    assert trained["samples"] == photographs * len(STYLES) + len(table.read_text().splitlines()) - 1 - photographs
    assert len(list((out / "study" / "activations").glob("*.npy"))) == -(-trained["samples"] // 20)


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
