"""One word for one thing: an option that several commands have takes the same values and means the same."""

import json
import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import circuitry
from circuitry import InputError
from circuitry.commands import COMMANDS
from circuitry.commands.completion import SHELLS, completion_script
from circuitry.commands.help_pages import GENERAL, HELP_PAGES, Option, help_page
from circuitry.commands.wrong_lines import refuse_wrong
from circuitry.runs import run_script
from circuitry.runs.settings_file import settings_text
from tests.support.scripts import command_module

PAGES = {name: help_page(name) for name in COMMANDS}
OTHER_VALUES = {
    "--model": "the quickstart has two; a training also takes a configuration's path",
    "--precision": "open_clip's trainer has more than the package's own",
}
"""Options whose values differ between commands, and why."""
OTHER_WORDS = {
    "--batch-size": "an autoencoder is trained on samples, of which an image has several",
    "--processes": "processes of a training are one run, those of the quickstart share out jobs",
    "--steps": "steps of masks and steps of an autoencoder's optimizer",
}
"""Options whose sentence differs between commands, and why."""


def means(option: Option) -> str:
    """Return the first clause of an option's help."""
    return re.split(r"[.:;,(]", option.help)[0].strip()


@pytest.mark.parametrize(
    ("of", "reasons"),
    [(lambda option: (option.takes, option.words), OTHER_VALUES), (means, OTHER_WORDS)],
    ids=["values", "words"],
)
def test_an_option_is_the_same_in_all_commands(of, reasons: dict[str, str]) -> None:  # type: ignore[no-untyped-def]
    found = defaultdict[str, set[object]](set)
    for page in PAGES.values():
        for option in page.options:
            found[option.name].add(of(option))
    assert {name for name, kinds in found.items() if len(kinds) > 1} == reasons.keys(), {
        name: kinds for name, kinds in found.items() if len(kinds) > 1 and name not in reasons
    }


def test_every_option_says_what_it_is_for_in_a_group() -> None:
    for name, page in PAGES.items():
        assert len(page.flags) == len({flag for option in page.options for flag in option.flags if flag in page.flags})
        assert {"--json", "--open", "--quiet", "--config"} <= page.flags.keys()
        for option in page.options:
            assert option.help[0].isupper() or option.help.startswith(("open_clip", "submitit", "10^12")), (
                name,
                option,
            )
            assert option.help.endswith((".", ")")), (name, option)
            assert "None" not in option.takes, (name, option)
        groups = [option.group for option in page.options]
        assert groups == sorted(groups, key=list(dict.fromkeys(groups)).index)
        assert groups[-1] == GENERAL


def test_a_page_shows_every_option_within_its_width() -> None:
    for name, page in PAGES.items():
        text = page.text()
        assert max(map(len, text.splitlines())) <= 120, name
        for option in page.options:
            assert all(flag in text for flag in option.flags)
        assert f"circuitry {name}" in text.splitlines()[0]


def test_stored_pages_are_those_of_the_commands() -> None:
    assert {path.stem for path in HELP_PAGES.iterdir()} == COMMANDS.keys()
    assert json.loads((HELP_PAGES / "find.json").read_text())["not_both"] == [
        ["--size", "--selectivity"],
        ["--checkpoint", "--pretrained"],
    ]


TEXTS = ("README.md", "CONTRIBUTING.md", "experiments/RESULTS.md", "docs", "docs/guides", "docs/notebooks")


def test_texts_name_options_that_there_are() -> None:
    root = Path(circuitry.__file__).parents[1]
    texts = [page.about for page in PAGES.values()]
    for place in TEXTS:
        found = [root / place] if place.endswith(".md") else sorted((root / place).glob("*.md"))
        texts += [path.read_text(encoding="utf-8") for path in found]
    lines = re.findall(rf"circuitry ({'|'.join(COMMANDS)}) (--[^`#\n]*)", "\n".join(texts).replace("\\\n", " "))
    assert len(lines) > 60
    for name, words in lines:
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z0-9.-]*[a-z0-9]", words):
            assert flag in PAGES[name].flags, f"circuitry {name} {words}"


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_knows_every_command_and_option(shell: str) -> None:
    script = completion_script(PAGES, shell)
    for name, page in PAGES.items():
        assert name in script
        assert all(flag.removeprefix("--") in script for flag in page.flags)
    with pytest.raises(InputError, match="csh"):
        completion_script(PAGES, "csh")


def test_words_of_several_kinds_are_taken() -> None:
    line = "--model m --data d --class c --no-such"
    with pytest.raises(InputError, match="--no-such"):
        refuse_wrong(PAGES["find"], line.split())
    for line in (
        "--model m --data=d --class c --n_images 3 --texts a b",
        "--model m --data d --class c --size 0.5 --sae",
    ):
        refuse_wrong(PAGES["find"], line.split())
    refuse_wrong(PAGES["represent"], ["--n-images", "None", "--no-strict", "--held-out", "a", "b"])
    refuse_wrong(PAGES["figures"], ["accuracy", "separation", "--list"])
    line = "--model m --data d --out o --rule gauss-radau-3 --items f c --pair c a b"
    refuse_wrong(PAGES["compare"], line.split())


def settings_of(name: str, words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the settings that a command reads from its command line."""
    read: list[Any] = []
    refuse_wrong(help_page(name), words)
    module = command_module(name)
    monkeypatch.setattr(sys, "argv", [name, *words])
    run_script(module.Config, read.append, module.__doc__, getattr(module, "defaults", None))
    return read[0]


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"figures"}))  # whose names are no option's
def test_the_file_of_settings_gives_all_of_them_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are None, too, where the command's default is a number; and those of the study, where it has some."""
    page, file = help_page(name), tmp_path / "settings.toml"
    needed = [word for option in page.options if option.required for word in (option.name, "x")]
    needed += [word for group in page.one_of for word in (group[0], "x")]
    place = ["--out", "x"] if "--out" in needed else []
    for given in [[], ["--study"]] if "--study" in page.flags else [[]]:
        first = settings_of(name, [*needed, *given], monkeypatch)
        file.write_text(settings_text(first, "circuitry"), encoding="utf-8")
        again = settings_of(name, [*place, "--config", str(file)], monkeypatch)
        assert asdict(again) == asdict(first)
