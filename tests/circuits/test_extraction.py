"""A folder of graphs from a tiny model and generated images."""

import errno
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
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
    class_margin,
    compare,
    extract,
    left_rule,
    load_clip,
)
from circuitry.circuits.attribution import attribute_parts
from circuitry.circuits.extraction import Extraction
from circuitry.circuits.settings import AttributionSettings
from circuitry.data.parts import part_numbers
from circuitry.models.baselines import AnyBaseline, Baseline, Counterfactual, mean_baseline
from circuitry.models.metrics import ClassLogit, MetricOfClass
from circuitry.models.named_baselines import BASELINE_NAMES, NamedBaseline
from circuitry.models.prompts import style_templates
from circuitry.runs.files import file_lock
from circuitry.runs.jobs import JobFolder
from circuitry.runs.workers import Rank, Work
from tests.support.tiny_clip import Tiny, saved

pytestmark = pytest.mark.filterwarnings("ignore:Skipped an image")

SETTINGS = AttributionSettings(node_fraction=0.1, rule=left_rule(2))
QUIET = Work(progress=False)
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
    arguments: dict[str, object] = {"settings": SETTINGS, "texts": TEMPLATES, "work": QUIET}
    return extract(clip, DomainFolder(root), out, **(arguments | changes))  # type: ignore[arg-type]


def planned(clip: Clip, root: Path, out: Path, **changes: object) -> Extraction:
    arguments: dict[str, object] = {"settings": SETTINGS, "texts": TEMPLATES}
    return Extraction(clip, DomainFolder(root), out, **(arguments | changes))  # type: ignore[arg-type]


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
    assert graph.settings.items() >= (SETTINGS.as_dict() | {"metric": "logit", "texts": TEMPLATES}).items()
    assert graph.provenance["model_digest"] == clip.digest
    assert graph.provenance["seed"] == 0
    assert ("fish", "sketch") not in graphs
    with pytest.raises(
        KeyError, match=r"no circuit of \('fish', 'sketch'\) .* classes \['axe', 'cat', 'fish'\] and the"
    ):
        graphs["fish", "sketch"]
    assert repr(graphs) == (f"GraphFolder({str(made)!r}: 5 of 5 circuits, 3 classes, 2 domains, model {clip.name})")


def test_the_folder_says_which_images_a_circuit_was_found_on(root: Path, made: Path) -> None:
    graphs = GraphFolder(made)
    chosen = [record.relative for record in DomainFolder(root).select("cat", "sketch", 50, 0)]
    read = [name for name in chosen if name != "sketch/cat/1.png"]
    assert graphs.image_names("cat", "sketch") == tuple(read)
    parts = graphs.parts("cat", "sketch")
    numbers = part_numbers({("cat", d): DomainFolder(root).select("cat", d, 50, 0) for d in ("real", "sketch")})
    cut = dict(zip(chosen, numbers["cat", "sketch"].tolist(), strict=True))
    assert graphs.n_parts == 4
    for part in range(4):
        expected = [name for name in read if cut[name] == part]
        assert (parts[part].provenance["images"] if part in parts else []) == expected
    listed = json.loads((made / "images.json").read_text())
    assert set(listed) == {f"{d}/{c}/{i}.png" for (d, c), count in COUNTS.items() for i in range(count)}


def test_the_manifest_is_readable(made: Path) -> None:
    config = GraphFolder(made).manifest["config"]
    assert config["classes"] == ["axe", "cat", "fish"]
    assert config["templates"] == config["texts"] == TEMPLATES
    assert (config["baseline"], config["metric"], config["node_rule"]) == ("zero", "logit", "left-2")


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
    graphs, found = GraphFolder(made), GraphFolder(made).parts(class_name, domain)
    names = list(graphs.image_names(class_name, domain))
    assert sum(part.n_images for part in found.values()) == len(images)
    for part in found.values():
        chosen = images[[names.index(name) for name in part.provenance["images"]]]
        assert_close(part, attribute(clip.encoder, chosen, metric, rule=rule, progress=False))
    edges, whole = graphs.part_edges(class_name, domain), graphs[class_name, domain]
    for pair, scores in whole.edge_scores.items():
        shares = [(part.n_images / whole.n_images) ** 2 for part in found.values()]
        np.testing.assert_allclose(np.tensordot(shares, edges[pair], 1), scores, rtol=1e-9)


