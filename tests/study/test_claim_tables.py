"""Tables of the claims: which rows of evaluated models they have, and which checkpoints are judged."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from circuitry.training import FALSE_ALARMS, MEASURE
from experiments.study import claim_tables
from experiments.study.checkpoint_accuracy import EvaluationSet
from experiments.study.claim_tables import (
    COLUMNS,
    accuracy_table,
    claim_setting,
    judged_accuracies,
)
from experiments.study.claims import (
    SEEN,
    TRAINED_WORDS,
    Tables,
)
from experiments.study.real_claims import judged
from experiments.study.study_run import StudyRun
from tests.study.made_up_claims import SHARED, one
from tests.study.made_up_runs import Asked, made_up_runs


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
    alarms = table["measure"] == FALSE_ALARMS
    assert set(table[alarms]["setting"]) == {"upper-high"}
    elsewhere = table.query("domain != test_domain")
    assert set(elsewhere["texts"]) == {TRAINED_WORDS}
    plain = table[table["measure"] == MEASURE]
    means = plain.groupby("class")["value"].mean()
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
