"""The scripts run from end to end on very little, and a browser draws their reports."""

import csv
import importlib.util
import json
import logging
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import Timeout

from circuitry import DomainFolder, GraphFolder
from circuitry.circuits.graph_folder import FORMAT, WHOLE, graph_file
from circuitry.data.toy.write import CLASSES as TOY_CLASSES
from circuitry.data.toy.write import DrawingSettings, write_toy
from circuitry.models import SparseAutoencoder, load_sae
from circuitry.runs.command_line import run_script
from circuitry.runs.errors import InputError
from circuitry.runs.manifest import write_json
from circuitry.runs.presets import with_study_defaults
from circuitry.runs.workers import Rank, Work
from circuitry.training import load_supervised
from circuitry.training.clip import train_clip
from circuitry.training.labels import LabelTable, found_labels
from circuitry.training.settings import ClipTraining, SaeTraining, SupervisedTraining, TrainingWork, clip_preset
from circuitry.training.study_run import StudyRun
from circuitry.training.supervised_model import build_classifier, write_classifier
from circuitry.training.toy_study import TRAINING, ToySettings
from tests.circuits.test_similarity import random_graph
from tests.support.browser import drawn_marks, find_browser, load

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
FIGURES = EXPERIMENTS.parent / "figures"
CLASSES = ("car", "fish", "key", "star")
STYLES = ("clipart", "quickdraw", "real")
needs_browser = pytest.mark.skipif(find_browser() is None, reason="no Chromium or Chrome on this machine")


IN_PLACE = TrainingWork("cpu", workers=0, progress=False)


