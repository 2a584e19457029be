"""The sections on whether properties of models correlate with how they generalize, from `relate_over_models`.

1. A model has one row, or one for each test domain. Ranks are taken within a test domain, divided by their number plus
   one and centred, so that differences between test domains are no evidence. With one test domain the result is
   Spearman's correlation.
2. The interval is the jackknife's over models, which leaves out all rows of a model together; the range of the
   jackknife values is reported as well.
3. p is the share of orders of the models that give as large a correlation of either sign: all orders if they are few,
   else random ones. A model keeps its rows together, and changes places with models that have rows in the same test
   domains.
4. The partial correlation removes the ranks of a third number from both by least squares; its p comes from orders of
   the residuals, from which the third number is removed again (Freedman and Lane 1983). It needs four models: residuals
   of three are always equal or opposite.
"""

from collections.abc import Hashable, Mapping, Sequence
from itertools import permutations, product
from math import factorial, prod
from typing import Any

from circuitry.comparison import LEVEL, holm, jackknife_interval
from circuitry.reports import Finding, Report, with_intervals
from circuitry.reports.figures import Mark
from experiments.study.measure_charts import ENOUGH, relation_panels

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

ROUNDING = 1e-12  # correlations and residuals that differ by less are equal
_EXACT, _DRAWS = 50_000, 10_000  # up to the first number of orders all are used, else as many random ones as the second
_MODEL, _STRATUM = "run", "test_domain"  # columns of the model, and of the groups within which ranks are taken
FEWEST_MODELS = 3  # a correlation needs so many models
FEWEST_GIVEN = FEWEST_MODELS + 1  # a partial correlation needs so many models
RELATIONS = (
    *("what", "with", "rho", "low", "high", "least", "most", "p", "p_holm"),
    *("partial", "partial_p", "given", "n_models", "note", "about"),
)  # columns of `relate_over_models`; least and most are the correlation without one model


def relate_over_models(
    points: pd.DataFrame, whats: Sequence[str], withs: Sequence[str], given: str | None = None, *, seed: int = 0
) -> pd.DataFrame:
    """Correlate each of some numbers of models with each of others.

    Returns:
        Columns `RELATIONS`; p_holm is corrected for all rows. Fewer than three models have no correlation, fewer than
        four no interval and no partial correlation. The note marks rows whose p cannot be significant because too few
        models can change places.
    """
    rows = []
    for what, other in product(whats, withs):
        used = points.dropna(subset=[what, other, *([] if given is None else [given])])
        rows.append((what, other, *_relate(used, what, other, given, seed)))
    names = ["what", "with", "rho", "low", "high", "least", "most", "p", "partial", "partial_p", "n_models", "floor"]
    table = pd.DataFrame(rows, columns=names)
    tests = int(table["p"].notna().sum())
    impossible = table["p"].isna() | (table["floor"] * tests > LEVEL)
    notes = [f"cannot be significant with {n} models" if no else "" for n, no in zip(table["n_models"], impossible)]  # noqa: B905
    about = [f"over {n} models" for n in table["n_models"]]
    return table.assign(p_holm=holm(table["p"]), given=given or "", note=notes, about=about)[list(RELATIONS)]


def _relate(used: pd.DataFrame, what: str, other: str, given: str | None, seed: int) -> tuple[float | int, ...]:
    models = list(dict.fromkeys(used[_MODEL]))
    nothing = float("nan")
    if len(models) < FEWEST_MODELS:
        return (*(nothing,) * 8, len(models), nothing)
    strata = used[_STRATUM].astype(str).to_numpy()
    x, y = (centred_ranks(used[name].to_numpy(dtype=float), strata) for name in (what, other))
    rho = float(correlation(x, y))
    without = []
    for one in models:
        kept = used[used[_MODEL] != one]
        of = kept[_STRATUM].astype(str).to_numpy()
        without.append(float(correlation(*(centred_ranks(kept[n].to_numpy(dtype=float), of) for n in (what, other)))))
    each = np.array(without)
    varies = len(models) > FEWEST_MODELS and np.ptp(each) > ROUNDING  # ties may leave rho unchanged: not certainty
    low, high = jackknife_interval(rho, each) if varies else (nothing, nothing)
    orders, floor = _orders(_exchangeable(used[_MODEL].to_numpy(), strata), seed)
    partial = partial_p = nothing
    if given is not None and len(models) >= FEWEST_GIVEN:
        z = centred_ranks(used[given].to_numpy(dtype=float), strata)
        rest_x, rest_y = residuals(x, z), residuals(y, z)
        partial, partial_p = float(correlation(rest_x, rest_y)), permutation_p(rest_x, rest_y, orders, z)
    known = each[~np.isnan(each)]
    least, most = (float(known.min()), float(known.max())) if len(known) else (nothing, nothing)
    ends = float(np.maximum(low, -1.0)), float(np.minimum(high, 1.0))
    p = permutation_p(x, y, orders)
    return (rho, *ends, least, most, p, partial, partial_p, len(models), floor)


