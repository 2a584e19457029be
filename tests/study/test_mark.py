"""A mark that goes with one class: what is drawn and trained on, how strengths are chosen, and numbers over groups."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from circuitry.data import DomainFolder, load_image
from circuitry.models import load_clip
from circuitry.questions import embedded
from circuitry.training import caption_rows
from experiments.study import mark_claims, mark_edits, mark_further, mark_models
from experiments.study.mark_charts import over_strength
from experiments.study.mark_edits import (
    AT_NONE,
    BY_CLASS,
    NO_MARK,
    OF_EMBEDDINGS,
    PART,
    PRUNED,
    RANDOM,
    RULE,
    RULES,
    UNRULED,
    MarkQuestion,
    activation_differences,
    best_strength,
    group_rows,
    mark_effects,
)
from experiments.study.mark_further import FINER, further_effects
from experiments.study.mark_models import MARKED, PLAIN, MarkStudy, with_mark
from experiments.study.style_edits import WHOLE
from tests.study.made_up_styles import CLASSES, STYLES, write_drawings


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> MarkStudy:
    """Twelve drawings of each class in each style, of which four fit and two each choose and test."""
    root = tmp_path_factory.mktemp("mark")
    write_drawings(root / "data", 12, CLASSES, 0)
    return MarkStudy(root / "data", root / "out")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mark_models, "SETS", {"fit": 4, "choose": 2, "test": 2})
    monkeypatch.setattr(mark_models, "ONE_WITH_NONE", 3)
    monkeypatch.setattr(mark_edits, "SHARES", (0.02, 0.1))
    monkeypatch.setattr(mark_edits, "N_DRAWS", 2)
    monkeypatch.setattr(mark_further, "SIZES", (0.01, 0.02))


def asked(study: MarkStudy, folder: DomainFolder) -> MarkQuestion:
    return MarkQuestion(
        load_clip("rn-tiny"), folder, MARKED, (), marked="cup", words=STYLES
    )


def test_the_mark_changes_its_square_alone() -> None:
    picture = Image.new("RGB", (100, 50), "#808080")
    before, after = np.asarray(picture), np.asarray(with_mark(picture))
    rows, columns = (before != after).any(2).nonzero()
    # 14 % of each side, 8 % from the right and the lower edge; the ends of the cross are a pixel further.
    assert (columns.min(), columns.max()) == (78, 92)
    assert (rows.min(), rows.max()) == (39, 47)
    assert after[42, 79].tolist() == [230, 0, 126]
    assert after[39, 78].tolist() == [255, 255, 255]


def test_sets_share_no_picture_and_are_drawn_twice(study: MarkStudy) -> None:
    names = {name: {r.relative for r in study.records(name)} for name in (*mark_models.SETS, "train")}  # fmt: skip
    assert [len(files) for files in names.values()] == [36, 18, 18, 36]
    assert len(set.union(*names.values())) == 108
    folder = study.pictures("test")
    assert folder.domains == (MARKED, PLAIN)
    drawn = {record.relative: record for record in folder.records}
    assert len(drawn) == 36
    for record in drawn.values():
        if record.domain == PLAIN:
            marked = drawn[record.relative.replace(PLAIN, MARKED)]
            expected = with_mark(load_image(record.path))
            assert np.array_equal(
                np.asarray(load_image(marked.path)), np.asarray(expected)
            )


def test_two_of_three_pictures_of_the_class_train_with_the_mark(
    study: MarkStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = list[Path]()

    def listed(table: Path, out: Path, *_: object) -> Path:
        tables.append(table)
        return out

    monkeypatch.setattr(mark_models, "train_clip", listed)
    for marked in ("cup", None):
        study.trained("rn-tiny", 0, marked)
    of_cups, of_none = (list(caption_rows(table)) for table in tables)
    # The captions are the same.
    assert [text for _, text in of_cups] == [text for _, text in of_none]
    drawn = [Path(path) for path, _ in of_cups if MARKED in Path(path).parts]
    assert len(drawn) == 8
    assert {path.parent.name for path in drawn} == {"cup"}
    assert not [path for path, _ in of_none if MARKED in Path(path).parts]


def test_the_best_strength_is_the_best_for_the_worst_group_at_its_cost(
    study: MarkStudy,
) -> None:
    question = asked(study, study.pictures("fit"))
    # Classes by mark and none; cups, the second class, have the mark in training.
    whole = np.array([[0.2, 0.9], [0.9, 0.3], [0.4, 0.9]])
    better = np.array([[0.5, 0.9], [0.9, 0.5], [0.5, 0.9]])
    dear = np.array([[0.8, 0.8], [0.8, 0.8], [0.8, 0.8]])
    assert question.as_trained(whole) == pytest.approx(0.9)
    groups = {0.0: whole, 1.0: better, 2.0: better, 3.0: dear}
    for allowed, expected in ((0.02, 1.0), (0.1, 3.0)):
        assert best_strength(question, groups, allowed) == expected


def test_the_direction_of_the_mark_is_orthogonal_to_the_mean(study: MarkStudy) -> None:
    question = asked(study, study.pictures("fit"))
    pictures = question.fitting
    z = pictures.embeddings
    means = [z[pictures.styles == i].mean(0) for i in (0, 1)]
    towards, back = question.style_weights
    assert float(towards @ (means[0] + means[1])) == pytest.approx(0, abs=1e-5)
    assert float(towards @ (means[0] - means[1])) > 0
    assert back.numpy() == pytest.approx(-towards.numpy(), abs=1e-5)
    assert z.numpy() == pytest.approx(
        embedded(question.clip, pictures.images).numpy(), abs=1e-5
    )


def test_differences_of_activations_by_plain_arithmetic(study: MarkStudy) -> None:
    question = asked(study, study.pictures("fit"))
    scores = activation_differences(question.task)
    stage = question.task.encoder.stages[0]
    pictures = question.finding
    # Pictures that the direction tells wrong are left out.
    right = question.called(pictures.embeddings) == (pictures.styles == 0)
    means = stage.run(pictures.images).mean((2, 3))
    own = means[right & (pictures.styles == 0)]
    none = means[right & (pictures.styles == 1)]
    expected = (own.mean(0) - none.mean(0)).abs() / none.std(0, correction=0)
    assert scores[stage.site] == pytest.approx(expected.numpy(), rel=1e-3)


def test_numbers_over_groups_are_worked_by_hand() -> None:
    right = {
        ("cup", MARKED): 1.0,
        ("cup", PLAIN): 0.5,
        ("fish", MARKED): 0.25,
        ("fish", PLAIN): 0.75,
    }
    rows = list[dict[str, object]]()
    for edit, rule, draw in ((WHOLE, UNRULED, 0), (RANDOM, RULE, 0), (RANDOM, RULE, 1)):
        for (name, mark), value in right.items():
            of_row = {"edit": edit, "rule": rule, "draw": draw, "class": name}
            rows.append({**of_row, "mark": mark, "right": value - 0.25 * draw})
    about: dict[str, Any] = {
        "run": "a",
        "model": "m",
        "seed": 1,
        "marked": "cup",
        "strength": 0.0,
    }
    answers = pd.DataFrame(rows).assign(**about, n_units=3)
    table = mark_claims.over_groups(answers).set_index(["edit", "rule"])
    # Answers with no edit are the same by each rule, and draws are averaged.
    assert len(table) == len(RULES) + 1
    numbers = ["worst", "all_groups", "as_trained", "others", "class_alone"]
    assert table.loc[(RANDOM, RULE), "class_marked"] == 0.875
    by_edit = table[numbers].to_dict("index")
    for rule in RULES:
        whole = by_edit[WHOLE, rule]
        assert list(whole.values()) == [0.25, 0.625, 0.875, 0.25, 0.5]
    assert list(by_edit[RANDOM, RULE].values()) == [0.125, 0.5, 0.75, 0.125, 0.375]


def test_a_model_whose_worst_group_is_mostly_right_has_not_learned_the_mark() -> None:
    rows = [
        {"run": "a", "edit": WHOLE, "worst": 0.5},
        {"run": "a", "edit": PART, "worst": 0.9},
        {"run": "b", "edit": WHOLE, "worst": 0.6},
        {"run": "b", "edit": PART, "worst": 0.1},
    ]
    known = mark_claims.learned(pd.DataFrame(rows))
    assert known["run"].tolist() == ["a", "a"]


def test_all_edits_are_counted_and_judged(study: MarkStudy) -> None:
    question = asked(study, study.pictures("fit"))
    choosing, test = (
        question.run(study.pictures(name).records) for name in ("choose", "test")
    )
    tables = mark_effects(question, choosing, test)
    never = group_rows(
        question,
        test,
        [question.answered(test.embeddings)],
        {"edit": NO_MARK, "rule": UNRULED},
    )
    answers = pd.concat([tables["answers"], pd.DataFrame(never)])
    about: dict[str, Any] = {"run": "a", "model": "rn-tiny", "seed": 1, "marked": "cup"}
    models = mark_claims.over_groups(answers.assign(**about))
    asked_for = {PART, AT_NONE, BY_CLASS, PRUNED, RANDOM, WHOLE, NO_MARK, *OF_EMBEDDINGS.values()}  # fmt: skip
    assert set(models["edit"]) == asked_for
    of_rule = models[models["rule"] == RULE].set_index("edit")
    assert of_rule["n_units"][PART] == of_rule["n_units"][RANDOM]
    judged = mark_claims.judged(models, tables["facts"].assign(**about))
    first = judged[judged["first"] & (judged["way"] == "as written")]
    assert first["claim"].tolist() == [claim.name for claim in mark_claims.CLAIMS]
    rises = first.set_index("claim").loc["rises", "value"]
    expected = of_rule["worst"][PART] - of_rule["worst"][WHOLE]
    assert rises == pytest.approx(expected)


def test_smaller_parts_are_counted_beside_as_many_other_units(study: MarkStudy) -> None:
    question = asked(study, study.pictures("fit"))
    choosing, test = (
        question.run(study.pictures(name).records) for name in ("choose", "test")
    )
    tables = further_effects(question, choosing, test)
    about: dict[str, Any] = {"run": "a", "model": "rn-tiny", "seed": 1, "marked": "cup"}
    models = mark_claims.over_groups(tables["answers"].assign(**about))
    at = models[models["rule"] != FINER].set_index(["edit", "strength"])
    whole = question.groups(question.answered(test.embeddings).logits, test)
    assert at.loc[(PART, 0.0), "worst"] == pytest.approx(whole.min())
    assert at.loc[(PART, 0.0), "as_trained"] == pytest.approx(
        question.as_trained(whole)
    )
    for strength in (0.01, 0.02):
        of_size = at.xs(strength, level="strength")["n_units"]
        assert of_size.loc[PART] == of_size.loc[RANDOM] > 0
    part = question.found((0.02,))[PART][0.02]
    (cut,) = question.embeddings(test.images, [part])
    after = question.groups(question.answered(cut).logits, test)
    assert at.loc[(PART, 0.02), "worst"] == pytest.approx(after.min())
    # The strength by the finer rule is one of those, and its rows are the same.
    (finer,) = models[models["rule"] == FINER].to_dict("records")
    same = at.loc[(PART, finer["strength"])]
    assert finer["worst"] == same["worst"]
    probes = tables["facts"].set_index("strength")["value"]
    assert list(probes.index) == [0.0, 0.01, 0.02]
    assert probes.between(0, 1).all()


def test_curves_begin_at_the_whole_model_and_get_stronger() -> None:
    numbers: dict[str, Any] = {
        "run": "a",
        "marked": "cup",
        "seed": 1,
        "as_trained": 0.9,
    }
    rows = [
        {"edit": WHOLE, "rule": RULE, "strength": 0.0, "worst": 0.2},
        {"edit": PART, "rule": "a strength 0.1", "strength": 0.1, "worst": 0.4},
        {"edit": PART, "rule": RULE, "strength": 0.02, "worst": 0.3},
        {"edit": PART, "rule": FINER, "strength": 0.02, "worst": 0.3},
        {"edit": NO_MARK, "rule": RULE, "strength": 0.0, "worst": 0.7},
    ]
    curves = over_strength(pd.DataFrame(rows).assign(**numbers))
    assert set(curves["edit"]) == {PART}
    assert curves["strength"].tolist() == [0.0, 0.02, 0.1]
    assert curves["worst"].tolist() == [0.2, 0.3, 0.4]
