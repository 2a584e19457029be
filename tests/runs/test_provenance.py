"""What made a number."""

import subprocess
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
import torch

from circuitry.runs import digest, provenance, versions
from circuitry.runs.provenance import command, weights_digest


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": {"c": 2, "d": 3}}) == digest({"b": {"d": 3, "c": 2}, "a": 1})
    assert len(digest({})) == 16


def test_a_digest_depends_on_everything_else() -> None:
    values = [{"a": 1}, {"a": "1"}, {"a": 2}, {"b": 1}, {"a": 1, "b": 1}, [1, 2], [2, 1], [12], ["a"], None]
    assert len({digest(value) for value in values}) == len(values)
    assert digest({"a": (1, 2), "b": Path("x")}) == digest({"a": [1, 2], "b": "x"})


def state() -> dict[str, torch.Tensor]:
    return {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3), "c": torch.zeros(0)}


def test_weights_have_one_digest_in_any_order_and_layout() -> None:
    other = dict(reversed(state().items()))
    other["a"] = other["a"].T.contiguous().T.requires_grad_()  # other strides, same values
    assert weights_digest(other) == weights_digest(state())


@pytest.mark.parametrize(
    "changed",
    [
        {"a": torch.arange(6.0).reshape(3, 2)},
        {"a": torch.arange(6.0).reshape(2, 3).view(torch.int32)},  # the same bytes
        {"d": torch.zeros(0)},
        {"b": torch.tensor(-3)},
        {"a": torch.arange(6.0).reshape(2, 3).bfloat16()},  # which numpy lacks
        {"a": torch.nextafter(torch.arange(6.0), torch.tensor(9.0)).reshape(2, 3)},  # one bit of each
    ],
)
def test_names_shapes_and_types_change_the_digest_of_weights(changed: dict[str, torch.Tensor]) -> None:
    assert weights_digest(state() | changed) != weights_digest(state())


def test_versions_name_what_can_change_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    found = versions()
    assert found["torch"] == torch.__version__
    assert found["numpy"] == np.__version__
    assert {"python", "clip-circuitry", "open_clip_torch", "timm", "transformer-lens", "commit"} <= found.keys()

    def absent(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(provenance, "version", absent)
    assert versions()["timm"] == "not installed"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["--out", "a", "--seed", "3"], "experiments/x.py --seed 3"),
        (["--out=a", "--classes", "the axe", "lion", "--results", "r"], "experiments/x.py --classes 'the axe' lion"),
        ([], "experiments/x.py"),
    ],
)
def test_a_command_is_named_without_its_output(given: list[str], named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for script in ("/somewhere/experiments/x.py", "circuitry x"):
        monkeypatch.setattr("sys.argv", [script, *given])
        assert command() == named.replace("experiments/x.py", script.removeprefix("/somewhere/"))


def checkout(folder: Path, *files: str) -> list[Path]:
    """Commit files with something in them."""

    def git(*arguments: str) -> None:
        named = ["-c", "user.name=n", "-c", "user.email=e"]
        subprocess.run(["git", "-C", folder, *named, *arguments], check=True, capture_output=True)

    paths = [folder / name for name in files]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    return paths


def test_a_commit_is_clean_unless_code_was_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = checkout(tmp_path, "circuitry/a.py", "experiments/x.py", "experiments/results/t.csv", "README.md")
    monkeypatch.setattr(provenance, "__file__", str(files[0]))
    clean = versions()["commit"]
    assert len(clean) == 12
    for changed, dirty in zip(files, (True, True, False, False), strict=True):
        changed.write_text("2")
        assert versions()["commit"] == clean + "-dirty" * dirty
        changed.write_text("1")


def test_of_an_installed_package_the_commit_is_the_script_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (script,) = checkout(tmp_path, "experiments/x.py")
    installed = tmp_path / "venv" / "circuitry" / "provenance.py"  # in the checkout's folder, and not of it
    installed.parent.mkdir(parents=True)
    installed.touch()
    monkeypatch.setattr(provenance, "__file__", str(installed))
    monkeypatch.setattr("sys.argv", ["-c"])
    assert versions()["commit"] == "unknown"
    monkeypatch.setattr("sys.argv", [str(script)])
    assert len(versions()["commit"]) == 12