def centred_ranks(values: Float[np.ndarray, " rows"], strata: np.ndarray) -> Float[np.ndarray, " rows"]:
    """Return ranks within each stratum, divided by its size plus one, less their mean."""
    ranks = pd.Series(values).groupby(strata).rank()
    sizes = pd.Series(values).groupby(strata).transform("size")
    scaled = ranks / (sizes + 1)
    return np.asarray(scaled - scaled.groupby(strata).transform("mean"), dtype=float)


def residuals(
    values: Float[np.ndarray, "*orders rows"], given: Float[np.ndarray, " rows"]
) -> Float[np.ndarray, "*orders rows"]:
    """Return the residuals of centred values after a projection on others."""
    length = float(given @ given)
    left: np.ndarray = values - (values @ given)[..., None] / length * given if length > 0 else values
    return np.where(np.abs(left) < ROUNDING, 0.0, left)


def correlation(x: Float[np.ndarray, "*orders rows"], y: Float[np.ndarray, " rows"]) -> Float[np.ndarray, "*orders"]:
    """Return the cosine of centred values; NaN if one of them is constant."""
    lengths = np.linalg.norm(x, axis=-1) * np.linalg.norm(y)
    known = lengths > ROUNDING
    return np.where(known, np.asarray(x @ y) / np.where(known, lengths, 1.0), np.nan)


def permutation_p(
    x: Float[np.ndarray, " rows"],
    y: Float[np.ndarray, " rows"],
    orders: Int[np.ndarray, "orders rows"],
    given: Float[np.ndarray, " rows"] | None = None,
) -> float:
    """Return the share of orders of ``x`` whose correlation with ``y`` is as large; NaN if the correlation is NaN."""
    rho = correlation(x, y)
    if np.isnan(rho):
        return float("nan")
    ordered = x[orders] if given is None else residuals(x[orders], given)
    return float((np.abs(correlation(ordered, y)) >= abs(rho) - ROUNDING).mean())


def _exchangeable(models: np.ndarray, strata: np.ndarray) -> list[Int[np.ndarray, "_ _"]]:
    """Return groups of models with rows in the same strata, which may change places: the rows of each model."""
    kinds: dict[tuple[str, ...], list[np.ndarray]] = {}
    for name in dict.fromkeys(models):
        mine = np.flatnonzero(models == name)
        mine = mine[np.argsort(strata[mine], kind="stable")]
        kinds.setdefault(tuple(strata[mine]), []).append(mine)
    return [np.array(kinds[kind]) for kind in sorted(kinds)]


def _orders(groups: list[Int[np.ndarray, "_ _"]], seed: int) -> tuple[Int[np.ndarray, "orders rows"], float]:
    """Return orders of the rows in which models change places, and the smallest p that they can give."""
    rows, number = np.arange(sum(group.size for group in groups)), prod(factorial(len(group)) for group in groups)
    if number <= _EXACT:
        found = np.tile(rows, (number, 1))
        for i, chosen in enumerate(product(*(permutations(group) for group in groups))):
            for group, order in zip(groups, chosen, strict=True):
                found[i, group] = order
        opposite = all(group.shape[1] == 1 for group in groups)
        return found, min(1.0, (2 if opposite else 1) / number)
    rng, found = np.random.default_rng(seed), np.tile(rows, (_DRAWS + 1, 1))
    for group in groups:
        places = rng.permuted(np.tile(np.arange(len(group)), (_DRAWS, 1)), axis=1)
        found[1:, group] = group[places]
    return found, 1 / (_DRAWS + 1)


SHARED = {
    "overlap": "node overlap",
    "ratio": "node overlap, ratio to the ceiling",
    "transfer": "faithfulness of other domains' circuits",
    "cka": "CKA at the last site",
    "features": "shared features",
}  # columns of what a test domain shares with the others, with their names
LABEL_FREE = {"shift": "circuit shift score", "depth_bias": "depth bias above the other domains'"}
"""Columns that need no accuracy, with their names."""


