"""Claims on made-up accuracies whose numbers are worked out here: estimator, ways to count, verdicts, seeds."""

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from circuitry.training import AMONG_GROUP, CLASSIFIER, FALSE_ALARMS, MEASURE
from experiments.study import claim_tables
from experiments.study.checkpoint_accuracy import EvaluationSet
from experiments.study.claim_charts import accuracy_by_mixture
from experiments.study.claim_tables import (
    COLUMNS,
    accuracy_table,
    claim_setting,
    judged_accuracies,
)
from experiments.study.claims import (
    AS_WRITTEN,
    BORNE_OUT,
    CASE,
    CLAIMS,
    COMPOSITIONAL,
    OPEN,
    PRIMARY,
    REFUTED,
    SEEN,
    TRAINED_WORDS,
    WHOLE,
    Choices,
    Tables,
    accuracies,
    judged,
    n_for,
    pilot_of,
    seeds_needed,
    verdicts,
)
from experiments.study.study_run import StudyRun
from tests.study.made_up_runs import Asked, made_up_runs

PAIRS = (("dog", "horse"), ("house", "person"), ("dog", "house"))
SHARED = ["run", *CASE, "setting", "what", "site", "domain", "value"]
Accuracy = Callable[[dict[str, Any]], float]


def made_up(
    accuracy: Accuracy,
    settings: Sequence[str] = ("cg-low", "cg-high"),
    domains: Sequence[str] = ("sketch",),
    models: Sequence[str] = ("lite0",),
    pairs: Sequence[tuple[str, str]] = PAIRS,
    shared: Sequence[dict[str, Any]] = (),
) -> Tables:
    """Return tables of a model for each setting, test domain, architecture and pair, with accuracies by a function."""
    rows = list[dict[str, Any]]()
    kinds = product((MEASURE, AMONG_GROUP, FALSE_ALARMS), (1, 3))
    for (measure, epoch), texts in product(kinds, (TRAINED_WORDS, CLASSIFIER)):
        of_models = product(settings, domains, models, enumerate(pairs))
        for setting, domain, model, (seed, pair) in of_models:
            for name in pair:
                about = {
                    "run": f"{model} {setting} {domain} {seed}",
                    "model": model,
                    "setting": setting,
                    "test_domain": domain,
                    "seed": seed,
                    "held_out": ", ".join(pair),
                    "epoch": epoch,
                    "texts": texts,
                    "domain": domain,
                    "class": name,
                    "measure": measure,
                    "n_images": 32,
                }
                rows.append(about | {"value": accuracy(about)})
    table = pd.DataFrame(shared, columns=SHARED)
    return Tables(pd.DataFrame(rows), table, "sketch")


def one(judgements: pd.DataFrame, claim: str, way: str = AS_WRITTEN) -> Any:
    """Return the row of a claim's first measure in one way to count."""
    rows = judgements.query("claim == @claim and way == @way and first")
    assert len(rows) == 1
    return rows.iloc[0]


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


def spread(about: dict[str, Any]) -> float:
    """Return small differences between pairs, without which no interval is known."""
    return 0.01 * int(about["seed"])


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


def test_sometimes_is_a_share_of_cases() -> None:
    better = {0: 0.3, 1: 0.05, 2: -0.5}  # by seed; only the first is clearly better

    def accuracy(about: dict[str, Any]) -> float:
        if about["setting"] == "cg-high":
            return 0.5
        return 0.5 + better[about["seed"]]

    judgements = judged(made_up(accuracy, ("leave-out", "cg-high")))
    assert one(judgements, "sometimes")["value"] == pytest.approx(1 / 3 - 0.05)


def test_alignment_may_bring_a_little() -> None:
    def by(gain: float) -> str:
        def accuracy(about: dict[str, Any]) -> float:
            return float(about["setting"] == "aligned") * (gain + spread(about) / 10)

        tables = made_up(accuracy, ("cg-high", "aligned"))
        return str(one(judged(tables), "alignment-accuracy")["verdict"])

    assert [by(0.02), by(-0.2), by(0.2)] == [BORNE_OUT, BORNE_OUT, REFUTED]


