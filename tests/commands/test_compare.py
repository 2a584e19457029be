"""Circuits are compared by one process and by several, and a browser draws the report."""

import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from circuitry import DomainFolder, GraphFolder
from circuitry.circuits import parse_rule
from circuitry.commands import run_command
from circuitry.interventions.intervention_settings import CheckSettings
from circuitry.questions import CheckImages
from circuitry.runs import InputError, Work
from tests.support.scripts import assert_drawn, command_module, needs_browser

TRAINED = Path("clip") / "checkpoints" / "epoch_1.pt"


def config_of(quickstart: Path, out: Path, **asked: object) -> Any:
    given = {
        "rule": parse_rule("left-1"),
        "edge_rule": parse_rule("left-2"),
        "progress": False,
    }
    subject = {
        "model": "rn-tiny",
        "data": quickstart / "run" / "toy",
        "checkpoint": quickstart / "run" / TRAINED,
    }
    return command_module("compare").Config(out=out, **(subject | given | asked))


def find_circuits(config: Any) -> None:
    """Find the circuits of a comparison, which then is not gone on with."""
    command_module("compare").analysis_of(config, Work()).circuits()


@pytest.fixture(scope="module")
def compared(quickstart: Path) -> Path:
    out = quickstart / "compared"
    few = {
        "classes": ("star", "fish"),
        "domains": ("real", "clipart"),
        "n_images": 2,
        "least_accuracy": 0.0,
    }
    rules = {"rule": parse_rule("left-2"), "edge_rule": parse_rule("midpoint-1")}
    command_module("compare").main(config_of(quickstart, out, **few, **rules))
    return out


def printed_by(command: list[str]) -> str:
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def contents(out: Path) -> dict[str, bytes]:
    """Return everything in a folder of results, without the dates of its pages and how the work was shared out."""
    left_out = ("jobs", "index.html", "settings.toml")
    files = [
        path
        for path in out.rglob("*")
        if path.is_file() and path.relative_to(out).parts[0] not in left_out
    ]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def test_torchrun_and_an_array_of_jobs_leave_the_folder_of_one_process(
    quickstart: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hidden = (
        tmp_path / "hidden"
    )  # from the processes: a browser takes seconds for the PNG figures of a report
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import sys\nsys.modules['kaleido'] = None\n"
    )
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(hidden), os.environ.get("PYTHONPATH", "")])
    )
    line = (
        f"compare --model rn-tiny --checkpoint {quickstart / 'run' / TRAINED} --data {quickstart / 'run' / 'toy'} "
        "--classes star fish --domains real clipart --n-images 2 --rule left-2 --edge-rule midpoint-1 --no-accuracy "
        "--shares --n-unseen 0"  # own parts and tests are shared out in the same way
    )
    folders = {name: tmp_path / name for name in ("one", "torchrun", "array")}
    where = {
        name: ["--out", str(out), "--results", str(out / "results")]
        for name, out in folders.items()
    }
    command = line.split()
    monkeypatch.setattr(sys, "argv", ["circuitry", *command, *where["one"]])
    run_command()
    launcher = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "circuitry",
    ]
    in_jobs = ["--cluster", "local", "--jobs", "2", "--job-options", "timeout_min=5"]
    for printed in (
        capsys.readouterr().out,
        printed_by([*launcher, *command, *where["torchrun"]]),
        printed_by(["-m", "circuitry", *command, *in_jobs, *where["array"]]),
    ):
        assert printed.count("report: ") == 1
    one, torchrun, array = map(contents, folders.values())
    # The manifest, the lists of images and of the baseline's; of each job the checksum, all, edges and two folds.
    assert sum(name.startswith("circuits/") for name in one) == 3 + 4 * (1 + 4)
    assert {
        "report.html",
        "results/edge_jaccard.csv",
        "results/provenance.json",
    } <= set(one)
    assert torchrun == one
    named = {"report.html", "results/provenance.json", "tables/provenance.json"}
    assert {
        name for name in one if array[name] != one[name]
    } == named  # which name the command, another one
    assert set(array) == set(one)
    logs = "".join(
        path.read_text() for path in (tmp_path / "array" / "jobs").glob("*.err")
    )
    assert "Traceback" not in logs