def relation_findings(
    relations: pd.DataFrame, names: Mapping[str, str], accuracy: str, groups: Sequence[Sequence[str]]
) -> list[Finding]:
    """Say for each group of numbers whether one of them correlates with an accuracy over models, or that it is open."""
    found = []
    for group in groups:
        rows = relations[relations["what"].isin(group) & (relations["with"] == accuracy)].dropna(subset="rho")
        listed, target = " or ".join(names[column] for column in group), f"{accuracy.replace('_', ' ')} accuracy"
        if rows.empty:
            n = int(relations["n_models"].max()) if len(relations) else 0
            few = n < FEWEST_MODELS
            why = f"it takes at least {FEWEST_MODELS}" if few else "one of the two does not vary over them"
            found.append(
                Finding(
                    f"Does {listed} correlate with {target}? Cannot be told.",
                    f"{n} models have both numbers, but there is no correlation: {why}.",
                    "More models: other settings, test domains, seeds.",
                )
            )
            continue
        said = rows.assign(said=with_intervals(rows, "+.2f", "rho")).to_dict("records")
        best = max(said, key=lambda row: abs(row["rho"]))
        clear = best["p_holm"] < LEVEL and (best["low"] > 0 or best["high"] < 0)
        found.append(
            Finding(
                f"Does {listed} correlate with {target}? {'Yes' if clear else 'Cannot be told'}: rank correlation "
                f"{best['said']} for {names[best['what']]}, over {best['n_models']} models.",
                f"Jackknife over models; without one of them {best['least']:+.2f} to {best['most']:+.2f}. p "
                f"{best['p']:.2g} from orders of the models, {best['p_holm']:.2g} corrected for all tests "
                f"(Holm){'; ' + best['note'] if best['note'] else ''}. {_given_words(best)}",
                "More models, of other settings and seeds. A correlation over models shows no cause: settings change "
                "many things at once.",
            )
        )
    return found


def models_agree(tests: pd.DataFrame) -> Finding:
    """Say whether one domain shares more than another in the same way over models: from `compare_models`."""
    n, clear = len(tests), int((tests["p_holm"] < LEVEL).sum())
    told = "Cannot be told" if not clear else "Yes" if clear == n else "Partly"
    return Finding(
        f"Do models agree which domains share more? {told}: {clear} of {n} differences have p < {LEVEL} (Holm).",
        f"Each of {tests['n_models'].max()} models counts once; five models can give no p below 0.0625.",
        "More models, of other architectures and seeds.",
    )


def _given_words(row: Mapping[Hashable, Any]) -> str:
    """Say what the correlation is given a third number."""
    if not row["given"]:
        return "No third number is taken out."
    known = f"{row['partial']:+.2f} (p {row['partial_p']:.2g})"
    return f"Given {row['given'].replace('_', ' ')}: {'unknown' if pd.isna(row['partial']) else known}."


def add_relations(
    report: Report,
    points: pd.DataFrame,
    relations: pd.DataFrame,
    names: Mapping[str, str],
    accuracies: Sequence[str],
    marks: Mapping[str, Mark],
) -> None:
    """Add how to read it, a figure for each accuracy, and the tables; arguments as `relation_panels`."""
    n = points["run"].nunique()
    report.section("How to read this", folded=True)
    report.text(
        "Every point is a trained model in a test domain. Rank correlations are over models, with ranks within each "
        "test domain; their intervals are jackknife intervals over models. p is the share of orders of the models with "
        "as large a correlation, corrected for all tests (Holm); it is about other models trained in this way, not "
        "about other classes. The partial correlation takes out accuracy on the other domains, because a model that is "
        "better at everything may also share more.\n\n"
        + (
            f"There are {n} models. With fewer than {ENOUGH}, a rank correlation mostly shows which models were "
            "chosen, and is no evidence."
            if n < ENOUGH
            else f"There are {n} models."
        )
    )
    report.section("Does sharing between domains correlate with accuracy?")
    for accuracy in accuracies:
        called = accuracy.replace("_", " ")
        if points[accuracy].notna().any():
            figure = relation_panels(
                points, relations, names, accuracy, title=f"Accuracy ({called}) against what is shared", marks=marks
            )
            report.figure(figure, _in_words(relations[relations["with"] == accuracy], names))
    shown = relations.assign(
        what=relations["what"].map(names),
        rho=with_intervals(relations, "+.2f", "rho"),
        without_one=[f"{a:+.2f} to {b:+.2f}" for a, b in zip(relations["least"], relations["most"], strict=True)],
    ).drop(columns=["low", "high", "least", "most", "given"])
    order = ["what", "with", "rho", "without_one", "p", "p_holm", "partial", "partial_p", "n_models", "note"]
    report.table(
        shown[order].rename(columns={"p_holm": "p (Holm)", "n_models": "models", "partial_p": "p of partial"}),
        "Rank correlations over models with 95 % jackknife intervals, their range without one model, p from orders of "
        f"the models ({int((relations['p_holm'] < LEVEL).sum())} of {len(relations)} with corrected p < {LEVEL}), and "
        "the partial correlation given accuracy on the other domains.",
        formats={"p": ".2g", "p (Holm)": ".2g", "partial": "+.2f", "p of partial": ".2g"},
    )
    report.table(points, "Every model and test domain.")


def _in_words(relations: pd.DataFrame, names: Mapping[str, str]) -> str:
    known = relations.dropna(subset="rho")
    if known.empty:
        return f"There is no correlation: fewer than {FEWEST_MODELS} models, or no variation over them."
    said = ", ".join(f"{names[what]} {rho:+.2f}" for what, rho in zip(known["what"], known["rho"], strict=True))
    return f"Rank correlations: {said}."
