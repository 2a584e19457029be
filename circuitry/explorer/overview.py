"""The ways into the circuits: comparisons and measured cuts, as the page reads them. No torch."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from circuitry.circuits.budgets import SAME_SHARE
from circuitry.comparison.comparison import Comparison
from circuitry.comparison.lesion_reading import (
    BY_STYLE,
    OWN,
    left_by_style,
    lesion_summary,
)
from circuitry.interventions.curve_reading import CURVE_MEASURES
from circuitry.interventions.curves import FaithfulnessCurve
from circuitry.interventions.verdicts import verdict_of
from circuitry.runs.errors import InputError

_PAIR = ["domain_a", "domain_b"]
_RATIO = [
    *_PAIR,
    "value",
    "low",
    "high",
    "n_classes",
    "similarity",
    "ceiling_a",
    "ceiling_b",
]


def describe_comparison(comparison: Comparison) -> dict[str, object]:
    """Return a comparison as plain values: matrix, ratios to the ceiling, by class, and over depth.

    Rows are lists; see the page's ``ways.js`` for who reads them.
    """
    counted = comparison.values[
        ~comparison.values["site"].isin(list(comparison.left_out))
    ]
    whole = counted.groupby(["class", *_PAIR], sort=False)["value"].mean().reset_index()
    matrix = whole.groupby(_PAIR, sort=False)["value"].mean().reset_index()
    found: dict[str, object] = {
        "measure": comparison.measure,
        "alike": comparison.alike,
        "directions": comparison.directions,
        "matrix": _rows(matrix, [*_PAIR, "value"]),
        "byClass": {
            name: _rows(table, [*_PAIR, "value"])
            for name, table in whole.groupby("class", sort=False)
        },
        "ratios": _rows(comparison.ratios(), _RATIO) if comparison.has_ratios else [],
        "depth": [],
        "depthIs": "",
    }
    if comparison.sites:
        ratios = comparison.has_ratios
        depth = comparison.ratios_over_depth() if ratios else comparison.over_depth()
        found["depth"] = _rows(depth, ["domain", "site", "value", "low", "high"])
        found["depthIs"] = (
            "ratio to the ceiling"
            if ratios
            else "mean similarity with the other domains"
        )
    return found


def describe_lesions(lesions: pd.DataFrame) -> dict[str, object]:
    """Return the right answers that lesions of own parts leave as a comparison of domains, found on by tested on.

    Rows of the matrix have the interval and the number of classes, too, as in a report.
    """
    own = lesion_summary(lesions, ("part_class", *BY_STYLE))
    own = own[(own["cut"] == "part") & (own["answers"] == OWN)]
    columns = [*BY_STYLE, "value"]
    by_class = {
        name: _rows(table, columns)
        for name, table in own.groupby("part_class", sort=False)
    }
    matrix = _rows(left_by_style(lesions), [*columns, "low", "high", "n_classes"])
    named = {
        "measure": "right_answers_left",
        "alike": True,
        "directions": ["part found on", "tested on"],
    }
    return {
        **named,
        "matrix": matrix,
        "byClass": by_class,
        "ratios": [],
        "depth": [],
        "depthIs": "",
    }


def tested_cells(lesions: pd.DataFrame) -> list[list[object]]:
    """Return the classes and domains that lesions were tested on, with the whole model's right answers there."""
    return _rows(
        lesions.drop_duplicates(["class", "domain"]), ["class", "domain", "whole_right"]
    )


def lesions_of(lesions: pd.DataFrame, class_name: str) -> dict[str, object]:
    """Return what each domain's part of a class takes: right answers without it, and without random units.

    Lists are in the order of `tested_cells`; null where the part was not tested.
    """
    cells = pd.MultiIndex.from_frame(lesions[["class", "domain"]].drop_duplicates())
    found = dict[str, object]()
    for domain, table in lesions[lesions["part_class"] == class_name].groupby(
        "part_domain", sort=False
    ):
        right = table.pivot_table(
            index=["class", "domain"], columns="cut", values="right"
        ).reindex(cells)
        lists = {
            cut: [None if pd.isna(x) else round(float(x), 3) for x in right[cut]]
            for cut in right.columns
        }
        found[str(domain)] = {"units": int(table["n_units"].iloc[0]), **lists}
    return found


def read_curves(folder: str | Path) -> list[FaithfulnessCurve]:
    """Read the faithfulness curves that `CausalChecks.extract_faithfulness` wrote into a folder."""
    paths = sorted(Path(folder).glob("*/*.safetensors"))
    if not paths:
        raise InputError(
            f"There are no faithfulness curves in {folder}: give the folder that extract_faithfulness "
            "filled; circuitry check calls it faithfulness."
        )
    return [FaithfulnessCurve.load(path) for path in paths]


def describe_curves(
    curves: Sequence[FaithfulnessCurve], sites: Sequence[str], budget: str
) -> dict[str, object]:
    """Return measurements of the page's cuts by ``class/domain``: these sites and budget, units by absolute score.

    Each measure has rows [value, low, high] by size, of the circuit (``kept``), of random circuits (``random``) and
    of other classes' circuits (``foreign``); each size has a verdict.
    """
    found: dict[str, object] = {}
    for curve in curves:
        made_with = (
            list(curve.settings["sites"]),
            curve.settings.get("budget", SAME_SHARE),
        )
        if curve.ranking != "absolute" or made_with != (list(sites), budget):
            continue
        measured = {
            measure: _by_circuit(curve.to_pandas(measure)) for measure in CURVE_MEASURES
        }
        found[f"{curve.class_name}/{curve.domain}"] = {
            "fractions": list(curve.sizes),
            "images": int(curve.own.sum()),
            "others": int((~curve.own).sum()),
            "draws": curve.random.shape[1],
            "baseline": curve.settings["baseline"],
            "verdicts": [verdict_of(curve, place) for place in range(len(curve.sizes))],
            **measured,
        }
    return found


def _by_circuit(table: pd.DataFrame) -> dict[str, object]:
    by_circuit = {
        name: table[table["circuit"] == name] for name in ("kept", "random", "foreign")
    }
    rows = {
        name: _rows(some, ["value", "low", "high"])
        for name, some in by_circuit.items()
        if len(some)
    }
    return {**rows, "reason": table["reason"].iloc[0]}


def _rows(table: pd.DataFrame, columns: Sequence[str]) -> list[list[object]]:
    """Return rows with numbers to four digits."""
    rows = zip(*(table[name] for name in columns), strict=True)
    return [
        [float(f"{value:.4g}") if isinstance(value, float) else value for value in row]
        for row in rows
    ]
