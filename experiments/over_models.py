"""Does a difference between domains hold over trained models? The model as the unit of replication."""

from collections.abc import Sequence
from itertools import combinations

from circuitry.runs import InputError
from circuitry.comparison.comparison import Comparison
from circuitry.comparison.domain_testing import corrected_tests
from circuitry.comparison.significance import sign_flip_p
from circuitry.comparison.statistics import mean_spreads
from circuitry.runs.arguments import checked
from circuitry.runs.identity import Identity

import numpy as np
import pandas as pd


@checked
def compare_models(
    comparisons: Sequence[Comparison], group: str = "all"
) -> pd.DataFrame:
    """Test, for each two domains, whether one is more similar to the others than the other is, over trained models.

    Tests within a model hold for that checkpoint only, with any number of classes: another seed may reverse the
    domains. Here each model gives one difference, its mean over classes; the interval is Student's over models, p comes
    from exchanging the signs of models (`sign_flip_p`), corrected for the number of pairs (Holm). Five models can give
    no p below 0.0625.

    Returns:
        Columns `TESTS`, with n_models in the place of n_classes; difference is the mean of domain_a minus domain_b.
    """
    measures = list(dict.fromkeys(one.measure for one in comparisons))
    twice = any(a.values.equals(b.values) for a, b in combinations(comparisons, 2))
    if len(comparisons) < 2 or len(measures) > 1 or twice:
        given = (
            f"one twice among {len(comparisons)}"
            if twice
            else f"{len(comparisons)} by {', '.join(measures)}"
        )
        raise InputError(
            f"Expected comparisons of two or more trained models by one measure, but {given} were given: give "
            "one of each model."
        )
    first = Identity(comparisons[0].about)
    for other in comparisons[1:]:
        first.check(other.about, "one comparison", "another", ["measure_code"])
    summaries = [one.among(group).summary() for one in comparisons]
    means = [
        one[one["group"] == "all"].set_index("domain")["value"] for one in summaries
    ]
    return model_tests(pd.DataFrame(means).astype(float))


def model_tests(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the tests of `compare_models` from each model's means: a row per model, a column per domain."""
    pairs = list(combinations(sorted(map(str, scores)), 2))
    apart = [(scores[a] - scores[b]).dropna().to_numpy() for a, b in pairs]
    n = np.array([len(one) for one in apart], int)
    p = np.array([sign_flip_p(one) for one in apart], float)
    tests = corrected_tests(pairs, mean_spreads(apart), n, p).rename(
        columns={"n_classes": "n_models"}
    )
    return tests.assign(about=[f"over {n} models" for n in tests["n_models"]])
