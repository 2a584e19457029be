"""The folder of an extraction: resumed, refused, damaged, shared by processes, killed."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from circuitry import (
    AttributionGraph,
    Clip,
    GraphFolder,
    InputError,
    left_rule,
    load_clip,
)
from circuitry.circuits import attribute_parts
from circuitry.models import Baseline
from circuitry.runs import JobFolder, Rank, Work, file_lock
from tests.support.extraction import QUIET, SETTINGS, assert_close, planned, run
from tests.support.tiny_clip import Tiny, saved

pytestmark = pytest.mark.filterwarnings("ignore:Skipped an image")


def test_a_second_run_computes_nothing(clip: Clip, root: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("circuitry.circuits.extraction.attribute_parts", fail)
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*") if path.is_file()}
    assert len(run(clip, root, made)) == 5
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*") if path.is_file()} == before


def test_an_interrupted_run_goes_on(clip: Clip, root: Path, made: Path, tmp_path: Path) -> None:
    done: list[int] = []

    def interrupted(*args: object, **kwargs: object) -> object:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return attribute_parts(*args, **kwargs)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("circuitry.circuits.extraction.attribute_parts", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(clip, root, tmp_path / "x")
    assert len(GraphFolder(tmp_path / "x")) == 2
    finished = run(clip, root, tmp_path / "x")
    assert set(finished) == set(GraphFolder(made))
    for key, graph in GraphFolder(made).items():
        assert_close(finished[key], graph)


def test_a_graph_is_there_only_once_its_parts_are(
    clip: Clip, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    save = AttributionGraph.save

    def spy(graph: AttributionGraph, path: Path) -> None:
        written.append(path.name)
        save(graph, path)

    monkeypatch.setattr(AttributionGraph, "save", spy)
    run(clip, root, tmp_path / "x", classes=["axe"], domains=["real"])
    assert written[-1] == "real.all.safetensors"
    assert len(written) == 4  # three images, so three parts


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_images": 2}, "n_images: 50 -> 2; images: 4 gone, first "),
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"classes": ["axe"]}, "images: 7 gone, first real/cat/"),
        ({"texts": ["the {}."]}, r"templates: 'the \{\}.' is new, 'a \{\}.' is gone; texts: "),
        ({"n_parts": 2}, r"n_parts: 4 -> 2\)"),
        ({"items": lambda record: record.path.stem}, r"items: others "),
        ({"metric": "margin"}, r"metric: 'logit' -> 'margin'\)"),
        ({"settings": replace(SETTINGS, node_fraction=0.2)}, r"node_fraction: 0.1 -> 0.2\)"),
        (
            {"settings": replace(SETTINGS, rule=left_rule(3))},
            "edge_rule: 'left-2' -> 'left-3'; node_rule: 'left-2' -> 'left-3'",
        ),
        ({"settings": replace(SETTINGS, sites=("act1", "attnpool"))}, "sites: "),
        (
            {"settings": replace(SETTINGS, baseline=Baseline("zero", {"act1": torch.ones(1, 4, 32, 32)}))},
            "baseline_digest: .* -> ",
        ),
        (
            {"settings": replace(SETTINGS, baseline="counterfactual")},
            "baseline: 'zero' -> 'counterfactual'; baseline_digest: ",
        ),
    ],
)
def test_another_configuration_is_refused_with_the_difference(
    change: dict[str, object], words: str, clip: Clip, root: Path, made: Path
) -> None:
    before = (made / "manifest.json").read_bytes()
    with pytest.raises(InputError, match=rf"graphs was made with another configuration \({words}"):
        run(clip, root, made, **change)
    assert (made / "manifest.json").read_bytes() == before


def test_another_model_is_refused(tiny: Tiny, root: Path, made: Path, tmp_path: Path) -> None:
    other = load_clip(tiny.config, saved(tiny.state | {"logit_scale": torch.tensor(1.0)}, tmp_path / "x.pt"))
    with pytest.raises(InputError, match=r"\(model_digest: .* -> .*\): choose another folder, or remove this one"):
        run(other, root, made)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("replace", r"\(images: 1 replaced, first real/axe/0.png\)"),
        ("repair", r"\(images: 1 replaced, first sketch/cat/1.png\)"),
        ("add", r"\(images: 1 new, first real/axe/9.png\)"),
        ("remove", r"\(images: 1 gone, first real/axe/0.png\)"),
    ],
)
def test_other_images_are_noticed(change: str, words: str, clip: Clip, root: Path, made: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "images")
    shutil.copytree(made, tmp_path / "graphs")
    assert len(run(clip, tmp_path / "images", tmp_path / "graphs")) == 5  # the same images in another place
    image = tmp_path / "images" / {"repair": "sketch/cat/1.png", "add": "real/axe/9.png"}.get(change, "real/axe/0.png")
    if change == "remove":
        image.unlink()
    else:
        shutil.copy(root / "sketch" / "axe" / "2.png", image)
    with pytest.raises(InputError, match=words):
        run(clip, tmp_path / "images", tmp_path / "graphs")


def test_other_images_of_a_baseline_are_noticed(clip: Clip, root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "images")
    settings = replace(SETTINGS, baseline="other-domains")
    some = {"classes": ["axe"], "domains": ["real"], "settings": settings}
    run(clip, tmp_path / "images", tmp_path / "graphs", **some)
    shutil.copy(root / "real" / "axe" / "2.png", tmp_path / "images" / "sketch" / "axe" / "0.png")
    with pytest.raises(InputError, match=r"\(baseline_images: 1 replaced, first sketch/axe/0.png\)"):
        run(clip, tmp_path / "images", tmp_path / "graphs", **some)


def test_a_hook_on_the_encoder_is_another_configuration(clip: Clip, root: Path, made: Path) -> None:
    with (
        clip.encoder.hooks(fwd_hooks=[("act1", lambda activation, hook: 0 * activation)]),
        pytest.raises(InputError, match=r"\(hooked_sites: None -> \['act1'\]\)"),
    ):
        run(clip, root, made)


def test_what_only_changes_the_speed_is_not_compared(clip: Clip, root: Path, made: Path) -> None:
    assert len(run(clip, root, made, settings=replace(SETTINGS, batch_size=1), work=Work(memory_gib=0.5))) == 5


def test_no_images_at_all_cannot_be_asked_for(clip: Clip, root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one image, but n_images=0 was given"):
        run(clip, root, tmp_path / "x", n_images=0)
    with pytest.raises(InputError, match="There is no class 'dog' here"):
        run(clip, root, tmp_path / "x", classes=["dog"])
    with pytest.raises(InputError, match=r"list of domains, but the string 'real' was given: write \['real'\]"):
        run(clip, root, tmp_path / "x", domains="real")
    with pytest.raises(InputError, match=r"logit, margin, or a function of the text weights .* 'lead' was given"):
        run(clip, root, tmp_path / "x", metric="lead")
    assert not (tmp_path / "x").exists()


WRONG_TYPES = """
import sys
from circuitry import DomainFolder, InputError, extract
for clip, images in ((None, DomainFolder(sys.argv[1])), ("RN50", sys.argv[1])):
    try:
        extract(clip, images, "x")
    except InputError as error:
        print(error)
