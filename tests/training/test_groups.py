"""Accuracies of groups of images: by hand on a table, and on the line that prints them."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image

from circuitry import DomainFolder, InputError, load_clip
from circuitry.runs.command_line import read_line
from circuitry.training import group_accuracy, zero_shot_predictions
from experiments.drawn import DrawingSettings, write_toy
from tests.support.scripts import command_module
from tests.support.work import QUIET

CLASSES, STYLES = ("fish", "star"), ("real", "sketch")
RANKS = {"fish in real": [1, 1], "fish in sketch": [1, 3], "star in real": [2, 2]}
"""Ranks of the right class."""


def predicted(ranks: dict[str, list[int]]) -> pd.DataFrame:
    rows = list[dict[str, Any]]()
    for group, of_group in ranks.items():
        class_name, domain = group.split(" in ")
        for number, rank in enumerate(of_group):
            for classifier in ("all templates", "own style"):
                # Ranks of another classifier do not count.
                counted = rank if classifier == "all templates" else 9
                rows.append(
                    {
                        "classifier": classifier,
                        "relative": f"{domain}/{class_name}/{number}.png",
                        "domain": domain,
                        "class": class_name,
                        "top_1": "fish",
                        "rank": counted,
                        "rank_alone": 1,
                        "rank_centred": 1,
                    }
                )
    table = pd.DataFrame(rows)
    return table.assign(**{"class": pd.Categorical(table["class"], list(CLASSES))})


FULL = RANKS | {"star in sketch": [1, 1, 1, 4]}
MARKED = {
    f"{group.split(' in ')[1]}/{group.split(' in ')[0]}/{number}.png": f"m{number}"
    for group, ranks in FULL.items()
    for number in range(len(ranks))
}


def test_groups_are_classes_in_domains_the_worst_first() -> None:
    table = group_accuracy(predicted(FULL))
    assert list(table.itertuples(index=False, name=None)) == [
        ("star in real", 2, 0.0),
        ("fish in sketch", 2, 0.5),
        ("star in sketch", 4, 0.75),
        ("fish in real", 2, 1.0),
    ]


def test_groups_of_a_column_before_and_after() -> None:
    earlier = predicted(FULL | {"fish in real": [2, 1]})
    table = group_accuracy(predicted(FULL), MARKED, earlier)
    assert list(table.columns) == ["group", "n_images", "before", "after"]
    assert list(table.itertuples(index=False, name=None)) == [
        ("m3", 1, 0.0, 0.0),
        ("m1", 4, 0.5, 0.5),
        ("m0", 4, 0.5, 0.75),
        ("m2", 1, 1.0, 1.0),
    ]


@pytest.mark.parametrize(
    ("ranks", "groups", "words"),
    [
        (RANKS, None, "star in sketch has none"),
        (FULL, MARKED | {"real/fish/7.png": "m7"}, "m7 has none"),
        (FULL, {"real/fish/0.png": "m0"}, "real/fish/1.png has none"),
    ],
)
def test_a_group_without_images_is_refused(
    ranks: dict[str, list[int]], groups: dict[str, str] | None, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        group_accuracy(predicted(ranks), groups)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    few = DrawingSettings(0, 6, classes=CLASSES, styles=STYLES)
    folder = tmp_path_factory.mktemp("groups") / "toy"
    return write_toy(folder, few, workers=1, progress=False)


def evaluate(toy: Path, tmp_path: Path, *words: str) -> None:
    module = command_module("evaluate")
    line = ["--model", "rn-tiny", "--data", str(toy), "--out", str(tmp_path / "out")]
    config, _ = read_line(module.Config, [*line, *words])
    module.main(config)


def test_the_command_tells_the_worst_group_before_and_after_an_edit(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = load_clip("rn-tiny")
    images = DomainFolder(toy)
    dead = clip.without({"layer4.0.act1": list(range(60))}, "zero")
    clip.save(tmp_path / "whole.pt")
    dead.save(tmp_path / "dead.pt")
    rows = list[tuple[str, str]]()
    for place, record in enumerate(images.records):
        rows.append((record.relative, f"g{place % 3}"))
    listing = tmp_path / "pictures.csv"
    pd.DataFrame(rows, columns=["path", "mark"]).to_csv(listing, index=False)
    words = ["--checkpoint", str(tmp_path / "dead.pt"), "--groups", str(listing)]
    evaluate(toy, tmp_path, *words, "mark", "--before", str(tmp_path / "whole.pt"))
    texts = clip.text_weights(CLASSES, progress=False)
    expected = dict[str, list[float]]()
    for model in (clip, dead):
        right = dict[str, list[bool]]()
        for (_, group), record in zip(rows, images.records, strict=True):
            pixels = clip.preprocess(Image.open(record.path).convert("RGB"))[None]
            with torch.no_grad():
                answer = int((model.encoder(pixels) @ texts.T).argmax())
            right.setdefault(group, []).append(CLASSES[answer] == record.class_name)
        for group, of_group in right.items():
            expected.setdefault(group, []).append(sum(of_group) / len(of_group))
    table = pd.read_csv(tmp_path / "out" / "tables" / "groups.csv")
    given = table.set_index("group")[["before", "after"]]
    for group, shares in expected.items():
        assert list(given.loc[group]) == pytest.approx(shares)
    quiet = zero_shot_predictions(dead, images, work=QUIET)
    of_model = group_accuracy(quiet, dict(rows)).set_index("group")["right"]
    assert of_model.to_dict() == pytest.approx(given["after"].to_dict())
    assert not given["before"].equals(given["after"])
    assert given["after"].is_monotonic_increasing
    printed = capsys.readouterr().out
    worst = min(after for _, after in expected.values())
    assert f"{worst:.6f}" in printed.split("worst group")[1].splitlines()[0]


def test_the_command_takes_classes_in_domains_as_groups(
    toy: Path, tmp_path: Path
) -> None:
    evaluate(toy, tmp_path, "--groups", "class")
    table = pd.read_csv(tmp_path / "out" / "tables" / "groups.csv")
    cells = {f"{name} in {style}" for name in CLASSES for style in STYLES}
    assert set(table["group"]) == cells
    assert list(table.columns) == ["group", "n_images", "right"]