def test_a_combination_without_images_is_absent_from_tables(made: Path) -> None:
    table = compare(GraphFolder(made))
    assert table[["class", "domain_a", "domain_b"]].to_numpy().tolist() == [
        ["axe", "real", "sketch"],
        ["cat", "real", "sketch"],
    ]


def test_a_part_of_the_classes_keeps_their_labels(clip: Clip, root: Path, made: Path, tmp_path: Path) -> None:
    chosen_late = run(clip, root, tmp_path / "late", classes=["cat"], domains=["real"])
    images = DomainFolder(root, classes=["cat"], domains=["real"])
    chosen_early = extract(clip, images, tmp_path / "x", settings=SETTINGS, texts=TEMPLATES, work=QUIET)
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


@pytest.mark.filterwarnings("default:Skipped an image")
def test_what_is_left_out_is_said(clip: Clip, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.warns(UserWarning, match=r"Skipped an image: Cannot read .*1\.png"):
        run(clip, root, tmp_path / "x", classes=["cat", "fish"], domains=["sketch"])
    lines = [r.getMessage() for r in caplog.records if r.name == "circuitry.circuits.extraction"]
    assert lines == ["fish in sketch: no images, so no circuit", "cat in sketch: 1 of 4 images cannot be read"]


def test_strict_stops_at_the_first_unreadable_image(clip: Clip, root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"annot read .*1\.png"):
        run(clip, root, tmp_path / "x", classes=["cat"], work=Work(strict=True, progress=False))


# What a class is asked by


def own_lead(weights: Tensor, label: int) -> ClassLogit:
    return class_logit(2 * weights, label)


@pytest.mark.parametrize("metric", ["margin", own_lead])
def test_the_metric_is_a_name_or_a_function(
    metric: str | MetricOfClass, clip: Clip, root: Path, tmp_path: Path
) -> None:
    graphs = run(clip, root, tmp_path / "x", classes=["axe"], domains=["real"], metric=metric)
    weights = clip.text_weights(["axe", "cat", "fish"], TEMPLATES, cache_dir=tmp_path)
    by_hand = {"margin": class_margin, own_lead: own_lead}[metric](weights, 0)
    images = tensors(clip, root, "axe", "real")
    assert_close(graphs["axe", "real"], attribute(clip.encoder, images, by_hand, rule=left_rule(2), progress=False))
    assert graphs["axe", "real"].settings["metric"] == ("margin" if metric == "margin" else "own_lead")


def test_texts_in_the_images_own_style_differ_by_domain(clip: Clip, root: Path, tmp_path: Path) -> None:
    graphs = run(clip, root, tmp_path / "x", classes=["axe"], texts="own-style")
    scores = []
    for domain, templates in (
        ("real", ["a photo of a {}.", "a photo of the {}."]),
        ("sketch", ["a sketch of a {}.", "a sketch of the {}."]),
    ):
        weights = clip.text_weights(["axe", "cat", "fish"], templates, cache_dir=tmp_path)
        images, metric = tensors(clip, root, "axe", domain), class_logit(weights, 0)
        by_hand = attribute(clip.encoder, images, metric, rule=left_rule(2), progress=False)
        assert_close(graphs["axe", domain], by_hand)
        scores.append(by_hand.completeness["attnpool"].metric_difference)
    assert graphs.manifest["config"]["templates"]["sketch"] == list(style_templates("sketch"))
    assert scores[0] != pytest.approx(scores[1], abs=1e-4)


# Baselines by name


def pixels(clip: Clip, root: Path, names: Sequence[str]) -> Tensor:
    return torch.stack([clip.preprocess(Image.open(root / name)) for name in names])


@pytest.mark.parametrize("name", BASELINE_NAMES)
def test_a_baseline_by_name_is_the_one_made_by_hand(name: str, clip: Clip, root: Path, tmp_path: Path) -> None:
    chosen = {"n_images": 2, "seed": 4}
    graphs = run(clip, root, tmp_path / "x", classes=["axe"], settings=replace(SETTINGS, baseline=name), **chosen)
    data = DomainFolder(root)
    weights = clip.text_weights(data.all_classes, TEMPLATES, cache_dir=tmp_path)
    for domain, other in (("real", "sketch"), ("sketch", "real")):
        baseline: AnyBaseline = "zero"
        if name.startswith("mean-"):
            everything = torch.cat([tensors(clip, root, c, d, 2, 4) for d, c in COUNTS])
            baseline = mean_baseline(clip.encoder, [everything], name.removeprefix("mean-"))
        elif name == "other-domains":
            baseline = mean_baseline(clip.encoder, [tensors(clip, root, "axe", other, 2, 4)])
        elif name == "counterfactual":
            records = NamedBaseline(name, clip, data, 2, 4).records("axe", domain)
            drawn = [r.relative for r in records if r.path.stat().st_size != CUT]
            baseline = Counterfactual(pixels(clip, root, (drawn * 2)[:2]))
        images = tensors(clip, root, "axe", domain, 2, 4)
        settings = replace(SETTINGS, baseline=baseline)
        metric = class_logit(weights, 0)
        by_hand = attribute_parts(clip.encoder, images, metric, settings, np.arange(len(images)), progress=False).whole
        assert_close(graphs["axe", domain], by_hand)
        assert graphs["axe", domain].settings["baseline"] == name
    assert graphs.manifest["config"]["baseline"] == name


def test_counterfactual_images_go_round_the_other_classes(clip: Clip, root: Path) -> None:
    data = DomainFolder(root)
    draws = {seed: NamedBaseline("counterfactual", clip, data, 3, seed).records("cat", "real") for seed in range(5)}
    for records in draws.values():
        assert {record.domain for record in records} == {"real"}
        assert sorted(record.class_name for record in records) == ["axe", "axe", "fish"]  # there is one fish
        assert {record.class_name for record in records[:2]} == {"axe", "fish"}
    assert len(set(draws.values())) > 1
    assert draws[0] == NamedBaseline("counterfactual", clip, data, 3, 0).records("cat", "real")
    more = NamedBaseline("counterfactual", clip, data, 50, 0).of("cat", "real", 6)
    assert isinstance(more, Counterfactual)
    assert torch.equal(more.images[:2], more.images[4:])  # there are four, and then they come again


def test_a_baseline_of_images_that_are_not_there_is_refused_before_the_work(
    clip: Clip, root: Path, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, baseline="other-domains")
    with pytest.raises(InputError, match="'other-domains' of fish in real is made of images of its class in other dom"):
        run(clip, root, tmp_path / "x", classes=["fish"], settings=settings)
    one = DomainFolder(root, classes=["cat"])
    with pytest.raises(InputError, match="'counterfactual' of cat in real is made of images of other classes in its"):
        extract(clip, one, tmp_path / "x", settings=replace(SETTINGS, baseline="counterfactual"), work=QUIET)
    assert not (tmp_path / "x").exists()


def test_names_of_baselines_are_known_and_need_data(clip: Clip, root: Path) -> None:
    with pytest.raises(
        InputError, match="zero, mean-position, mean-unit, other-domains, counterfactual, but 'mean' was"
    ):
        NamedBaseline("mean", clip, DomainFolder(root))
    with pytest.raises(InputError, match="'mean-unit' is made of a data set, which is not known here"):
        attribute(clip.encoder, torch.zeros(1, 3, 64, 64), class_logit(torch.ones(2, 16), 0), baseline="mean-unit")


# Going on


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
import torch
torch.set_num_threads(1)
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
random.seed(int(seed))

def start():
    child = os.fork()
    if child == 0:
        save = AttributionGraph.save  # slower, so that the kill comes in time
        AttributionGraph.save = lambda graph, path: (save(graph, path), time.sleep(0.03))
        jobs = Extraction(clip, DomainFolder(root), Path(out), settings=settings, texts=["a {}."])
        jobs.run(Work(progress=False))
        os._exit(0)
    return child

def graphs():
    return len(list(Path(out).rglob("*.safetensors")))

killed = 0
for _ in range(10):  # each after one more graph, so that the kills lie all over the work
    before, child, status = graphs(), start(), (0, 0)
    while graphs() == before and status == (0, 0):
        time.sleep(0.002)
        status = os.waitpid(child, os.WNOHANG)
    if status != (0, 0):
        break  # it ended
    time.sleep(random.uniform(0, 0.01))
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
