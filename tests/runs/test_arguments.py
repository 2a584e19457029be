"""Arguments are checked against annotations, by functions that say what each one is."""

import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import pytest
import torch
from jaxtyping import Float

import circuitry
from circuitry import InputError
from circuitry.runs.arguments import (
    DISTINCT,
    FINITE,
    Count,
    Names,
    Seed,
    Share,
    checked,
    one_of,
)
from circuitry.runs.command_line import read_line
from circuitry.runs.errors import ByName
from circuitry.runs.files import whole_file

pytestmark = pytest.mark.usefixtures("unchecked")


@checked
def taken(
    *,
    names: Names = (),
    share: Share | None = None,
    count: Count = 1,
    seed: Seed = 0,
    word: Literal["a", "b"] = "a",
    other: Annotated[str | None, one_of("c", "d")] = None,
    weights: Annotated[Float[torch.Tensor, "k d"], FINITE] | None = None,
    vector: Annotated[np.ndarray | None, FINITE] = None,
    row: Float[torch.Tensor, " d"] | None = None,
    groups: Mapping[str, Sequence[int]] | None = None,
    sites: Annotated[tuple[str, ...], DISTINCT] = (),
    path: Path | None = None,
    images: torch.Tensor | Iterable[torch.Tensor] = (),
) -> dict[str, Any]:
    return {name: value for name, value in locals().items() if value not in (None, ())}


