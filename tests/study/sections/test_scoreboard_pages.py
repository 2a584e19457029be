"""The sections of a scoreboard hold its tables."""

import pandas as pd

from circuitry.reports.sections.findings import UNKNOWN, YES
from experiments.study.scoreboard_command import scoreboard_findings, with_settings

SIZES = {"size for 0.8, kept": (0.9, 0.4), "size for 0.8, random": (1.0, 0.95)}


def test_the_answer_names_the_smallest_circuits_and_their_random_units() -> None:
    methods = (("gradient", "same-share"), ("learned", "learned"))
    rows = [
        (*method, what, value, value - 0.1, value + 0.1)
        for what, values in SIZES.items()
        for method, value in zip(methods, values, strict=True)
    ]
    table = pd.DataFrame(rows, columns=["method", "budget", "what", "value", "low", "high"])
    table = table.assign(baseline="zero", metric="margin", n_classes=3)
    small, first = scoreboard_findings(table)
    # Of gradient and learned the sizes are 0.9 and 0.4, of random units 1.0 and 0.95, each plus or minus 0.1.
    assert f"? {YES}: " in small.claim
    assert "learned" in small.claim
    assert small.claim.index("40% [30%, 50%]") < small.claim.index("95% [85%, 105%]")
    assert f"? {YES}: " in first.claim
    assert "learned 40% [30%, 50%], gradient (same-share) 90%" in first.claim
    fair = pd.concat([table, table[table["method"] == "gradient"].assign(budget="global", value=0.6)])
    assert "gradient (global) 60%" in scoreboard_findings(fair)[1].claim  # each method has its best budget
    (nothing,) = scoreboard_findings(table.assign(value=float("nan")))
    assert UNKNOWN in nothing.claim


def test_several_budgets_are_settings_of_their_own_and_masks_are_in_each() -> None:
    rows = [("gradient", "same-share"), ("gradient", "global"), ("learned", "learned")]
    table = pd.DataFrame(rows, columns=["method", "budget"]).assign(baseline="mean", metric="logit")
    found = with_settings(table)
    assert list(zip(found["setting"], found["method"], strict=True)) == [
        (f"mean baseline, logit, budget {budget}", method)
        for budget in ("same-share", "global")
        for method in ("gradient", "learned")
    ]
    assert with_settings(table.iloc[1:])["setting"].tolist() == ["mean baseline, logit"] * 2
