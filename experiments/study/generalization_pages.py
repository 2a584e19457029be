"""Report sections on accuracies of many runs: settings side by side, screened classes, held-out sets. No torch."""

from collections.abc import Mapping

from circuitry.reports import Finding, Report, add_told_apart
from circuitry.reports.figures import Mark
from experiments.study.run_tables import MODEL, SHARE, UPPER, model_names
from experiments.study.setting_bars import settings_bars

import pandas as pd


def generalization_findings(tested: pd.DataFrame) -> list[Finding]:
    """Answer the title for every test domain and model by the best setting below the upper bounds."""
    found = []
    for (domain, model), rows in tested.assign(model=model_names(tested)).groupby(["test_domain", "model"], sort=False):
        short = rows[~rows["setting"].str.startswith("upper")].dropna(subset="held_out")
        if short.empty:
            continue
        best = short.sort_values("held_out").iloc[-1]
        bound = rows.loc[rows["setting"] == UPPER, "held_out"]
        above = f"; the upper bound reaches {bound.iloc[0]:.1%}" if len(bound) else ""
        spread = f"standard deviation {best['sd']:.1%} over {best['seeds']} seeds" if best["seeds"] > 1 else "one seed"
        found.append(
            Finding(
                f"In {domain}{f' ({model})' if model else ''} held-out classes are recognised best with "
                f"{best['setting']}: {best['held_out']:.1%} among all classes (guessing {best['chance']:.1%}), "
                f"{best['alone']:.1%} among themselves (guessing {best['chance_alone']:.1%}){above}.",
                f"{spread}, {best['n_classes']} held-out classes; no test over models.",
                "Another order of the settings among held-out classes alone than among all, or with more seeds.",
            )
        )
    return found


def add_kinds(report: Report, kinds: pd.DataFrame, marks: Mapping[str, Mark]) -> None:
    """Add the section on the kinds of accuracy."""
    report.section("Settings side by side")
    tested = kinds[kinds["domain"] == kinds["test_domain"]]
    add_told_apart(report, tested.drop(columns="domain"), "Accuracy in the test domain, mean over classes and seeds.")
    report.figure(settings_bars(kinds, marks=marks), _in_words(tested))


def add_screened(report: Report, tables: Mapping[str, pd.DataFrame], screen: bool) -> None:
    """Say which classes the upper bound learns, and add the accuracies over the other choice of classes."""
    screened = tables["screened"]
    if screened.empty:
        report.text(f"There are no models of the upper bound ({UPPER}): no class was screened.")
        return
    out = screened[~screened["kept"]]
    classes = [f"{row['class']} in {row['test_domain']} ({row['upper']:.0%})" for _, row in out.iterrows()]
    report.text(
        f"A class is screened out if the upper bound ({UPPER}), which saw it in the test domain, comes less than "
        f"{SHARE:.0%} of the way from guessing to perfect accuracy on it; such a class is near zero in every setting. "
        f"Above {'they are left out' if screen else 'all held-out classes count'}. {len(out)} of {len(screened)} are "
        f"screened out: {', '.join(classes) or 'none'}."
    )
    beside = tables["told_apart_all" if screen else "told_apart_screened"]
    tested = beside[beside["domain"] == beside["test_domain"]].drop(columns="domain")
    add_told_apart(report, tested, f"The same {'with all' if screen else 'without these'} classes.")


def add_settings(report: Report, table: pd.DataFrame, what: str) -> None:
    """Add the tables over settings, each held-out set apart, and the held-out classes one by one."""
    tested = table[table["domain"] == table["test_domain"]].drop(columns=["domain", "values"])
    tested = tested.drop(columns=[name for name in MODEL if tested[name].nunique() == 1])
    parts = tested["part"].isin(["all", "seen", "held-out"])
    report.table(
        tested[parts].reset_index(drop=True),
        f"Accuracy in the test domain ({what}), mean and standard deviation over seeds, each held-out set apart.",
    )
    if not parts.all():
        by = [name for name in ("test_domain", *MODEL, "setting") if name in tested]
        classes = tested[~parts].set_index([*by, "part"])["mean"].unstack(sort=False)
        report.table(classes.reset_index(), "The held-out classes one by one, mean over seeds.")


def _in_words(tested: pd.DataFrame) -> str:
    """Say what the bars show: held-out classes, setting by setting."""
    words = [f"Guessing would reach {tested['chance'].iloc[0]:.1%}."]
    for (domain, model), rows in tested.assign(model=model_names(tested)).groupby(["test_domain", "model"], sort=False):
        among = ", ".join(
            f"{row.setting} {row.held_out:.1%} (alone {row.alone:.1%})" for row in rows.itertuples(index=False)
        )
        words.append(f"Held-out classes in {domain}{f' ({model})' if model else ''}: {among}.")
    return " ".join(words)