@dataclass(frozen=True)
class Folders:
    out: Path = Path()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"names": "cat"}, r"list of names.*'cat' was given.*\['cat'\]"),
        ({"names": ["cat", 3]}, r"string as names\[1\].* 3 "),
        ({"names": ["cat", "dog", "cat"]}, "distinct.*names.*'cat' twice"),
        (
            {"names": pd.Series(["cat", "dog"], [1, 0])},
            r"list of names.*Series.*list\(names\)",
        ),
        ({"names": {"cat": 1}.items()}, "names"),
        ({"share": float("nan")}, "share.*nan"),
        ({"share": 0}, r"\(0, 1\] as share.* 0 "),
        ({"share": "0.5"}, "number as share.*'0.5'"),
        ({"count": 2.5}, "whole number as count.* 2.5"),
        ({"count": True}, "whole number as count.*True"),
        ({"count": 0}, "at least 1 as count.* 0 "),
        ({"seed": -1}, "seed.*-1"),
        ({"word": "c"}, "'a', 'b' as word.*'c'"),
        ({"other": "e"}, "'c', 'd' as other.*'e'"),
        ({"weights": np.ones((2, 2))}, r"Tensor \[k d\].*ndarray float64 \[2, 2\]"),
        ({"weights": torch.ones(2, 2).int()}, r"float Tensor.*Tensor int32 \[2, 2\]"),
        ({"weights": torch.full((2, 2), torch.nan)}, "finite.*weights.*NaN"),
        ({"weights": torch.ones(2, 3), "row": torch.ones(2)}, r"row.*\[2\]"),
        ({"groups": {"a": [1, "b"]}}, r"groups\['a'\]\[1\].*'b'"),
        ({"groups": {1: [1]}}, "key of groups.* 1 "),
        ({"groups": ["a"]}, "groups.*list"),
        ({"sites": "act1"}, r"list of sites.*\('act1',\)"),
        ({"path": 3}, "path as path.* 3 "),
        ({"images": [1]}, r"images\[0\].* 1 "),
        ({"vector": np.array(["a"])}, r"finite.*vector.*\[1\]"),
        ({"names": ["x" * 300] * 2}, r"x\.\.\.x+' twice"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    given: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        taken(**given)


def test_what_is_meant_is_taken() -> None:
    call: Any = taken
    found = call(
        count=np.int64(3),
        sites=["a", "b"],
        path="x",
        names=("b", "a"),
        groups={"a": [np.int64(1)]},
    )
    meant = {
        "count": 3,
        "sites": ("a", "b"),
        "path": Path("x"),
        "names": ("b", "a"),
        "groups": {"a": [1]},
    }
    assert found == {**meant, "seed": 0, "word": "a"}
    assert type(found["count"]) is type(found["groups"]["a"][0]) is int


def test_a_tilde_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @checked
    def given(
        path: Path, text: str | os.PathLike[str], paths: Sequence[Path], name: str
    ) -> Any:
        return path, text, *paths, name

    monkeypatch.setenv("HOME", str(tmp_path))
    call: Any = given
    home = tmp_path / "x"
    assert call("~/x", "~/x", ["~/x", "y/~"], "~/x") == (
        home,
        str(home),
        home,
        Path("y/~"),
        "~/x",
    )
    with whole_file("~/new/s.toml") as temporary:
        temporary.write_text('out = "~/x"\n')
    assert (tmp_path / "new" / "s.toml").is_file()
    assert read_line(Folders, ["--config=~/new/s.toml"])[0] == Folders(home)


def test_images_stay_unread() -> None:
    batches = iter([torch.ones(1)])
    assert taken(images=batches)["images"] is batches
    assert len(list(batches)) == 1


def test_classes_check_their_fields() -> None:
    @checked
    @dataclass(frozen=True)
    class Settings:
        steps: Count = 3

    with pytest.raises(InputError, match=r"whole number.*2\.5"):
        Settings(2.5)  # type: ignore[arg-type]
    made: Any = Settings()
    assert made == Settings(3) == copy.deepcopy(made)
    for name, words in (
        ("step", "'step'.*meant steps"),
        ("judge", r"circuitry\.judge_circuit\("),
        ("x", "steps"),
    ):
        assert not hasattr(made, name)
        with pytest.raises(AttributeError, match=f"Settings.*{words}"):
            getattr(made, name)
    with pytest.raises(AttributeError, match="object has no attribute '_repr_png_'"):
        made._repr_png_()


@pytest.mark.parametrize(
    ("door", "arguments", "words"),
    [
        (circuitry.Task, {"other": 1}, "Task 'other'.*others="),
        (circuitry.load_clip, {"pretraind": "x"}, "load_clip 'pretraind'.*pretrained="),
        (
            circuitry.Clip.text_weights,
            {"template": "x"},
            "text_weights 'template'.*templates=",
        ),
        (circuitry.find_circuit, {"steps": 3}, r"meant masks=MaskSettings\(steps=\)\."),
        (
            circuitry.judge_circuit,
            {"n_draws": 3},
            r"settings=AblationSettings\(random_draws=\)",
        ),
        (
            circuitry.faithfulness_curve,
            {"fraction": 0.1},
            r"available: settings=AblationSettings\(ranking=\)",
        ),
        (circuitry.plot, {"kind": "x"}, "plot 'kind'.*available: result="),
        (
            circuitry.find_circuit,
            ("task", "fisher", 0.3),
            r"too many.*find_circuit\(task, method=, size=",
        ),
        (circuitry.patched, (1, 2, 3), r"too many.*with patched\(encoder, patches\):"),
        (
            circuitry.attribute,
            {"metric": 1},
            r"'encoder'.*attribute\(encoder, images, metric, ",
        ),
    ],
)
def test_a_call_that_is_not_taken_is_one_sentence(
    door: Any, arguments: Any, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        door(**arguments) if isinstance(arguments, dict) else door(*arguments)


def test_an_unknown_name_is_a_key_error_too() -> None:
    with pytest.raises(
        KeyError,
        match=r"^There is no entry 'edge' here; perhaps you meant edge_jaccard\.$",
    ) as caught:
        ByName(edge_jaccard=1)["edge"]
    assert isinstance(caught.value, InputError)


def test_paths_that_cannot_be_are_refused(tmp_path: Path) -> None:
    @checked
    def read(path: Path) -> bytes:
        return path.read_bytes()

    (tmp_path / "file").write_bytes(b"x")
    assert read(tmp_path / "file") == b"x"
    for path in (
        tmp_path,
        tmp_path / "missing",
        tmp_path / "file" / "x",
        tmp_path / ("x" * 300),
    ):
        with pytest.raises(InputError, match=path.name[:10]):
            read(path)
