"""Which rows of a table over models figures show, on a table made by hand."""

import pandas as pd
import pytest

from circuitry import InputError
from experiments.study.study_figures import (
    class_interpolations,
    domain_interpolations,
    main_settings,
    side_by_side,
)


def row(setting: str, held_out: float = 0.5, **changed: str) -> dict[str, object]:
    model = {
        "trained": "CLIP",
        "model": "RN50",
        "base": "none",
        "sketches": "none",
        "captions": "generated",
    }
    place = {
        "test_domain": "sketch",
        "domain": "sketch",
        "setting": setting,
        "held_out_classes": "axe, bed",
    }
    return {**place, "held_out": held_out, **model, **changed}


TABLE = pd.DataFrame(
    [
        row("natural-only"), row("natural-only", domain="real"), row("cg-low", 0.1), row("cg-high", 0.2),
        row("upper-low", 0.6), row("upper-high", 0.7), row("aligned", captions="aligned"),
        row("class-interpolation-0.4-low", 0.3), row("class-interpolation-0.05", 0.25),
        row("domain-interpolation-clipart+quickdraw", 0.15), row("domain-interpolation-painting", 0.12),
        row("cg-low", 0.3, model="ViT-S-32"), row("cg-low", 0.4, base="cc12m"), row("cg-high", 0.4, base="cc12m"),
        row("cg-low", 0.2, trained="supervised"),
    ]
)  # fmt: skip


def test_models_stand_side_by_side_where_they_differ_in_one_thing() -> None:
    models = side_by_side(TABLE, "model")
    assert models[["setting", "model", "base", "trained"]].to_numpy().tolist() == [
        ["cg-low", "RN50", "none", "CLIP"], ["cg-low", "ViT-S-32", "none", "CLIP"],
    ]  # fmt: skip
    assert side_by_side(TABLE, "base")["held_out"].tolist() == [0.1, 0.2, 0.4, 0.4]
    assert side_by_side(TABLE, "trained")["held_out"].tolist() == [0.1, 0.2]
    with pytest.raises(InputError, match="sketches"):
        side_by_side(TABLE, "sketches")


def test_main_settings_are_those_of_one_model_without_interpolations() -> None:
    assert main_settings(TABLE)["setting"].tolist() == [
        *(
            "natural-only",
            "cg-low",
            "cg-high",
            "upper-low",
            "upper-high",
        )  # not aligned: its captions are others
    ]


def test_interpolations_lie_between_their_ends() -> None:
    points = class_interpolations(TABLE)
    assert points[["line", "x", "held_out"]].to_numpy().tolist() == [
        ["CG high", 0.0, 0.2], ["CG high", 0.05, 0.25], ["CG high", 1.0, 0.7],
        ["CG low", 0.0, 0.1], ["CG low", 0.4, 0.3], ["CG low", 1.0, 0.6],
    ]  # fmt: skip
    points = domain_interpolations(TABLE)
    assert points[["line", "x", "held_out"]].to_numpy().tolist() == [
        ["all", 4.0, 0.2], ["clipart, quickdraw", 2.0, 0.15], ["none", 0.0, 0.1], ["painting", 1.0, 0.12],
    ]  # fmt: skip
    assert set(points["panel"]) == {"sketch"}
    with pytest.raises(InputError, match="domain-interpolation"):
        domain_interpolations(TABLE[~TABLE["setting"].str.startswith("domain")])
