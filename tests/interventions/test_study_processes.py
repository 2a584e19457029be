"""A causal study by several processes, and by processes that are killed: always the same folder, byte for byte."""

import multiprocessing
import random
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from circuitry import Clip, DomainFolder, extract, left_rule
from circuitry.circuits import AttributionSettings
from tests.interventions import study_process
from tests.support.tiny_clip import Tiny
from tests.support.work import QUIET

CLASSES, DOMAINS, SITES = ("axe", "cat", "fish"), ("real", "sketch"), ("layer3.0", "layer4.0", "attnpool")
Start = Callable[[Path, int, int], BaseProcess]
KILLS = 20


@pytest.fixture(scope="module")
def start(tiny: Tiny, clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Start a process that works on a folder as one of n ranks, forked from a server that has imported everything."""
    folder = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(0)
    for domain in DOMAINS:
        for class_name in CLASSES:
            place = folder / "images" / domain / class_name
            place.mkdir(parents=True)
            for i in range(4):
                Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(place / f"{i}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("circuitry.models.clip.user_cache_path", lambda name: folder / "cache" / "circuitry")
        settings = AttributionSettings(rule=left_rule(1), edge_rule=left_rule(1), sites=SITES)
        extract(clip, DomainFolder(folder / "images"), folder / "graphs", n_images=2, settings=settings, work=QUIET)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.interventions.study_process"])

    def started(out: Path, rank: int = 0, n: int = 1) -> BaseProcess:
        weights = tiny.config.with_suffix(".safetensors")
        process = processes.Process(target=study_process.run, args=(tiny.config, weights, folder, out, (rank, n)))
        process.start()
        return process

    return started


@pytest.fixture(scope="module")
def undisturbed(start: Start, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    """What a process leaves that does everything alone, and the seconds that it takes."""
    out = tmp_path_factory.mktemp("alone")
    finish(start(out / "first", 0, 1))  # which starts the server, and makes the text weights
    began = time.perf_counter()
    finish(start(out / "second", 0, 1))
    seconds = time.perf_counter() - began
    first, second = contents(out / "first"), contents(out / "second")
    assert first == second
    assert len([name for name in first if name.endswith(".safetensors")]) == len(CLASSES) * len(DOMAINS) * 2
    return first, seconds


def finish(process: BaseProcess) -> None:
    process.join(120)
    assert process.exitcode == 0


def contents(path: Path) -> dict[str, bytes]:
    return {str(f.relative_to(path)): f.read_bytes() for f in sorted(path.rglob("*")) if f.is_file()}


def test_two_ranks_leave_the_folder_of_one(
    start: Start, undisturbed: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    ranks = [start(tmp_path, rank, 2) for rank in (0, 1)]
    for process in ranks:
        finish(process)
    assert contents(tmp_path) == undisturbed[0]


def test_kills_at_any_moment_leave_the_same_folder(
    start: Start, undisturbed: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    expected, seconds = undisturbed
    moments = random.Random(0)
    unfinished = 0
    for i in range(KILLS):
        out = tmp_path / str(i % 3)  # so that some runs are killed several times
        process = start(out, 0, 1)
        process.join((i + moments.random()) / KILLS * seconds)
        process.kill()
        process.join()
        unfinished += contents(out) != expected
    assert unfinished >= 3
    for out in sorted(tmp_path.iterdir()):
        finish(start(out, 0, 1))
        assert contents(out) == expected
