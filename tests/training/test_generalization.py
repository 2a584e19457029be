"""Tables of generalization by hand, and what their figures show."""

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest

from circuitry.reports.figures.bars import settings_bars
from circuitry.reports.figures.scatters import robustness_scatter
from circuitry.reports.figures.style import MARKS
from circuitry.runs.errors import InputError
from circuitry.training.generalization import effective_robustness, settings_table
from circuitry.training.generalization import logit as training_logit


def evaluated() -> pd.DataFrame:
    """Two seeds of two settings, one test domain each, two checkpoints; values are told by their place."""
    rows = []
    for (setting, test), seed, epoch in product((("natural-only", ""), ("cg-low", "ink")), (0, 1), (1, 2)):
        for domain, part in product(("real", "ink"), ("held-out", "seen", "cat")):
            value = 0.1 * epoch + 0.2 * seed + (0.05 if setting == "cg-low" else 0) + (0.3 if domain == "real" else 0)
            about = {"run": f"{setting}-{seed}", "setting": setting, "test_domain": test, "seed": seed, "epoch": epoch}
            place = {"classifier": "all", "domain": domain, "part": part, "measure": "balanced top-1"}
            rows.append(about | place | {"value": value, "n_images": 10, "n_classes": 2})
    return pd.DataFrame(rows)


def test_settings_by_hand() -> None:
    table = settings_table(evaluated(), "all").set_index(["test_domain", "setting", "domain", "part"])
    assert set(table.index.get_level_values("test_domain")) == {"ink"}  # natural-only counts for it, too
    natural = table.xs(("ink", "natural-only", "ink", "held-out"))
    assert natural["mean"] == pytest.approx((0.2 + 0.4) / 2)
    assert natural["sd"] == pytest.approx(math.sqrt(2 * 0.1**2))
    assert (natural["seeds"], natural["values"]) == (2, "0.2000 0.4000")
    assert table.xs(("ink", "cg-low", "real", "seen"))["mean"] == pytest.approx((0.55 + 0.75) / 2)
    order = table.index.get_level_values("setting").unique().tolist()
    assert order == ["natural-only", "cg-low"]  # from little to much diversity


def test_one_seed_has_no_deviation() -> None:
    one = evaluated().query("seed == 0")
    assert settings_table(one, "all")["sd"].isna().all()


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_logits_by_hand() -> None:
    found = training_logit(pd.Series([0.25, 0.0, 1.0]), pd.Series([10, 10, 4]))
    assert found.tolist() == pytest.approx([-math.log(3), math.log(0.05 / 0.95), math.log(0.875 / 0.125)])


def test_robustness_against_a_line_on_paper() -> None:
    table = evaluated()
    # natural-only models: choose test accuracies on logit y = 2 logit x - 1, with the same x as before.
    at = (table["setting"] == "natural-only") & (table["domain"] == "ink")
    table.loc[at, "value"] = [1 / (1 + math.exp(1 - 2 * logit(v + 0.3))) for v in table.loc[at, "value"]]
    points = effective_robustness(table, "all").set_index(["run", "epoch"])
    assert len(points) == 8
    assert points["n_natural"].eq(10).all()
    assert points["n_test"].eq(10).all()
    for run, epoch in points.index:
        point = points.loc[(run, epoch)]
        expected = 1 / (1 + math.exp(1 - 2 * logit(point["natural"])))
        assert point["expected"] == pytest.approx(expected)
        assert point["effective"] == pytest.approx(point["test"] - expected)
    effective = points["effective"].to_dict()
    assert effective["natural-only-0", 1] == pytest.approx(0)
    assert abs(effective["cg-low-1", 2]) > 0.1


def test_accuracies_of_nothing_and_everything_stay_finite() -> None:
    table = evaluated()
    table["value"] = np.where(table["domain"] == "ink", 0.0, np.where(table["epoch"] == 1, 1.0, 0.5))
    assert np.isfinite(effective_robustness(table, "all")["expected"]).all()


def test_without_reference_models_there_is_no_line() -> None:
    points = effective_robustness(evaluated().query("setting == 'cg-low'"), "all")
    assert points["expected"].isna().all()
    assert points["effective"].isna().all()


def test_what_is_not_there_is_said() -> None:
    with pytest.raises(InputError, match=r"has no 'top-9' of 'all'; it has balanced top-1 of all\."):
        settings_table(evaluated(), "all", "top-9")
    with pytest.raises(InputError, match="None of the runs was trained for a test domain"):
        settings_table(evaluated().query("setting == 'natural-only'"), "all")
    with pytest.raises(InputError, match="both in its test domain and in 'photo' for the part 'held-out'"):
        effective_robustness(evaluated(), "all", natural="photo")


def test_bars_show_the_means_of_the_test_domain() -> None:
    figure = settings_bars(settings_table(evaluated(), "all"), chance=0.5)
    held = next(t for t in figure.data if t.offsetgroup == "held-out" and t.x[0] is not None)
    assert list(held.x) == ["natural-only", "cg-low"]
    assert list(held.y) == pytest.approx([30, 35])
    assert list(held.error_y.array) == pytest.approx([100 * math.sqrt(0.02)] * 2)


def test_scatter_shows_every_checkpoint_and_the_line() -> None:
    points = effective_robustness(evaluated(), "all")
    figure = robustness_scatter(points)
    marks = [trace for trace in figure.data if trace.mode == "markers"]
    assert {trace.name: len(trace.x) for trace in marks} == {"natural-only": 4, "cg-low": 4}
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert len(lines) == 1
    assert logit(points["natural"].max()) == pytest.approx(max(lines[0].x))


def test_scatter_moves_nothing_and_everything_inwards_as_the_line_was_fitted() -> None:
    table = evaluated()
    table.loc[(table["domain"] == "ink") & (table["setting"] == "natural-only"), "value"] = 0.0
    figure = robustness_scatter(effective_robustness(table, "all"))
    drawn = next(trace for trace in figure.data if trace.mode == "markers" and trace.name == "natural-only")
    assert list(drawn.y) == pytest.approx([logit(0.5 / 10)] * 4)
    line = next(trace for trace in figure.data if trace.mode == "lines")
    assert list(line.y) == pytest.approx([logit(0.5 / 10)] * len(line.y))


def test_settings_look_like_no_domain() -> None:
    figure = robustness_scatter(effective_robustness(evaluated(), "all"))
    looks = {(t.marker.color, t.marker.symbol) for t in figure.data if t.mode == "markers"}
    assert len(looks) == 2
    assert not {mark.symbol for mark in MARKS} & {symbol for _, symbol in looks}
