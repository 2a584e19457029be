"""The script from end to end on a tiny model."""

from pathlib import Path

import pandas as pd
import pytest

from tests.study.representations.test_embeddings import draw
from tests.support.browser import find_browser
from tests.support.scripts import assert_drawn, program_module
from tests.support.tiny_clip import Tiny

NAMES = tuple(
    f"{d}/{c}/{i}.png"
    for d in ("ink", "photo", "wash")
    for c in ("axe", "cat")
    for i in range(6)
)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny) -> Path:
    """The folder of a finished measurement of two models, one of them with two seeds."""
    out = tmp_path_factory.mktemp("separation")
    module = program_module("separation")
    draw(out / "data", NAMES)
    tiny.load()
    weights = tiny.config.with_suffix(".safetensors")
    models = (f"plain={weights}", f"plain={weights}", f"aligned={weights}")
    images = {"data": out / "data", "held_out": ("cat",), "test_domain": "ink"}
    where = {"out": out / "run", "results": out / "results"}
    module.main(
        module.Config(
            models=models, model=str(tiny.config), map="pca", **images, **where
        )
    )
    return out


def test_tables_of_all_models_are_written(measured: Path) -> None:
    results = measured / "results"
    tables = {path.stem: pd.read_csv(path) for path in results.glob("*.csv")}
    assert set(tables) == {
        *("summary", "by_seed", "map", "differences"),
        *("distances_per_domain", "distance_tests", "mean_distances"),
    }
    sizes = {
        f"{name}{rest}": n
        for name in ("aligned", "plain")
        for rest, n in (("", 36), (", without ink", 24))
    }
    assert tables["map"].groupby("model").size().to_dict() == sizes
    assert set(tables["by_seed"].query("model == 'plain'")["seed"]) == {0, 1}
    assert (
        tables["differences"]["difference"].abs().max() == 0
    )  # the same weights under two names
    assert set(
        tables["summary"].query("measure == 'accuracy, held-out classes'")["n_classes"]
    ) == {1}
    assert len(list((measured / "run" / "embeddings").iterdir())) > 1
    assert (results / "provenance.json").is_file()
    page = (measured / "run" / "report.html").read_text(encoding="utf-8")
    own = tables["distances_per_domain"].query(
        "model == 'plain' and measure == 'euclidean_distance'"
    )
    assert all(f"{value:.3f} [" in page for value in own["value"])


@pytest.mark.skipif(
    find_browser() is None, reason="no Chromium or Chrome on this machine"
)
def test_a_browser_draws_the_report(measured: Path) -> None:
    assert_drawn(measured / "run" / "report.html", figures=6)
