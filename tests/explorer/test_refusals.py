"""What the room of the explorer refuses, and the names and values that the sentence holds."""

import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from circuitry import CausalChecks, GraphFolder, InputError
from circuitry.explorer import (
    LiveModel,
    export_explorer,
    exported_study,
    read_curves,
    serve_explorer,
)
from circuitry.explorer.server import Access, explorer_app
from circuitry.runs.manifest import NAME
from tests.explorer.made import MadeCards


class World(NamedTuple):
    graphs: GraphFolder
    checks: CausalChecks
    exported: Path
    empty: Path

    def export(self, file: str = "", **given: Any) -> None:
        """Export to a folder that holds another file; nothing there changes."""
        out = self.empty / "out"
        out.mkdir()
        if file:
            (out / file).write_text("mine")
        try:
            export_explorer(self.graphs, out, **given)
        finally:
            assert [path.name for path in out.iterdir()] == [file] * bool(file)

    def export_without_graphs(self) -> None:
        copied = shutil.copytree(
            self.graphs.path,
            self.empty / "circuits",
            ignore=shutil.ignore_patterns("graphs"),
        )
        export_explorer(GraphFolder(copied), self.empty / "out")

    def other_cards(self) -> MadeCards:
        cards = MadeCards(self.graphs)
        cards.manifest = {"config": {"circuits": "of another run"}}
        return cards

    def serve(self, change: Callable[[Path], Any]) -> None:
        folder = Path(shutil.copytree(self.exported, self.empty / "explorer"))
        change(folder)
        assert exported_study(folder) is None
        explorer_app(folder, Access())

    def listen(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            serve_explorer(self.exported, port=other.getsockname()[1])

    def look(self, content: bytes) -> None:
        with pytest.raises(InputError) as refused:
            LiveModel(self.checks).look(content)
        assert "/tmp" not in str(refused.value)
        raise refused.value

    def effects(self, class_name: str, unit: str | None, by: Any) -> None:
        site = self.checks.clip.encoder.sites[-2]
        units = [] if unit is None else [unit.replace("{site}", site)]
        LiveModel(self.checks).effects(class_name, units, by)


def older(folder: Path) -> None:
    (folder / NAME).write_text(
        (folder / NAME).read_text().replace("explorer 2", "explorer 1")
    )


REFUSALS: list[tuple[Callable[[World], object], tuple[str, ...]]] = [
    (lambda w: w.export("thesis.tex"), ("out", "empty")),
    (lambda w: w.export("index.html"), ("out", "index.html")),
    (
        lambda w: w.export(cards=w.other_cards()),
        ("of another run", "circuitry cards --circuits"),
    ),
    (lambda w: w.export_without_graphs(), ("circuits",)),
    (lambda w: read_curves(w.empty), ("curves", "circuitry check")),
    (
        lambda w: w.serve(lambda folder: (folder / NAME).unlink()),
        ("no explorer", "export"),
    ),
    (
        lambda w: w.serve(lambda folder: (folder / "index.html").unlink()),
        ("not complete", "export"),
    ),
    (lambda w: w.serve(older), ("explorer 1", "explorer 2", "export")),
    (lambda w: w.listen(), ("Port", "0 for a free one")),
    (lambda w: serve_explorer(w.exported, port=70_000), ("70000",)),
    (lambda w: w.look(b""), ("empty",)),
    (lambda w: w.look(b"<svg onload='alert(1)'/>"), ("not an image",)),
    (lambda w: w.effects("dog", "{site}/0", "zero"), ("dog",)),
    (lambda w: w.effects("cat", None, "zero"), ("none",)),
    (lambda w: w.effects("cat", "{site}/100000", "zero"), ("100000",)),
    (lambda w: w.effects("cat", "{site}/²", "zero"), ("²",)),
    (lambda w: w.effects("cat", "nowhere/1", "zero"), ("nowhere/1",)),
    (lambda w: w.effects("cat", "{site}/0", "one"), ("one", "other-domains")),
    (lambda w: w.effects("cat", "{site}/0", "other-domains"), ("other domains",)),
]


@pytest.mark.parametrize(("use", "words"), REFUSALS)
@pytest.mark.usefixtures("unchecked")
def test_refusals(
    use: Callable[[World], object],
    words: tuple[str, ...],
    graphs: GraphFolder,
    checks: CausalChecks,
    exported: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(InputError) as refused:
        use(World(graphs, checks, exported, tmp_path))
    assert all(word in str(refused.value) for word in words), refused.value
