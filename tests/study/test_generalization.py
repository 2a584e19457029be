"""Tables of generalization by hand, what is never averaged, and what the figures show."""

import math
import re
from itertools import product
from typing import Any

import pandas as pd
import pytest

from circuitry.reports.figures import domain_marks
from circuitry.runs import InputError
from circuitry.training.accuracy import (
    AMONG_GROUP,
    CENTRED,
    FALLS_ON_HELD_OUT,
    FALSE_ALARMS,
    MEASURE,
    accuracy_kinds,
)
from experiments.study import run_tables
from experiments.study.run_tables import (
    FITTED,
    MODEL,
    NO_MODELS,
    NOTHING,
    ONE_POINT,
    effective_robustness,
    kinds_of_runs,
    model_names,
    screened_classes,
    settings_table,
)
from experiments.study.run_tables import logit as training_logit
from experiments.study.setting_charts import robustness_scatter, settings_bars

RUN = {
    "trained": "CLIP",
    "model": "RN50",
    "base": "none",
    "sketches": "none",
    "captions": "generated",
}
RUN |= {"precision": "fp32", "held_out_classes": "cat"}


def row(value: float, **about: Any) -> dict[str, Any]:
    """Return one accuracy, of what is told and by default of the class cat in ink."""
    run = {
        "run": "a",
        **RUN,
        "setting": "cg-low",
        "test_domain": "ink",
        "seed": 0,
        "epoch": 2,
    }
    place = {
        "classifier": "all templates",
        "domain": "ink",
        "group": "cat",
        "measure": MEASURE,
        "chance": 0.1,
    }
    return run | place | {"value": value, "n_images": 10, "n_classes": 2} | about


def evaluated() -> pd.DataFrame:
    """Two seeds of two settings, one test domain each, two checkpoints; values are told by their place."""
    rows = []
    for (setting, test), seed, epoch in product(
        (("natural-only", ""), ("cg-low", "ink")), (0, 1), (1, 2)
    ):
        for domain, group in product(("real", "ink"), ("held-out", "seen", "cat")):
            value = (
                0.1 * epoch
                + 0.2 * seed
                + (0.05 if setting == "cg-low" else 0)
                + (0.3 if domain == "real" else 0)
            )
            about = {
                "run": f"{setting}-{seed}",
                "setting": setting,
                "test_domain": test,
                "seed": seed,
                "epoch": epoch,
            }
            rows.append(row(value, **about, domain=domain, group=group))
    return pd.DataFrame(rows)


def test_settings_by_hand() -> None:
    table = settings_table(evaluated()).set_index(
        ["test_domain", "setting", "domain", "group"]
    )
    assert set(table.index.get_level_values("test_domain")) == {
        "ink"
    }  # natural-only counts for it, too
    natural = table.xs(("ink", "natural-only", "ink", "held-out"))
    assert natural["mean"] == pytest.approx((0.2 + 0.4) / 2)
    assert natural["sd"] == pytest.approx(math.sqrt(2 * 0.1**2))
    assert (natural["seeds"], natural["values"]) == (2, "0.2000 0.4000")
    assert table.xs(("ink", "cg-low", "real", "seen"))["mean"] == pytest.approx(
        (0.55 + 0.75) / 2
    )
    order = table.index.get_level_values("setting").unique().tolist()
    assert order == ["natural-only", "cg-low"]  # from little to much diversity


MODELS: tuple[dict[str, str], ...] = (
    {"model": "RN50"},
    {"model": "ViT-S-32"},
    {"model": "swin-t"},
    {"model": "RN50", "base": "cc12m"},
    {"model": "RN50", "sketches": "replace"},
    {"model": "RN50", "captions": "file"},
    {"model": "RN50", "trained": "supervised", "classifier": "supervised"},
)


def all_models() -> pd.DataFrame:
    """Three architectures, two bases, a sketch variant, other captions and a supervised one, of two seeds each."""
    rows = [
        row(
            (i + 1) / 10 + seed / 100,
            **about,
            run=f"{i}-{seed}",
            seed=seed,
            group=group,
        )
        for (i, about), seed, group in product(
            enumerate(MODELS), (0, 1), ("all", "seen", "cat")
        )
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("column", ["mean", "held_out"])
def test_models_have_rows_of_their_own_and_only_seeds_are_averaged(column: str) -> None:
    table = (
        settings_table(all_models()).query("group == 'cat'")
        if column == "mean"
        else kinds_of_runs(all_models())
    )
    assert len(table) == len(MODELS)
    assert table["seeds"].eq(2).all()
    for i, about in enumerate(MODELS):
        told = {**RUN, **about}
        (index,) = table.index[
            (table[list(MODEL)] == [told[name] for name in MODEL]).all(axis=1)
        ]
        assert table.loc[index, column] == pytest.approx((i + 1) / 10 + 0.005)
    assert model_names(table).nunique() == len(MODELS)
    assert model_names(table.head(1)).tolist() == [""]


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"seed": 1, "precision": "amp"}, "a and b.*precision.*fp32 and amp"),
        ({"seed": 1, "epoch": 3}, "a and b.*epoch.*2 and 3"),
        ({}, "a, b.*seed"),
    ],
)
def test_what_differs_in_more_than_the_seed_is_refused(
    about: dict[str, Any], words: str
) -> None:
    table = pd.DataFrame([row(0.5), row(0.6, run="b", **about)])
    for make in (settings_table, kinds_of_runs):
        with pytest.raises(InputError, match=words):
            make(table)


