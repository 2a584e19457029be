"""Runs are evaluated and related to what domains share; the toy study trains what it should."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from filelock import Timeout

from circuitry.comparison import compare_models
from circuitry.comparison.models import OVER_MODELS
from circuitry.data.drawn.drawing import TOY_CLASSES
from circuitry.runs import InputError, Rank, Work
from circuitry.training import TrainingWork
from experiments.study.study_run import TOY_TRAINING, StudyRun, ToySettings
from experiments.study.supervised_model import LabelTable, build_classifier, write_classifier
from tests.commands.conftest import GIVEN_RULE
from tests.comparison.similarities import similarities
from tests.study.made_up_runs import write_run
from tests.support.scripts import CLASSES, assert_drawn, figure_of, needs_browser, program_module, study_config


@needs_browser
def test_runs_are_evaluated_and_drawn(quickstart: Path, tmp_path: Path) -> None:
    module = program_module("generalization")
    for setting, seed in (("cg-high", 0), ("cg-high", 1), ("natural-only", 0)):
        run = tmp_path / "runs" / f"{setting}-{seed}"
        run.mkdir(parents=True)
        (run / "checkpoints").symlink_to(quickstart / "run" / "clip" / "checkpoints")
        test_domain = None if setting == "natural-only" else "quickdraw"
        write_run(StudyRun(run, "rn-tiny", setting, test_domain, ("key",), seed))
    supervised = tmp_path / "runs" / "supervised"
    labels = LabelTable(CLASSES, {name: i for i, name in enumerate(CLASSES)})
    classifier = build_classifier("rn-tiny", len(CLASSES), 0.9)[0]
    write_classifier(supervised / "checkpoints" / "epoch_1.safetensors", classifier, "rn-tiny", labels)
    write_run(StudyRun(supervised, "rn-tiny", "cg-high", "quickdraw", ("key",), supervised=True))
    own = {"runs": tmp_path / "runs", "test_domains": ("quickdraw",), "out": tmp_path / "out"}
    module.main(module.Config(**own, data=quickstart / "run" / "toy", results=tmp_path / "results"))
    assert_drawn(tmp_path / "out" / "report.html", figures=2)
    table = pd.read_csv(tmp_path / "results" / "settings.csv").query("setting == 'cg-high' and domain == 'quickdraw'")
    assert table.groupby("trained")["seeds"].unique().map(list).to_dict() == {"CLIP": [2], "supervised": [1]}
    kinds = pd.read_csv(tmp_path / "results" / "told_apart.csv")
    assert kinds[["held_out", "alone", "centred", "predicted_held_out", "harmonic_mean"]].notna().all(axis=None)
    assert kinds["own_style"].isna().equals(kinds["trained"] == "supervised")
    assert "no class was screened" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    chosen = {"classifier": "style words", "measure": "macro F1", "epochs_shown": (1,)}
    module.main(module.Config(**own, data=quickstart / "run" / "toy", **chosen))
    assert "macro F1, style words" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for name in ("accuracy_by_setting", "effective_robustness"):
        assert len(figure_of(name, tmp_path / "results").data) >= 2


@needs_browser
def test_what_domains_share_is_related_to_accuracy_over_models(
    quickstart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = program_module("shared-circuitry")
    monkeypatch.setattr(module, "extract", partial(module.extract, rule=GIVEN_RULE))
    for setting, seed in (("cg-high", 0), ("cg-high", 1), ("natural-only", 0)):
        run = tmp_path / "runs" / f"{setting}-{seed}"
        run.mkdir(parents=True)
        (run / "checkpoints").symlink_to(quickstart / "run" / "clip" / "checkpoints")
        test_domain = None if setting == "natural-only" else "quickdraw"
        write_run(StudyRun(run, "rn-tiny", setting, test_domain, ("key", "car"), seed))
    config = module.Config(
        runs=(tmp_path / "runs",),
        data=quickstart / "run" / "toy",
        n_images=2,
        n_tested=1,
        sae_steps=5,
        out=tmp_path / "out",
        results=tmp_path / "results",
    )
    module.main(config)
    points = pd.read_csv(tmp_path / "results" / "points.csv")
    assert points["test_domain"].tolist() == ["quickdraw"] * 3
    shared = points[["overlap", "shift", "depth_bias", "cka", "features"]]
    assert shared.notna().all(axis=None)
    assert (shared.nunique() == 1).all()  # one model under three names
    relations = pd.read_csv(tmp_path / "results" / "relations.csv")
    assert relations["rho"].isna().all()
    assert set(relations["note"]) == {"cannot be significant with 3 models"}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "There are 3 models." in page
    assert "Cannot be told" in page
    assert_drawn(tmp_path / "out" / "report.html", figures=page.count('class="plotly-graph-div"'))
    with pytest.raises(InputError, match="test domain"):
        module.main(replace(config, runs=(tmp_path / "runs" / "natural-only-0",), out=tmp_path / "none"))


def test_the_toy_is_trained_by_several_processes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    module = program_module("generalization")
    asked: list[tuple[object, ...]] = []

    def train(out: Path, *job: object, wait: bool = True, work: TrainingWork) -> StudyRun:
        asked.append(job)
        if not wait and len(asked) == 1:
            raise Timeout("held by another process")
        setting, domain, _, settings = job
        assert isinstance(settings, ToySettings)
        return StudyRun(Path(f"{setting}-{domain}"), "rn-tiny", str(setting), str(domain), settings.held_out)

    monkeypatch.setattr(module, "toy_run", train)
    config = module.Config(settings=("natural-only", "cg-low"), test_domains=("sketch",), seeds=(0,), held_out_sets=2)
    runs = module.toy_runs(config, Work(Rank(1, 2)))
    assert len(asked) == 8  # each once in its own order, then each once more to be returned
    first, second = config.toy_settings()
    assert asked[0] == ("natural-only", "sketch", 0, second)
    assert sorted(first.held_out + second.held_out) == sorted(first.classes)
    assert [(run.setting, run.held_out) for run in runs] == [
        (setting, settings.held_out) for setting in config.settings for settings in (first, second)
    ]


def test_a_miniature_of_the_toy_trains_alike() -> None:
    module = program_module("generalization")
    assert [settings.training for settings in module.Config().toy_settings()] == [TOY_TRAINING] * 4
    small = module.Config(n_toy_classes=4, held_out_sets=2, n_train=8, epochs=2).toy_settings()[0]
    assert (small.classes, small.held_out) == (TOY_CLASSES[:4], TOY_CLASSES[0:4:2])
    assert (small.training.batch_size, small.training.warmup, small.training.keep_checkpoints) == (32, 0, 2)
    study = study_config("generalization")
    assert (study.imagenet_names, len(study.test_domains), study.seeds) == ("study", 5, (0, 1, 2))


def test_sharing_is_set_side_by_side_over_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = program_module("features-over-settings")

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