def test_the_gap_is_compared_with_other_domains() -> None:
    gaps = {"sketch": 0.5, "cartoon": 0.1, "art": 0.3}

    def accuracy(about: dict[str, Any]) -> float:
        upper = about["setting"] == "upper-high"
        return float(upper) * gaps[about["test_domain"]] + spread(about)

    judgements = judged(made_up(accuracy, ("cg-high", "upper-high"), tuple(gaps)))
    assert one(judgements, "far-gap")["value"] == pytest.approx(0.5 - 0.2)
    assert one(judgements, "gap")["value"] == pytest.approx(0.9 / 3)


def shared_rows(
    value: Callable[[str, str, int], float], what: str, site: str = WHOLE
) -> list[dict[str, Any]]:
    """Return what three domains share in models of sketch, by setting, domain and seed."""
    rows = list[dict[str, Any]]()
    domains = ("sketch", "photo", "cartoon")
    for setting, domain, (seed, pair) in product(
        COMPOSITIONAL, domains, enumerate(PAIRS)
    ):
        rows.append(
            {
                "run": f"{setting} {seed}",
                "model": "lite0",
                "test_domain": "sketch",
                "seed": seed,
                "held_out": ", ".join(pair),
                "setting": setting,
                "what": what,
                "site": site,
                "domain": domain,
                "value": value(setting, domain, seed),
            }
        )
    return rows


def test_sharing_is_read_on_the_model_that_the_study_used() -> None:
    def value(setting: str, domain: str, seed: int) -> float:
        of_setting = 10.0 * COMPOSITIONAL.index(setting)
        if domain != "sketch":
            return of_setting
        return of_setting + {"aligned": -2, "cg-high": 3}.get(setting, 0) + 0.1 * seed

    rows = shared_rows(value, "all_units") + shared_rows(value, "distance")
    rows += shared_rows(value, "cka", "layer 1")
    rows += shared_rows(lambda *_: 99.0, "cka")  # of the last site alone: not read
    judgements = judged(made_up(lambda _: 0.0, shared=rows))
    for claim, expected, verdict in (
        ("units", -2 + 0.1, BORNE_OUT),
        ("cka", -2 + 0.1, BORNE_OUT),
        ("embeddings", 3 + 0.1, BORNE_OUT),
        ("alignment", 10.0 - 5, REFUTED),
        ("features", np.nan, OPEN),
    ):
        row = one(judgements, claim)
        assert row["value"] == pytest.approx(expected, nan_ok=True), claim
        if claim != "alignment":  # one number for all pairs has no spread
            assert row["verdict"] == verdict
    # Choices about accuracy do not change what is shared.
    ways = set(judgements.query("claim == 'units'")["way"])
    assert "first checkpoint" not in ways
    assert AS_WRITTEN in ways


def test_what_is_shared_is_counted_in_other_ways_too() -> None:
    def value(setting: str, domain: str, seed: int) -> float:
        sign = 1 if setting == "aligned" else -2
        return sign * (1 + 0.1 * seed) if domain == "sketch" else 0.0

    def opposite(setting: str, domain: str, seed: int) -> float:
        return -value(setting, domain, seed)

    rows = shared_rows(value, "all_units") + shared_rows(opposite, "study_units")
    judgements = judged(made_up(lambda _: 0.0, shared=rows))
    units = judgements.query("claim == 'units'").set_index("way")["value"]
    written = units[AS_WRITTEN]
    assert units["circuits of the held-out pair"] == pytest.approx(-written)
    assert units["what domains share in cg-high"] == pytest.approx(-2 * written)
    # Nothing else was measured, and a claim about one test domain is the same in that domain alone.
    assert set(units.index) == {
        AS_WRITTEN,
        "circuits of the held-out pair",
        "what domains share in cg-high",
        "what domains share in leave-out",
    }


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


