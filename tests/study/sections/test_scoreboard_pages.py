"""The sections of a scoreboard hold its tables."""

import pandas as pd

from circuitry.reports.sections.findings import UNKNOWN, YES
from experiments.study.scoreboard_command import scoreboard_findings, with_settings

VALUES = {"seconds": (2.0, 30.0), "size for 0.8, kept": (0.9, 0.4), "size for 0.8, random": (1.0, 0.95)}
SUMMARY = pd.DataFrame(
    [
        {"setting": setting, "method": m, "what": what, "value": v, "low": v - 0.1, "high": v + 0.1}
        for setting in ("zero, logit", "mean, margin")
        for what, values in VALUES.items()
        for m, v in zip(("gradient", "learned"), values, strict=True)
    ]
)


def scoreboard() -> dict[str, pd.DataFrame]:
    named = SUMMARY.assign(baseline=SUMMARY["setting"].str.split(", ").str[0], metric="margin", n_classes=3)
    named["budget"] = named["method"].where(named["method"] == "learned", "same-share")
    curve = pd.DataFrame({"circuit": ["kept", "random"], "size": 0.4, "value": [0.75, 0.0], "low": 0.0, "high": 1.0})
    curves = [
        curve.assign(method="learned", budget="learned", baseline="mean", metric="margin", measure=m)
        for m in ("selectivity", "x")
    ]
    planted = pd.DataFrame({"network": ["n"], "kind": ["node"], "site": ["s"], "method": ["learned"], "auroc": [0.875]})
    return {"summary": named, "curves": pd.concat(curves), "planted": planted}


def test_the_answer_names_the_smallest_circuits_and_their_random_units() -> None:
    table = scoreboard()["summary"].query("setting == 'zero, logit'")
    small, first = scoreboard_findings(table)
    # Of gradient and learned the sizes are 0.9 and 0.4, of random units 1.0 and 0.95, each plus or minus 0.1.
    assert f"? {YES}: " in small.claim
    assert "learned" in small.claim
    assert small.claim.index("40% [30%, 50%]") < small.claim.index("95% [85%, 105%]")
    assert f"? {YES}: " in first.claim
    assert "learned 40% [30%, 50%], gradient (same-share) 90%" in first.claim
    fair = pd.concat([table, table[table["method"] == "gradient"].assign(budget="global", value=0.6)])
    assert "gradient (global) 60%" in scoreboard_findings(fair)[1].claim  # each method has its best budget
    unknown = table["what"].str.startswith("size")
    (nothing,) = scoreboard_findings(table.assign(value=table["value"].mask(unknown)))
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
