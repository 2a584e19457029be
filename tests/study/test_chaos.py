"""Trials of `experiments/chaos.py` find faults that are put into the package, and nothing without one."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pandas as pd
from safetensors.torch import save_file

from circuitry import AttributionGraph, Circuit, GraphFolder
from circuitry.circuits.graph_folder import LESIONS
from circuitry.comparison.table import write_named_table
from circuitry.data import ImageRecord
from circuitry.models.open_clip_models import register_model
from circuitry.runs import JobFolder, whole_file
from experiments import chaos
from experiments.drawn import write_toy
from tests.circuits.test_graph import MADE, small_graph

GRAPH, TABLE = "circuits/graphs/fish/real.part-0.safetensors", "tables/node_overlap.csv"
COMMAND = (
    "compare --model {root}/tiny.json --checkpoint {root}/tiny.safetensors --data {root}/toy --classes fish --domains "
    "real sketch --n-images 2 --rule left-1 --parts 2 --units channels --shares --n-unseen 0 --no-accuracy"
)


def test_trials_find_faults(tmp_path: Path) -> None:
    code = "import sys, pathlib, tests.study.test_chaos as test; test.try_faults(pathlib.Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found = json.loads(
        done.stdout.splitlines()[-1]
    )  # by a process without threads, since its forks would miss them
    wrong = {fault: ["WRONG"] for fault in ("checksums", "tables", "noise")}
    assert found == {"none": ["equal"], "in place": ["torn"], **wrong}


def put(function: Callable[..., Any], other: Callable[..., Any]) -> None:
    """Put another function in the place of one, wherever the package has it."""
    for module in [
        module for name, module in sys.modules.items() if name.startswith("circuitry")
    ]:
        vars(module).update(
            {name: other for name, value in vars(module).items() if value is function}
        )


@contextmanager
def in_place(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    yield path
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def try_faults(root: Path) -> None:
    """Print how trials end by the fault, in forks of this process; faults stay."""
    chaos.preload()
    chaos.COMMANDS, chaos.ELSEWHERE = {"sound": COMMAND, "noisy": COMMAND}, {}
    write_toy(root / "toy", chaos.DRAWN, workers=1, progress=False)
    (config := root / "tiny.json").write_text(chaos.MODEL)
    if not (made := os.fork()):  # torch's threads are not to begin in this process
        save_file(
            open_clip.create_model(register_model(config)).state_dict(),
            root / "tiny.safetensors",
        )
        os._exit(0)
    os.waitpid(made, 0)
    trials = chaos.Trials(root, "sound", 1)
    found = {
        "none": [*trials.undisturbed(), trials.kill(5), trials.damage(TABLE, "torn")]
    }
    found["none"].append(trials.damage(GRAPH, "removed"))
    JobFolder._damage = lambda self, job: None if self._record(job).is_file() else ""  # type: ignore[method-assign]
    found["checksums"] = [trials.damage(GRAPH, "removed")]
    put(
        write_named_table,
        lambda path, *rest: path.exists() or write_named_table(path, *rest),
    )
    found["tables"] = [trials.damage(TABLE, "torn")]
    put(whole_file, in_place)
    found["in place"] = [trials.kill(5)]
    save = AttributionGraph.save

    def save_noise(graph: AttributionGraph, path: Any) -> None:
        noise = np.random.default_rng().normal
        scores = {
            site: (one + noise(0, np.std(one), len(one))).astype("f")
            for site, one in graph.node_scores.items()
        }
        save(replace(graph, node_scores=scores), path)

    AttributionGraph.save, chaos.ELSEWHERE = save_noise, {"before": {}}  # type: ignore[method-assign,assignment]
    found["noise"] = chaos.Trials(root, "noisy", 1).undisturbed()[1:]
    print(
        json.dumps(
            {fault: sorted({row[3] for row in rows}) for fault, rows in found.items()}
        )
    )


def test_readers_give_what_they_gave_before_a_table_was_edited(tmp_path: Path) -> None:
    """And a table without a record, as folders of before have it, is seen to be read as another one."""
    key, source = ("cat", "photo"), small_graph(kept_units={}, edge_scores={})
    images = {key: [ImageRecord(tmp_path / "0.png", "photo/cat/0.png", "photo", "cat")]}
    circuits = GraphFolder.write(
        tmp_path / "x", {key: Circuit(source, {"conv": np.array([1])})}, MADE, images
    )
    circuits.write_lesions(pd.DataFrame({"class": ["cat"], "right": [0.25]}))
    whole = chaos.readings(tmp_path)
    assert {name.removeprefix(f"{tmp_path}/x ") for name in whole} >= {
        "lesions",
        f"{key} all",
    }
    (table := tmp_path / "x" / LESIONS).write_text("class,right\ncat,0.75\n")
    read = chaos.readings(tmp_path)
    assert read == {
        name: value for name, value in whole.items() if "lesions" not in name
    }
    shutil.rmtree(tmp_path / "x" / "checksums")
    assert (
        chaos.readings(tmp_path)[f"{tmp_path}/x lesions"]
        != whole[f"{tmp_path}/x lesions"]
    )
    assert table.is_file()