def test_a_plan_writes_nothing_and_counts_what_is_left(
    quickstart: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = command_module("compare")
    few = {"classes": ("star", "fish", "key"), "domains": ("real",), "n_images": 2}
    config = config_of(quickstart, tmp_path / "out", dry_run=True, **few)
    plan = module.plan(config)
    assert not config.out.exists()
    jobs = {step.name: step.jobs for step in plan.steps}
    assert jobs["circuits"] == jobs["curves"] == jobs["own parts"] == 3
    find_circuits(config)
    left = {step.name for step in module.plan(config).steps}
    assert "circuits" not in left
    assert "curves" in left
    whole = {"n_images": 50, "leave_unseen": False, "classes": ("star",)}
    module.plan(replace(config, out=tmp_path / "all", **whole))
    printed = capsys.readouterr().out
    assert "1 of 1 circuits cannot be tested" in printed
    assert "star in real" in printed


def test_circuits_of_one_domain_are_reported_without_a_comparison(
    quickstart: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = command_module("compare")
    asked = {
        "metric": "margin",
        "texts": ("a {}.",),
        "baseline": "counterfactual",
        "units": "channels",
    }
    asked |= {"sites": ("layer3.0", "attnpool")}
    config = config_of(
        quickstart, tmp_path, classes=("star",), domains=("real",), n_images=1, **asked
    )
    with pytest.raises(InputError, match="'counterfactual' of star in real"):
        module.main(config)
    written = module.main(replace(config, baseline="mean-unit"))
    printed = capsys.readouterr().out
    assert (
        "Nothing was compared: that takes a class with circuits in at least two domains"
        in printed
    )
    first, *_, last = written.claims
    assert first.startswith("Does the model know")
    assert "parts of their own? Cannot be told: none was found." in last
    assert "Nothing was compared" in (tmp_path / "report.html").read_text(
        encoding="utf-8"
    )
    assert (tmp_path / "tables" / "accuracy.csv").is_file()
    ((key, graph),) = GraphFolder(tmp_path / "circuits").items()
    assert (key, graph.sites) == (("star", "real"), ("layer3.0", "attnpool"))
    assert [graph.settings[name] for name in ("metric", "texts", "baseline")] == [
        "margin",
        ["a {}."],
        "mean-unit",
    ]


def test_circuits_of_features_of_a_released_autoencoder(
    compared: Path, quickstart: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    w_enc, w_dec = torch.randn(384, 40) / 20, torch.randn(40, 384) / 6
    weights = {
        "encoder.weight": w_enc.T,
        "encoder.bias": torch.zeros(40),
        "decoder.weight": w_dec.T,
    }
    (tmp_path / "sae").mkdir()
    (tmp_path / "sae" / "config.json").write_text(
        '{"trainer": {"dict_class": "AutoEncoder"}}'
    )
    torch.save(
        weights | {"bias": torch.zeros(384)}, tmp_path / "sae" / "ae.pt"
    )  # dictionary_learning's layout
    one = {
        "classes": ("star",),
        "domains": ("real",),
        "n_images": 1,
        "sae": (f"layer4.0={tmp_path / 'sae'}",),
    }
    find_circuits(config_of(quickstart, tmp_path / "out", **one))
    (graph,) = GraphFolder(tmp_path / "out" / "circuits").values()
    assert {site: len(scores) for site, scores in graph.error_scores.items()} == {
        "layer4.0": 384
    }
    assert len(graph.node_scores["layer4.0"]) == 40
    assert (
        graph.settings["basis"]
        != GraphFolder(compared / "circuits")["star", "real"].settings["basis"]
        == {}
    )


def test_circuits_of_the_study_are_found_on_its_draw(
    quickstart: Path, tmp_path: Path
) -> None:
    data, drawn = (
        quickstart / "run" / "toy",
        {"n_images": 2, "seed": 42, "choice": "shuffled", "held_out": ("Fish",)},
    )
    one = {"classes": ("star",), "domains": ("real",)}
    find_circuits(config_of(quickstart, tmp_path / "out", **one, **drawn))
    graphs = GraphFolder(tmp_path / "out" / "circuits")
    stream = random.Random(42)
    for domain, name in (
        ("real", "fish"),
        ("real", "car"),
        ("real", "key"),
        ("real", "star"),
    ):  # held-out ones first
        shuffled = list(DomainFolder(data).ranked(name, domain, 0))
        shuffled.sort(
            key=lambda record: record.relative
        )  # as the lists of the toy have them
        stream.shuffle(shuffled)
    names = [record.relative for record in shuffled]
    assert list(graphs["star", "real"].provenance["images"]) == names[:2]
    # Causal checks draw by name, and still take none of these as unseen.
    checked = CheckImages(
        DomainFolder(data), graphs, CheckSettings(n_images=9, n_others=0)
    )
    assert {record.relative for record in checked.own(("star", "real"))} == set(
        names[2:]
    )
    assert {record.relative for record in checked.found_on(("star", "real"))} == set(
        names[:2]
    )


@needs_browser
def test_the_chosen_classes_and_domains_are_compared(compared: Path) -> None:
    keys = pd.read_csv(compared / "tables" / "edge_jaccard.csv")[
        ["class", "domain_a", "domain_b"]
    ]
    assert keys.to_numpy().tolist() == [
        [name, "clipart", "real"] for name in ("fish", "star")
    ]
    assert_drawn(compared / "report.html")
