"""Circuits are tested by a command, and a browser draws the report."""

from pathlib import Path

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
