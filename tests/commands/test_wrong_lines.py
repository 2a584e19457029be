"""What cannot work is said in one text before the work: a table of wrong command lines."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from circuitry.commands import COMMANDS, run_command
from circuitry.runs.command_line import read_line
from tests.support.scripts import command_module

MODEL = "--model rn-tiny --checkpoint {tiny} --data {data}"
OWN = "--model rn-tiny --data {data}"
BY_THE_OPTIONS: list[tuple[str, list[str]]] = [
    # the command
    ("compair", ["'compair'", "compare"]),
    ("train_sae", ["'train_sae'", "train-sae"]),
    ("--completion tcsh", ["'tcsh'", "zsh"]),
    # an option that is not there
    (f"find {MODEL} --clas fish", ["--clas", "--class", "circuitry find --help"]),
    (f"find {MODEL} --class fish --sise 0.2", ["--sise", "--size"]),
    (f"find {MODEL} --class fish --study", ["--study"]),
    (f"find {MODEL} --class fish -n 5", ["'-n'"]),
    ("info --verbose", ["--verbose"]),
    # a word that no option takes
    (f"find {MODEL} --class fish extra words", ["extra", "words"]),
    ("check --seen yes", ["yes"]),
    (f"compare {OWN} --out {{out}} --pair fish real sketch star", ["'star'", "--pair"]),
    # no value
    (f"find {MODEL} --class", ["--class", "Missing value"]),
    (
        f"compare {OWN} --out {{out}} --items listing.csv",
        ["2 values", "LISTING COLUMN"],
    ),
    (f"find {MODEL} --class fish --domain real --config", ["--config"]),
    # no value of the type
    (f"find {MODEL} --class fish --n-images 0", ["'0'", "at least 1", "--n-images"]),
    (f"find {MODEL} --class fish --size 40", ["40", "(0, 1]"]),
    (f"compare {OWN} --out {{out}} --kernel-depths 1 two", ["--kernel-depths", "two"]),
    ("train-sae --l1 -1", ["l1", "-1"]),
    # none of the choices
    (f"find {MODEL} --class fish --domain real --method magic", ["magic", "learned"]),
    (f"compare {OWN} --out {{out}} --rule simpson-4", ["simpson", "midpoint"]),
    ("train --out {out} --data {data} --preset rn50-cc3n", ["rn50-cc3n", "rn50-cc3m"]),
    # what is needed, and what contradicts
    ("find --data {data} --class fish", ["--model"]),
    ("train --out {out}", ["--data", "--table"]),
    (
        f"find {MODEL} --class fish --size 0.2 --selectivity 0.8",
        ["--size", "--selectivity"],
    ),
    (
        f"compare {MODEL} --pretrained openai --out {{out}}",
        ["--checkpoint", "--pretrained"],
    ),
    # a file of settings
    (
        f"find {MODEL} --class fish --domain real --config {{missing}}",
        ["--config", "{missing}"],
    ),
    (
        f"find {MODEL} --class fish --domain real --config {{tiny}}",
        ["--config", "{tiny}"],
    ),
    (
        f"find {MODEL} --class fish --domain real --config {{settings}}",
        ["--sice", "--size"],
    ),
]
BEFORE_THE_WORK: list[tuple[str, list[str]]] = [
    (f"find {MODEL} --class fish --domain real --device cuda", ["cuda"]),
    # classes and domains
    (f"find {MODEL} --class fisch --domain real", ["'fisch'", "fish"]),
    (f"find {MODEL} --class fish --domain reel", ["'reel'", "real"]),
    (f"find {MODEL} --class fish", ["real", "sketch", "--domain"]),
    (f"compare {MODEL} --out {{out}} --classes fish,star", ["fish,star"]),
    (f"compare {MODEL} --out {{out}} --held-out fisch", ["--held-out", "fish"]),
    (f"compare {MODEL} --out {{out}} --pair fish real real", ["--pair", "twice"]),
    ("quickstart --classes fisch", ["fisch", "fish"]),
    ("quickstart --domains reel", ["reel", "real"]),
    # files and folders
    (
        "find --model rn-tiny --checkpoint {missing} --data {flat} --class cat",
        ["{missing}"],
    ),
    (
        "find --model rn-tiny --checkpoint {tiny} --data {missing} --class cat",
        ["{missing}"],
    ),
    (
        "find --model rn-tiny --checkpoint {tiny} --data {one} --class cat",
        ["1", "cat", "2"],
    ),
    (
        "find --model no-such-model --checkpoint {tiny} --data {flat} --class cat",
        ["no-such-model"],
    ),
    (
        "find --model rn-tiny --checkpoint {tiny} --data {flat} --class cat --baseline mean-position",
        ["mean-position"],
    ),
    (
        "check --circuits {missing} --checkpoint {tiny} --data {data}",
        ["{missing}", "circuitry compare"],
    ),
    ("explore --run {missing}", ["{missing}"]),
]
LINES = [
    *((line, words, True) for line, words in BY_THE_OPTIONS),
    *((*one, False) for one in BEFORE_THE_WORK),
]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Images in two domains, in one folder, and alone; a file that is no checkpoint; names of nothing."""
    root = tmp_path_factory.mktemp("wrong")
    files = [
        f"data/{d}/{c}/{i}.png"
        for d in ("real", "sketch")
        for c in ("fish", "star")
        for i in range(2)
    ]
    for name in (*files, "flat/a.png", "flat/b.png", "one/a.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(root / name)
    (root / "tiny.pt").write_bytes(b"no weights")
    (root / "settings.toml").write_text("sice = 0.3\n")
    names = {"tiny": "tiny.pt", "settings": "settings.toml"}
    names |= {name: name for name in ("data", "flat", "one", "out", "missing")}
    return {key: root / name for key, name in names.items()}


@pytest.mark.parametrize(
    ("line", "words", "by_the_options"), LINES, ids=[line for line, *_ in LINES]
)
def test_a_wrong_line_is_refused_in_one_text_before_the_work(
    line: str,
    words: list[str],
    by_the_options: bool,
    places: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["circuitry", *(word.format(**places) for word in line.split())]
    )
    if by_the_options:
        monkeypatch.setattr("circuitry.commands.dispatch.begin", pytest.fail)
    with pytest.raises(SystemExit) as ended:
        run_command()
    assert ended.value.code == 2
    printed = capsys.readouterr()
    shown = unboxed(printed.err)
    assert not printed.out
    for word in words:
        assert unboxed(word.format(**places)) in shown, printed.err
    assert "Traceback" not in shown
    assert not places["out"].exists()


def unboxed(text: str) -> str:
    """Return a text without tyro's box, the breaks of its lines, and quotes."""
    return "".join(re.sub("[╭╮╰╯│─']|-{5,}", "", text).split())


def test_options_are_refused_without_torch(
    places: dict[str, Path], tmp_path: Path
) -> None:
    """All lines, and the help of every command, in one process, which has no library of models in the end."""
    lines = [
        [word.format(**places) for word in line.split()] for line, _ in BY_THE_OPTIONS
    ]
    code = """
import contextlib, io, json, sys
from circuitry.commands import run_command
for line in json.loads(sys.argv[1]):
    sys.argv = ["circuitry", *line]
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            run_command()
        except SystemExit as ended:
            assert ended.code == (0 if "--help" in line else 2), line
print({"torch", "open_clip", "pandas", "scipy", "plotly"} & sys.modules.keys())
"""
    lines += [[name, "--help"] for name in COMMANDS]
    command = [sys.executable, "-c", code, json.dumps(lines)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.stdout == "set()\n", done.stderr


def test_settings_of_a_run_and_what_undoes_them_are_right(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(
        "size = 0.3\npretrained = 'openai'\nsae = []\nbaseline = 'None'"
    )
    words = f"--model x --data x --class fish --config {tmp_path / 'settings.toml'} --n_images=3 --checkpoint x"
    line = f"{words} --selectivity 0.8 --size None --pretrained None"
    config, _ = read_line(command_module("find").Config, line.split())
    assert (config.size, config.selectivity, config.pretrained) == (None, 0.8, None)
