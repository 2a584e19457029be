"""Every kind of folder, every kind of damage: what is damaged is made again and equal, or refused by its name."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from circuitry import Clip, DomainFolder, GraphFolder, InputError
from circuitry.circuits import extract, midpoint_rule
from circuitry.data import load_image
from circuitry.data.drawn import DrawingSettings, write_toy
from circuitry.interventions import CausalChecks, CheckSettings
from circuitry.representations import RepresentationSettings, extract_features, extract_representations
from circuitry.runs import Work
from circuitry.training import SaeTraining, train_sae_on_images
from circuitry.training.samples import ImageFiles, extract_samples

QUIET = Work(progress=False)
DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "emptied": lambda content: b"",
    "torn": lambda content: content[: len(content) // 2],
    "a line short": lambda content: content[: content[:-1].rfind(b"\n") + 1],
    "one bit": lambda content: content[:-2] + bytes([content[-2] ^ 1]) + content[-1:],
    "removed": lambda content: None,
}


class Subject(NamedTuple):
    clip: Clip
    images: DomainFolder
    graphs: GraphFolder


@pytest.fixture(scope="module")
def subject(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    root = tmp_path_factory.mktemp("images")
    write_toy(root / "toy", DRAWN, workers=1, progress=False)
    images = DomainFolder(root / "toy")
    return Subject(clip, images, make_circuits(clip, images, root / "circuits"))


DRAWN = DrawingSettings(n_train=0, n_test=2, classes=("fish", "key"), styles=("real", "sketch"), size=16)


def make_circuits(clip: Clip, images: DomainFolder, out: Path) -> GraphFolder:
    sites = clip.encoder.sites[-3:-1]
    return extract(clip, images, out, n_images=2, work=QUIET, rule=midpoint_rule(1), parts=2, sites=sites)


def circuits(subject: Subject, out: Path) -> object:
    return make_circuits(subject.clip, subject.images, out)["fish", "real"].node_scores


def checks(subject: Subject) -> CausalChecks:
    return CausalChecks(subject.clip, subject.images, subject.graphs, CheckSettings(n_images=1, n_others=1, seen=True))


def faithfulness(subject: Subject, out: Path) -> object:
    return checks(subject).extract_faithfulness(out, rankings=["absolute"], fractions=[0.5], random_draws=1, work=QUIET)


def transfer(subject: Subject, out: Path) -> object:
    return checks(subject).extract_transfer(out, exchange=False, work=QUIET)


def representations(subject: Subject, out: Path) -> object:
    settings = RepresentationSettings(n_images=2, sites=subject.clip.encoder.sites[-1:], n_parts=2)
    return extract_representations(subject.clip, subject.images, out, settings, QUIET)


def features(subject: Subject, out: Path) -> object:
    settings = SaeTraining(steps=2, batch_size=4)
    sae = train_sae_on_images(subject.clip, subject.images, settings, work=QUIET)
    return extract_features(subject.clip, sae, subject.images, out, work=QUIET)


def samples(subject: Subject, out: Path) -> object:
    files, about = ImageFiles.of(subject.images.records), {"site": None, "positions_per_image": None, "seed": 0}
    encoder, preprocess = subject.clip.encoder, subject.clip.preprocess
    return extract_samples(encoder, preprocess, files, out, {**about, "piece": 4}, work=QUIET)


def drawings(subject: Subject, out: Path) -> object:
    return write_toy(out, DRAWN, workers=1, progress=False)


MAKERS = (circuits, faithfulness, transfer, representations, features, samples, drawings)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("make", MAKERS)
def test_damaged_folders(make: Callable[[Subject, Path], object], subject: Subject, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(subject, out)
    finished = contents(out)
    record = min(name for name in finished if name.startswith("checksums/"))
    result = min(name for name in finished if Path(name).suffix in (".csv", ".npy", ".png", ".safetensors"))
    damages = {
        "manifest.json": ("emptied", "one bit", "removed"),
        "images.json": ("torn", "foreign", "removed"),
        record: ("emptied", "torn", "a line short", "foreign"),
        result: ("one bit", "foreign"),
    }
    for name, damage in ((one, damage) for one in damages if one in finished for damage in damages[one]):
        path = out / name
        alike = [other for other in finished if Path(other).suffix == path.suffix and finished[other] != finished[name]]
        changed = finished[alike[-1]] if damage == "foreign" else DAMAGES[damage](finished[name])
        path.unlink() if changed is None else path.write_bytes(changed)
        try:
            make(subject, out)
        except InputError as error:
            assert path.name in str(error), damage  # noqa: PT017
            path.write_bytes(finished[name])
        else:
            assert name != "manifest.json" or damage == "removed", damage
        if name == "manifest.json":  # another run may have other versions
            path.write_bytes(finished[name])
        assert contents(out) == finished, (name, damage)


def test_a_graph_in_the_place_of_another_is_refused(subject: Subject, tmp_path: Path) -> None:
    shutil.copytree(subject.graphs.path, tmp_path / "copy")
    graphs = GraphFolder(tmp_path / "copy")
    shutil.copy(graphs.file("fish", "real"), graphs.file("key", "sketch"))
    shutil.copy(graphs.file("fish", "real", 0), graphs.file("key", "sketch", 0))
    for read in (lambda: graphs["key", "sketch"], lambda: graphs.parts("key", "sketch")):
        with pytest.raises(InputError, match=r"key in sketch.* fish in real"):
            read()


def test_an_image_that_unpacks_to_more_than_memory_is_left_out(tmp_path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 100_000
    with pytest.raises(InputError, match=r"bomb\.png.*400000000 pixels"):
        load_image(tmp_path / "bomb.png")
