"""Describe comparisons, lesions and faithfulness curves as values that JSON can hold, for the explorer's page.

The page shows them in its overview. A click on a value opens the circuits that it is about. Does not import torch.
"""

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
_INTERVAL = ["value", "low", "high"]
_RATIO = [*_PAIR, *_INTERVAL, "n_classes", "similarity", "ceiling_a", "ceiling_b"]


def describe_comparison(comparison: Comparison) -> dict[str, object]:
    """Return a comparison as values that JSON can hold.

    Returns:
        A dictionary that the page's ``ways.js`` reads. ``measure`` is the name of the similarity measure. ``alike`` is
        True if large values mean similar. All other entries are tables, as lists of rows: ``matrix`` has the mean
        similarity of each pair of domains. ``byClass`` has the similarity of each pair of domains for each class.
        ``ratios`` has the similarity of each pair divided by its ceiling, with intervals. ``depth`` has a value with
        its interval for each domain and site, and ``depthIs`` is a text that says what this value is.
    """
    values = comparison.values
    # Means over sites leave out sites that repeat another site, and so does the matrix.
    values = values[~values["site"].isin(list(comparison.left_out))]
    pairs = values.groupby(["class", *_PAIR], sort=False)
    by_class = pairs["value"].mean()
    matrix = by_class.groupby(_PAIR, sort=False).mean()
    ratios: list[list[object]] = []
    if comparison.has_ratios:
        ratios = _rows(comparison.ratios(), _RATIO)
    depth: list[list[object]] = []
    depth_is = ""
    if comparison.sites:
        if comparison.has_ratios:
            over_depth = comparison.ratios_over_depth()
            depth_is = "ratio to the ceiling"
        else:
            over_depth = comparison.over_depth()
            depth_is = "mean similarity with the other domains"
        depth = _rows(over_depth, ["domain", "site", *_INTERVAL])
    return {
        "measure": comparison.measure,
        "alike": comparison.alike,
        "matrix": _rows(matrix.reset_index(), [*_PAIR, "value"]),
        "byClass": _rows_by(by_class.reset_index(), "class", [*_PAIR, "value"]),
        "ratios": ratios,
        "depth": depth,
        "depthIs": depth_is,
    }


def describe_lesions(lesions: pd.DataFrame) -> dict[str, object]:
    """Return the effects of lesions of own parts, as a dictionary with the keys of `describe_comparison`.

    One more key, ``directions``, has the roles of the two domains of a pair.

    A row of ``matrix`` has the domain on which own parts were found, the domain in which they were tested, the share of
    right answers that is left after the lesion, the interval of this share, and the number of classes.
    """
    by_class = lesion_summary(lesions, ("part_class", *BY_STYLE))
    is_own = (by_class["cut"] == "part") & (by_class["answers"] == OWN)
    own = by_class[is_own]
    matrix_columns = [*BY_STYLE, *_INTERVAL, "n_classes"]
    return {
        "measure": "right_answers_left",
        "alike": True,
        "directions": ["part found on", "tested on"],
        "matrix": _rows(left_by_style(lesions), matrix_columns),
        "byClass": _rows_by(own, "part_class", [*BY_STYLE, "value"]),
        "ratios": [],
        "depth": [],
        "depthIs": "",
    }


def tested_cells(lesions: pd.DataFrame) -> list[list[object]]:
    """Return a row for each class and domain on which lesions were tested.

    A row has the class, the domain, and the share of right answers that the whole model gives there.
    """
    cells = lesions.drop_duplicates(["class", "domain"])
    return _rows(cells, ["class", "domain", "whole_right"])


def lesions_of(lesions: pd.DataFrame, class_name: str) -> dict[str, object]:
    """Return the shares of right answers after lesions of the own parts of a class.

    Returns:
        A dictionary for each own part of the class, by the domain on which the own part was found. ``units`` is the
        number of its units. Two more entries, ``part`` and ``random``, are lists of the shares of right answers when
        the own part is ablated, and when random units are. A list has a share for each class and domain, in the order
        of `tested_cells`. A share is NaN if the lesion was not tested there.
    """
    cells = pd.MultiIndex.from_frame(lesions[["class", "domain"]].drop_duplicates())
    of_class = lesions[lesions["part_class"] == class_name]
    by_domain: dict[str, object] = {}
    for domain, table in of_class.groupby("part_domain", sort=False):
        right = table.pivot_table("right", index=["class", "domain"], columns="cut")
        entry: dict[str, object] = {"units": int(table["n_units"].iloc[0])}
        for cut, values in right.reindex(cells).items():
            # A cell that was not tested has NaN, which `script_json` turns into null.
            entry[str(cut)] = [round(float(value), 3) for value in values]
        by_domain[str(domain)] = entry
    return by_domain


