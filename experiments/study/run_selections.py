"""Select rows of `accuracy_kinds` for the figures of the study, all in the test domain. No torch."""

import re
from collections.abc import Callable, Mapping, Sequence

from circuitry.runs import InputError
from circuitry.comparison import check_table
from experiments.study.run_tables import MODEL, check_like_classes, model_names
from experiments.study.sketch_sets import CLASS_SHARES

import pandas as pd

KINDS_OF_MODEL = tuple(name for name in MODEL if name != "captions")
"""Columns that identify a kind of model, without captions, which belong to the setting."""
INTERPOLATIONS = ("class-interpolation", "domain-interpolation")
N_OTHERS = 4
"""Domains of DomainNet in CG high, without photographs and the test domain."""
NO_SKETCHES, SKETCHES = "none", "imagenet-sketch"
SKETCH_PAIRS = {
    ("natural-only", SKETCHES): "natural-only with ImageNet-Sketch",
    ("cg-low", NO_SKETCHES): "cg-low",
    ("leave-out", SKETCHES): "leave-out with ImageNet-Sketch",
    ("cg-high", NO_SKETCHES): "cg-high",
}
"""What the study compares of ImageNet-Sketch: photographs with it and CG low, leave-out with it and CG high."""
CAPTION_PAIRS = {
    ("cg-high", NO_SKETCHES): "cg-high, standard captions",
    ("aligned", NO_SKETCHES): "cg-high, aligned captions",
}
"""Captions that name the style, and captions that do not."""
N_SKETCH_CLASSES = 345 - 15
"""Seen sketch classes of DomainNet."""
_CLASS = re.compile(r"class-interpolation-([\d.]+)(-low)?")
_DOMAIN = re.compile(r"domain-interpolation-(.+)")
_LOW, _HIGH = "CG low", "CG high"
_ENDS = {"cg-low": (_LOW, 0.0), "upper-low": (_LOW, 1.0), "cg-high": (_HIGH, 0.0), "upper-high": (_HIGH, 1.0)}


