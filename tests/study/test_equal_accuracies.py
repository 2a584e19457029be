"""Models that are equally accurate look equal in every figure of accuracy, and screening changes none of them alone."""

import math
from pathlib import Path

import pandas as pd
import pytest

from circuitry.runs import InputError
from circuitry.training.accuracy import FALSE_ALARMS, MEASURE
from experiments.study.plan_command import STUDY_FIGURES
from experiments.study.run_tables import kinds_of_runs
from experiments.study.setting_charts import settings_bars
from experiments.study.study_figures import side_by_side
from tests.study.made_up_runs import HELD_OUT, Asked, made_up_runs
from tests.support.scripts import figure_of, program_module, study_config

BY_CLASS = {
    "axe": 0.4,
    "banana": 0.3,
    "bed": 0.05,
}  # the upper bound does not learn beds
WHOLE = {"all": 0.55, "seen": 0.6, "held-out": 0.25}


def alike(asked: Asked) -> float:
    """Return the same for all models."""
    if asked.measure == FALSE_ALARMS:
        return 0.0
    if asked.group in HELD_OUT:
        return BY_CLASS[asked.group] if asked.measure == MEASURE else 0.5
    return WHOLE[asked.group] if asked.measure == MEASURE else 0.7


@pytest.fixture(scope="module")
def evaluated() -> pd.DataFrame:
    return made_up_runs(alike, ("quickdraw", "sketch"))


@pytest.fixture(scope="module")
def tables(evaluated: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What generalization --study writes of these models."""
    module, out = program_module("generalization"), tmp_path_factory.mktemp("made_up")
    for name, table in module.tables_of(
        study_config("generalization", "--runs", "x", "--data", "x"), evaluated
    ).items():
        table.to_csv(out / f"{name}.csv", index=False)
    return out


@pytest.mark.parametrize("name", STUDY_FIGURES["generalization"])
def test_equal_accuracies_give_equal_bars(tables: Path, name: str) -> None:
    over = "interpolation" in name or name in (
        "imagenet_sketch_classes",
        "effective_robustness",
    )
    values: dict[str, set[float]] = {}
    for trace in figure_of(name, tables).data:
        numbers, mode = (
            trace.y if over else trace.x,
            trace.to_plotly_json().get("mode", "bar"),
        )
        if (
            numbers is not None
            and numbers[0] is not None
            and mode in ("bar", "markers", "lines+markers")
        ):
            what = f"opacity {trace.marker.opacity}" if over else trace.name
            values.setdefault(what, set()).update(
                round(float(one), 6) for one in numbers if math.isfinite(one)
            )
    assert values
    assert all(len(found) <= 1 for found in values.values()), values
    if "held-out classes" in values:
        assert values["held-out classes"] == {
            25.0
        }  # of all three classes, in every figure
        assert values["seen classes"] == {60.0}


def test_screened_classes_stand_beside_by_name_and_are_the_same_for_all_models(
    tables: Path,
) -> None:
    main, beside = (
        pd.read_csv(tables / f"told_apart{name}.csv") for name in ("", "_screened")
    )
    assert set(main["held_out_classes"]) == {"axe, banana, bed"}
    assert set(beside["held_out_classes"]) == {"axe, banana"}
    assert main["held_out"].round(9).unique().tolist() == [0.25]
    assert beside["held_out"].round(9).unique().tolist() == [0.35]
    assert beside["model"].nunique() == 3  # although only RN50 has upper bounds
    assert set(pd.read_csv(tables / "screened.csv")["model"]) == {"rn50"}


def test_rows_of_unlike_classes_are_not_drawn(evaluated: pd.DataFrame) -> None:
    kinds = kinds_of_runs(evaluated)
    unlike = (kinds["model"] == "vit-s-32") & (kinds["test_domain"] == "sketch")
    kinds.loc[unlike, "held_out_classes"] = "axe, banana"
    with pytest.raises(InputError, match=r"sketch.*vit-s-32.*bed"):
        settings_bars(side_by_side(kinds, "model"), {})
