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

from collections.abc import Mapping, Sequence
from itertools import permutations, product
from math import factorial, prod

from circuitry.comparison import LEVEL, holm, jackknife_interval
from circuitry.reports import Finding, Report, with_intervals
from circuitry.reports.figures import Mark
from experiments.study.measure_charts import ENOUGH, relation_panels

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

ROUNDING = 1e-12  # correlations and residuals that differ by less are equal
_EXACT = 50_000  # up to so many orders all are used
_DRAWS = 10_000  # random orders where there are more
_MODEL = "run"  # column of the model
_STRATUM = "test_domain"  # column of the groups within which ranks are taken
# A correlation needs so many models, a partial one and an interval one more.
FEWEST_MODELS = 3
RELATIONS = (
    "what",
    "with",
    "rho",
    "low",
    "high",
    "least",
    "most",
    "p",
    "p_holm",
    "partial",
    "partial_p",
    "given",
    "n_models",
    "note",
    "about",
)
"""Columns of `relate_over_models`; least and most are the correlation without one model."""


def relate_over_models(
    points: pd.DataFrame,
    whats: Sequence[str],
    withs: Sequence[str],
    given: str | None = None,
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Correlate each number of models in ``whats`` with each in ``withs``, also given a third number.

    Returns:
        Columns `RELATIONS`; p_holm is corrected for all rows. Fewer than three models have no correlation, fewer than
        four no interval and no partial correlation. The note marks rows whose p cannot be significant because too few
        models can change places.
    """
    rows = []
    for what, other in product(whats, withs):
        used = points.dropna(subset=[what, other, *([] if given is None else [given])])
        n = used[_MODEL].nunique()
        about = f"over {n} models"
        row = {"what": what, "with": other, "n_models": n, "about": about}
        if n >= FEWEST_MODELS:
            row |= _relate(used, what, other, given, seed)
        rows.append(row)
    table = pd.DataFrame(rows, columns=[*RELATIONS, "floor"])
    # Holm multiplies the smallest p by the number of tests: if even the smallest possible one stays above, say so.
    impossible = table["p"].isna() | (table["floor"] * table["p"].notna().sum() > LEVEL)
    notes = "cannot be significant with " + table["n_models"].astype(str) + " models"
    notes = notes.where(impossible, "")
    table = table.assign(p_holm=holm(table["p"]), given=given or "", note=notes)
    return table[list(RELATIONS)]


def _relate(
    used: pd.DataFrame, what: str, other: str, given: str | None, seed: int
) -> dict[str, float]:
    """Return the numbers of a row for three or more models, and the smallest p that they can give (``floor``)."""

    def ranks(rows: pd.DataFrame, name: str) -> np.ndarray:
        strata = rows[_STRATUM].astype(str).to_numpy()
        return centred_ranks(rows[name].to_numpy(dtype=float), strata)

    models = used[_MODEL].unique()
    x = ranks(used, what)
    y = ranks(used, other)
    rho = float(correlation(x, y))
    # Jackknife values: all rows of a model are left out, and the remaining ones ranked anew.
    without = np.empty(len(models))
    for i, model in enumerate(models):
        rows = used[used[_MODEL] != model]
        without[i] = correlation(ranks(rows, what), ranks(rows, other))
    strata = used[_STRATUM].astype(str).to_numpy()
    orders, floor = _orders(_exchangeable(used[_MODEL].to_numpy(), strata), seed)
    row = {"rho": rho, "floor": floor, "p": permutation_p(x, y, orders)}
    if not np.isnan(without).all():
        row["least"] = float(np.nanmin(without))
        row["most"] = float(np.nanmax(without))
    # Ties may leave rho unchanged whichever model is left out: that is no certainty.
    if len(models) > FEWEST_MODELS and np.ptp(without) > ROUNDING:
        low, high = jackknife_interval(rho, without)
        row["low"] = float(np.maximum(low, -1.0))
        row["high"] = float(np.minimum(high, 1.0))
    if given is not None and len(models) > FEWEST_MODELS:
        z = ranks(used, given)
        rest_x = residuals(x, z)
        rest_y = residuals(y, z)
        row["partial"] = float(correlation(rest_x, rest_y))
        row["partial_p"] = permutation_p(rest_x, rest_y, orders, z)
    return row


def centred_ranks(
    values: Float[np.ndarray, " rows"], strata: np.ndarray
) -> Float[np.ndarray, " rows"]:
    """Return ranks within each stratum, divided by its size plus one, less their mean."""
    ranks = pd.Series(values).groupby(strata).rank()
    sizes = pd.Series(values).groupby(strata).transform("size")
    scaled = ranks / (sizes + 1)
    return np.asarray(scaled - scaled.groupby(strata).transform("mean"), dtype=float)


def residuals(
    values: Float[np.ndarray, "*orders rows"], given: Float[np.ndarray, " rows"]
) -> Float[np.ndarray, "*orders rows"]:
    """Return the residuals of centred values after a projection on the values of a given number."""
    length = float(given @ given)
    left = values
    if length > 0:  # a constant explains nothing
        left = values - (values @ given)[..., None] / length * given
    # Residuals that are zero up to rounding would else correlate at random.
    return np.where(np.abs(left) < ROUNDING, 0.0, left)


def correlation(
    x: Float[np.ndarray, "*orders rows"], y: Float[np.ndarray, " rows"]
) -> Float[np.ndarray, "*orders"]:
    """Return the cosine of centred values; NaN if one of them is constant."""
    lengths = np.linalg.norm(x, axis=-1) * np.linalg.norm(y)
    known = lengths > ROUNDING
    # Where it is unknown, 1 stands for the length, so that nothing is divided by zero.
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
    # An order brings the given number's part back into residuals, so it is removed again.
    ordered = x[orders] if given is None else residuals(x[orders], given)
    # Sums in another order differ in the last digits: equal correlations count as large.
    return float((np.abs(correlation(ordered, y)) >= abs(rho) - ROUNDING).mean())


def _exchangeable(
    models: np.ndarray, strata: np.ndarray
) -> list[Int[np.ndarray, "_ _"]]:
    """Return groups of models with rows in the same strata, which may change places: the rows of each model."""
    kinds: dict[tuple[str, ...], list[np.ndarray]] = {}
    for name in dict.fromkeys(models):
        rows = np.flatnonzero(models == name)
        # In the order of their strata, so that rows of two models in one stratum change places.
        rows = rows[np.argsort(strata[rows], kind="stable")]
        kinds.setdefault(tuple(strata[rows]), []).append(rows)
    return [np.array(kinds[kind]) for kind in sorted(kinds)]


def _orders(
    groups: list[Int[np.ndarray, "_ _"]], seed: int
) -> tuple[Int[np.ndarray, "orders rows"], float]:
    """Return orders of the rows in which models change places, and the smallest p that they can give."""
    rows = np.arange(sum(group.size for group in groups))
    number = prod(factorial(len(group)) for group in groups)
    if number <= _EXACT:
        orders = np.tile(rows, (number, 1))
        every = product(*(permutations(group) for group in groups))
        for i, chosen in enumerate(every):
            for group, order in zip(groups, chosen, strict=True):
                orders[i, group] = order
        # With one row a model, the reversed order of ranks gives as large a correlation of the other sign.
        opposite = all(group.shape[1] == 1 for group in groups)
        return orders, min(1.0, (1 + opposite) / number)
    rng = np.random.default_rng(seed)
    # The first order is the given one, which counts among those that are as large.
    orders = np.tile(rows, (_DRAWS + 1, 1))
    for group in groups:
        places = rng.permuted(np.tile(np.arange(len(group)), (_DRAWS, 1)), axis=1)
        orders[1:, group] = group[places]
    return orders, 1 / (_DRAWS + 1)


def relation_findings(
    relations: pd.DataFrame,
    names: Mapping[str, str],
    accuracy: str,
    groups: Sequence[Sequence[str]],
) -> list[Finding]:
    """Say for each group of numbers whether one of them correlates with an accuracy over models, or that it is open."""
    findings = list[Finding]()
    for group in groups:
        asked = relations["what"].isin(group) & (relations["with"] == accuracy)
        rows = relations[asked].dropna(subset="rho")
        target = accuracy.replace("_", " ")
        listed = " or ".join(names[one] for one in group)
        question = f"Does {listed} correlate with {target} accuracy?"
        if rows.empty:
            n = int(relations["n_models"].max()) if len(relations) else 0
            why = f"{n} models have both numbers; it takes {FEWEST_MODELS} models over which both vary."
            more = "More models: other settings, domains, seeds."
            findings.append(Finding(f"{question} Cannot be told.", why, more))
            continue
        # The largest of several is corrected for all of them, by Holm.
        rows = rows.assign(said=with_intervals(rows, "+.2f", "rho"))
        best = rows.iloc[int(rows["rho"].abs().argmax())]
        clear = best["p_holm"] < LEVEL and (best["low"] > 0 or best["high"] < 0)
        answer = "Yes" if clear else "Cannot be told"
        note = f"; {best['note']}" if best["note"] else ""
        given = ""
        if best["given"]:
            partial = f"{best['partial']:+.2f} (p {best['partial_p']:.2g})"
            if pd.isna(best["partial"]):
                partial = "unknown"
            given = f" Given {best['given'].replace('_', ' ')}: {partial}."
        findings.append(
            Finding(
                f"{question} {answer}: rank correlation {best['said']} for {names[best['what']]}, over "
                f"{best['n_models']} models.",
                f"Jackknife over models; without one of them {best['least']:+.2f} to {best['most']:+.2f}. p "
                f"{best['p']:.2g} from orders of the models, {best['p_holm']:.2g} corrected for all tests "
                f"(Holm){note}.{given}",
                "More models, of other settings and seeds. A correlation over models shows no cause: settings change "
                "many things at once.",
            )
        )
    return findings


def models_agree(tests: pd.DataFrame) -> Finding:
    """Say whether one domain shares more than another in the same way over models: from `compare_models`."""
    n = len(tests)
    clear = int((tests["p_holm"] < LEVEL).sum())
    told = "Partly" if clear else "Cannot be told"
    if clear and clear == n:
        told = "Yes"
    return Finding(
        f"Do models agree which domains share more? {told}: {clear} of {n} differences have p < {LEVEL} (Holm).",
        f"Each of {tests['n_models'].max()} models counts once; five models can give no p below 0.0625.",
        "More models, of other architectures and seeds.",
    )


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
    few = f" With fewer than {ENOUGH}, a rank correlation mostly shows which models were chosen, and is no evidence."
    report.section("How to read this", folded=True)
    report.text(
        "Every point is a trained model in a test domain. Rank correlations are over models, with ranks within each "
        "test domain; their intervals are jackknife intervals over models. p is the share of orders of the models with "
        "as large a correlation, corrected for all tests (Holm); it is about other models trained in this way, not "
        "about other classes. The partial correlation takes out accuracy on the other domains, because a model that is "
        f"better at everything may also share more.\n\nThere are {n} models.{few if n < ENOUGH else ''}"
    )
    report.section("Does sharing between domains correlate with accuracy?")
    for accuracy in accuracies:
        title = f"Accuracy ({accuracy.replace('_', ' ')}) against what is shared"
        figure = relation_panels(
            points, relations, names, accuracy, title=title, marks=marks
        )
        report.figure(
            figure,
            "Every model in each test domain; over a panel the rank correlation over models, if any.",
        )
    least = relations["least"].map("{:+.2f}".format)
    most = relations["most"].map("{:+.2f}".format)
    shown = pd.DataFrame(
        {
            "what": relations["what"].map(names),
            "with": relations["with"],
            "rho": with_intervals(relations, "+.2f", "rho"),
            "without_one": least + " to " + most,
            "p": relations["p"],
            "p (Holm)": relations["p_holm"],
            "partial": relations["partial"],
            "p of partial": relations["partial_p"],
            "models": relations["n_models"],
            "note": relations["note"],
        }
    )
    report.table(
        shown,
        "Rank correlations over models with 95 % jackknife intervals, their range without one model, p from orders of "
        f"the models ({int((relations['p_holm'] < LEVEL).sum())} of {len(relations)} with corrected p < {LEVEL}), and "
        "the partial correlation given accuracy on the other domains.",
        formats={
            "p": ".2g",
            "p (Holm)": ".2g",
            "partial": "+.2f",
            "p of partial": ".2g",
        },
    )
    report.table(points, "Every model and test domain.")
