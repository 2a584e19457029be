"""The script of unit cards, on the circuits of a small quickstart."""

from pathlib import Path

import pytest

from circuitry.cards import CardFolder
from tests.support.scripts import command_module


def test_cards_of_the_quickstart(
    quickstart: Path,
    model_of_the_quickstart: dict[str, object],
    capsys: pytest.CaptureFixture[str],
) -> None:
    module, out = command_module("cards"), quickstart / "cards"
    given = {
        **model_of_the_quickstart,
        "circuits": quickstart / "run" / "circuits",
        "out": out,
        "progress": False,
    }
    module.main(module.Config(**given, n_images=4, exact_units=0))
    cards, said = CardFolder(out), capsys.readouterr().out
    assert cards.words.sentence in said
    assert f"{len(cards.units())} units" in said
    assert f"cards: {out}" in said
    assert "key" in cards.classes
    names = [
        card.name
        for card in (cards.card(*unit) for unit in cards.units())
        if card.name is not None
    ]
    words = {word for name in names for word in name.words}
    assert not words & {
        "tench",
        "striped",
    }  # of the captions that the model was trained on alone
