"""Circuits are tested and carried over by a command, and a browser draws the reports."""

from pathlib import Path

import pandas as pd

from circuitry import Comparison
from circuitry.explorer.overview import describe_comparison
from tests.support.scripts import assert_drawn, command_module, needs_browser


@needs_browser
def test_faithfulness_is_checked_and_drawn(
    quickstart: Path, subject_of_the_quickstart: dict[str, object]
) -> None:
    module = command_module("check")
    out = quickstart / "faithfulness"
    module.main(
        module.Config(
            **subject_of_the_quickstart,
            out=out,
            results=out / "results",
            random_draws=1,
        )
    )
    assert_drawn(out / "report.html")
    committed = {path.name for path in (out / "results").iterdir()}
    assert {"faithfulness_absolute.csv", "selectivity_one_site.csv"} <= committed


@needs_browser
def test_transfer_is_checked_and_drawn(
    quickstart: Path, subject_of_the_quickstart: dict[str, object]
) -> None:
    module = command_module("check")
    out = quickstart / "transfer"
    module.main(
        module.Config(
            **subject_of_the_quickstart, transfer=True, out=out, results=out / "results"
        )
    )
    assert_drawn(out / "report.html")
    assert (
        len(pd.read_csv(out / "results" / "matrices.csv").query("sites == 'all'")) == 4
    )
    seen = describe_comparison(
        Comparison.load(out / "comparisons" / "transfer_faithfulness")
    )
    assert seen["directions"] == ("circuit of", "images of")
    assert len(seen["matrix"]) == 4  # type: ignore[arg-type]
