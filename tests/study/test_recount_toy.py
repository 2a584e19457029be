"""The study in small counted again: from made-up tables by hand, and the committed one by plain arithmetic."""

import numpy as np
import pandas as pd
import pytest

from experiments.pages.tables import one, table
from experiments.recount_toy import recounted_claims, recounted_points
from experiments.study.toy_claims import CLAIMS

BY_MODEL = ["model", "test_domain", "seed", "setting"]


def test_points_take_the_accuracy_on_all_held_out_classes() -> None:
    points = pd.DataFrame(
        {
            "run": ["a-1", "b-1"],
            "test_domain": "ink",
            "seen": [0.6, 0.4],
            "held_out": [1.0, 0.0],
        }
    )
    points = points.assign(own_style=0.5, centred=0.5)
    of_all = pd.DataFrame(
        {"run": ["b/1", "a/1"], "test_domain": "ink", "test": [0.2, 0.3]}
    )
    of_all = of_all.assign(held_out_classes="cat, dog")
    found = recounted_points(points, of_all).set_index("run")
    assert found["held_out"].to_dict() == {"a-1": 0.3, "b-1": 0.2}
    assert found["held_out_screened"].to_dict() == {"a-1": 1.0, "b-1": 0.0}
    assert found.loc["a-1", "harmonic_mean"] == pytest.approx(2 * 0.6 * 0.3 / 0.9)
    assert "own_style" not in found  # it was counted on the screen
    with pytest.raises(ValueError, match="all held-out classes"):
        recounted_points(points, of_all.head(1))


def test_claims_that_points_do_not_tell_keep_their_rows() -> None:
    first, second = (claim.measures[0].name for claim in CLAIMS[:2])
    row = {"models": "all", "p": 0.02, "verdict": "borne out", "n_models": 4}
    again = pd.DataFrame(
        [{"measure": first, **row, "p": 0.5}, {"measure": second, **row, "n_models": 0}]
    )
    published = pd.DataFrame([{"measure": second, **row}, {"measure": first, **row}])
    found = recounted_claims(again, published)
    assert found["measure"].tolist() == [first, second]
    assert found["counted"].tolist() == ["all held-out classes", "as published"]
    assert found["p_holm"].tolist() == pytest.approx([0.5, 2 * 0.02])


@pytest.mark.parametrize(
    ("setting", "other"),
    [("leave-out", "natural-only"), ("aligned", "cg-high"), ("cg-high", "cg-low")],
)
def test_committed_differences_are_those_of_all_held_out_classes(
    setting: str, other: str
) -> None:
    right = table("toy_study/robustness")
    there = (
        right[right["test_domain"].isin(["quickdraw", "sketch"])]
        .set_index(BY_MODEL)["test"]
        .unstack("setting")
    )
    differences = (there[setting] - there[other]).dropna()
    measure = f"{setting} minus {other}, among all classes"
    assert one("toy_recounted/claims", measure=measure, models="all") == pytest.approx(
        differences.mean(), rel=1e-5
    )
    fold = (
        differences.index.get_level_values("seed") % 4
    )  # seed 4 holds out the classes of seed 0
    by_set = [differences[fold == one_fold].mean() for one_fold in sorted(set(fold))]
    found = one("toy_recounted/claims", measure=measure, models="by held-out set")
    assert found == pytest.approx(np.mean(by_set), rel=1e-5)
