"""Claims about edits of a style, judged on made-up answers whose verdicts are known."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import pandas as pd
import pytest

from experiments.study import claims
from experiments.study.claims import AS_WRITTEN, BORNE_OUT, OPEN, REFUTED
from experiments.study.style_claims import CLAIMS, STRENGTHS_BY, judged, tables_of, ways
from experiments.study.style_edits import (
    AT_CHANCE,
    BY_FOLDERS,
    BY_TEXTS,
    CENTRED,
    MOVED,
    PART,
    PUT_IN,
    RANDOM,
    RULE,
    WHOLE,
)
from experiments.study.style_effects import ELSEWHERE
from tests.study.made_up_claims import one

About = dict[str, Any]
NATURAL = "photo"
IN_STYLE = (WHOLE, PART, RANDOM, MOVED, CENTRED)


def models(
    settings: Sequence[str], domains: Sequence[str], n_pairs: int, told: Sequence[str]
) -> list[About]:
    """Return the columns that identify each model, in which each pair has two classes of its own."""
    return [
        {
            "run": f"{setting} {domain} {seed}",
            "model": "lite0",
            "setting": setting,
            "test_domain": domain,
            "seed": seed,
            "held_out": f"a{seed}, b{seed}",
            "told": how,
        }
        for setting, domain, seed, how in product(
            settings, domains, range(n_pairs), told
        )
    ]


def made_up(
    right: Callable[[About], float],
    settings: Sequence[str] = ("cg-high",),
    domains: Sequence[str] = ("sketch",),
    n_pairs: int = 8,
    told: Sequence[str] = (BY_TEXTS,),
) -> pd.DataFrame:
    """Return answers after edits by a function of setting, seed, edit, rule, domain, class and told."""
    rows = list[About]()
    for about in models(settings, domains, n_pairs, told):
        pair = about["held_out"].split(", ")
        for edit, rule in product(IN_STYLE, STRENGTHS_BY):
            # The whole model is counted once, and other styles by one rule.
            if rule != RULE and edit == WHOLE:
                continue
            wheres = [about["test_domain"], *[ELSEWHERE] * (rule == RULE)]
            rows += [
                about | {"edit": edit, "rule": rule, "domain": domain, "class": name}
                for domain, name in product(wheres, [*pair, "seen"])
            ]
        rows += [
            about | {"edit": edit, "rule": RULE, "domain": NATURAL, "class": name}
            for edit, name in product((WHOLE, PUT_IN), [*pair, "seen"])
        ]
    return pd.DataFrame(
        [row | {"right": right(row), "alone": right(row) / 2} for row in rows]
    )


def facts_of(
    value: Callable[[About], float],
    settings: Sequence[str] = ("cg-high",),
    told: Sequence[str] = (BY_TEXTS,),
    n_pairs: int = 8,
) -> pd.DataFrame:
    kinds = product(("bias", "style by probe"), (WHOLE, PART))
    rows = [
        about | {"what": what, "edit": edit}
        for (what, edit), about in product(
            kinds, models(settings, ["sketch"], n_pairs, told)
        )
    ]
    return pd.DataFrame([row | {"value": value(row)} for row in rows])


NO_FACTS = facts_of(lambda _: 0.0)


def judged_alone(
    names: Sequence[str], answers: pd.DataFrame, facts: pd.DataFrame = NO_FACTS
) -> pd.DataFrame:
    """Judge some claims in all ways to count."""
    chosen = [claim for claim in CLAIMS if claim.name in names]
    return claims.judged(tables_of(answers, facts, "sketch"), chosen, ways(answers))


def of_edits(about: About, gains: dict[str, float]) -> float:
    """Return right answers that differ between pairs, with a gain on the pair by edit."""
    of_pair = about["class"] != "seen" and about["domain"] == about["test_domain"]
    gain = gains.get(about["edit"], 0.0) if of_pair else 0.0
    return 0.2 + (1 + 0.01 * int(about["seed"])) * gain


@pytest.mark.parametrize(("sign", "verdict"), [(1, BORNE_OUT), (-1, REFUTED)])
def test_the_part_brings_answers_back_or_takes_them(sign: int, verdict: str) -> None:
    table = made_up(lambda row: of_edits(row, {PART: sign * 0.2, RANDOM: 0.05}))
    judgements = judged(table, NO_FACTS, "sketch")
    row = one(judgements, "returns")
    assert row["verdict"] == verdict
    assert row["value"] == pytest.approx(sign * 0.2 * 1.035)
    assert (row["n_units"], row["n_models"]) == (8, 8)
    beyond = one(judgements, "above-random")
    assert beyond["value"] == pytest.approx((sign * 0.2 - 0.05) * 1.035)
    between = one(judgements, "better-told")
    assert between["value"] == pytest.approx(sign * 0.1 * 1.035)
    # No model of these settings was edited.
    for claim in ("named-style", "aligned", "harmless", "bias"):
        assert one(judgements, claim)["verdict"] == OPEN
    written = judgements[judgements["way"] == AS_WRITTEN]
    measures = [measure.name for claim in CLAIMS for measure in claim.measures]
    assert written["measure"].tolist() == measures


def test_each_rule_and_folders_are_ways_to_count() -> None:
    def right(about: About) -> float:
        gains = {AT_CHANCE: 0.4, "two points": 0.1}
        gain = gains.get(about["rule"], 0.2) + 0.3 * (about["told"] == BY_FOLDERS)
        moved = 0.01 * (about["class"] == "a0")
        return of_edits(about, {PART: gain + moved}) + int(about["seed"]) / 100

    both = made_up(right, told=(BY_TEXTS, BY_FOLDERS))
    judgements = judged_alone(["returns"], both)
    row = 0.2 * 1.035 + 0.005 / 8
    expected = {
        AS_WRITTEN: row,
        f"strength: {AT_CHANCE}": row + 0.2 * 1.035,
        "strength: two points": row - 0.1 * 1.035,
        "strength: ten points": row,
        "strength: five points in each style": row,
        "style told by folders": row + 0.3 * 1.035,
        "classes as units": row,
    }
    ways = judgements.query("claim == 'returns' and first").set_index("way")
    assert ways["value"].to_dict() == pytest.approx(expected)
    assert ways["n_units"].to_dict() == dict.fromkeys(expected, 8) | {
        "classes as units": 16
    }
    # Where texts never tell the style, folders are no other way.
    folders = judged_alone(["returns"], made_up(right, told=(BY_FOLDERS,)))
    assert one(folders, "returns")["value"] == pytest.approx(row + 0.3 * 1.035)
    assert "style told by folders" not in set(folders["way"])


@pytest.mark.parametrize(("lost", "verdict"), [(0.01, BORNE_OUT), (0.1, REFUTED)])
def test_other_styles_may_lose_a_little(lost: float, verdict: str) -> None:
    def right(about: About) -> float:
        if about["edit"] != PART or about["domain"] != ELSEWHERE:
            return 0.5
        return 0.5 - lost * (1 + 0.1 * int(about["seed"]))

    row = one(judged_alone(["elsewhere"], made_up(right)), "elsewhere")
    assert row["value"] == pytest.approx(-lost * 1.35)
    assert row["verdict"] == verdict


def test_a_domain_alone_is_a_way_to_count() -> None:
    def right(about: About) -> float:
        gain = 0.1 if about["test_domain"] == "sketch" else 0.3
        return of_edits(about, {PART: gain})

    table = made_up(right, domains=("sketch", "cartoon"))
    judgements = judged_alone(["returns"], table)
    assert one(judgements, "returns")["value"] == pytest.approx(0.2 * 1.035)
    alone = one(judgements, "returns", "in cartoon alone")
    assert alone["value"] == pytest.approx(0.3 * 1.035)
    assert one(judgements, "returns", "test domains as units")["n_units"] == 2


def test_gains_of_two_settings_are_compared() -> None:
    gains = {"cg-high": 0.3, "leave-out": 0.1, "aligned": 0.4}
    table = made_up(
        lambda row: of_edits(row, {PART: gains[row["setting"]]}), tuple(gains)
    )
    judgements = judged_alone(["named-style", "aligned"], table)
    named = one(judgements, "named-style")
    assert (named["value"], named["verdict"]) == (pytest.approx(0.2 * 1.035), BORNE_OUT)
    aligned = one(judgements, "aligned")
    assert (aligned["value"], aligned["verdict"]) == (pytest.approx(-0.1 * 1.035), REFUTED)  # fmt: skip


def test_the_pair_falls_more_than_seen_classes_in_photographs() -> None:
    def right(about: About) -> float:
        if about["domain"] != NATURAL or about["edit"] == WHOLE:
            return 0.9
        lost = {"seen": 0.1, "a": 0.5, "b": 0.2}
        name = str(about["class"]).rstrip("01234567")
        return 0.9 - lost[name] - 0.01 * int(about["seed"]) * (name == "a")

    row = one(judged_alone(["put-in"], made_up(right)), "put-in")
    assert row["value"] == pytest.approx((0.5 + 0.2) / 2 - 0.1 + 0.035 / 2)


@pytest.mark.parametrize(("lost", "verdict"), [(0.02, BORNE_OUT), (0.2, REFUTED)])
def test_a_probe_may_lose_less_than_five_points(lost: float, verdict: str) -> None:
    def value(about: About) -> float:
        if about["what"] == "bias":
            return 9.0
        part = bool(about["edit"] == PART)
        return 0.9 - part * (lost + 0.001 * int(about["seed"]))

    table = made_up(lambda row: of_edits(row, {}))
    row = one(judged_alone(["still-read"], table, facts_of(value)), "still-read")
    assert row["value"] == pytest.approx(-lost - 0.0035)
    assert row["verdict"] == verdict


def test_the_bias_is_related_to_accuracy_also_where_folders_tell_the_style() -> None:
    settings = ("natural-only", "leave-out", "cg-low", "cg-high", "aligned")
    by_folders = ("natural-only", "leave-out", "aligned")
    named = tuple(name for name in settings if name not in by_folders)

    def right(about: About) -> float:
        return 0.1 * settings.index(about["setting"]) + of_edits(about, {PART: 0.5})

    def value(about: About) -> float:
        # After an edit, and in a model that was asked twice by folders, the bias would be another.
        place = settings.index(about["setting"])
        wrong = about["edit"] == PART or (about["setting"], about["told"]) == ("cg-high", BY_FOLDERS)  # fmt: skip
        return -9.0 * place if wrong else place

    told = ((by_folders, BY_FOLDERS), (named, BY_TEXTS), (("cg-high",), BY_FOLDERS))
    answers = pd.concat([made_up(right, some, told=(how,)) for some, how in told])
    facts = pd.concat([facts_of(value, some, told=(how,)) for some, how in told])
    row = one(judged_alone(["bias"], answers, facts), "bias")
    assert (row["value"], row["n_units"]) == (pytest.approx(1), 8)
