"""The command own-parts with --beside: its sentences on two models are those of plain hooks of torch on open_clip."""

import re
import sys
from pathlib import Path
from typing import Any

import open_clip
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize

from circuitry import DomainFolder, load_clip
from circuitry.circuits import GraphFolder
from circuitry.commands import run_command
from circuitry.interventions import OwnPartSettings
from circuitry.models.open_clip_models import SHIPPED_CONFIGS
from circuitry.questions import OwnParts
from experiments.drawn import DrawingSettings, write_toy

CLASSES = ("car", "fish", "star")
TEXT = "a photo of a {}."
SITES = ("layer3.0.act1", "layer4.0.act1")
SHARE = 0.2
N_IMAGES = 4
Runs = dict[str, Path]


def own_parts(*words: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["circuitry", "own-parts", *words])
        run_command()


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    few = DrawingSettings(0, 3 * N_IMAGES, classes=CLASSES, styles=("real",))
    folder = tmp_path_factory.mktemp("beside") / "toy"
    return write_toy(folder, few, workers=1, progress=False)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Checkpoints of a small model, before and after a small change of its weights."""
    folder = tmp_path_factory.mktemp("checkpoints")
    model = load_clip("rn-tiny")
    model.save(folder / "base.pt")
    generator = torch.Generator().manual_seed(0)
    tower: Any = model.model.visual
    with torch.no_grad():
        for weight in tower.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight += 0.1 * weight.std(correction=0) * noise
    model.save(folder / "tuned.pt")
    return {name: folder / f"{name}.pt" for name in ("base", "tuned")}


def line(toy: Path, checkpoint: Path, out: Path) -> list[str]:
    line = ["--model", "rn-tiny", "--checkpoint", str(checkpoint), "--data", str(toy)]
    line += ["--texts", TEXT, "--baseline", "zero", "--shares", str(SHARE)]
    line += ["--n-images", str(N_IMAGES), "--n-refit", "0", "--no-progress"]
    return [*line, "--sites", *SITES, "--out", str(out)]


@pytest.fixture(scope="module")
def base(
    toy: Path, checkpoints: Runs, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("runs") / "base"
    own_parts(*line(toy, checkpoints["base"], out))
    return out


@pytest.fixture(scope="module")
def tuned(
    toy: Path, checkpoints: Runs, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("runs") / "tuned"
    own_parts(*line(toy, checkpoints["tuned"], out))
    return out


class Plain:
    """A checkpoint in open_clip, with no code of the package."""

    def __init__(self, checkpoint: Path) -> None:
        open_clip.add_model_config(SHIPPED_CONFIGS / "rn-tiny.json")
        made = open_clip.create_model_and_transforms("rn-tiny")
        self.model: Any = made[0].eval()
        self.prepare: Any = made[2]
        read = torch.load(checkpoint, weights_only=True)
        self.model.load_state_dict(read["state_dict"], strict=True)
        tokens = open_clip.get_tokenizer("rn-tiny")
        with torch.no_grad():
            encoded = self.model.encode_text(tokens([TEXT.format(c) for c in CLASSES]))
        self.texts = normalize(encoded, dim=1)

    @torch.no_grad()
    def n_right(self, paths: list[Path], label: int) -> int:
        pictures = [Image.open(path).convert("RGB") for path in paths]
        images = torch.stack([self.prepare(picture) for picture in pictures])
        answers = (self.model.encode_image(images) @ self.texts.T).argmax(1)
        return int((answers == label).sum())

    def remove(self, site: str, units: Any) -> Any:
        """Set some channels of the output of a module to zero; return the handle that takes this off."""

        def without(module: nn.Module, args: object, output: Tensor) -> Tensor:
            changed = output.clone()
            changed[:, units] = 0
            return changed

        return self.model.visual.get_submodule(site).register_forward_hook(without)


def test_the_sentences_are_those_of_plain_hooks(
    toy: Path,
    checkpoints: Runs,
    base: Path,
    tuned: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = line(toy, checkpoints["tuned"], tuned)
    own_parts(*words, "--beside", str(base), "--across", "models")
    printed = capsys.readouterr().out
    # The images that test a part are chosen by their names alone.
    settings = OwnPartSettings(n_images=N_IMAGES, n_refit=0)
    unseen = OwnParts(load_clip("rn-tiny"), DomainFolder(toy), tuned, settings).unseen
    plain = Plain(checkpoints["tuned"])
    parts = {"base": GraphFolder(base / "circuits")}
    parts["tuned"] = GraphFolder(tuned / "circuits")
    n_compared = 0
    for label, name in enumerate(CLASSES):
        said = re.search(rf"{name} in real: .* answers (\S+) of (\d+) images", printed)
        if said is None:
            assert name in printed.split("Not compared")[1]
            continue
        n_compared += 1
        paths = [record.path for record in unseen[name, "real"]]
        n_right = dict[str, int]()
        n_right["before"] = plain.n_right(paths, label)
        for model, folder in parts.items():
            graph = folder[name, "real"]
            hooks = [plain.remove(*of_site) for of_site in graph.kept_units.items()]
            n_right[model] = plain.n_right(paths, label)
            for hook in hooks:
                hook.remove()
        sentence = printed[said.start() :].split("\n")[0]
        assert f"answers {n_right['base']} of {len(paths)} images" in sentence
        assert f"(before {n_right['before']};" in sentence
        assert f"its own part {n_right['tuned']})" in sentence
        a, b = (units_of(parts[model][name, "real"].kept_units) for model in parts)
        table = pd.read_csv(tuned / "tables" / "models_overlaps.csv")
        halves = table[
            (table["class_a"] == name) & (table["half_a"] == table["half_b"])
        ]
        assert halves.empty or halves["overlap"].iloc[0] == len(a & b) / len(a | b)
    assert n_compared > 1
    # A ceiling takes parts of both halves of the images.
    assert "nan" not in printed


def units_of(kept: Any) -> set[tuple[str, int]]:
    units = set[tuple[str, int]]()
    for site, of_site in kept.items():
        units |= {(site, int(unit)) for unit in of_site}
    return units


def test_two_models_are_refused_without_across(
    toy: Path,
    checkpoints: Runs,
    base: Path,
    tuned: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = line(toy, checkpoints["tuned"], tuned)
    with pytest.raises(SystemExit) as ended:
        own_parts(*words, "--beside", str(base))
    assert ended.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "differ in weights" in said
    assert "--across models" in said


def test_a_folder_without_a_run_is_refused(
    toy: Path,
    checkpoints: Runs,
    base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = line(toy, checkpoints["base"], base)
    with pytest.raises(SystemExit):
        own_parts(*words, "--beside", str(tmp_path), "--across", "models")
    assert "settings.toml cannot be read" in capsys.readouterr().err
