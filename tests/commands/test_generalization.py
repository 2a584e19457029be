"""Runs are evaluated and related to what domains share; the toy study trains what it should."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from filelock import Timeout

from circuitry.data.drawn.drawing import TOY_CLASSES
from circuitry.runs import InputError, Rank, Work
from circuitry.study import StudyRun
from circuitry.study.toy_study import TOY_TRAINING, ToySettings
from circuitry.training import LabelTable, TrainingWork
from circuitry.training.supervised_model import build_classifier, write_classifier
from tests.commands.conftest import GIVEN_RULE
from tests.support.scripts import CLASSES, assert_drawn, command_module, figure_of, needs_browser, script, study_config


@needs_browser
def test_runs_are_evaluated_and_drawn(quickstart: Path, tmp_path: Path) -> None:
    module = command_module("generalization")
    for setting, seed in (("cg-high", 0), ("cg-high", 1), ("natural-only", 0)):
        run = tmp_path / "runs" / f"{setting}-{seed}"
        run.mkdir(parents=True)
        (run / "checkpoints").symlink_to(quickstart / "run" / "clip" / "checkpoints")
        test_domain = None if setting == "natural-only" else "quickdraw"
        StudyRun(run, "rn-tiny", setting, test_domain, ("key",), seed).write()
    supervised = tmp_path / "runs" / "supervised"
    labels = LabelTable(CLASSES, {name: i for i, name in enumerate(CLASSES)})
    classifier = build_classifier("rn-tiny", len(CLASSES), 0.9)[0]
    write_classifier(supervised / "checkpoints" / "epoch_1.safetensors", classifier, "rn-tiny", labels, 1)
    StudyRun(supervised, "rn-tiny", "cg-high", "quickdraw", ("key",), supervised=True).write()
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
    with pytest.raises(InputError, match="--data"):
        module.main(module.Config(**own))


@needs_browser
def test_what_domains_share_is_related_to_accuracy_over_models(
    quickstart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = script("shared_circuitry")
    monkeypatch.setattr(module, "extract", partial(module.extract, rule=GIVEN_RULE))
    for setting, seed in (("cg-high", 0), ("cg-high", 1), ("natural-only", 0)):
        run = tmp_path / "runs" / f"{setting}-{seed}"
        run.mkdir(parents=True)
        (run / "checkpoints").symlink_to(quickstart / "run" / "clip" / "checkpoints")
        test_domain = None if setting == "natural-only" else "quickdraw"
        StudyRun(run, "rn-tiny", setting, test_domain, ("key", "car"), seed).write()
    config = module.Config(
        runs=tmp_path / "runs",
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
        module.main(replace(config, runs=tmp_path / "runs" / "natural-only-0", out=tmp_path / "none"))


def test_the_toy_is_trained_by_several_processes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    module = command_module("generalization")
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
    module = command_module("generalization")
    assert [settings.training for settings in module.Config().toy_settings()] == [TOY_TRAINING] * 4
    small = module.Config(n_toy_classes=4, held_out_sets=2, n_train=8, epochs=2).toy_settings()[0]
    assert (small.classes, small.held_out) == (TOY_CLASSES[:4], TOY_CLASSES[0:4:2])
    assert (small.training.batch_size, small.training.warmup, small.training.keep_checkpoints) == (32, 0, 2)
    study = study_config("generalization")
    assert (study.imagenet_names, len(study.test_domains), study.seeds) == ("study", 5, (0, 1, 2))
