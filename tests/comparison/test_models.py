"""The trained model as the unit, against scipy."""

import pandas as pd
import pytest
from scipy import stats

from circuitry.comparison import compare_models, sign_flip_p
from circuitry.comparison.models import OVER_MODELS
from tests.comparison.similarities import similarities


def test_each_model_is_one_difference() -> None:
    models = [similarities(5, seed=seed) for seed in range(6)]
    found = compare_models(models)
    assert tuple(found) == OVER_MODELS
    means = pd.DataFrame([one.summary().set_index("domain")["value"] for one in models])
    each = (means["d0"] - means["d2"]).to_numpy()
    row = found.query("domain_a == 'd0' and domain_b == 'd2'").iloc[0]
    assert (row["difference"], row["n_models"], row["about"]) == (pytest.approx(each.mean()), 6, "over 6 models")
    assert (row["low"], row["high"]) == pytest.approx(stats.t.interval(0.95, 5, each.mean(), stats.sem(each)))
    assert row["p"] == pytest.approx(sign_flip_p(each))
    assert set(found["note"]) == {"cannot be significant with 6 models"}  # 3 * 2 / 2^6
