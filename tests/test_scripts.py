"""The scripts run from end to end on very little, and a browser draws their reports."""

import csv
import importlib.util
import logging
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from circuitry.data.toy import write_toy
from circuitry.errors import InputError
from circuitry.training.clip import train_clip
from tests.browser import drawn_marks, find_browser, load

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
FIGURES = EXPERIMENTS.parent / "figures"
CLASSES = ("car", "fish", "key", "star")
STYLES = ("clipart", "quickdraw", "real")
needs_browser = pytest.mark.skipif(find_browser() is None, reason="no Chromium or Chrome on this machine")


def script(name: str) -> ModuleType:
    """Load a script as a module, without running it."""
    spec = importlib.util.spec_from_file_location(f"experiments_{name}", EXPERIMENTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def assert_drawn(report: Path, figures: int) -> None:
    page = load(report)
    assert page.console_errors == ()
    assert page.requests == ()
    marks = drawn_marks(page.dom)
    assert len(marks) == figures
    assert all(marks.values()), marks


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished quickstart on four classes in three styles, with a model trained for three steps."""
    out = tmp_path_factory.mktemp("quickstart")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("circuitry.clip.user_cache_path", lambda name: out / "cache")
        module = script("quickstart")
        drawing = {"classes": CLASSES, "styles": STYLES, "workers": 1, "progress": False}
        patch.setattr(module, "write_toy", partial(write_toy, **drawing))  # type: ignore[arg-type]

        def short_training(*args: object, **settings: object) -> Path:
            short = {"batch_size": 16, "warmup": 0, "workers": 0, "progress": False}
            return train_clip(*args, **(settings | short))  # type: ignore[arg-type]

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
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "key were left out of its quickdraw images" in page
    committed = {path.name for path in (quickstart / "results").iterdir()}
    assert {"accuracy.csv", "edge_jaccard_summary.csv", "provenance.json"} <= committed


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
    assert len(circuits(tmp_path / "one")) == 1 + 4 * 3
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
    assert "h on this worker" in printed
    module.main(config)
    assert "3 jobs with 6 images, 2 jobs finished" in capsys.readouterr().out
    assert not (tmp_path / "report.html").exists()


def test_the_chosen_classes_and_domains_are_compared(compared: Path) -> None:
    table = pd.read_csv(compared / "tables" / "edge_jaccard.csv")
    assert table[["class", "domain_a", "domain_b"]].to_numpy().tolist() == [
        ["fish", "clipart", "real"],
        ["star", "clipart", "real"],
    ]
    assert "the circuit that recognises it was found" in (compared / "report.html").read_text(encoding="utf-8")


@needs_browser
def test_a_browser_draws_the_report_of_a_comparison(compared: Path) -> None:
    assert_drawn(compared / "report.html", figures=6)


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
    assert_drawn(out / "report.html", figures=5)
    committed = {path.name for path in (out / "results").iterdir()}
    assert {"faithfulness_absolute.csv", "selectivity_one_site.csv", "rules_against_patching.csv"} <= committed
    rules = pd.read_csv(out / "results" / "rules_against_patching.csv")
    assert set(rules["rule"]) == {"left 10", "midpoint 10", "gradient x activation"}


@needs_browser
def test_transfer_is_checked_and_drawn(quickstart: Path, subject_of_the_quickstart: dict[str, object]) -> None:
    module = script("transfer")
    out = quickstart / "transfer"
    module.main(module.Config(**subject_of_the_quickstart, out=out, results=out / "results"))
    assert_drawn(out / "report.html", figures=3)  # two domains have no rank correlation
    assert len(pd.read_csv(out / "results" / "matrices.csv").query("sites == 'all'")) == 4
    assert not (out / "results" / "transfer.csv").exists()


@needs_browser
@pytest.mark.parametrize("rows", ["class-means", "images"])
def test_representations_are_compared_and_drawn(quickstart: Path, rows: str) -> None:
    module = script("representations")
    run, out = quickstart / "run", quickstart / f"representations-{rows}"
    config = module.Config(
        checkpoint=run / "clip" / "checkpoints" / "epoch_1.pt",
        data=run / "toy",
        sites=("layer3.0", "attnpool"),
        n_images=4,
        rows=rows,
        permutations=20,
        folds=2,
        out=out,
        results=out / "results",
    )
    module.main(config)
    assert_drawn(out / "report.html", figures=4)
    committed = {path.name for path in (out / "results").iterdir()}
    names = ("cka", "cka_over_depth", "cka_ceilings", "probes", "probes_left_out")
    assert committed == {*(f"{name}.csv" for name in names), "provenance.json"}
    for name in ("cka_over_depth", "probes_over_depth"):
        figure = runpy.run_path(str(FIGURES / f"{name}.py"))["figure"](out / "results")
        assert len(figure.data) > 0


def test_the_benchmark_finds_equal_scores() -> None:
    module = script("benchmark_attribution")
    table = module.run(module.Config(models=("rn-tiny",), images=1, units_per_pair=1, sweep_images=2))
    assert table["model"].unique().tolist() == ["rn-tiny"]
    assert table["scores"].tolist() == ["nodes", "edges", "nodes, midpoint-4", "edges, midpoint-3", "patching"]
    assert (table["largest relative difference"].dropna() < 1e-4).all()
    assert table["largest relative difference"].isna().sum() == 2


def test_many_circuits_are_compared_in_one_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = script("benchmark_similarity")
    assert module.UNITS["layer1.0"] == 256
    assert sum(-(-n // 10) for site, n in module.UNITS.items() if site != "input") == 1644
    module.main(module.Config(out=tmp_path, classes=1))
    assert "15 pairs of circuits by 5 measures: " in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted(FIGURES.glob("*.py")), ids=lambda path: path.stem)
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
    assert "--seed" in shown


def test_a_script_refuses_bad_input_in_a_sentence(tmp_path: Path) -> None:
    module = script("compare_circuits")
    with pytest.raises(InputError, match="there is no folder"):
        module.main(module.Config(model="rn-tiny", data=tmp_path / "none", out=tmp_path, checkpoint=tmp_path / "x.pt"))


def test_the_example_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (EXPERIMENTS.parent / "README.md").read_text(encoding="utf-8")
    example = text.split("```python\n")[1].split("```")[0]
    assert len([line for line in example.splitlines() if line]) <= 10
    exec(compile(example, "README.md", "exec"), {})
    assert "'layer4.2'" in capsys.readouterr().out