def rotated() -> pd.DataFrame:
    """One setting and its upper bound; cat is held out in one fold, dog in the other, whose own is never learned."""
    rows = []
    for (setting, step), (held, value) in product(
        (("cg-low", 0.0), ("upper-high", 0.4)), (("cat", 0.4), ("dog", 0.0))
    ):
        fold = {
            "run": f"{setting}-{held}",
            "setting": setting,
            "held_out_classes": held,
        }
        high = value + (step if held == "cat" else 0)
        rows += [
            row(high, **fold, group=held),
            row(0.8, **fold, group=held, measure=AMONG_GROUP, chance=0.5),
            row(0.6, **fold, group=held, measure=CENTRED),
            row(0.3, **fold, group=held, measure=FALLS_ON_HELD_OUT),
            row(0.5, **fold, group=held, measure=FALSE_ALARMS),
            row(
                0.7 if held == "cat" else 0.2,
                **fold,
                group=held,
                classifier="own style",
            ),
            row(0.5 if held == "cat" else 0.7, **fold, group="seen"),
            row(0.45, **fold, group="all"),
        ]
    return pd.DataFrame(rows)


def test_rotated_classes_count_once_each() -> None:
    found = kinds_of_runs(rotated()).set_index("setting").loc["cg-low"]
    assert found["held_out"] == pytest.approx((0.4 + 0.0) / 2)
    assert found["own_style"] == pytest.approx((0.7 + 0.2) / 2)
    assert found["seen"] == pytest.approx(0.6)
    assert found["harmonic_mean"] == pytest.approx(2 * 0.6 * 0.2 / 0.8)
    columns = [
        "alone",
        "chance_alone",
        "centred",
        "predicted_held_out",
        "all",
        "chance",
    ]
    assert list(found[columns]) == pytest.approx([0.8, 0.5, 0.6, 0.3, 0.45, 0.1])
    assert (found["n_classes"], found["seeds"], found["held_out_classes"]) == (
        2,
        1,
        "cat, dog",
    )


def test_classes_that_the_upper_bound_does_not_learn_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screened = screened_classes(rotated()).set_index("class")
    assert screened["upper"].to_dict() == pytest.approx({"cat": 0.8, "dog": 0.0})
    assert screened["false_alarms"].tolist() == pytest.approx([0.5] * 2)
    assert screened["kept"].to_dict() == {"cat": True, "dog": False}
    found = (
        kinds_of_runs(rotated(), screened=screened.reset_index())
        .set_index("setting")
        .loc["cg-low"]
    )
    assert (found["held_out"], found["own_style"]) == pytest.approx((0.4, 0.7))
    assert (found["n_classes"], found["held_out_classes"]) == (1, "cat")
    monkeypatch.setattr(run_tables, "SHARE", 0.35)
    strict = screened_classes(rotated()).set_index("class")
    assert strict["kept"].to_dict() == {
        "cat": False,
        "dog": False,
    }  # right in 80 % of cats, but in 50 % of others, too
    alone = rotated().query("setting == 'cg-low'")
    assert screened_classes(alone).empty
    pd.testing.assert_frame_equal(
        kinds_of_runs(alone, screened=screened_classes(alone)), kinds_of_runs(alone)
    )


def two_architectures() -> pd.DataFrame:
    """Accuracies by hand; the transformer's upper bound learns no cats, and aligned captions have no upper bound."""
    by_class = {
        ("RN50", "generated", "upper-high"): {"cat": 0.9, "dog": 0.8},
        ("RN50", "generated", "cg-high"): {"cat": 0.2, "dog": 0.4},
        ("RN50", "aligned", "aligned"): {"cat": 0.6, "dog": 0.5},
        ("ViT-S-32", "generated", "upper-high"): {"cat": 0.0, "dog": 0.7},
        ("ViT-S-32", "generated", "cg-high"): {"cat": 0.0, "dog": 0.3},
    }
    rows = []
    for (model, captions, setting), values in by_class.items():
        run = {
            "run": f"{model}-{setting}",
            "model": model,
            "captions": captions,
            "setting": setting,
        }
        run |= {"held_out_classes": "cat, dog"}
        rows += [row(0.5, **run, group=group) for group in ("all", "seen")]
        for name, value in values.items():
            rows += [
                row(value, **run, group=name),
                row(0.0, **run, group=name, measure=FALSE_ALARMS),
            ]
            rows += [
                row(0.5, **run, group=name, classifier="own style"),
                row(0.5, **run, group=name, measure=AMONG_GROUP),
            ]
    return pd.DataFrame(rows)


