"""The command explain: a page of one or two pictures, with cards and own parts where folders of them are given."""

import sys
from pathlib import Path

import pytest
from PIL import Image

from circuitry.commands import run_command

TEXTS = ("--texts", "cup", "clock", "star")


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    paths = []
    for name, colour in (("red.png", "red"), ("blue.png", "blue")):
        Image.new("RGB", (80, 64), colour).save(tmp_path / name)
        paths.append(str(tmp_path / name))
    return paths


def explain(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["circuitry", "explain", *words])
    run_command()


def test_two_pictures_of_one_text_are_on_one_page(
    pictures: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "why.html"
    asked = ("--text", "cup", "--n-units", "3", "--out", str(out))
    explain(monkeypatch, *pictures, "--model", "rn-tiny", *TEXTS, *asked)
    said = capsys.readouterr().out
    assert f"page: {out}" in said
    assert "red.png: '" in said
    assert "blue.png: '" in said
    page = out.read_text()
    assert page.count('class="tile"') == 6
    assert "Units in which the two pictures differ" in page


def test_a_missing_picture_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        explain(monkeypatch, str(tmp_path / "no.png"), "--model", "rn-tiny", *TEXTS)
    assert "no.png" in capsys.readouterr().err
