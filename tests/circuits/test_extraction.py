"""A folder of graphs from a tiny model and generated images."""

import errno
import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from circuitry import (
    AttributionGraph,
    Clip,
    DomainFolder,
    GraphFolder,
    InputError,
    attribute,
    class_logit,
    compare,
    extract,
    left_rule,
    load_clip,
)
from circuitry.circuits.attribution import AttributionSettings, attribute_halves
from circuitry.circuits.extraction import Extraction, plan_extraction
from circuitry.models.baselines import Baseline
from circuitry.runs.files import file_lock
from tests.support.tiny_clip import Tiny, saved

SETTINGS = AttributionSettings(node_fraction=0.1, rule=left_rule(2))
TEMPLATES = ["a {}."]
COUNTS = {("real", "axe"): 3, ("real", "cat"): 2, ("real", "fish"): 1, ("sketch", "axe"): 3, ("sketch", "cat"): 4}
"""Images of class in domain; there is no sketch of a fish, and one sketch of a cat is cut short."""

CUT = 2000
"""Bytes that are left of the broken image; no other has as many."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text weights are not left in the user's cache."""
    monkeypatch.setattr("circuitry.models.clip.user_cache_path", lambda name: tmp_path / "cache")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for (domain, class_name), count in COUNTS.items():
        (folder / domain / class_name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, size=(64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / domain / class_name / f"{i}.png")
    broken = folder / "sketch" / "cat" / "1.png"
    broken.write_bytes(broken.read_bytes()[:CUT])
    return folder


@pytest.fixture(scope="module")
def made(clip: Clip, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished extraction, for tests that only read."""
    out = tmp_path_factory.mktemp("made") / "graphs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("circuitry.models.clip.user_cache_path", lambda name: out.parent / "cache")
        run(clip, root, out)
    return out


def run(clip: Clip, root: Path, out: Path, **changes: object) -> GraphFolder:
    arguments: dict[str, object] = {"settings": SETTINGS, "templates": TEMPLATES, "progress": False}
    return extract(clip, DomainFolder(root), out, **(arguments | changes))  # type: ignore[arg-type]


def tensors(clip: Clip, root: Path, class_name: str, domain: str, n: int = 50, seed: int = 0) -> Tensor:
    paths = [record.path for record in DomainFolder(root).select(class_name, domain, n, seed)]
    return torch.stack([clip.preprocess(Image.open(path)) for path in paths if path.stat().st_size != CUT])


def assert_close(a: AttributionGraph, b: AttributionGraph) -> None:
    assert (a.sites, a.n_images) == (b.sites, b.n_images)
    for arrays in ("node_scores", "kept_units", "edge_scores"):
        for key, value in getattr(b, arrays).items():
            np.testing.assert_allclose(getattr(a, arrays)[key], value, rtol=1e-3, atol=1e-7, err_msg=str(key))


def test_every_combination_that_has_images_becomes_a_graph(clip: Clip, root: Path, made: Path) -> None:
    graphs = GraphFolder(made)
    assert set(graphs) == {(class_name, domain) for domain, class_name in COUNTS}
    assert len(graphs) == 5
    graph = graphs["cat", "sketch"]
    assert (graph.class_name, graph.domain, graph.n_images) == ("cat", "sketch", 3)
    assert graph.sites == clip.encoder.sites
    assert graph.settings.items() >= SETTINGS.as_dict().items()
    assert graph.provenance["model_digest"] == clip.digest
    assert graph.provenance["seed"] == 0
    assert ("fish", "sketch") not in graphs
    with pytest.raises(KeyError):
        graphs["fish", "sketch"]


@pytest.mark.parametrize(("class_name", "domain"), [("axe", "real"), ("cat", "sketch"), ("fish", "real")])
def test_a_graph_is_what_attribute_says_of_the_same_images(
    class_name: str, domain: str, clip: Clip, root: Path, made: Path, tmp_path: Path
) -> None:
    weights = clip.text_weights(["axe", "cat", "fish"], TEMPLATES, cache_dir=tmp_path)
    metric = class_logit(weights, ["axe", "cat", "fish"].index(class_name))
    images = tensors(clip, root, class_name, domain)
    rule = left_rule(2)
    assert_close(
        GraphFolder(made)[class_name, domain], attribute(clip.encoder, images, metric, rule=rule, progress=False)
    )
    halves = {(a.class_name, a.domain): (a, b) for a, b in GraphFolder(made).halves()}
    assert set(halves) == {(c, d) for d, c in COUNTS if c != "fish"}  # one image has no halves
    for i, half in enumerate(halves.get((class_name, domain), ())):
        assert_close(half, attribute(clip.encoder, images[i::2], metric, rule=rule, progress=False))


def test_a_combination_without_images_is_absent_from_tables(made: Path) -> None:
    table = compare(GraphFolder(made))
    assert table[["class", "domain_a", "domain_b"]].to_numpy().tolist() == [
        ["axe", "real", "sketch"],
        ["cat", "real", "sketch"],
    ]


def test_a_part_of_the_classes_keeps_their_labels(clip: Clip, root: Path, made: Path, tmp_path: Path) -> None:
    chosen_late = run(clip, root, tmp_path / "late", classes=["cat"], domains=["real"])
    images = DomainFolder(root, classes=["cat"], domains=["real"])
    chosen_early = extract(clip, images, tmp_path / "x", settings=SETTINGS, templates=TEMPLATES, progress=False)
    for graphs in (chosen_late, chosen_early):
        assert list(graphs) == [("cat", "real")]
        assert_close(graphs["cat", "real"], GraphFolder(made)["cat", "real"])


def test_fewer_images_are_chosen_by_the_seed(clip: Clip, root: Path, tmp_path: Path) -> None:
    first, second = (
        run(clip, root, tmp_path / str(seed), classes=["axe"], domains=["real"], n_images=1, seed=seed)["axe", "real"]
        for seed in (0, 2)
    )
    assert first.n_images == second.n_images == 1
    same = torch.equal(tensors(clip, root, "axe", "real", 1, 0), tensors(clip, root, "axe", "real", 1, 2))
    assert not same
    assert not np.allclose(first.node_scores["input"], second.node_scores["input"])


def test_what_is_left_out_is_said(clip: Clip, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(clip, root, tmp_path / "x", classes=["cat", "fish"], domains=["sketch"])
    lines = [r.getMessage() for r in caplog.records if r.name == "circuitry.circuits.extraction"]
    assert lines[0] == "fish in sketch: no images, so no circuit"
    assert lines[1].startswith("cat in sketch: 1 images left out, first: cannot read ")
    assert "1.png" in lines[1]
    assert len(lines) == 2


def test_strict_stops_at_the_first_unreadable_image(clip: Clip, root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*1\.png"):
        run(clip, root, tmp_path / "x", classes=["cat"], strict=True)


# Going on


def test_a_second_run_computes_nothing(clip: Clip, root: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("circuitry.circuits.extraction.attribute_halves", fail)
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*") if path.is_file()}
    assert len(run(clip, root, made)) == 5
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*") if path.is_file()} == before


def test_an_interrupted_run_goes_on(clip: Clip, root: Path, made: Path, tmp_path: Path) -> None:
    done: list[int] = []

    def interrupted(*args: object, **kwargs: object) -> object:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return attribute_halves(*args, **kwargs)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("circuitry.circuits.extraction.attribute_halves", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(clip, root, tmp_path / "x")
    assert len(GraphFolder(tmp_path / "x")) == 2
    finished = run(clip, root, tmp_path / "x")
    assert set(finished) == set(GraphFolder(made))
    for key, graph in GraphFolder(made).items():
        assert_close(finished[key], graph)


def test_a_graph_is_there_only_once_its_halves_are(
    clip: Clip, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    save = AttributionGraph.save

    def spy(graph: AttributionGraph, path: Path) -> None:
        written.append(path.name)
        save(graph, path)

    monkeypatch.setattr(AttributionGraph, "save", spy)
    run(clip, root, tmp_path / "x", classes=["axe"], domains=["real"])
    assert written == [f"real.{part}.safetensors" for part in ("half-0", "half-1", "all")]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_images": 2}, "images: '[0-9a-f]{16}' -> '[0-9a-f]{16}'; n_images: 50 -> 2"),
        ({"seed": 1}, "images: .* -> .*; seed: 0 -> 1"),
        ({"classes": ["axe"]}, "images: "),
        ({"templates": ["the {}."]}, "templates: "),
        ({"settings": replace(SETTINGS, node_fraction=0.2)}, r"node_fraction: 0.1 -> 0.2\)"),
        (
            {"settings": replace(SETTINGS, rule=left_rule(3))},
            "edge_rule: 'left-2' -> 'left-3'; node_rule: 'left-2' -> 'left-3'",
        ),
        ({"settings": replace(SETTINGS, sites=("act1", "attnpool"))}, "sites: "),
        (
            {"settings": replace(SETTINGS, baseline=Baseline("zero", {"act1": torch.ones(1, 4, 32, 32)}))},
            "baseline_digest: ",
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


def test_what_only_changes_the_speed_is_not_compared(clip: Clip, root: Path, made: Path) -> None:
    assert len(run(clip, root, made, settings=replace(SETTINGS, batch_size=1, memory_gib=1.0))) == 5


def test_no_images_at_all_cannot_be_asked_for(clip: Clip, root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one image, but n_images=0 was given"):
        run(clip, root, tmp_path / "x", n_images=0)
    with pytest.raises(InputError, match="there is no class 'dog' here"):
        run(clip, root, tmp_path / "x", classes=["dog"])
    assert not (tmp_path / "x").exists()


# Folders


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no folder of graphs \(it has no manifest.json\): make one with extract"):
        GraphFolder(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"format": "circuitry extraction 0", "jobs": []}))
    with pytest.raises(InputError, match=r"has format 'circuitry extraction 0', but this version reads '.* 1'"):
        GraphFolder(tmp_path)


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
@pytest.mark.parametrize("part", ["all", "half-1"])
def test_a_damaged_file_is_found_and_made_again(
    damage: str, part: str, clip: Clip, root: Path, made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(made, tmp_path / "x")
    path = GraphFolder(tmp_path / "x").file("axe", "real", part)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] if damage == "cut" else whole[:-9] + bytes([whole[-9] ^ 4]) + whole[-8:])
    run(clip, root, tmp_path / "x")
    assert path.read_bytes() == whole
    assert "axe in real is made again: " in caplog.text


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_workers_share_the_jobs_and_leave_one_folder(
    tiny: Tiny, root: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, str]] = []
    do = Extraction._do

    def counted(self: Extraction, key: tuple[str, str], *rest: object) -> None:
        done.append(key)
        do(self, key, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Extraction, "_do", counted)
    plans = [
        plan_extraction(tiny.load(), DomainFolder(root), tmp_path / "x", settings=SETTINGS, templates=TEMPLATES)
        for _ in range(3)
    ]
    with ThreadPoolExecutor(3) as pool:  # a lock is held by an open file, so threads stand for processes
        waiting = [pool.submit(plan.run, i, 3, progress=False) for i, plan in enumerate(plans)]
        times = [one.result() for one in waiting]
    assert sorted(done) == sorted(GraphFolder(made))
    assert sorted(key for seconds in times for key in seconds) == sorted(done)
    assert contents(tmp_path / "x") == contents(made)
    with pytest.raises(InputError, match="Workers are numbered 0 to 2, but this one is number 3"):
        plans[0].run(3, 3)


def test_a_worker_waits_for_another_and_takes_over_what_it_left(clip: Clip, root: Path, tmp_path: Path) -> None:
    arguments = {"classes": ["axe"], "domains": ["real"], "settings": SETTINGS, "templates": TEMPLATES}
    plan = plan_extraction(clip, DomainFolder(root), tmp_path / "x", **arguments)  # type: ignore[arg-type]
    with ThreadPoolExecutor(1) as pool:
        with file_lock(tmp_path / "x", "axe-real"):
            waiting = pool.submit(plan.run, progress=False)
            time.sleep(0.3)
            assert not waiting.done()
            assert not (plan.out / "graphs" / "axe" / "real.all.safetensors").exists()
        assert list(waiting.result()) == [("axe", "real")]
    assert list(GraphFolder(plan.out)) == [("axe", "real")]
    assert not (tmp_path / "x" / ".locks").exists()


def test_some_jobs_are_done_to_see_how_long_they_take(clip: Clip, root: Path, tmp_path: Path) -> None:
    plan = plan_extraction(clip, DomainFolder(root), tmp_path / "x", settings=SETTINGS, templates=TEMPLATES)
    assert len(plan.unfinished()) == 5
    seconds = plan.run(most=2, progress=False)
    assert len(seconds) == 2
    assert min(seconds.values()) > 0
    assert len(plan.unfinished()) == 3


KILLED = """
import os, random, signal, sys, time
import torch
torch.set_num_threads(1)
from circuitry import DomainFolder, load_clip, left_rule
from circuitry.circuits.attribution import AttributionSettings
from circuitry.circuits.extraction import plan_extraction

config, weights, root, out, seed = sys.argv[1:]
clip = load_clip(config, weights)
clip.text_weights(DomainFolder(root).all_classes, ["a {}."], cache_dir=out + "-cache")
import circuitry.models.clip
circuitry.models.clip.user_cache_path = lambda name: __import__("pathlib").Path(out + "-cache")
settings = AttributionSettings(node_fraction=0.1, rule=left_rule(2))
random.seed(int(seed))

def start():
    child = os.fork()
    if child == 0:
        plan_extraction(clip, DomainFolder(root), out, settings=settings, templates=["a {}."]).run(progress=False)
        os._exit(0)
    return child

killed = 0
for _ in range(10):
    child = start()
    time.sleep(random.uniform(0.02, 0.3))
    os.kill(child, signal.SIGKILL)
    killed += os.waitpid(child, 0)[1] == signal.SIGKILL
assert os.waitpid(start(), 0)[1] == 0
print("killed", killed)
"""


def test_killed_ten_times_it_ends_the_same(tiny: Tiny, root: Path, made: Path, tmp_path: Path) -> None:
    weights = tiny.config.with_suffix(".safetensors")
    save_file(tiny.state, weights)
    arguments = [str(tiny.config), str(weights), str(root), str(tmp_path / "x"), "0"]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) >= 3
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
            if path.is_file():
                AttributionGraph.load(path)
        assert not [path for path in small.rglob(".*") if path.is_file()]
    finally:
        subprocess.run(["umount", str(small)], check=True)
