"""The rule by which pictures of PACS are used, the head of its classes, and the program of own parts."""

from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from circuitry.encoder.metrics import class_logit
from experiments import own_parts, pacs
from tests.support.typical_pictures import model_and_pictures

NAMES = ("c0", "c1", "c2")
STYLES = ("photo", "art_painting", "sketch")


def around(row: int, n: int, seed: int, spread: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.eye(3)[row] + spread * torch.randn(n, 3, generator=generator)


def test_a_head_tells_the_classes_it_is_fitted_to() -> None:
    embeddings = {str(row): around(row, 12, row, 0.3) for row in range(3)}
    head = pacs.fit_head(embeddings)
    assert head.rows.norm(dim=1).mean() == pytest.approx(1, abs=1e-5)
    for row in range(3):
        metric = head(torch.eye(3), row)
        answers = metric.log_answers(around(row, 20, 30 + row, 0.1))
        assert metric.is_given(answers).all()
        # The answers are those of the fitted rows, and not of the class weights of the model.
        of_rows = class_logit(head.rows, row, head.scale)
        assert torch.equal(answers, of_rows.log_answers(around(row, 20, 30 + row, 0.1)))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("pacs")
    clip, _ = model_and_pictures(folder, NAMES, STYLES, n_images=9)
    return clip, folder / "data"


def test_pictures_are_those_of_the_rule(
    world: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacs, "N_OF_CELL", 5)
    _, data = world
    head, rest = pacs.choose_pictures(data, {"photo": 2, "sketch": 1}, skip=1)
    for style in STYLES:
        for name in NAMES:
            files = [f"{style}/{name}/{i}.png" for i in range(9)]
            ranked = sorted(files, key=lambda f: sha256(f.encode()).hexdigest())[1:6]
            of_cell = (style, name)
            fits = [
                r.relative for r in head.records if (r.domain, r.class_name) == of_cell
            ]
            others = [
                r.relative for r in rest.records if (r.domain, r.class_name) == of_cell
            ]
            assert fits + others == ranked
            assert len(fits) == {"photo": 2, "sketch": 1}.get(style, 0)


def test_halves_are_compared_by_the_smaller_fall_over_the_larger() -> None:
    def lesions(half: int) -> pd.DataFrame:
        cells = {"part_domain": "ink", "domain": ["ink", "oil"], "share": 0.02}
        after = [2.0, 1.0] if half == 1 else [4.0, 5.0]
        table = pd.DataFrame({**cells, "whole_log_odds": 6.0, "log_odds": after})
        return table.assign(part_class="cat", cut="part", **{"class": "cat"})

    run: Any = SimpleNamespace(lesions=lesions)
    table = own_parts.halves(run)
    assert table["ratio"].tolist() == [2 / 4, 1 / 5]
    assert not table["same"].any()


def test_the_program_makes_all_tables(
    world: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, data = world
    small = {
        "HEAD_OF_STYLES": {"photo": 1, "sketch": 1},
        "HEAD_OF_PHOTOGRAPHS": {"photo": 1},
        "N_FIND": 2,
        "N_TEST": 2,
        "FEWER": (1,),
        "TOLD": 0.1,
        "SHARES": (0.1,),
        "MOST_COPIES": 2,
        "N_CLASSES_OF_COPIES": 1,
    }
    for name, value in small.items():
        monkeypatch.setattr(own_parts, name, value)

    def load(model: str, size: int, head: Any) -> tuple[Any, Any]:
        assert {record.domain for record in head.records} <= {"photo", "sketch"}
        return clip, "logit"

    monkeypatch.setattr(own_parts, "load_with_head", load)
    written = {}
    for tables in ("styles", "pictures", "copies", "depth"):
        config = own_parts.Config(
            data=data, tables=tables, out=tmp_path, progress=False
        )
        pages: Any = own_parts.main(config)
        for path in pages.tables:
            written[path.stem] = pd.read_csv(path)
    assert set(written["depths"]["share_of_units"]) == {0.1}
    assert len(written["halves"]) == len(NAMES) * len(STYLES) ** 2
    of_parts = written["stages"].groupby("domain")["of_parts"].sum()
    # Written tables have six digits.
    assert of_parts.tolist() == pytest.approx([1] * 3, abs=1e-5)
    pictures = written["pictures"].set_index(["n_pictures", "parts"])
    assert pictures.loc[(2, "one class, two halves"), "n_pairs"] == len(NAMES)
    copies = written["copies"]
    assert set(copies["domain"]) == {"photo", "art_painting"}
    # Every copy in photographs is compared with every copy in paintings.
    n_copies = copies["domain"].value_counts()
    assert len(written["across"]) == n_copies["photo"] * n_copies["art_painting"]
    assert set(written["depth"]["domain"]) == {"photo", "sketch"}
    assert written["depth"]["sites"].nunique() > 2
