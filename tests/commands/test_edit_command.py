"""The command edit: the checkpoint is one of open_clip, which gives the accuracies of the table beside it."""

import shutil
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from circuitry import DomainFolder, GraphFolder, InputError, load_clip
from circuitry.commands import run_command
from circuitry.interventions import OwnPartSettings
from circuitry.models import read_images
from circuitry.models.open_clip_models import SHIPPED_CONFIGS
from circuitry.questions import OwnParts
from circuitry.runs.command_line import read_line
from experiments.drawn import DrawingSettings, write_toy
from tests.support.scripts import command_module
from tests.support.work import QUIET

CLASSES, STYLES = ("fish", "star"), ("real", "sketch")
N_IMAGES, N_USED = 26, 22
OF_STYLES = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a sketch of a {}.",
    "a sketch of the {}.",
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    few = DrawingSettings(0, N_IMAGES, classes=CLASSES, styles=STYLES)
    folder = tmp_path_factory.mktemp("edit") / "toy"
    return write_toy(folder, few, workers=1, progress=False)


def edit(toy: Path, out: Path, *words: str) -> pd.DataFrame:
    """Run the command, and return the table that it writes."""
    module = command_module("edit")
    line = ["--model", "rn-tiny", "--data", str(toy), "--out", str(out), *words]
    config, _ = read_line(module.Config, ["--without-style", "sketch", *line])
    module.main(config)
    return pd.read_csv(out.with_suffix(".csv"))


class Plain:
    """A model of open_clip, with no code of the package."""

    def __init__(self, checkpoint: Path | None = None) -> None:
        open_clip.add_model_config(SHIPPED_CONFIGS / "rn-tiny.json")
        made = open_clip.create_model_and_transforms("rn-tiny")
        self.model: Any = made[0].eval()
        self.prepare: Any = made[2]
        self.tokens: Any = open_clip.get_tokenizer("rn-tiny")
        if checkpoint is not None:
            read = torch.load(checkpoint, weights_only=True)
            self.model.load_state_dict(read["state_dict"], strict=True)

    @torch.no_grad()
    def texts(self) -> Tensor:
        """Return the text weights of the classes in the words of both styles."""
        rows = list[Tensor]()
        for name in CLASSES:
            prompts = [template.format(name) for template in OF_STYLES]
            encoded = normalize(self.model.encode_text(self.tokens(prompts)), dim=1)
            rows.append(encoded.mean(0))
        return normalize(torch.stack(rows), dim=1)

    @torch.no_grad()
    def accuracy(self, paths: Sequence[Path], label: int) -> float:
        pictures = [Image.open(path).convert("RGB") for path in paths]
        images = torch.stack([self.prepare(picture) for picture in pictures])
        answers = (self.model.encode_image(images) @ self.texts().T).argmax(1)
        return float((answers == label).float().mean())


def left(toy: Path, name: str, style: str, first: int = N_USED) -> list[Path]:
    records = DomainFolder(toy).select(name, style)
    return [record.path for record in records[first:]]


CHOICES: dict[str, list[str]] = {
    "texts": ["--share", "0.2"],
    "folders": ["--share", "0.2", "--told", "folders"],
    "held out": ["--share", "0.2", "--held-out", "star"],
}


@pytest.mark.parametrize("words", CHOICES.values(), ids=CHOICES.keys())
def test_open_clip_alone_gives_the_accuracies_of_the_table(
    toy: Path, tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "edited.pt"
    table = edit(toy, out, *words)
    load_clip("rn-tiny").save(tmp_path / "whole.pt")
    edited, whole = Plain(out), Plain(tmp_path / "whole.pt")
    assert list(table.columns) == ["domain", "class", "n_images", "before", "after"]
    expected = list[tuple[str, str, int, float, float]]()
    for style in STYLES:
        for label, name in enumerate(CLASSES):
            # No image of a held-out class in the style is used, so all of them test.
            is_held_out = "--held-out" in words and (style, name) == ("sketch", "star")
            paths = left(toy, name, style, 0 if is_held_out else N_USED)
            shares = whole.accuracy(paths, label), edited.accuracy(paths, label)
            expected.append((style, name, len(paths), *shares))
    assert list(table.itertuples(index=False, name=None)) == expected
    # The edit was large enough to be seen.
    assert not table["after"].equals(table["before"])
    printed = capsys.readouterr().out
    assert "of 1104 units removed" in printed
    assert str(out) in printed


def test_folders_tell_a_style_that_the_model_has_no_word_for(
    toy: Path, tmp_path: Path
) -> None:
    shutil.copytree(toy / "real", tmp_path / "data" / "real")
    shutil.copytree(toy / "sketch", tmp_path / "data" / "zyzzy")
    out = tmp_path / "edited.pt"
    words = ["--without-style", "zyzzy", "--texts", "pooled", "--share", "0.02"]
    with pytest.raises(InputError, match="zyzzy"):
        edit(tmp_path / "data", out, *words)
    assert not out.exists()
    table = edit(tmp_path / "data", out, *words, "--told", "folders")
    assert set(table["domain"]) == {"real", "zyzzy"}
    before = load_clip("rn-tiny").model.state_dict()
    after = Plain(out).model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("visual.") for name in changed)