def test_a_model_is_judged_by_its_own_upper_bound() -> None:
    table = two_architectures()
    screened = screened_classes(table)
    assert screened[~screened["kept"]][["model", "class"]].to_numpy().tolist() == [
        ["ViT-S-32", "cat"]
    ]
    found = kinds_of_runs(table, screened=screened).set_index(["model", "setting"])
    counted = found["held_out_classes"].to_dict()
    assert (
        counted["RN50", "cg-high"] == "cat, dog"
    )  # although the transformer learns no cats
    assert (
        counted["RN50", "aligned"] == "cat, dog"
    )  # the upper bound most like it is that of standard captions
    assert counted["ViT-S-32", "cg-high"] == "dog"
    assert found.loc[("RN50", "cg-high"), "held_out"] == pytest.approx((0.2 + 0.4) / 2)
    assert found.loc[("ViT-S-32", "cg-high"), "held_out"] == pytest.approx(0.3)
    only_the_transformer_has_one = screened[screened["model"] == "ViT-S-32"]
    like_it = kinds_of_runs(table, screened=only_the_transformer_has_one)
    assert set(like_it["held_out_classes"]) == {"dog"}


def test_models_with_unlike_classes_have_panels_of_their_own() -> None:
    table = two_architectures()
    found = kinds_of_runs(table, screened=screened_classes(table))
    drawn = settings_bars(found, domain_marks(["ink"]))
    assert {trace.xaxis for trace in drawn.data if trace.type == "bar"} >= {
        "x",
        "x2",
        "x3",
    }
    unlike = found.assign(
        captions="generated"
    )  # as if settings of one panel counted other classes
    unlike.loc[unlike["setting"] == "aligned", "held_out_classes"] = "dog"
    with pytest.raises(InputError, match=r"ink.*RN50.*cat"):
        settings_bars(unlike, domain_marks(["ink"]))


def test_accuracies_of_one_model_are_told_apart_by_domain() -> None:
    tidy = rotated().query("run == 'cg-low-cat'")[
        ["classifier", "domain", "group", "measure", "value", "chance"]
    ]
    found = accuracy_kinds(tidy)
    assert found.columns.tolist()[0] == "domain"
    assert found[["seen", "held_out", "own_style"]].to_numpy().tolist() == [
        [0.5, 0.4, 0.7]
    ]
    nothing = accuracy_kinds(tidy.query("group == 'all'"))
    assert nothing[["all", "held_out"]].isna().to_numpy().tolist() == [[False, True]]


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_logits_by_hand() -> None:
    found = training_logit(pd.Series([0.25, 0.0, 1.0]), pd.Series([10, 10, 4]))
    assert found.tolist() == pytest.approx(
        [-math.log(3), math.log(0.05 / 0.95), math.log(0.875 / 0.125)]
    )


def test_robustness_against_a_line_on_paper() -> None:
    table = evaluated()
    # natural-only models: choose test accuracies on logit y = 2 logit x - 1, with the same x as before.
    at = (table["setting"] == "natural-only") & (table["domain"] == "ink")
    table.loc[at, "value"] = [
        1 / (1 + math.exp(1 - 2 * logit(v + 0.3))) for v in table.loc[at, "value"]
    ]
    points = effective_robustness(table).set_index(["run", "epoch"])
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


def test_without_a_line_nothing_is_expected_and_the_figure_says_why() -> None:
    table = evaluated()
    assert effective_robustness(table)["line"].eq(FITTED).all()
    natural = table["setting"] == "natural-only"
    nothing, one_point = table.copy(), table.copy()
    nothing.loc[natural & (table["domain"] == "ink"), "value"] = 0.1  # chance
    one_point.loc[natural, "value"] = 0.5
    for rows, reason in (
        (table[~natural], NO_MODELS),
        (nothing, NOTHING),
        (one_point, ONE_POINT),
    ):
        points = effective_robustness(rows)
        assert points["line"].eq(reason).all()
        assert points[["expected", "effective"]].isna().all(axis=None)
        figure = robustness_scatter(points)
        assert not [trace for trace in figure.data if trace.mode == "lines"]
        notes = " ".join(
            re.sub("<[^>]+>", " ", annotation.text)
            for annotation in figure.layout.annotations
        )
        assert f"line {reason}"[:40] in notes


def test_every_kind_of_model_has_a_line_of_its_own() -> None:
    other = evaluated().assign(model="ViT-S-32", run=lambda t: "vit-" + t["run"])
    other.loc[
        (other["domain"] == "ink") & (other["setting"] == "natural-only"), "value"
    ] **= 2
    points = effective_robustness(pd.concat([evaluated(), other], ignore_index=True))
    alone = effective_robustness(evaluated())
    pd.testing.assert_frame_equal(
        points[points["model"] == "RN50"].reset_index(drop=True), alone
    )
    figure = robustness_scatter(points)
    assert (
        len(
            [
                trace
                for trace in figure.data
                if trace.mode == "lines" and trace.x[0] is not None
            ]
        )
        == 2
    )