def read_curves(folder: str | Path) -> list[FaithfulnessCurve]:
    """Read the faithfulness curves that `CausalChecks.extract_faithfulness` wrote into a folder.

    Example:
        >>> from circuitry.explorer import read_curves
        >>> read_curves("runs/nothing")
        Traceback (most recent call last):
        ...
        circuitry.runs.errors.InputError: There are no faithfulness curves in runs/nothing: ...
    """
    paths = sorted(Path(folder).glob("*/*.safetensors"))
    if not paths:
        raise InputError(
            f"There are no faithfulness curves in {folder}: give the folder that extract_faithfulness "
            "filled; circuitry check calls it faithfulness."
        )
    return [FaithfulnessCurve.load(path) for path in paths]


def describe_curves(
    curves: Sequence[FaithfulnessCurve],
    sites: Sequence[str],
    budget: str,
) -> dict[str, object]:
    """Return the measures of faithfulness curves as values that JSON can hold.

    The page draws circuits that were cut at the given sites, with the given budget, by absolute score. Curves of
    circuits that were cut in another way are left out.

    Args:
        curves: The curves.
        sites: Sites of the circuits that the page draws.
        budget: Name of the budget of the circuits that the page draws.

    Returns:
        A dictionary for each curve, by ``class/domain``. Its entries are: ``fractions``, the sizes of the circuits;
        ``images`` and ``others``, the numbers of images of the class and of other classes; ``draws``, the number of
        random circuits of each size; ``baseline``; ``verdicts``, a verdict for each size; and an entry for each
        measure. The entry of a measure has three lists with a row [value, low, high] for each size: ``kept`` for the
        circuit, ``random`` for random circuits, and ``foreign`` for circuits of other classes. Its ``reason`` is a
        text that says why values are missing, if they are.
    """
    described: dict[str, object] = {}
    for curve in curves:
        # A curve of other sites, or of another budget or ranking, measures circuits that the page does not draw.
        of_page = (
            curve.ranking == "absolute"
            and list(curve.settings["sites"]) == list(sites)
            and curve.settings.get("budget", SAME_SHARE) == budget
        )
        if not of_page:
            continue
        entry: dict[str, object] = {
            "fractions": list(curve.sizes),
            "images": int(curve.own.sum()),
            "others": int((~curve.own).sum()),
            "draws": curve.random.shape[1],
            "baseline": curve.settings["baseline"],
            "verdicts": [verdict_of(curve, place) for place in range(len(curve.sizes))],
        }
        for measure in CURVE_MEASURES:
            table = curve.to_pandas(measure)
            shown = table[table["circuit"].isin(["kept", "random", "foreign"])]
            rows = _rows_by(shown, "circuit", _INTERVAL)
            entry[measure] = {**rows, "reason": table["reason"].iloc[0]}
        described[f"{curve.class_name}/{curve.domain}"] = entry
    return described


def _rows_by(
    table: pd.DataFrame,
    column: str,
    columns: Sequence[str],
) -> dict[str, list[list[object]]]:
    """Return the rows of a table for each value of one column.

    Args:
        table: The table.
        column: The column by whose values the rows are grouped. The values become the keys of the result.
        columns: The columns of the rows.
    """
    groups = table.groupby(column, sort=False)
    return {str(name): _rows(group, columns) for name, group in groups}


def _rows(table: pd.DataFrame, columns: Sequence[str]) -> list[list[object]]:
    """Return the rows of some columns of a table, with numbers rounded to four digits."""
    # Values are converted column by column, because a row of pandas has one type for all of its values.
    rounded = [table[column].map(_rounded).tolist() for column in columns]
    return list(map(list, zip(*rounded, strict=True)))


def _rounded(value: object) -> object:
    return float(f"{value:.4g}") if isinstance(value, float) else value
