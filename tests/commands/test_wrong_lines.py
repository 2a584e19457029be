"""What cannot work is said in a sentence before the work: a hundred wrong command lines."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from circuitry.commands import run_command
from circuitry.commands.help_pages import help_page
from circuitry.commands.wrong_lines import refuse_wrong

MODEL = "--model rn-tiny --checkpoint {tiny} --data {data}"
OWN = "--model rn-tiny --data {data}"
BY_THE_PAGE: list[tuple[str, list[str]]] = [
    # the command
    ("compair", ["'compair'", "compare"]),
    ("chek --transfer", ["'chek'", "check"]),
    ("faithfulness", ["'faithfulness'"]),
    ("--compare", ["'--compare'"]),
    ("Find", ["'Find'", "find"]),
    ("train_sae", ["'train_sae'", "train-sae"]),
    ("--completion tcsh", ["'tcsh'", "zsh"]),
    # an option that is not there
    (f"find {MODEL} --clas fish", ["--clas", "--class", "circuitry find --help"]),
    (f"find {MODEL} --class fish --sise 0.2", ["--sise", "--size"]),
    (f"find {MODEL} --class fish --methods learned", ["--methods", "--method"]),
    (f"find {MODEL} --class fish --study", ["--study"]),
    (f"find {MODEL} --class fish --n-image 5", ["--n-image", "--n-images"]),
    (f"find {MODEL} --class fish -n 5", ["'-n'"]),
    ("compare --modle rn-tiny", ["--modle", "--model"]),
    (f"compare {MODEL} --out {{out}} --domain real", ["--domain", "--domains"]),
    (f"compare {MODEL} --out {{out}} --node-fraction 0.1", ["--node-fraction"]),
    ("compare --n-image 5", ["--n-image", "--n-images", "circuitry compare --help"]),
    ("represent --sead 3", ["--sead", "--seed"]),
    ("features --training.step 3", ["--training.step", "--training.steps"]),
    ("explore --runs {missing}", ["--runs", "--run"]),
    ("info --verbose", ["--verbose"]),
    # a word that no option takes
    (f"find {MODEL} --class fish extra words", ["extra", "--class"]),
    ("compare {data}", ["{data}"]),
    ("check --transfer yes", ["'yes'", "--transfer"]),
    ("check --transfer=yes", ["'yes'", "--transfer"]),
    (f"compare {OWN} --out {{out}} --pair fish real sketch star", ["'star'", "--pair"]),
    # no value
    (f"find {MODEL} --class", ["--class", "none"]),
    (f"find {MODEL} --class --size 0.3", ["--class", "none"]),
    (f"compare {OWN} --out {{out}} --pair fish real", ["3 values", "--pair", "fish real"]),
    (f"compare {OWN} --out {{out}} --items listing.csv", ["2 values", "LISTING COLUMN"]),
    (f"find {MODEL} --class fish --domain real --config", ["--config"]),
    # no value of the type
    (f"find {MODEL} --class fish --n-images few", ["few", "--n-images"]),
    (f"find {MODEL} --class fish --n-images 0", ["'0'", "at least 1", "--n-images"]),
    (f"find {MODEL} --class fish --n-others -3", ["'-3'", "--n-others"]),
    (f"find {MODEL} --class fish --seed 1.5", ["1.5", "--seed"]),
    (f"find {MODEL} --class fish --steps 0", ["'0'", "--steps"]),
    (f"find {MODEL} --class fish --size 40", ["40", "(0, 1]"]),
    (f"find {MODEL} --class fish --size 0", ["'0'", "--size"]),
    (f"find {MODEL} --class fish --size nan", ["nan", "--size"]),
    (f"find {MODEL} --class fish --selectivity 80", ["80", "(0, 1.5]"]),
    (f"compare {OWN} --out {{out}} --size 10", ["--size", "10"]),
    (f"compare {OWN} --out {{out}} --n-images 0", ["--n-images", "0"]),
    (f"compare {OWN} --out {{out}} --parts 1", ["--parts", "1"]),
    (f"compare {OWN} --out {{out}} --kernel-depths 1 two", ["--kernel-depths", "two"]),
    ("scoreboard --sizes 0.1 2", ["--sizes", "'2'"]),
    ("check --memory-gib 0", ["--memory-gib", "positive"]),
    ("represent --folds 1", ["--folds", "at least 2"]),
    ("train-sae --l1 -1", ["--l1", "-1"]),
    # none of the choices
    (f"find {MODEL} --class fish --units chanels", ["chanels", "channels"]),
    (f"find {MODEL} --class fish --domain real --method magic", ["magic", "learned"]),
    (f"compare {OWN} --out {{out}} --choice random", ["random", "by-name", "shuffled"]),
    (f"compare {OWN} --out {{out}} --metric cosine", ["cosine", "logit", "margin"]),
    (f"compare {OWN} --out {{out}} --rule simpson-4", ["simpson", "midpoint"]),
    (f"compare {OWN} --out {{out}} --budget none", ["--budget", "none"]),
    (f"compare {OWN} --out {{out}} --cluster pbs", ["pbs", "slurm"]),
    (f"compare {OWN} --out {{out}} --edge-method cutz", ["cutz", "cuts"]),
    ("train --out {out} --data {data} --precision fp9", ["fp9", "fp32"]),
    ("quickstart --model rn50", ["rn50", "rn-tiny", "vit-tiny"]),
    ("scoreboard --methods magic", ["magic", "learned"]),
    ("scoreboard --methods learned grad", ["'grad'", "gradient"]),
    ("scoreboard --budgets local", ["local", "global"]),
    ("scoreboard --baselines median", ["median", "mean"]),
    ("separation --map tsne", ["tsne", "umap"]),
    ("train --out {out} --data {data} --preset rn50-cc3n", ["rn50-cc3n", "rn50-cc3m"]),
    ("figures accuracie", ["accuracie", "accuracy"]),
    # what is needed, and what contradicts
    ("compare --model rn-tiny", ["--data"]),
    ("find --data {data} --class fish", ["--model"]),
    ("train --out {out}", ["--data", "--table"]),
    ("train-supervised --out {out}", ["--data", "--table"]),
    ("separation --models a=b", ["--models", "--data"]),
    (f"find {MODEL} --class fish --size 0.2 --selectivity 0.8", ["--size", "--selectivity"]),
    (f"compare {MODEL} --pretrained openai --out {{out}}", ["--checkpoint", "--pretrained"]),
    ("scoreboard --sites layer4 --no-body", ["--sites", "--body"]),
    ("features --autoencoder {tiny} --more-tables {tiny}", ["--autoencoder", "--more-tables"]),
    # a file of settings
    (f"find {MODEL} --class fish --domain real --config {{missing}}", ["--config", "{missing}"]),
    (f"find {MODEL} --class fish --domain real --config {{tiny}}", ["--config", "{tiny}"]),
    (f"find {MODEL} --class fish --domain real --config {{settings}}", ["--sice", "--size"]),
]
BEFORE_THE_WORK: list[tuple[str, list[str]]] = [
    ("figures accuracy --tables {missing}", ["accuracy", "{missing}"]),
    (f"find {MODEL} --class fish --domain real --device cuda", ["cuda"]),
    (f"find {MODEL} --class fish --domain real --device gpu", ["gpu"]),
    # classes and domains
    (f"find {MODEL} --class fisch --domain real", ["'fisch'", "fish"]),
    (f"find {MODEL} --class fish --domain reel", ["'reel'", "real"]),
    (f"find {MODEL} --class fish", ["real", "sketch", "--domain"]),
    (f"compare {MODEL} --out {{out}} --classes fish,star", ["fish,star"]),
    (f"compare {MODEL} --out {{out}} --domains foto", ["'foto'"]),
    (f"compare {MODEL} --out {{out}} --held-out fisch", ["--held-out", "fish"]),
    (f"compare {MODEL} --out {{out}} --pair fish real real", ["--pair", "twice"]),
    (f"evaluate {MODEL} --out {{out}} --held-out fisch", ["fisch", "fish"]),
    ("quickstart --held-out fisch", ["fisch", "fish"]),
    ("quickstart --test-domain sketches", ["sketches", "sketch"]),
    # files and folders
    ("find --model rn-tiny --checkpoint {missing} --data {flat} --class cat", ["{missing}"]),
    ("find --model rn-tiny --checkpoint {tiny} --data {missing} --class cat", ["{missing}"]),
    ("find --model rn-tiny --checkpoint {tiny} --data {one} --class cat", ["1", "cat", "2"]),
    ("find --model no-such-model --checkpoint {tiny} --data {flat} --class cat", ["no-such-model"]),
    ("find --model rn-tiny --checkpoint {tiny} --data {flat} --class cat --baseline mean-position", ["mean-position"]),
    ("check --circuits {missing} --checkpoint {tiny} --data {data}", ["{missing}", "circuitry compare"]),
    ("explore --run {missing}", ["{missing}"]),
]
LINES = [*((line, words, True) for line, words in BY_THE_PAGE), *((*one, False) for one in BEFORE_THE_WORK)]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Images in two domains, in one folder, and alone; a file that is no checkpoint; names of nothing."""
    root = tmp_path_factory.mktemp("wrong")
    files = [f"data/{d}/{c}/{i}.png" for d in ("real", "sketch") for c in ("fish", "star") for i in range(2)]
    for name in (*files, "flat/a.png", "flat/b.png", "one/a.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(root / name)
    (root / "tiny.pt").write_bytes(b"no weights")
    (root / "settings.toml").write_text("sice = 0.3\n")
    names = {"tiny": "tiny.pt", "settings": "settings.toml"}
    names |= {name: name for name in ("data", "flat", "one", "out", "missing")}
    return {key: root / name for key, name in names.items()}


@pytest.mark.parametrize(("line", "words", "by_the_page"), LINES, ids=[line for line, *_ in LINES])
def test_a_wrong_line_is_refused_in_a_sentence_before_the_work(
    line: str,
    words: list[str],
    by_the_page: bool,
    places: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if torch.cuda.is_available() and "cuda" in line:
        pytest.skip("right where there is a GPU")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["circuitry", *(word.format(**places) for word in line.split())])
    if by_the_page:
        monkeypatch.setattr("circuitry.commands.dispatch.hand_over", pytest.fail)
    with pytest.raises(SystemExit) as ended:
        run_command()
    assert ended.value.code == 2
    printed = capsys.readouterr()
    shown = printed.err[printed.err.index("error: ") :].strip()
    assert "\n" not in shown
    assert shown.endswith(".")
    assert not printed.out
    for word in words:
        assert word.format(**places) in shown
    assert "Traceback" not in shown
    assert not places["out"].exists()


def test_the_page_refuses_without_torch(places: dict[str, Path]) -> None:
    """All lines in one process, which has no library of models in the end."""
    lines = [[word.format(**places) for word in line.split()] for line, _ in BY_THE_PAGE]
    code = """
import json, sys
from circuitry.commands import run_command
from circuitry.commands.help_pages import help_page
from circuitry.commands.wrong_lines import refuse_wrong
for line in json.loads(sys.argv[1]):
    sys.argv = ["circuitry", *line]
    try:
        run_command()
    except SystemExit as ended:
        assert ended.code == 2
print({"torch", "open_clip", "pandas", "scipy", "plotly"} & sys.modules.keys())
"""
    done = subprocess.run([sys.executable, "-c", code, json.dumps(lines)], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
    assert len(done.stderr.splitlines()) == len(lines)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ("size = 0.3\npretrained = 'openai'", "find --selectivity 0.8 --size None --pretrained None --checkpoint x"),
        ("body = true\nsae = []", "scoreboard --sites layer4"),
        ("models = []", "separation"),
    ],
)
def test_settings_of_a_run_and_what_undoes_them_are_right(settings: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(settings)
    name, *words = line.split()
    own = {"find": ["--model", "x", "--data", "x", "--class", "fish"]}.get(name, [])
    refuse_wrong(help_page(name), [*own, *words, "--config", str(tmp_path / "settings.toml")])


def test_there_are_many_of_them() -> None:
    assert len({line for line, *_ in LINES}) == len(LINES) >= 97


def test_the_answer_is_json_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["circuitry", "figures", "--list", "--json"])
    run_command()
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"command": "circuitry figures --list --json"}
    assert "accuracy" in printed.err
