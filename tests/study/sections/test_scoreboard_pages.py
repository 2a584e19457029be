"""The sections of a scoreboard hold its tables."""

import pandas as pd

from circuitry.reports.sections.findings import UNKNOWN
from experiments.judging.scoreboard import over_classes, paired_differences
from experiments.study.measure_charts import QUALITY
from experiments.study.scoreboard_command import scoreboard_findings, with_settings


def tables_of(sizes: dict[str, list[float]]) -> dict[str, pd.DataFrame]:
    """Return the tables of two methods, by their sizes in each class."""
    named = {"budget": "global", "baseline": "mean", "metric": "margin"}
    parts = [
        pd.DataFrame(
            {
                "class": range(len(of)),
                "what": QUALITY,
                "value": of,
                "method": method,
                **named,
            }
        )
        for method, of in sizes.items()
    ]
    by_class = pd.concat(parts)
    rows = [
        {
            "method": method,
            **named,
            "measure": measure,
            "circuit": circuit,
            "size": 0.3,
            "value": value,
        }
        for method in sizes
        for measure, circuit, value in (
            ("right", "kept", 0.9),
            ("right", "foreign", 0.4),
            ("false", "kept", 0.05),
        )
    ]
    curves = pd.DataFrame(rows)
    return {
        "summary": over_classes(by_class),
        "paired": paired_differences(by_class),
        "curves": curves,
    }


def test_the_answer_names_sizes_what_stands_beside_and_which_method_needs_less() -> (
    None
):
    tables = tables_of(
        {
            "gradient": [0.9, 0.8, 1, 0.9, 0.7, 0.9],
            "fisher": [0.3, 0.3, 0.4, 0.3, 1, 0.2],
        }
    )
    small, first = scoreboard_findings(tables)
    assert small.claim.index("fisher (global) 5 of 6, 30%") < small.claim.index(
        "gradient (global) 5 of 6, 90%"
    )
    assert "circuit 90%" in small.certainty
    assert "other classes 40%" in small.certainty
    assert "5% of others" in small.certainty
    assert "? Cannot be told" in first.claim  # p 0.06
    (nothing,) = scoreboard_findings(tables | {"summary": tables["summary"].iloc[:0]})
    assert UNKNOWN in nothing.claim


def test_several_budgets_are_settings_of_their_own_and_masks_are_in_each() -> None:
    rows = [("gradient", "same-share"), ("gradient", "global"), ("learned", "learned")]
    table = pd.DataFrame(rows, columns=["method", "budget"]).assign(
        baseline="mean", metric="logit"
    )
    found = with_settings(table)
    assert list(zip(found["setting"], found["method"], strict=True)) == [
        (f"mean ablation, logit, budget {budget}", method)
        for budget in ("same-share", "global")
        for method in ("gradient", "learned")
    ]
    assert (
        with_settings(table.iloc[1:])["setting"].tolist()
        == ["mean ablation, logit"] * 2
    )
