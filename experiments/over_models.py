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
    """Test over trained models, for each pair of domains, whether one domain is more similar to further domains.

    Tests within a model hold for that checkpoint only, with any number of classes: another seed may reverse the
    domains. Here each model gives one difference, its mean over classes. The interval is Student's over models. The p
    values come from exchanging the signs of models (`sign_flip_p`), and are corrected for the number of pairs (Holm).
    Five models can give no p below 0.0625.

    Args:
        comparisons: A comparison of each model, all by the same measure.
        group: Group of classes that counts.

    Returns:
        Columns `TESTS`, with n_models in the place of n_classes; difference is the mean of domain_a minus domain_b.
    """
    measures = list(dict.fromkeys(comparison.measure for comparison in comparisons))
    twice = any(a.values.equals(b.values) for a, b in combinations(comparisons, 2))
    # A model that is given twice would count as two replications.
    if len(comparisons) < 2 or len(measures) > 1 or twice:
        given = f"{len(comparisons)} by {', '.join(measures)}"
        if twice:
            given = f"one twice among {len(comparisons)}"
        raise InputError(
            f"Expected comparisons of two or more trained models by one measure, but {given} were given: give "
            "one of each model."
        )
    first = Identity(comparisons[0].about)
    for other in comparisons[1:]:
        first.check(other.about, "one comparison", "another", ["measure_code"])
    means = []
    for comparison in comparisons:
        # Among the classes of the group, "all" are all of them.
        summary = comparison.among(group).summary()
        of_all = summary[summary["group"] == "all"]
        means.append(of_all.set_index("domain")["value"])
    return model_tests(pd.DataFrame(means).astype(float))


def model_tests(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the tests of `compare_models`.

    Args:
        scores: The mean similarity of each domain: a row for each model, a column for each domain.
    """
    pairs = list(combinations(sorted(map(str, scores)), 2))
    # A model counts for a pair if it has both domains.
    differences = [(scores[a] - scores[b]).dropna().to_numpy() for a, b in pairs]
    n = np.array(list(map(len, differences)), int)
    p = np.array(list(map(sign_flip_p, differences)), float)
    tests = corrected_tests(pairs, mean_spreads(differences), n, p)
    tests = tests.rename(columns={"n_classes": "n_models"})
    return tests.assign(about=[f"over {n} models" for n in tests["n_models"]])