@pytest.mark.parametrize(
    ("sd", "effect", "n"), [(1.0, 0.5, 34), (1.0, 1.0, 10), (1.0, 0.8, 15)]
)
def test_the_number_of_seeds_is_that_of_textbooks(
    sd: float, effect: float, n: int
) -> None:
    # Paired t test, two-sided 5 %, power 80 %: the values of G*Power.
    assert n_for(sd, effect) == n


def test_the_spread_of_the_pilot_gives_the_number_of_seeds() -> None:
    pairs = [("a", "b"), ("c", "d"), ("e", "f"), ("g", "h")]
    tables = made_up(
        lambda about: (about["setting"] == "cg-high") * (0.2 * about["seed"]),
        pairs=pairs,
        models=("lite0", "lite2"),
    )
    table = seeds_needed(pilot_of(tables)).set_index("measure")
    assert table.loc["accuracy, cg-high minus cg-low", "sd"] == pytest.approx(0.2)
    assert table.loc["accuracy, cg-high minus cg-low", "n_pairs"] == 3
    assert table.loc["all", "seeds"] == n_for(0.2)
    assert {claim.name for claim in CLAIMS} > set(PRIMARY)


def test_tables_of_the_study_are_read() -> None:
    def accuracy(asked: Asked) -> float:
        return 0.5 if asked.group == "axe" else 0.25

    evaluated = made_up_runs(accuracy, ("quickdraw", "sketch"))
    evaluated = evaluated[evaluated["trained"] == "CLIP"]
    table = accuracy_table(
        evaluated.replace({"classifier": {"own style": TRAINED_WORDS}})
    )
    assert list(table) == list(COLUMNS)
    assert set(table["class"]) == {SEEN, "axe", "banana", "bed"}
    # Photographs alone are tested in both domains.
    alone = table.query("setting == 'natural-only' and domain == test_domain")
    assert set(alone["test_domain"]) == {"quickdraw", "sketch"}
    assert set(table.query("measure == @FALSE_ALARMS")["setting"]) == {"upper-high"}
    elsewhere = table.query("domain != test_domain")
    assert set(elsewhere["texts"]) == {TRAINED_WORDS}
    means = table.query("measure == @MEASURE").groupby("class")["value"].mean()
    assert means.to_dict() == {"axe": 0.5, "banana": 0.25, "bed": 0.25, SEEN: 0.25}
    judgements = judged(Tables(table, pd.DataFrame(columns=SHARED), "quickdraw"))
    assert one(judgements, "diversity")["value"] == pytest.approx(0)


@pytest.mark.parametrize(
    ("setting", "claimed"),
    [
        ("class-interpolation-0.2", "class-interpolation"),
        ("class-interpolation-0.05", None),
        ("class-interpolation-0.2-low", None),
        ("class-interpolation", "class-interpolation"),
        ("domain-interpolation-clipart", "domain-interpolation"),
        ("domain-interpolation-clipart+real", None),
        ("cg-high", "cg-high"),
    ],
)
def test_claims_are_of_a_fifth_and_of_one_domain(
    setting: str, claimed: str | None
) -> None:
    assert claim_setting(setting) == (claimed or setting)


@pytest.mark.parametrize(
    ("kept", "judged_epochs"),
    [((0, 2, 3), [2, 3]), (range(33), [16, 32]), ((0, 1), [1]), ((0,), [0])],
)
def test_the_last_checkpoint_and_one_of_half_the_training_are_judged(
    kept: Sequence[int],
    judged_epochs: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = list[Sequence[int]]()

    def extract(
        runs: list[StudyRun], tests: object, *, epochs: Sequence[int], **_: object
    ) -> pd.DataFrame:
        asked.append(epochs)
        return pd.DataFrame()

    monkeypatch.setattr(claim_tables, "extract_accuracies", extract)
    files = {epoch: tmp_path / f"epoch_{epoch}.pt" for epoch in kept}
    monkeypatch.setattr(StudyRun, "checkpoints", lambda self: files)
    run = StudyRun(tmp_path, "rn-tiny", "cg-high", "sketch")
    judged_accuracies(run, object.__new__(EvaluationSet))
    assert asked == [judged_epochs]