def script(name: str) -> ModuleType:
    """Load a script as a module, without running it."""
    spec = importlib.util.spec_from_file_location(f"experiments_{name}", EXPERIMENTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def assert_drawn(report: Path, figures: int | None = None) -> None:
    """Check that a browser draws every figure, and so many where it does not hang on what a model has learned."""
    page = load(report)
    assert page.console_errors == ()
    assert page.requests == ()
    marks = drawn_marks(page.dom)
    assert len(marks) == page.dom.count('class="plotly-graph-div') if figures is None else len(marks) == figures
    assert marks
    assert all(marks.values()), marks


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished quickstart on four classes in three styles, with a model trained for three steps."""
    out = tmp_path_factory.mktemp("quickstart")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("circuitry.models.clip.user_cache_path", lambda name: out / "cache")
        module = script("quickstart")
        patch.setattr(module, "DrawingSettings", partial(DrawingSettings, classes=CLASSES, styles=STYLES))
        patch.setattr(module, "write_toy", partial(write_toy, workers=1, progress=False))

        def short_training(table: Path, out: Path, settings: ClipTraining) -> Path:
            return train_clip(table, out, replace(settings, batch_size=16, warmup=0), IN_PLACE)

        patch.setattr(module, "train_clip", short_training)
        module.main(
            module.Config(
                out=out / "run",
                results=out / "results",
                held_out=("key",),
                n_train=5,
                n_test=4,
                n_circuit=2,
                n_causal=1,
                n_causal_others=2,
                epochs=1,
            )
        )
        yield out


def test_the_quickstart_leaves_graphs_tables_and_a_report(quickstart: Path) -> None:
    run = quickstart / "run"
    graphs = [path.name for path in (run / "circuits" / "graphs").rglob("*.all.safetensors")]
    assert len(graphs) == len(CLASSES) * len(STYLES)
    similarity = pd.read_csv(run / "tables" / "edge_jaccard.csv")
    assert len(similarity) == len(CLASSES) * 3
    assert similarity["value"].between(0, 1).all()
    accuracy = pd.read_csv(run / "tables" / "accuracy.csv")
    assert set(accuracy["domain"]) == set(STYLES)
    assert accuracy[["seen", "held_out", "alone", "own_style", "centred"]].notna().all(axis=None)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "key were left out of its quickdraw images" in page
    committed = {path.name for path in (quickstart / "results").iterdir()}
    tables = {"accuracy.csv", "edge_jaccard_summary.csv", "edge_jaccard_class_by_domain.csv", "order_stability.csv"}
    assert tables | {"provenance.json", "classes.txt", "images.txt"} <= committed
    assert "In short" in page
    assert page.index("How to read this") < page.index("Which domains share their circuits?")
    orders = pd.read_csv(run / "tables" / "order_stability.csv")
    assert {"baseline", "class texts", "metric", "rule"} <= set(orders["varied"])


def test_the_quickstart_trains_without_the_held_out_combination(quickstart: Path) -> None:
    with open(quickstart / "run" / "train.tsv", encoding="utf-8", newline="") as file:
        paths = [Path(row["filepath"]) for row in csv.DictReader(file, delimiter="\t")]
    trained_on = {(path.parts[-3], path.parts[-2]) for path in paths}
    assert trained_on == {(s, c) for s in STYLES for c in CLASSES} - {("quickdraw", "key")}


@needs_browser
def test_a_browser_draws_the_report_of_the_quickstart(quickstart: Path) -> None:
    # A model after three steps may tell nothing apart: sentences then stand for figures.
    page = (quickstart / "run" / "report.html").read_text(encoding="utf-8")
    for heading in ("Do the circuits do the work?", "circuit work in another?", "what removing a unit does?"):
        assert heading in page
    assert_drawn(quickstart / "run" / "report.html", figures=page.count('class="plotly-graph-div"'))


@pytest.fixture(scope="module")
def compared(quickstart: Path) -> Path:
    """The folder of a finished comparison of two classes in two styles."""
    module = script("compare_circuits")
    out = quickstart / "compared"
    config = module.Config(
        model="rn-tiny",
        data=quickstart / "run" / "toy",
        out=out,
        checkpoint=quickstart / "run" / "clip" / "checkpoints" / "epoch_1.pt",
        classes=("star", "fish"),
        domains=("real", "clipart"),
        n_images=2,
        rule="left-2",
        edge_rule="midpoint-1",
    )
    module.main(config)
    return out


@pytest.fixture(scope="module")
def arguments(quickstart: Path) -> list[str]:
    """Arguments of a small extraction, as on a command line."""
    run = quickstart / "run"
    return [
        *("--model", "rn-tiny", "--checkpoint", str(run / "clip" / "checkpoints" / "epoch_1.pt")),
        *("--data", str(run / "toy"), "--classes", "star", "fish", "--domains", "real", "clipart", "--n-images", "2"),
        *("--rule", "left-2", "--edge-rule", "midpoint-1", "--no-accuracy"),
    ]


def on_one_thread(command: list[str], cache: Path) -> str:
    """Run a command with the project's python and return what it printed."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def circuits(out: Path) -> dict[str, bytes]:
    folder = out / "circuits"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_torchrun_and_an_array_of_jobs_leave_the_folder_of_one_process(arguments: list[str], tmp_path: Path) -> None:
    script_path = str(EXPERIMENTS / "compare_circuits.py")
    ways = {
        "one": [script_path],
        "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script_path],
        "array": [script_path, "--cluster", "local", "--jobs", "2", "--job-options", "timeout_min=5"],
    }
    for name, command in ways.items():
        printed = on_one_thread([*command, *arguments, "--out", str(tmp_path / name)], tmp_path / "cache")
        assert printed.count("report: ") == 1
    # The manifest and the list of images, then of each job the checksum, all, edges and two parts.
    assert len(circuits(tmp_path / "one")) == 2 + 4 * (1 + 4)
    assert circuits(tmp_path / "torchrun") == circuits(tmp_path / "one")
    assert circuits(tmp_path / "array") == circuits(tmp_path / "one")
    logs = "".join(path.read_text() for path in (tmp_path / "array" / "jobs").glob("*.err"))
    assert "Traceback" not in logs


def test_a_dry_run_counts_and_estimates(
    compared: Path, quickstart: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = sys.modules["experiments_compare_circuits"]
    checkpoint = quickstart / "run" / "clip" / "checkpoints" / "epoch_1.pt"
    settings = {"classes": ("star", "fish", "key"), "domains": ("real",), "n_images": 2, "rule": "left-1"}
    config = module.Config(
        model="rn-tiny",
        data=quickstart / "run" / "toy",
        out=tmp_path,
        checkpoint=checkpoint,
        edge_rule="left-2",
        dry_run=True,
        **settings,
    )
    module.main(config)
    printed = capsys.readouterr().out
    assert "3 jobs with 6 images, 0 jobs finished" in printed
    assert "2 jobs done now at" in printed
    assert "min on this worker" in printed
    module.main(config)
    assert "3 jobs with 6 images, 2 jobs finished" in capsys.readouterr().out
    assert not (tmp_path / "report.html").exists()


def test_names_are_checked_before_the_extraction(compared: Path, quickstart: Path, tmp_path: Path) -> None:
    module = sys.modules["experiments_compare_circuits"]
    own = {
        "model": "rn-tiny",
        "data": quickstart / "run" / "toy",
        "out": tmp_path / "out",
        "checkpoint": tmp_path / "x",
    }
    for wrong, words in (
        ({"held_out": ("fisch",)}, r"--held-out: .*fisch.* perhaps you meant fish"),
        ({"pair": ("fihs", "real", "clipart")}, r"--pair: .*fihs.* perhaps you meant fish"),
        ({"pair": ("fish", "real", "clip-art")}, r"--pair: .*clip-art.* perhaps you meant clipart"),
        ({"pair": ("fish", "real", "real")}, r"two domains in which it has images, but real was given twice"),
    ):
        with pytest.raises(InputError, match=words):
            module.main(module.Config(**own, **wrong))
    assert not (tmp_path / "out").exists()


def test_circuits_of_one_domain_are_reported_without_a_comparison(
    compared: Path, quickstart: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = sys.modules["experiments_compare_circuits"]
    config = module.Config(
        model="rn-tiny",
        data=quickstart / "run" / "toy",
        out=tmp_path,
        checkpoint=quickstart / "run" / "clip" / "checkpoints" / "epoch_1.pt",
        classes=("star",),
        domains=("real",),
        n_images=1,
        rule="left-1",
        edge_rule="left-2",
        metric="margin",
        texts=("a {}.",),
        baseline="counterfactual",
        sites=("layer3.0", "attnpool"),
        progress=False,
    )
    with pytest.raises(InputError, match=r"'counterfactual' of star in real is made of images of other classes"):
        module.main(config)
    module.main(replace(config, baseline="mean-unit"))
    assert "Nothing was compared: that takes a class with circuits in at least two domains" in capsys.readouterr().out
    assert "Nothing was compared" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert (tmp_path / "tables" / "accuracy.csv").is_file()
    ((key, graph),) = GraphFolder(tmp_path / "circuits").items()
    assert (key, graph.sites) == (("star", "real"), ("layer3.0", "attnpool"))
    asked = [graph.settings[name] for name in ("metric", "texts", "baseline")]
    assert asked == ["margin", ["a {}."], "mean-unit"]


def test_circuits_of_features(compared: Path, quickstart: Path, tmp_path: Path) -> None:
    module = sys.modules["experiments_compare_circuits"]
    torch.manual_seed(0)
    w_enc, w_dec = torch.randn(384, 40) / 20, torch.randn(40, 384) / 6
    SparseAutoencoder(w_enc, torch.zeros(40), w_dec, torch.zeros(384)).save(tmp_path / "sae")
    config = module.Config(
        model="rn-tiny",
        data=quickstart / "run" / "toy",
        out=tmp_path / "out",
        checkpoint=quickstart / "run" / "clip" / "checkpoints" / "epoch_1.pt",
        sae=(f"layer4.0={tmp_path / 'sae'}",),
        classes=("star",),
        domains=("real",),
        n_images=1,
        rule="left-1",
        edge_rule="left-2",
        dry_run=True,
    )
    module.main(config)
    (graph,) = GraphFolder(tmp_path / "out" / "circuits").values()
    assert {site: len(scores) for site, scores in graph.error_scores.items()} == {"layer4.0": 384}
    assert len(graph.node_scores["layer4.0"]) == 40
    made_with = graph.provenance["model_digest"]
    assert made_with != GraphFolder(compared / "circuits")["star", "real"].provenance["model_digest"]


def test_the_chosen_classes_and_domains_are_compared(compared: Path) -> None:
    table = pd.read_csv(compared / "tables" / "edge_jaccard.csv")
    assert table[["class", "domain_a", "domain_b"]].to_numpy().tolist() == [
        ["fish", "clipart", "real"],
        ["star", "clipart", "real"],
    ]
    assert "the circuit that recognises it was found" in (compared / "report.html").read_text(encoding="utf-8")


@needs_browser
def test_a_browser_draws_the_report_of_a_comparison(compared: Path) -> None:
    assert_drawn(compared / "report.html", figures=10)


@pytest.fixture(scope="module")
def subject_of_the_quickstart(quickstart: Path) -> dict[str, object]:
    run = quickstart / "run"
    checkpoint = run / "clip" / "checkpoints" / "epoch_1.pt"
    few = {"classes": ("fish", "star"), "domains": ("clipart", "real"), "n_images": 1, "n_others": 1}
    return {"checkpoint": checkpoint, "data": run / "toy", "circuits": run / "circuits", **few}


@needs_browser
def test_faithfulness_is_checked_and_drawn(quickstart: Path, subject_of_the_quickstart: dict[str, object]) -> None:
    module = script("faithfulness")
    out = quickstart / "faithfulness"
    module.main(
        module.Config(**subject_of_the_quickstart, out=out, results=out / "results", random_draws=1, rule_circuits=1)
    )
    assert_drawn(out / "report.html")
    committed = {path.name for path in (out / "results").iterdir()}
    assert {"faithfulness_absolute.csv", "selectivity_one_site.csv", "rules_against_patching.csv"} <= committed
    rules = pd.read_csv(out / "results" / "rules_against_patching.csv")
    assert set(rules["rule"]) == {"left 10", "Gauss-Radau 5", "midpoint 10", "gradient x activation"}


@needs_browser
def test_methods_are_judged_and_drawn(
    quickstart: Path, subject_of_the_quickstart: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = script("scoreboard")
    subject = {name: subject_of_the_quickstart[name] for name in ("checkpoint", "data")}
    out = quickstart / "scoreboard"
    given = {"n_classes": 2, "n_images": 1, "n_others": 4, "baselines": ("mean", "counterfactual")}
    tiny = {"metrics": ("margin",), "sizes": (0.3, 0.8), "steps": 4, "batch_size": 2, "random_draws": 1, "seed": 1}
    methods = ("gradient", "patching", "learned")
    config = module.Config(**subject, **given, **tiny, methods=methods, out=out, results=out / "results" / "toy")
    module.main(config)
    assert_drawn(out / "report.html", figures=5)
    summary = pd.read_csv(out / "results" / "toy" / "summary.csv")
    agreement = summary.query("what == 'rank correlation'").set_index(["method", "baseline"])["value"]
    assert agreement["patching"].tolist() == pytest.approx([1, 1])
    assert summary.query("what == 'seconds'")["n_classes"].tolist() == [2] * 6
    assert {"other images", "other seed"} == {what.split(",")[0] for what in summary["what"] if "overlap" in what}
    found_on, others, measured_on, held_out = module.Contest(config).records("fish")
    assert not {*found_on, *others} & {*measured_on, *held_out}
    assert not {r for r in (*others, *held_out) if r.class_name == "fish"}
    (out / "results" / "efficientnet").symlink_to(out / "results" / "toy")
    for name in ("scoreboard_cost", "scoreboard_selectivity"):
        assert len(runpy.run_path(str(FIGURES / f"{name}.py"))["figure"](out / "results").data) >= 6
    with pytest.raises(InputError, match=r"The methods of a scoreboard are some of site-path, .* was given"):
        module.Config(methods=("magic",))
    with pytest.raises(InputError, match="There is no domain 'oil' here"):
        _ = module.Contest(replace(config, domain="oil")).classes
    lonely = module.Contest(config)
    lonely.images = DomainFolder(config.data, split=None, domains=("real",), classes=("car", "fish"))
    monkeypatch.setattr(lonely.images, "select", lambda *_: lonely.images.records[:1])
    with pytest.raises(InputError, match="A class needs two images, but fish has 1 in real: name others"):
        lonely.records("fish")


@needs_browser
def test_transfer_is_checked_and_drawn(quickstart: Path, subject_of_the_quickstart: dict[str, object]) -> None:
    module = script("transfer")
    out = quickstart / "transfer"
    module.main(module.Config(**subject_of_the_quickstart, out=out, results=out / "results"))
    assert_drawn(out / "report.html")
    assert len(pd.read_csv(out / "results" / "matrices.csv").query("sites == 'all'")) == 4
    assert not (out / "results" / "transfer.csv").exists()


@needs_browser
def test_runs_are_evaluated_and_drawn(quickstart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = script("generalization")
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
    monkeypatch.setattr("circuitry.models.clip.user_cache_path", lambda name: quickstart / "cache")
    own = {"runs": tmp_path / "runs", "test_domains": ("quickdraw",), "out": tmp_path / "out"}
    module.main(module.Config(**own, data=quickstart / "run" / "toy", results=tmp_path / "results"))
    assert_drawn(tmp_path / "out" / "report.html", figures=2)
    table = pd.read_csv(tmp_path / "results" / "settings.csv").query("setting == 'cg-high' and domain == 'quickdraw'")
    assert table.groupby("trained")["seeds"].unique().map(list).to_dict() == {"CLIP": [2], "supervised": [1]}
    kinds = pd.read_csv(tmp_path / "results" / "told_apart.csv")
    assert kinds[["held_out", "alone", "centred", "predicted_held_out", "harmonic_mean"]].notna().all(axis=None)
    assert kinds["own_style"].isna().equals(kinds["trained"] == "supervised")
    assert "no class was screened" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    chosen = {"templates": "style words", "measure": "macro F1", "epochs_shown": (1,)}
    module.main(module.Config(**own, data=quickstart / "run" / "toy", **chosen))
    assert "macro F1, style words" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for name in ("accuracy_by_setting", "effective_robustness"):
        assert len(runpy.run_path(str(FIGURES / f"{name}.py"))["figure"](tmp_path / "results").data) >= 2
    with pytest.raises(InputError, match="need your own test images, but --data was not given"):
        module.main(module.Config(**own))


@needs_browser
def test_what_domains_share_is_related_to_accuracy_over_models(quickstart: Path, tmp_path: Path) -> None:
    module = script("shared_circuitry")
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
    assert "3 models are few" in page
    assert "cannot be told" in page
    assert_drawn(tmp_path / "out" / "report.html", figures=page.count('class="plotly-graph-div"'))
    with pytest.raises(InputError, match="None of the runs was trained for a test domain"):
        module.main(replace(config, runs=tmp_path / "runs" / "natural-only-0", out=tmp_path / "none"))


def test_the_toy_is_trained_by_several_processes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    module = script("generalization")
    asked: list[tuple[object, ...]] = []

    def train(out: Path, *job: object, wait: bool = True, work: TrainingWork) -> StudyRun:
        asked.append(job)
        if not wait and len(asked) == 1:
            raise Timeout("held by another process")
        setting, domain, _, settings = job
        assert isinstance(settings, ToySettings)
        return StudyRun(Path(f"{setting}-{domain}"), "rn-tiny", str(setting), str(domain), settings.held_out)

    monkeypatch.setattr(module, "toy_run", train)
    config = module.Config(settings=("natural-only", "cg-low"), test_domains=("sketch",), seeds=(0,), folds=2)
    runs = module.toy_runs(config, Work(Rank(1, 2)))
    assert len(asked) == 8  # each once in its own order, then each once more to be returned
    first, second = config.toy_settings()
    assert asked[0] == ("natural-only", "sketch", 0, second)
    assert sorted(first.held_out + second.held_out) == sorted(first.classes)
    assert [(run.setting, run.held_out) for run in runs] == [
        (setting, settings.held_out) for setting in config.settings for settings in (first, second)
    ]


def test_a_miniature_of_the_toy_trains_alike() -> None:
    module = script("generalization")
    assert [settings.training for settings in module.Config().toy_settings()] == [TRAINING] * 4
    small = module.Config(n_toy_classes=4, folds=2, n_train=8, epochs=2).toy_settings()[0]
    assert (small.classes, small.held_out) == (TOY_CLASSES[:4], TOY_CLASSES[0:4:2])
    assert (small.training.batch_size, small.training.warmup, small.training.keep_checkpoints) == (32, 0, 2)
    study = module.Config.study()
    assert (study.imagenet_names, len(study.test_domains), study.seeds) == ("study", 5, (0, 1, 2))


@pytest.fixture(scope="module")
def model_of_the_quickstart(quickstart: Path) -> dict[str, object]:
    run = quickstart / "run"
    return {"checkpoint": run / "clip" / "checkpoints" / "epoch_1.pt", "data": run / "toy"}


def test_a_sparse_autoencoder_is_trained_and_measured(
    quickstart: Path, model_of_the_quickstart: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    module = script("train_sae")
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
        module.main(replace(config, table=(table,)))
    study = with_study_defaults(module.Config)(
        **model_of_the_quickstart, out=out / "study", table=(table,), training=SaeTraining.study(steps=3, piece=20)
    )
    module.main(study)
    trained = load_sae(out / "study" / "sae.safetensors").about["training"]
    assert trained["samples"] == 5 * len(CLASSES) * len(STYLES) + len(table.read_text().splitlines()) - 1
    assert len(list((out / "study" / "activations").glob("*.npy"))) == -(-trained["samples"] // 20)


@needs_browser
def test_shared_features_are_found_and_drawn(quickstart: Path, model_of_the_quickstart: dict[str, object]) -> None:
    module = script("shared_features")
    out = quickstart / "shared_features"
    config = module.Config(**model_of_the_quickstart, steps=5, held_out=("Key",), out=out, results=out / "results")
    module.main(config)
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
    assert names <= set(module.words(module.Config(data=toy.root), toy))
    drawn = runpy.run_path(str(FIGURES / "feature_sharing.py"))["figure"](out / "results")
    assert "random features" in drawn.layout.title.subtitle.text
    words = quickstart / "words.txt"
    words.write_text("cat\n\n dog \n")
    given = module.Config(**model_of_the_quickstart, sae=out / "sae.safetensors", vocabulary=words, out=out / "again")
    module.main(given)
    assert set(pd.read_csv(out / "again" / "tables" / "features.csv")["name"]) <= {"cat", "dog"}
    assert not (out / "again" / "sae.safetensors").exists()
    with pytest.raises(InputError, match="There is no vocabulary"):
        module.words(module.Config(vocabulary=quickstart / "none.txt"), toy)


def test_sharing_is_set_side_by_side_over_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = script("sharing_over_settings")

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
        return str(folder)

    low = [results(f"low{seed}", "cg-low", seed, value) for seed, value in enumerate((0.1, 0.3, 0.6))]
    high, other = results("high", "cg-high", 0, 0.4), results("other", None, 0, 0.2)
    folders = (*low, high, f"openai={other}")
    module.main(module.Config(results=folders, test_domain="real", out=tmp_path / "out"))
    table = pd.read_csv(tmp_path / "out" / "tables" / "sharing_over_settings.csv").set_index("setting")
    assert table.index.tolist() == ["cg-low", "cg-high", "openai"]
    assert table["test_domain"].tolist() == ["sketch", "sketch", "real"]
    assert table["score"].tolist() == pytest.approx([1 / 3, 0.4, 0.5])
    assert table["deviation"]["cg-low"] == pytest.approx(
        ((0.7 / 3) ** 2 + (0.1 / 3) ** 2 + (0.8 / 3) ** 2) ** 0.5 / 2**0.5
    )
    assert table[["lowest", "models"]].to_numpy().tolist() == [[2, 3], [1, 1], [0, 1]]
    assert "cg-high" in capsys.readouterr().out
    for wrong, message in (
        ((), "Expected folders of results of shared_features.py, but none was given"),
        ((str(tmp_path),), "holds no results of shared_features.py: give the folder"),
        ((other,), "does not say which setting and test domain its model was trained for: give it as name="),
        (
            (f"x={other}",),
            "has no score of 'ink' for the group 'held-out'; it has the domains real, sketch and the groups",
        ),
    ):
        with pytest.raises(InputError, match=message):
            module.main(module.Config(results=wrong, test_domain="ink" if wrong and "=" in wrong[0] else None))


@needs_browser
def test_representations_are_compared_and_drawn(quickstart: Path) -> None:
    module = script("representations")
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
        figure = runpy.run_path(str(FIGURES / f"{name}.py"))["figure"](out / "results")
        assert len(figure.data) > 0


def test_groups_of_classes_for_cka_are_those_held_out_and_the_others() -> None:
    module, classes = script("representations"), [f"class_{i}" for i in range(9)]
    held_out = ("Class 0", "class-3", "class_5", "class_8")
    groups = module.class_groups_of(module.Config(held_out=held_out), classes)
    assert groups["held-out"] == ("class_0", "class_3", "class_5", "class_8")
    assert groups["seen"] == ("class_1", "class_2", "class_4", "class_6", "class_7")
    assert groups["all"] == tuple(classes)
    with pytest.raises(InputError, match="at least 4 classes, but the group 'held-out' has 1: give more --held-out"):
        module.class_groups_of(module.Config(held_out=("class_1",)), classes)
    with pytest.raises(InputError, match="no held-out class 'aircraft carrier' here"):
        module.class_groups_of(module.Config.study(), classes)


def test_too_few_classes_for_cka_are_told_before_the_model_is_loaded(tmp_path: Path) -> None:
    module = script("representations")
    for name in ("car/a.png", "fish/a.png", "key/a.png"):
        for style in ("clipart", "real"):
            (tmp_path / style / name).parent.mkdir(parents=True)
            (tmp_path / style / name).touch()
    with pytest.raises(InputError, match="at least 4 classes with images in both domains, but clipart and real have 3"):
        module.main(module.Config(checkpoint=tmp_path / "none.pt", data=tmp_path, split=None, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_the_benchmark_finds_equal_scores() -> None:
    module = script("benchmark_attribution")
    table = module.run(module.Config(models=("rn-tiny",), images=1, units_per_pair=1, sweep_images=2))
    assert table["model"].unique().tolist() == ["rn-tiny"]
    others = ["nodes, gauss-radau-5", "edges, gauss-radau-4", "nodes, path of the image against study"]
    assert table["scores"].tolist() == ["nodes", "edges", *others, "patching"]
    assert (table["largest relative difference"].dropna() < 1e-4).all()
    assert table["largest relative difference"].isna().sum() == 3


def test_many_circuits_are_compared_in_one_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = script("benchmark_similarity")
    assert module.UNITS["layer1.0"] == 256
    assert sum(-(-n // 10) for site, n in module.UNITS.items() if site != "input") == 1644
    module.main(module.Config(out=tmp_path, classes=1, parts=2))
    # 15 pairs of domains, in two orders of the parts; one pair of parts and two with the whole in each domain.
    assert f"{15 + 15 * 2 + 6 * 3} pairs of circuits by 5 measures: " in capsys.readouterr().out


def test_measures_are_judged_by_cases_with_a_known_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module, folder = script("validate_measures"), tmp_path / "graphs"
    jobs = [(name, domain) for name in ("axe", "cat", "fish") for domain in ("real", "sketch")]
    for i, (name, domain) in enumerate(jobs):
        parts: list[int | str] = [WHOLE, 0, 1]
        for j, part in enumerate(parts):
            made = random_graph(i // 2, name, domain, units=60)  # the same for a class, but for a little noise
            graph = module.with_noise(made, 0.1, np.random.default_rng(10 * i + j))
            graph.save(graph_file(folder, name, domain, part))
    write_json(folder / "manifest.json", {"format": FORMAT, "config": {"n_parts": 2}, "jobs": jobs})
    module.main(module.Config(circuits=folder, results=tmp_path, n_circuits=2))
    found = pd.read_csv(tmp_path / "measures.csv").set_index(["case", "measure"])["value"]
    assert found["fresh images", "node_overlap"] == found["another domain", "node_overlap"] == 1
    assert found["units permuted", "node_overlap"] < 0.2
    assert found["units permuted", "depth_bias"] == 0.5  # permuted units weigh as much
    assert "node_overlap" in capsys.readouterr().out


def test_a_known_share_of_units_is_permuted_and_no_noise_changes_nothing() -> None:
    module, graph = script("validate_measures"), random_graph(0, units=60)
    half = module.permuted_share(graph, 0.5, np.random.default_rng(0))
    for site, scores in graph.node_scores.items():
        assert np.mean(half.node_scores[site] == scores) == 0.5
        assert half.node_scores[site][half.kept_units[site]].tolist() == scores[graph.kept_units[site]].tolist()
    same = module.with_noise(graph, 0.0, np.random.default_rng(0))
    for pair, scores in graph.edge_scores.items():
        assert np.array_equal(same.edge_scores[pair], scores)


def test_a_merge_with_a_base_set_is_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = script("benchmark_mixtures")
    module.main(module.Config(out=tmp_path, images=6 * 345 * 4, base_images=1000))
    printed = capsys.readouterr().out
    listed = sum(
        len((tmp_path / "domainnet-8280" / f"{d}_train.txt").read_text().splitlines()) for d in module.DOMAINNET_ROUND
    )
    assert f"{listed:,} images listed" in printed
    assert "merged with 1,000 into" in printed
    base = pd.read_csv(tmp_path / "mixture.tsv", sep="\t", nrows=1000)
    assert base["filepath"].iloc[-1].endswith("00000/000000999.jpg")


def run_in_place(task: Callable[[int, int], object], workers: int, logs: Path, **options: object) -> None:
    assert (workers, options) == (1, {"cluster": "slurm", "options": {"gpus_per_node": 2}})
    task(0, workers)


def test_a_clip_is_trained_from_a_folder_and_from_a_table(
    quickstart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("circuitry.models.clip.user_cache_path", lambda name: tmp_path / "cache")
    module = script("train_clip")
    monkeypatch.setattr(module, "run_array", run_in_place)
    small = replace(clip_preset("rn-tiny"), epochs=1, batch_size=16, warmup=0)
    folder = module.Config(
        out=tmp_path / "folder", data=quickstart / "run" / "toy", domains=("real",), cluster="slurm",
        job_options=("gpus_per_node=2",), training=small, work=IN_PLACE,
    )  # fmt: skip
    module.main(folder)
    printed = capsys.readouterr().out
    assert "balanced top-1" in printed
    assert f"checkpoint: {tmp_path / 'folder' / 'clip' / 'checkpoints' / 'epoch_1.pt'}" in printed
    given: list[tuple[Path, ClipTraining, Path | None]] = []

    def note(table: Path, out: Path, settings: ClipTraining, work: TrainingWork, validation: Path | None) -> None:
        given.append((table, settings, validation))

    monkeypatch.setattr(module, "train_clip", note)
    monkeypatch.setattr(module, "checkpoints", lambda folder: [(1, folder)])
    asked: list[dict[str, str | int]] = []
    monkeypatch.setattr(module, "run_array", lambda *given, cluster, options: asked.append(options))
    on_two = replace(folder, data=None, table=tmp_path / "x.tsv", work=replace(IN_PLACE, nodes=2))
    module.main(on_two)
    assert asked == [{"gpus_per_node": 2, "nodes": 2, "tasks_per_node": 1}]
    with pytest.raises(InputError, match="A job on 2 machines needs --cluster slurm, but local was given"):
        module.main(replace(on_two, cluster="local"))
    numbers = ["--epochs", "3", "--crop-scale", "0.5", "--device", "cpu"]
    call = ["--out", f"{tmp_path}", "--table", f"{tmp_path / 'x.tsv'}", "--preset", "rn50-cc3m", *numbers]
    monkeypatch.setattr(sys, "argv", ["train_clip.py", *call])
    run_script(module.CommandLine, module.main, "", module.command_line)
    expected = replace(clip_preset("rn50-cc3m"), epochs=3, crop_scale=0.5)
    assert given == [(tmp_path / "x.tsv", expected, None)]
    validation = tmp_path / "x-validation.tsv"
    for there in (False, True):
        if there:
            validation.touch()
        monkeypatch.setattr(sys, "argv", ["train_clip.py", "--study", *call, "--accumulation", "4"])
        run_script(module.CommandLine, module.main, "", module.command_line)
        printed = capsys.readouterr().out
        assert "precision='amp'" in printed
        assert (f"since there is no {validation}" in printed) is not there
        as_the_study = replace(clip_preset("rn50-cc3m", study=True), epochs=3, crop_scale=0.5, accumulation=4)
        assert given[-1] == (tmp_path / "x.tsv", as_the_study, validation if there else None)
    monkeypatch.setattr(sys, "argv", ["train_clip.py", *call[:4], "--device", "cpu", "--study"])
    run_script(module.CommandLine, module.main, "", module.command_line)
    assert given[-1][1] == clip_preset("rn50-imagenet-captions", study=True)
    toy = quickstart / "run" / "toy"
    held = module.Config(out=tmp_path / "held", data=toy, domains=("real",), validation_split="test")
    table = pd.read_csv(module.validation_table(held), sep="\t")
    assert table["filepath"].tolist() == [
        str(r.path) for r in DomainFolder(toy, split="test", domains=("real",)).records
    ]
    with pytest.raises(InputError, match="The lists of --validation-split are those of a folder: give it as --data"):
        module.validation_table(replace(held, data=None))
    for wrong, message in (
        (["--preset", "rn50-cc3"], "no preset 'rn50-cc3' here; perhaps"),
        (["--precision", "fp9"], "one of fp32"),
    ):
        monkeypatch.setattr(sys, "argv", ["train_clip.py", *call, *wrong])
        with pytest.raises(SystemExit, match="2"):
            run_script(module.CommandLine, module.main, "", module.command_line)
        shown = capsys.readouterr()
        assert message in shown.out + shown.err
        assert "Traceback" not in shown.err
    with pytest.raises(InputError, match="Give a folder of images as --data, a table of them as --table, or both"):
        module.main(module.Config(out=tmp_path))


def test_a_supervised_baseline_is_trained(quickstart: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = script("train_supervised")
    toy = quickstart / "run" / "toy"
    small = SupervisedTraining(model="rn-tiny", epochs=1, batch_size=16, milestones=())
    (tmp_path / "imagenet.txt").write_text("n1\nn2\n")
    (tmp_path / "partners.json").write_text('{"fish": [1], "key": null}')
    merged = {"imagenet_classes": tmp_path / "imagenet.txt", "partners": tmp_path / "partners.json"}
    module.main(module.Config(out=tmp_path / "run", data=toy, training=small, work=IN_PLACE, **merged))
    printed = capsys.readouterr().out
    assert "balanced top-1" in printed
    model = load_supervised(tmp_path / "run" / "supervised" / "checkpoints" / "epoch_1.safetensors")
    assert model.classes == ("n1", "n2", *CLASSES)
    assert model.table.labels["n2"] == model.table.labels["fish"] == 3
    unmerged = module.label_table(module.Config(out=tmp_path, data=toy))(["b", "a"])
    assert unmerged.classes == ("a", "b")  # no folder of ImageNet's
    assert module.label_table(module.Config(out=tmp_path, table=tmp_path / "x")) is found_labels
    with pytest.raises(InputError, match="The classes of ImageNet and DomainNet together need DomainNet as --data"):
        module.main(module.Config(out=tmp_path, table=tmp_path / "x", partners=tmp_path / "partners.json"))
    with pytest.raises(InputError, match="Give a folder of images as --data, a table of them as --table, or both"):
        module.main(module.Config(out=tmp_path))


def test_training_is_timed_against_the_trainer_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = script("benchmark_training")
    monkeypatch.setattr(module, "DrawingSettings", partial(DrawingSettings, classes=CLASSES, styles=STYLES))
    monkeypatch.setattr(module, "write_toy", partial(write_toy, workers=1, progress=False))
    table = module.run(module.Config(out=tmp_path, n_train=11, epochs=1, repeats=1, workers=0))
    assert table["trainer"].tolist() == ["by hand", "train_clip"]
    assert (table["images_per_second"] > 0).all()
    assert not (tmp_path / "run").exists()


WITHOUT_TABLES = {"base_sets", "imagenet_sketch"}
"""Figures of runs that none of the committed tables has; tests/training/test_selections.py has their rows."""
WITHOUT_SEED = ("benchmark_edges", "sharing_over_settings")
"""Scripts in which nothing is random, or only the weights of a model that is timed."""
DRAWN = sorted(path for path in FIGURES.glob("*.py") if path.stem not in WITHOUT_TABLES)


@pytest.mark.parametrize("path", DRAWN, ids=lambda path: path.stem)
def test_every_figure_is_drawn_from_committed_tables(path: Path) -> None:
    figure = runpy.run_path(str(path))["figure"]()
    assert len(figure.data) > 0
    assert path.with_suffix(".png").is_file()


@pytest.mark.parametrize("name", sorted(path.stem for path in EXPERIMENTS.glob("*.py")))
def test_help_says_what_a_script_is_for(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.NullHandler()])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(EXPERIMENTS / f"{name}.py"), run_name="__main__")
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    first_line = (EXPERIMENTS / f"{name}.py").read_text().partition("\n")[0].lstrip('"')
    assert first_line[:40] in shown
    assert ("--seed" in shown) == (name not in WITHOUT_SEED)


def test_a_script_refuses_bad_input_in_a_sentence(tmp_path: Path) -> None:
    module = script("compare_circuits")
    with pytest.raises(InputError, match=r"Expected a folder of domains, but .* does not exist"):
        module.main(module.Config(model="rn-tiny", data=tmp_path / "none", out=tmp_path, checkpoint=tmp_path / "x.pt"))


def test_the_example_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (EXPERIMENTS.parent / "README.md").read_text(encoding="utf-8")
    example = text.split("```python\n")[1].split("```")[0]
    assert len([line for line in example.splitlines() if line]) <= 10
    exec(compile(example, "README.md", "exec"), {})
    assert "'layer4.2'" in capsys.readouterr().out