def test_a_style_is_any_label_of_the_pictures(toy: Path, tmp_path: Path) -> None:
    data = shutil.copytree(toy, tmp_path / "data")
    rows = list[tuple[str, str]]()
    for place, record in enumerate(DomainFolder(data).records):
        rows.append((record.relative, "marked" if place % 2 else "plain"))
        if place % 2:
            picture = Image.open(record.path).convert("RGB")
            picture.paste((255, 0, 0), (0, 0, 30, 30))
            picture.save(record.path)
    listing = tmp_path / "pictures.csv"
    pd.DataFrame(rows, columns=["path", "mark"]).to_csv(listing, index=False)
    out = tmp_path / "edited.pt"
    line = ["--model", "rn-tiny", "--data", str(data), "--out", str(out)]
    line += ["--without-style", "marked", "--label", str(listing), "mark"]
    line += ["--told", "folders", "--spare", "star", "--share", "0.02"]
    module = command_module("edit")
    config, _ = read_line(module.Config, line)
    module.main(config)
    table = pd.read_csv(out.with_suffix(".csv"))
    assert set(table["domain"]) == {"marked", "plain"}
    # Of 26 pictures of a class with either label 22 find the part.
    assert set(table["n_images"]) == {4}
    before = load_clip("rn-tiny").model.state_dict()
    after = Plain(out).model.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_style_is_what_the_model_itself_calls_so(toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "edited.pt"
    line = ["--model", "rn-tiny", "--data", str(toy), "--out", str(out)]
    line += ["--without-style", "a sketch", "--label", "text", "--share", "0.02"]
    line += ["--told", "a photo", "a sketch"]
    module = command_module("edit")
    config, _ = read_line(module.Config, line)
    module.main(config)
    table = pd.read_csv(out.with_suffix(".csv"))
    assert set(table["domain"]) == {"a photo", "a sketch"}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--without-style sketch --label text", ["--told texts", "two or more"]),
        ("--without-style sketch --label mark", ["domain", "mark"]),
        ("--without-style ink", ["'ink'", "real, sketch"]),
        ("--without-style sketch --held-out dog", ["'dog'", "fish, star"]),
        ("--without-style sketch --domains sketch", ["'sketch'", "of others"]),
    ],
)
def test_what_the_images_do_not_have_is_said_in_one_sentence(
    toy: Path,
    tmp_path: Path,
    words: str,
    named: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "edited.pt"
    line = ["--model", "rn-tiny", "--data", str(toy), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["circuitry", "edit", *line, *words.split()])
    with pytest.raises(SystemExit) as ended:
        run_command()
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert not printed.out
    assert "Traceback" not in printed.err
    said = " ".join(printed.err.split())
    for word in named:
        assert word in said
    assert not list(tmp_path.iterdir())


def test_without_images_for_a_test_nothing_is_written(
    toy: Path, tmp_path: Path
) -> None:
    for style in STYLES:
        for name in CLASSES:
            folder = tmp_path / "data" / style / name
            folder.mkdir(parents=True)
            for path in left(toy, name, style, first=0)[:N_USED]:
                shutil.copy(path, folder)
    out = tmp_path / "edited.pt"
    with pytest.raises(InputError, match="No image is left to test"):
        edit(tmp_path / "data", out, "--share", "0.02")
    assert not out.exists()


@pytest.fixture(scope="module")
def parts(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of own parts, as circuitry own-parts writes it."""
    settings = OwnPartSettings(
        n_images=4,
        n_others=4,
        shares=(0.02,),
        second_half=False,
        n_refit=0,
        baseline="mean-unit",
    )
    out = tmp_path_factory.mktemp("own-parts")
    clip = load_clip("rn-tiny").in_components()
    found = OwnParts(clip, DomainFolder(toy), out, settings)
    found.run(QUIET)
    found.save_circuits()
    return out / "circuits"


def without_class(toy: Path, parts: Path, out: Path, *words: str) -> pd.DataFrame:
    module = command_module("edit")
    line = ["--model", "rn-tiny", "--data", str(toy), "--out", str(out)]
    line += ["--without", str(parts), "--class", *words]
    config, _ = read_line(module.Config, line)
    module.main(config)
    return pd.read_csv(out.with_suffix(".csv"))


def test_a_smaller_share_of_a_class_is_the_first_units_of_its_part(
    toy: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "edited.pt"
    words = ["--domains", "real", "--share", "0.005"]
    without_class(toy, parts, out, "fish", *words)
    assert "6 of 1104 units removed" in capsys.readouterr().out
    graph = GraphFolder(parts)["fish", "real"]
    every = [(i, s, u) for s in graph.sites for u, i in enumerate(graph.ranked_by[s])]
    first = sorted(every, key=lambda unit: -unit[0])[:6]
    units = defaultdict[str, list[int]](list)
    for _, site, unit in first:
        assert unit in graph.kept_units[site]
        units[site].append(unit)
    read = DomainFolder(toy, domains=("real",))
    images = [record for name in CLASSES for record in read.select(name, "real", 4)]
    _, pixels = read_images(load_clip("rn-tiny"), images)
    expected = load_clip("rn-tiny").without(dict(units), pixels).encoder
    with torch.no_grad():
        given = normalize(Plain(out).model.encode_image(pixels), dim=1)
        wanted = normalize(expected(pixels), dim=1)
    torch.testing.assert_close(given, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("domains", [[], ["real"]], ids=["all", "one"])
def test_the_part_of_a_class_is_removed_from_the_weights(
    toy: Path,
    parts: Path,
    tmp_path: Path,
    domains: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "edited.pt"
    words = ["--domains", *domains] if domains else []
    table = without_class(toy, parts, out, "fish", *words)
    folder = GraphFolder(parts)
    units = defaultdict[str, set[int]](set)
    used = set[str]()
    for domain in domains or STYLES:
        graph = folder["fish", domain]
        used |= {*graph.provenance["images"], *graph.provenance["others"]}
        for site, of_site in graph.kept_units.items():
            units[site] |= set(of_site.tolist())
    n_units = sum(map(len, units.values()))
    printed = capsys.readouterr().out
    assert f"{n_units} of 1104 units removed" in printed
    assert "other classes" in printed
    # The same units at zero of a mean-unit part would be other weights.
    clip = load_clip("rn-tiny")
    read = DomainFolder(toy, domains=domains or None)
    images = [r for n in CLASSES for d in read.domains for r in read.select(n, d, 4)]
    _, pixels = read_images(clip, images)
    by_site = {site: sorted(of_site) for site, of_site in units.items()}
    expected = clip.without(by_site, pixels).encoder
    edited = Plain(out)
    probe = pixels[:3]
    with torch.no_grad():
        given = normalize(edited.model.encode_image(probe), dim=1)
        wanted = normalize(expected(probe), dim=1)
        whole = normalize(clip.encoder(probe), dim=1)
    torch.testing.assert_close(given, wanted, rtol=0, atol=1e-5)
    assert (given - whole).abs().max() > 1e-3
    for domain, name, n_images, *_ in table.itertuples(index=False):
        left = [r for r in read.select(name, domain) if r.relative not in used]
        assert n_images == len(left)
    own, before, after = table["class"] == "fish", table["before"], table["after"]
    assert (after[own] <= before[own]).all()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--without", "PARTS", "--class", "dog"], ["fish, star", "dog"]),
        (["--without", "PARTS"], ["fish, star", "--class None"]),
        (["--class", "fish"], ["--without FOLDER --class CLASS"]),
        (
            ["--without", "PARTS", "--class", "fish", "--without-style", "sketch"],
            ["--without FOLDER --class CLASS"],
        ),
    ],
)
def test_a_class_without_a_part_is_named(
    toy: Path, parts: Path, tmp_path: Path, words: list[str], named: list[str]
) -> None:
    module = command_module("edit")
    line = ["--model", "rn-tiny", "--data", str(toy)]
    line += ["--out", str(tmp_path / "edited.pt")]
    line += [str(parts) if word == "PARTS" else word for word in words]
    config, _ = read_line(module.Config, line)
    with pytest.raises(InputError) as told:
        module.main(config)
    for word in named:
        assert word in str(told.value)
    assert not list(tmp_path.iterdir())


def test_parts_of_another_model_are_refused_in_one_sentence(
    toy: Path, parts: Path, tmp_path: Path
) -> None:
    module = command_module("edit")
    line = ["--model", "vit-tiny", "--data", str(toy), "--without", str(parts)]
    line += ["--class", "fish", "--out", str(tmp_path / "edited.pt")]
    config, _ = read_line(module.Config, line)
    with pytest.raises(InputError, match="the part that is removed and this model"):
        module.main(config)
    assert not list(tmp_path.iterdir())