def in_test_domain(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a table over models in which the domain is the test domain."""
    check_table(table, "settings", ("test_domain", *MODEL, "setting", "domain"), key=())
    return table[table["domain"] == table["test_domain"]]


def main_settings(table: pd.DataFrame) -> pd.DataFrame:
    """Return all settings except interpolations of the model with most settings (ties: the first).

    Raises:
        InputError: For rows of a test domain that count other held-out classes than the others.
    """
    rows = in_test_domain(table)
    rows = _most(rows[~rows["setting"].str.startswith(INTERPOLATIONS)], MODEL)
    check_like_classes(rows)
    return rows


def main_model(points: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `effective_robustness` of the model with most rows (ties: the first)."""
    return _most(points, MODEL)


def side_by_side(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the rows of models that differ only in one column, such as ``model`` or ``base``.

    Test domains with one such setting are left out if others have several.

    Raises:
        InputError: If there are no two such models.

    Example:
        >>> settings_bars(side_by_side(accuracy_kinds(evaluated), "base"))
    """
    rows = in_test_domain(table)
    alike = ["test_domain", "setting", *(name for name in KINDS_OF_MODEL if name != column)]
    chosen = rows[rows.groupby(alike)[column].transform("nunique") > 1]
    settings = chosen.groupby("test_domain")["setting"].transform("nunique")
    chosen = chosen[settings > 1] if (settings > 1).any() else chosen  # photographs alone are tested in every domain
    if chosen.empty:
        raise InputError(f"Two models must differ in their {column} alone, but none of the table do: add such models.")
    return chosen


def renamed_settings(table: pd.DataFrame, names: Mapping[tuple[str, str], str]) -> pd.DataFrame:
    """Return the rows of some (setting, sketches) under new names of settings, of models that have all of them.

    Raises:
        InputError: If no model has all of them, and for rows that count other held-out classes than the others.

    Example:
        >>> settings_bars(renamed_settings(accuracy_kinds(evaluated), SKETCH_PAIRS))
    """
    rows = in_test_domain(table)
    given = pd.Series(list(zip(rows["setting"], rows["sketches"], strict=True)), index=rows.index, dtype=object)
    rows = rows.assign(setting=given.map(names.get), sketches=NO_SKETCHES, captions="")
    rows = rows[rows["setting"].notna()]
    alike = ["test_domain", *(name for name in KINDS_OF_MODEL if name != "sketches")]
    rows = rows[rows.groupby(alike)["setting"].transform("nunique") == len(names)]
    if rows.empty:
        raise InputError(f"The table has no model of all of {', '.join(names.values())}: train such models first.")
    check_like_classes(rows)
    order = list(names.values())
    return rows.sort_values("setting", key=lambda column: column.map(order.index), kind="stable", ignore_index=True)


def sketch_classes(table: pd.DataFrame) -> pd.DataFrame:
    """Return points of CG high with ImageNet-Sketch: ``x`` is the number of DomainNet's sketch classes that stay."""
    rows = in_test_domain(table)
    rows = rows[(rows["setting"] == "cg-high") & rows["sketches"].str.startswith(SKETCHES)]
    if rows.empty:
        raise InputError("The table has no model of cg-high with ImageNet-Sketch: train such models first.")
    check_like_classes(rows)
    shares = {name: float(share) for name, share in CLASS_SHARES.items()} | {SKETCHES: 1.0}
    kept = rows["sketches"].map(lambda name: max(1, int(shares[name] * N_SKETCH_CLASSES)))
    name = model_names(rows.drop(columns=["captions", "sketches"]))
    panel = rows["test_domain"] + name.map(lambda text: f", {text}" if text else "")
    rows = rows.assign(x=kept, line="cg-high with ImageNet-Sketch", panel=panel)
    return rows.sort_values(["panel", "x"], kind="stable", ignore_index=True)


def class_interpolations(table: pd.DataFrame) -> pd.DataFrame:
    """Return points of the class interpolations: ``line`` (CG low, CG high), ``x``: share of held-out classes seen."""

    def place(setting: str) -> tuple[str, float] | None:
        found = _CLASS.fullmatch(setting)
        return (_LOW if found[2] else _HIGH, float(found[1])) if found else _ENDS.get(setting)

    return _points(table, place, "class-interpolation")


def domain_interpolations(table: pd.DataFrame) -> pd.DataFrame:
    """Return points of the domain interpolations: ``x`` is the number of further domains, ``label`` their letters."""

    def place(setting: str) -> tuple[str, float] | None:
        found = _DOMAIN.fullmatch(setting)
        ends = {"cg-low": ("none", 0.0), "cg-high": ("all", float(N_OTHERS))}
        return (found[1].replace("+", ", "), found[1].count("+") + 1.0) if found else ends.get(setting)

    points = _points(table, place, "domain-interpolation")
    whole = points["line"].isin(["none", "all"])
    letters = points["line"].map(lambda names: " ".join(name[0] for name in names.split(", ")))
    return points.assign(label=points["line"].where(whole, letters))


def _points(table: pd.DataFrame, place: Callable[[str], tuple[str, float] | None], kind: str) -> pd.DataFrame:
    """Return the rows with a place, for the models and test domains that have interpolations of a kind."""
    rows = in_test_domain(table)
    interpolated = rows[rows["setting"].str.startswith(kind)]
    if interpolated.empty:
        raise InputError(f"The table has no model of a {kind}: make such mixtures and train on them first.")
    key = ["test_domain", *KINDS_OF_MODEL]
    rows = rows.merge(interpolated[key].drop_duplicates(), on=key)
    placed = rows["setting"].map(place)
    rows, placed = rows[placed.notna()], placed.dropna()
    rows = rows.assign(line=[line for line, _ in placed], x=[x for _, x in placed])
    check_like_classes(rows)
    name = model_names(rows.drop(columns="captions"))
    return rows.assign(panel=rows["test_domain"] + name.map(lambda text: f", {text}" if text else "")).sort_values(
        ["panel", "line", "x"], kind="stable", ignore_index=True
    )


def _most(rows: pd.DataFrame, key: Sequence[str]) -> pd.DataFrame:
    """Return the rows of the largest group (ties: the first)."""
    sizes = rows.groupby(list(key), sort=False).size()
    largest = pd.DataFrame([sizes.idxmax()], columns=list(key))
    return rows.merge(largest, on=list(key))