from circuitry.circuits.extraction import Extraction
from circuitry.models.clip import Clip
try:
    Extraction(Clip("x", *[None] * 4), sys.argv[1], "x")
except InputError as error:
    print(error)
"""


def test_wrong_types_are_a_sentence(root: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WRONG_TYPES, str(root)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "Expected a Clip as clip, but NoneType was given: make one with load_clip(name, ...).",
        "Expected a Clip as clip, but str was given: make one with load_clip(name, ...).",
        "Expected a DomainFolder as images, but str was given: make one with DomainFolder(path).",
    ]


# Folders


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no folder of graphs \(it has no manifest.json\): make one with extract"):
        GraphFolder(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"format": "circuitry extraction 0", "jobs": []}))
    with pytest.raises(
        InputError,
        match=r"has format 'circuitry extraction 0', but this version reads '.* 3': run what made it again, into",
    ):
        GraphFolder(tmp_path)


def test_the_folder_above_the_right_one_names_it(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "run" / "circuits")
    with pytest.raises(InputError, match=r"run has no manifest.json, but .*run/circuits has: give that folder"):
        GraphFolder(tmp_path / "run")
    with pytest.raises(InputError, match=r"There is no folder of graphs at .*none: make one with extract"):
        GraphFolder(tmp_path / "none")


def test_a_finished_folder_is_opened_on_a_disk_that_can_only_be_read(
    clip: Clip, root: Path, made: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    shutil.copytree(made, tmp_path / "graphs")
    mounted = subprocess.run(["mount", "--bind", str(tmp_path / "graphs"), str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting needs root")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(disk)], check=True)
        with pytest.raises(OSError, match="Read-only"):
            (disk / "x").touch()
        assert len(run(clip, root, disk)) == 5
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_damaged_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(InputError, match=r"manifest\.json"):
        GraphFolder(tmp_path)


def test_a_damaged_graph_says_so_when_it_is_read(clip: Clip, root: Path, tmp_path: Path) -> None:
    graphs = run(clip, root, tmp_path / "x", classes=["axe"], domains=["real"])
    graphs.file("axe", "real").write_bytes(b"")
    with pytest.raises(InputError, match=r"real.all.safetensors is not a readable attribution graph"):
        graphs["axe", "real"]


@pytest.mark.parametrize("damage", ["cut", "flipped"])
@pytest.mark.parametrize("part", ["all", "part-1"])
def test_a_damaged_file_is_found_and_made_again(
    damage: str, part: str, clip: Clip, root: Path, made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(made, tmp_path / "x")
    path = GraphFolder(tmp_path / "x").path / "graphs" / "axe" / f"real.{part}.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] if damage == "cut" else whole[:-9] + bytes([whole[-9] ^ 4]) + whole[-8:])
    run(clip, root, tmp_path / "x")
    assert path.read_bytes() == whole
    assert "axe in real is made again: " in caplog.text


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_workers_share_the_jobs_and_leave_one_folder(tiny: Tiny, root: Path, made: Path, tmp_path: Path) -> None:
    plans = [planned(tiny.load(), root, tmp_path / "x") for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:  # a lock is held by an open file, so threads stand for processes
        waiting = [pool.submit(plan.run, Work(Rank(i, 3), progress=False)) for i, plan in enumerate(plans)]
        times = [one.result() for one in waiting]
    assert sorted(key for seconds in times for key in seconds) == sorted(GraphFolder(made))
    assert contents(tmp_path / "x") == contents(made)
    with pytest.raises(InputError, match="Workers are numbered 0 to 2, but this one is number 3"):
        plans[0].run(Work(Rank(3, 3)))


def test_a_worker_waits_for_another_and_takes_over_what_it_left(clip: Clip, root: Path, tmp_path: Path) -> None:
    plan = planned(clip, root, tmp_path / "x", classes=["axe"], domains=["real"])
    with ThreadPoolExecutor(1) as pool:
        with file_lock(tmp_path / "x", JobFolder._name(("axe", "real"))):
            waiting = pool.submit(plan.run, QUIET)
            time.sleep(0.3)
            assert not waiting.done()
            assert not (plan.out / "graphs" / "axe" / "real.all.safetensors").exists()
        assert list(waiting.result()) == [("axe", "real")]
    assert list(GraphFolder(plan.out)) == [("axe", "real")]
    assert not (tmp_path / "x" / ".locks").exists()


def test_some_jobs_are_done_to_see_how_long_they_take(clip: Clip, root: Path, tmp_path: Path) -> None:
    plan = planned(clip, root, tmp_path / "x")
    assert len(plan.folder.unfinished()) == 5
    seconds = plan.run(QUIET, most=2)
    assert len(seconds) == 2
    assert min(seconds.values()) > 0
    assert len(plan.folder.unfinished()) == 3


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
from circuitry import DomainFolder, load_clip, left_rule
from circuitry.circuits.settings import AttributionSettings
from circuitry.circuits.extraction import Extraction
from circuitry.circuits.graph import AttributionGraph
from circuitry.runs.workers import Work

config, weights, root, out, seed = sys.argv[1:]
clip = load_clip(config, weights)
clip.text_weights(DomainFolder(root).all_classes, ["a {}."], cache_dir=out + "-cache")
import circuitry.models.clip
circuitry.models.clip.user_cache_path = lambda name: Path(out + "-cache")
settings = AttributionSettings(node_fraction=0.1, rule=left_rule(2))

def start(dies):
    child = os.fork()
    if child == 0:
        save = AttributionGraph.save

        def saved(graph, path):
            save(graph, path)
            if dies:  # by a signal that nothing handles, so at any later step and without a last word
                signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.02))
                time.sleep(0.01)

        AttributionGraph.save = saved
        jobs = Extraction(clip, DomainFolder(root), Path(out), settings=settings, texts=["a {}."])
        jobs.run(Work(progress=False))
        os._exit(0)
    return os.waitpid(child, 0)[1]

killed = 0
for i in range(10):  # each after one or two more graphs, so that the deaths lie all over the work
    random.seed(int(seed) + i)
    status = start(dies=True)
    if status == 0:
        break  # it ended
    assert status == signal.SIGALRM, status
    killed += 1
assert start(dies=False) == 0
print("killed", killed)
"""


def test_killed_ten_times_it_ends_the_same(tiny: Tiny, root: Path, made: Path, tmp_path: Path) -> None:
    weights = tiny.config.with_suffix(".safetensors")
    save_file(tiny.state, weights)
    arguments = [str(tiny.config), str(weights), str(root), str(tmp_path / "x"), "0"]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # torch's own setting makes a pool that no fork survives
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True, check=False, env=one_thread
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) >= 5
    assert contents(tmp_path / "x") == contents(made)


def test_a_full_disk_leaves_no_half_file(clip: Clip, root: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        with pytest.raises(OSError, match="No space left") as caught:
            run(clip, root, small / "x")
        assert caught.value.errno == errno.ENOSPC
        for path in (small / "x" / "graphs").rglob("*"):
            if path.is_file() and ".edges." not in path.name:
                AttributionGraph.load(path)
        assert not [path for path in small.rglob(".*") if path.is_file()]
    finally:
        subprocess.run(["umount", str(small)], check=True)
