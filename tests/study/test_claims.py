"""How claims are judged, on made-up accuracies worked out here: estimator, ways to count, verdicts."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from circuitry.training import AMONG_GROUP, CLASSIFIER, FALSE_ALARMS
from experiments.study.claim_charts import accuracy_by_mixture
from experiments.study.claims import (
    AS_WRITTEN,
    BORNE_OUT,
    COMPOSITIONAL,
    OPEN,
    REFUTED,
    Choices,
    accuracies,
    verdicts,
)
from experiments.study.real_claims import judged
from tests.study.made_up_claims import made_up, one, shared_rows, spread


def test_a_pair_counts_once_with_the_mean_of_its_models() -> None:
    # By pair: sketch and cartoon, dog or house first.
    by_pair = {
        "dog, horse": {"sketch": 0.5, "cartoon": 0.1},
        "house, person": {"sketch": 0.2, "cartoon": 0.2},
        "dog, house": {"sketch": 0.3, "cartoon": 0.7},
    }

    def accuracy(about: dict[str, Any]) -> float:
        if about["setting"] == "cg-low" or about["measure"] == FALSE_ALARMS:
            return 0.0
        return by_pair[about["held_out"]][about["test_domain"]]

    row = one(judged(made_up(accuracy, domains=("sketch", "cartoon"))), "diversity")
    means = np.array([0.3, 0.2, 0.5])
    assert row["value"] == pytest.approx(means.mean())
    reach = stats.t.ppf(0.975, 2) * stats.sem(means)
    assert row[["low", "high"]].tolist() == pytest.approx(
        [means.mean() - reach, means.mean() + reach]
    )
    assert (row["n_units"], row["n_models"], row["share"]) == (3, 6, 1)
    assert row["p"] == 2 / 2**3  # all three signs alike, of eight


def test_each_way_to_count_reads_its_own_numbers() -> None:
    def accuracy(about: dict[str, Any]) -> float:
        if about["setting"] == "upper-high":
            # horse is not learned: it is answered often, and wrongly as often
            alarm = about["measure"] == FALSE_ALARMS
            return 0.8 if about["class"] != "horse" or alarm else 0.9
        if about["setting"] == "cg-low":
            return 0.0
        value = 0.1 + 0.4 * (about["class"] == "horse")
        value += 0.01 * (about["measure"] == AMONG_GROUP)
        value += 0.02 * (about["texts"] == CLASSIFIER)
        value += 0.04 * (about["epoch"] == 1)
        value += 0.001 * about["seed"]
        return float(value + 0.002 * (about["test_domain"] == "cartoon"))

    def no_alarms(about: dict[str, Any]) -> float:
        alarm = about["measure"] == FALSE_ALARMS
        if alarm and about["class"] != "horse":
            return 0.0
        return accuracy(about)

    tables = made_up(
        no_alarms, ("cg-low", "cg-high", "upper-high"), ("sketch", "cartoon")
    )
    judgements = judged(tables)

    def value(way: str) -> float:
        return float(one(judgements, "diversity", way)["value"])

    seeds = 0.001 * (0 + 1 + 2) / 3
    plain = 0.1 + 0.4 / 6 + seeds + 0.001
    assert value(AS_WRITTEN) == pytest.approx(plain)
    assert value("among held-out classes alone") == pytest.approx(plain + 0.01)
    assert value("texts by OpenAI's templates") == pytest.approx(plain + 0.02)
    assert value("first checkpoint") == pytest.approx(plain + 0.04)
    learned = "held-out classes that the upper bound learns"
    assert value(learned) == pytest.approx(0.1 + seeds + 0.001)
    assert value("in cartoon alone") == pytest.approx(plain + 0.001)
    assert value("test domains as units") == pytest.approx(plain)
    assert one(judgements, "diversity", "test domains as units")["n_units"] == 2
    # Classes as units: dog in seeds 0 and 2, horse in 0, house in 1 and 2, person in 1.
    of_classes = [0.101, 0.5, 0.1015, 0.101]
    assert value("classes as units") == pytest.approx(np.mean(of_classes) + 0.001)


def test_without_an_architecture_the_others_remain() -> None:
    def accuracy(about: dict[str, Any]) -> float:
        if about["setting"] == "cg-low":
            return 0.0
        return 0.2 if about["model"] == "lite0" else -0.2

    judgements = judged(made_up(accuracy, models=("lite0", "lite2")))
    assert one(judgements, "diversity")["value"] == pytest.approx(0)
    assert one(judgements, "diversity", "without lite2")["value"] == pytest.approx(0.2)


def test_a_headline_is_decided_in_every_way() -> None:
    pairs = [(f"a{i}", f"b{i}") for i in range(12)]

    def clear(about: dict[str, Any]) -> float:
        return float(about["setting"] == "cg-high") * (0.3 + spread(about))

    def turned(about: dict[str, Any]) -> float:
        alone = about["measure"] == AMONG_GROUP
        return clear(about) * (-1 if alone else 1)

    for accuracy, verdict, headline, other in (
        (clear, BORNE_OUT, True, ""),
        (turned, BORNE_OUT, False, f"among held-out classes alone ({REFUTED})"),
    ):
        found = verdicts(judged(made_up(accuracy, pairs=pairs))).set_index("claim")
        row = found.loc["diversity"]
        assert (row["verdict"], row["headline"], row["other"]) == (
            verdict,
            headline,
            other,
        )
        assert row["n_ways"] - row["n_same"] == (not headline)
        # No model tells of other claims.
        assert set(found["verdict"].drop("diversity")) == {OPEN}
    few = verdicts(judged(made_up(clear))).set_index("claim").loc["diversity"]
    # With three pairs p is a quarter at least, whatever the interval.
    assert (few["verdict"], few["headline"]) == (BORNE_OUT, False)


def test_p_is_corrected_for_all_claims() -> None:
    pairs = [(f"a{i}", f"b{i}") for i in range(8)]

    def accuracy(about: dict[str, Any]) -> float:
        places = ["natural-only", "leave-out", "cg-low", "cg-high"]
        step = 0.1 * places.index(about["setting"])
        return step + float(about["setting"] == "leave-out") * spread(about)

    settings = ("natural-only", "leave-out", "cg-low", "cg-high")
    judgements = judged(made_up(accuracy, settings, pairs=pairs))
    judging = judgements[judgements["first"] & (judgements["way"] == AS_WRITTEN)]
    known = judging.dropna(subset="p").sort_values("p")
    n_left = np.arange(len(known), 0, -1)
    expected = np.maximum.accumulate(np.minimum(known["p"] * n_left, 1))
    assert len(known) == 3
    assert known["p_holm"].tolist() == pytest.approx(list(expected))
    assert judgements.drop(judging.index)["p_holm"].isna().all()


def test_bars_and_diamonds_are_means_over_pairs() -> None:
    def accuracy(about: dict[str, Any]) -> float:
        value = 0.4 if about["measure"] == AMONG_GROUP else 0.1
        value += 0.2 if about["setting"] == "cg-low" else 0.0
        return value + 0.1 * int(about["seed"])

    tables = made_up(accuracy)
    alone = accuracies(tables, Choices(among=AMONG_GROUP))
    drawn = accuracy_by_mixture(accuracies(tables, Choices()), alone, "sketch")
    bars, _, diamonds = drawn.data
    assert list(bars.x) == list(diamonds.x) == ["cg-low", "cg-high"]
    np.testing.assert_allclose(bars.y, [40, 20])
    np.testing.assert_allclose(diamonds.y, [70, 50])


def test_accuracy_is_related_to_sharing_within_a_pair() -> None:
    def value(setting: str, domain: str, seed: int) -> float:
        return float(COMPOSITIONAL.index(setting) * (1 if seed else -1))

    rows = shared_rows(value, "study_units")
    settings = (*COMPOSITIONAL, "upper-high")

    def accuracy(about: dict[str, Any]) -> float:
        return 0.1 * settings.index(about["setting"]) + 0.5 * int(about["seed"])

    judgements = judged(made_up(accuracy, settings, shared=rows))
    row = one(judgements, "sharing")
    assert row["value"] == pytest.approx((-1 + 1 + 1) / 3)
    # With three settings in a pair there is no correlation.
    few = judged(made_up(accuracy, settings[:3], shared=rows))
    assert one(few, "sharing")["n_units"] == 0
