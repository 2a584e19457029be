"""What cannot work is said in a sentence before the work: sixty wrong command lines."""

import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from circuitry.commands import run_command

MODEL = "--model rn-tiny --checkpoint {tiny} --data {data}"
LINES: list[tuple[str, list[str]]] = [
    # the command
    ("compair", ["'compair'", "compare"]),
    ("chek --transfer", ["'chek'", "check"]),
    ("faithfulness", ["'faithfulness'"]),
    ("--compare", ["'--compare'"]),
    # options
    (f"find {MODEL} --clas fish", ["--clas", "--class"]),
    (f"find {MODEL} --class fish --sise 0.2", ["--sise", "--size"]),
    (f"find {MODEL} --class fish --methods learned", ["--methods", "--method"]),
    (f"find {MODEL} --class fish --units chanels", ["chanels", "channels"]),
    (f"find {MODEL} --class fish --n-images few", ["few", "--n-images"]),
    (f"find {MODEL} --class fish --seed 1.5", ["1.5", "--seed"]),
    (f"find {MODEL} --class fish extra words", ["extra"]),
    ("compare --model rn-tiny --data {data}", ["--out"]),
    ("compare --modle rn-tiny", ["--modle", "--model"]),
    (f"compare {MODEL} --out {{out}} --domain real", ["--domain", "--domains"]),
    (f"compare {MODEL} --out {{out}} --draw random", ["random", "by-name", "shuffled"]),
    (f"compare {MODEL} --out {{out}} --metric cosine", ["cosine", "logit", "margin"]),
    (f"compare {MODEL} --out {{out}} --rule simpson-4", ["simpson"]),
    ("train --out {out} --preset rn51", ["rn51"]),
    ("train --out {out} --data {data} --precision fp9", ["fp9", "fp32"]),
    ("quickstart --model rn50", ["rn50", "rn-tiny", "vit-tiny"]),
    ("mixtures", ["--domainnet"]),
    ("figures accuracie", ["accuracie", "accuracy"]),
    ("figures accuracy --results {missing}", ["accuracy", "{missing}"]),
    # values
    (f"find {MODEL} --class fish --size 40", ["40"]),
    (f"find {MODEL} --class fish --size 0", ["--size"]),
    (f"find {MODEL} --class fish --size 0.2 --selectivity 0.8", ["--size", "--selectivity"]),
    (f"find {MODEL} --class fish --selectivity 80", ["80", "0.8"]),
    (f"find {MODEL} --class fish --domain real --method magic", ["magic", "learned"]),
    (f"find {MODEL} --class fish --n-images 0", ["0"]),
    (f"find {MODEL} --class fish --steps 0", ["0"]),
    (f"find {MODEL} --class fish --domain real --device cuda", ["cuda"]),
    (f"find {MODEL} --class fish --domain real --device gpu", ["gpu"]),
    (f"compare {MODEL} --out {{out}} --node-fraction 10", ["--node-fraction", "10"]),
    (f"compare {MODEL} --out {{out}} --n-images 0", ["--n-images", "0"]),
    (f"compare {MODEL} --out {{out}} --budget none", ["--budget", "none"]),
    (f"compare {MODEL} --out {{out}} --parts 1", ["--parts", "1"]),
    ("scoreboard --methods magic", ["magic", "learned"]),
    ("scoreboard --budgets local", ["local", "global"]),
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
    ("generalization --runs {missing} --data {data}", ["{missing}"]),
    ("features-over-settings", ["--results"]),
    ("train --out {out}", ["--data", "--table"]),
    ("study --plan", ["--domainnet", "--miniature"]),
    ("study --miniature --base cc12m=x", ["--base"]),
    (f"find {MODEL} --class fish --domain real --config {{missing}}", ["--config", "{missing}"]),
    (f"find {MODEL} --class fish --domain real --config {{tiny}}", ["--config", "{tiny}"]),
    (f"find {MODEL} --class fish --domain real --config", ["--config"]),
]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Images in two domains, in one folder, and alone; a file that is no checkpoint; names of nothing."""
    root = tmp_path_factory.mktemp("wrong")
    files = [f"data/{d}/{c}/{i}.png" for d in ("real", "sketch") for c in ("fish", "star") for i in range(2)]
    for name in (*files, "flat/a.png", "flat/b.png", "one/a.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(root / name)
    (root / "tiny.pt").write_bytes(b"no weights")
    names = {"data": "data", "flat": "flat", "one": "one", "tiny": "tiny.pt", "out": "out", "missing": "missing"}
    return {key: root / name for key, name in names.items()}


@pytest.mark.parametrize(("line", "words"), LINES, ids=[line for line, _ in LINES])
def test_a_wrong_line_is_refused_in_a_sentence_before_the_work(
    line: str,
    words: list[str],
    places: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if torch.cuda.is_available() and "cuda" in line:
        pytest.skip("right where there is a GPU")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr(sys, "argv", ["circuitry", *(word.format(**places) for word in line.split())])
    with pytest.raises(SystemExit) as ended:
        run_command()
    assert ended.value.code == 2
    shown = " ".join("".join(capsys.readouterr()).split())
    for word in words:
        assert word.format(**places) in shown
    assert "Traceback" not in shown
    assert not places["out"].exists()


def test_there_are_sixty_of_them() -> None:
    assert len({line for line, _ in LINES}) == len(LINES) >= 60


def test_the_answer_is_json_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["circuitry", "figures", "--list", "--json"])
    run_command()
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"command": "circuitry figures --list --json"}
    assert "accuracy" in printed.err
