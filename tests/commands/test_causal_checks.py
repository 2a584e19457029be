"""Circuits are tested, judged and carried over by scripts, and a browser draws the reports."""

from pathlib import Path

import pandas as pd
import pytest

from circuitry import Comparison
from circuitry.explorer.overview import describe_comparison
from circuitry.interventions import MaskSettings
from tests.support.scripts import assert_drawn, command_module, needs_browser, script


@needs_browser
def test_faithfulness_is_checked_and_drawn(quickstart: Path, subject_of_the_quickstart: dict[str, object]) -> None:
    module = command_module("check")
    out = quickstart / "faithfulness"
    module.main(
        module.Config(**subject_of_the_quickstart, out=out, results=out / "results", random_draws=1, rule_circuits=1)
    )
    assert_drawn(out / "report.html")
    committed = {path.name for path in (out / "results").iterdir()}
    assert {"faithfulness_absolute.csv", "selectivity_one_site.csv", "rules_against_patching.csv"} <= committed
    rules = pd.read_csv(out / "results" / "rules_against_patching.csv")
    assert set(rules["rule"]) == {"left 10", "Gauss-Radau 5", "midpoint 10", "gradient x activation"}


@needs_browser
def test_transfer_is_checked_and_drawn(quickstart: Path, subject_of_the_quickstart: dict[str, object]) -> None:
    module = command_module("check")
    out = quickstart / "transfer"
    module.main(module.Config(**subject_of_the_quickstart, transfer=True, out=out, results=out / "results"))
    assert_drawn(out / "report.html")
    assert len(pd.read_csv(out / "results" / "matrices.csv").query("sites == 'all'")) == 4
    seen = describe_comparison(Comparison.load(out / "comparisons" / "transfer_faithfulness"))
    assert seen["directions"] == ("circuit of", "images of")
    assert len(seen["matrix"]) == 4  # type: ignore[arg-type]


def test_masks_and_rankings_are_compared_between_domains(
    quickstart: Path, model_of_the_quickstart: dict[str, object], tmp_path: Path
) -> None:
    module = script("shared_masks")
    few = {"domains": ("clipart", "real"), "n_classes": 2, "n_images": 2, "n_others": 4}
    masks = MaskSettings(steps=4, batch_size=2)
    module.main(module.Config(**model_of_the_quickstart, **few, masks=masks, results=tmp_path))
    levels = pd.read_csv(tmp_path / "levels.csv").set_index(["method", "ceiling", "what"])["value"]
    assert ("site-path", "other seed", "random units") not in levels.index
    assert levels["learned", "other seed", "two parts of the same images"] <= 1
    whole = pd.read_csv(tmp_path / "interchange.csv").query("whole_site")
    assert whole["change"].tolist() == pytest.approx(whole["random_change"].tolist(), abs=1e-7)  # single precision
