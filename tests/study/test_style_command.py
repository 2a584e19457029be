"""The program that edits models of the study in a style: which models it asks, and what it writes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from circuitry.runs import WorkSettings
from circuitry.training import ClipTraining
from experiments.study import style_command, style_effects
from experiments.study.style_claims import CLAIMS
from experiments.study.style_command import Config, asked_models, edited, main
from experiments.study.style_edits import PART, RANDOM, RULE, STACKED, WHOLE
from tests.study.made_up_styles import write_drawings
from tests.support.work import QUIET

CLASSES = ("car", "cup", "fish", "house")


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drawings(tmp_path_factory.mktemp("drawings") / "root", 50, CLASSES, 0)


def config_of(data: Path, out: Path, **settings: Any) -> Config:
    quiet = WorkSettings(progress=False)
    return Config(
        data=data, out=out, models=("rn-tiny",), n_shared=1, work=quiet, **settings
    )


def test_models_are_asked_in_the_order_of_the_stopping_rule(
    drawings: Path, tmp_path: Path
) -> None:
    config = config_of(drawings, tmp_path, seeds=(0, 1))
    asked = list(asked_models(config))
    first, second = ("-".join(pair) for pair in config.study.pairs()[:2])
    # The main setting comes first, in each test domain and for each seed; further settings are of the first seed.
    assert [each.name for each in asked] == [
        f"rn-tiny-cg-high-sketch-without-{first}-seed0",
        f"rn-tiny-cg-high-cartoon-without-{first}-seed0",
        f"rn-tiny-cg-high-sketch-without-{second}-seed1",
        f"rn-tiny-cg-high-cartoon-without-{second}-seed1",
        f"rn-tiny-cg-low-sketch-without-{first}-seed0",
        f"rn-tiny-aligned-sketch-without-{first}-seed0-by-folders",
        f"rn-tiny-leave-out-sketch-without-{first}-seed0-by-folders",
        f"rn-tiny-natural-only-sketch-without-{first}-seed0-by-folders",
        f"rn-tiny-upper-high-sketch-without-{first}-seed0",
        f"rn-tiny-class-interpolation-0.2-sketch-without-{first}-seed0",
        f"rn-tiny-cg-high-sketch-without-{first}-seed0-by-folders",
    ]
    assert [each.further for each in asked] == [True] + 10 * [False]
    assert {each.domain for each in asked[4:]} == {"sketch"}
    # Without seeds all pairs are asked.
    every = asked_models(replace(config, seeds=None, settings=("cg-high",)))
    assert {each.training.seed for each in every} == set(range(6))


def test_models_are_edited_once_and_the_claims_are_judged(
    drawings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trained: list[tuple[pd.DataFrame, ClipTraining]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = list[dict[str, pd.DataFrame]]()

    def effects(*given: Any, **further: Any) -> dict[str, pd.DataFrame]:
        # Edits take seconds, so the second model gets the tables of the first.
        made.append(made[0] if made else style_effects.style_effects(*given, **further))
        return made[-1]

    monkeypatch.setattr(style_command, "style_effects", effects)
    config = config_of(
        drawings,
        tmp_path / "out",
        results=tmp_path / "results",
        settings=("aligned",),
        seeds=(0,),
    )
    edited(config, QUIET)
    files = {
        path: path.stat().st_mtime_ns for path in tmp_path.glob("out/style/*/*.csv")
    }
    assert len(files) == 3
    # A second call edits what is missing alone.
    main(replace(config, seeds=(0, 1), n_shared=2))
    assert len(made) == len(trained) == 2
    assert files == {path: path.stat().st_mtime_ns for path in files}
    answers = pd.read_csv(tmp_path / "results" / "answers.csv")
    assert answers["run"].nunique() == 2
    assert set(answers["setting"]) == {"aligned"}
    assert set(answers["told"]) == {"folders"}
    assert {WHOLE, PART, RANDOM, STACKED} < set(answers["edit"])
    # Random units are as many as the part has, and are not asked about in other styles.
    by_rule = answers[(answers["rule"] == RULE) & (answers["domain"] == "sketch")]
    n_units = by_rule.groupby("edit")["n_units"].first()
    assert n_units[PART] == n_units[RANDOM] > 0
    elsewhere = answers[answers["domain"] == "elsewhere"]
    assert RANDOM not in set(elsewhere["edit"])
    judgements = pd.read_csv(tmp_path / "results" / "claims.csv")
    gain = judgements.query("measure == 'accuracy, aligned, part of the style minus whole'")  # fmt: skip
    of_pair = by_rule[by_rule["class"] != "seen"].groupby("edit")["right"].mean()
    assert gain["value"].iloc[0] == pytest.approx(of_pair[PART] - of_pair[WHOLE])
    page = (tmp_path / "out" / "style-results" / "report.html").read_text(
        encoding="utf-8"
    )
    assert all(claim.question in page for claim in CLAIMS)
    capsys.readouterr()
