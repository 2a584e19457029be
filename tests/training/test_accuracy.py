"""Accuracies of classified images by hand and by scikit-learn; stored predictions give them again."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, top_k_accuracy_score

from circuitry.runs import InputError, claim, write_arrays
from circuitry.training import accuracy, read_predictions, tidy_accuracy
from circuitry.training.accuracy import (
    AMONG_PART,
    CENTRED,
    F1,
    FALLS_ON_HELD_OUT,
    FALSE_ALARMS,
    HARMONIC_MEAN,
    class_column,
    write_predictions,
)

CLASSES = ("axe", "bed", "cat", "dog")
HELD_OUT = ("cat", "dog")


def answers(*rows: tuple[str, str, str, int, int, int], domain: str = "ink", classifier: str = "a") -> pd.DataFrame:
    """Classified images: name, true class, predicted class, rank among all, alone, and centred."""
    relative, truth, predicted, *ranks = zip(*rows, strict=True)
    labels, top = (np.array([CLASSES.index(name) for name in names]) for names in (truth, predicted))
    table = pd.DataFrame({"relative": relative, "domain": domain, "classifier": classifier})
    table = table.assign(**{"class": class_column(labels, CLASSES)}, top_1=class_column(top, CLASSES))
    return table.assign(**dict(zip(("rank", "rank_alone", "rank_centred"), ranks, strict=True)))


INK = answers(
    ("0", "axe", "axe", 1, 1, 1),
    ("1", "axe", "axe", 1, 1, 2),
    ("2", "axe", "cat", 3, 2, 1),
    ("3", "bed", "bed", 1, 1, 1),
    ("4", "cat", "cat", 1, 1, 1),
    ("5", "cat", "axe", 2, 1, 1),
    ("6", "dog", "cat", 2, 2, 2),
    ("7", "dog", "bed", 2, 1, 1),
)


def values(table: pd.DataFrame, column: str = "value") -> dict[tuple[str, str], float]:
    return dict(zip(zip(table["part"], table["measure"], strict=True), table[column], strict=True))


def test_accuracies_on_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy, "TOP", (1, 2))
    table = tidy_accuracy(INK, HELD_OUT)
    found = values(table)
    assert found["all", "top-1"] == 4 / 8
    assert found["all", "balanced top-1"] == pytest.approx((2 / 3 + 1 + 1 / 2 + 0) / 4)
    assert (found["held-out", "top-1"], found["held-out", "balanced top-1"]) == (1 / 4, 1 / 4)
    assert (found["seen", "top-1"], found["seen", "balanced top-1"]) == pytest.approx((3 / 4, 5 / 6))
    assert (found["held-out", "top-2"], found["seen", "top-2"], found["dog", "top-2"]) == (1, 3 / 4, 1)
    # Told apart: cat and dog from each other, 3 of 4; centred, 3 of 4; a cat or dog is predicted for 2 of 4.
    assert found["held-out", AMONG_PART] == 3 / 4
    assert (found["cat", AMONG_PART], found["dog", AMONG_PART]) == (1, 1 / 2)
    assert found["seen", AMONG_PART] == pytest.approx((2 / 3 + 1) / 2)
    assert found["held-out", CENTRED] == 3 / 4
    assert (found["held-out", FALLS_ON_HELD_OUT], found["seen", FALLS_ON_HELD_OUT]) == (2 / 4, 1 / 4)
    assert (found["cat", FALSE_ALARMS], found["dog", FALSE_ALARMS]) == (2 / 6, 0)
    assert found["all", HARMONIC_MEAN] == pytest.approx(2 * (1 / 4) * (5 / 6) / (1 / 4 + 5 / 6))
    assert ("all", AMONG_PART) not in found  # it has no part of its own
    sizes = table[table["measure"] == "top-1"].set_index("part")
    assert sizes["n_images"].to_dict() == {"all": 8, "seen": 4, "held-out": 4, "cat": 2, "dog": 2}
    assert sizes["n_classes"].to_dict() == {"all": 4, "seen": 2, "held-out": 2, "cat": 1, "dog": 1}


def test_what_guessing_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy, "TOP", (1, 2, 9))
    chance = values(tidy_accuracy(INK, ("dog",)), "chance")
    assert (chance["seen", "top-1"], chance["dog", "balanced top-2"], chance["all", "top-9"]) == (1 / 4, 2 / 4, 1)
    assert (chance["dog", AMONG_PART], chance["held-out", AMONG_PART], chance["seen", AMONG_PART]) == (1, 1, 1 / 3)
    assert (chance["dog", FALLS_ON_HELD_OUT], chance["seen", CENTRED], chance["all", HARMONIC_MEAN]) == (0.25,) * 3
    assert np.isnan(chance["all", F1])


def test_macro_f1_is_over_the_classes_and_images_of_the_part() -> None:
    found = values(tidy_accuracy(INK, HELD_OUT))
    # Held-out images: cat is right once, predicted twice, there twice; dog is never predicted.
    assert found["held-out", F1] == pytest.approx((2 * 1 / (2 + 2) + 0) / 2)
    assert found["seen", F1] == pytest.approx((2 * 2 / (2 + 3) + 2 * 1 / (1 + 1)) / 2)


def test_accuracies_by_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random scores of four classes; the ranks are made by numpy's sorting."""
    monkeypatch.setattr(accuracy, "TOP", (1, 2, 3))
    random = np.random.default_rng(0)
    scores, labels = random.normal(size=(200, 4)), random.integers(4, size=200)
    order = np.argsort(-scores, axis=1)
    ranks = 1 + np.argmax(order == labels[:, None], axis=1)
    rows = [
        (str(i), CLASSES[t], CLASSES[o[0]], r, 1, 1)
        for i, (t, o, r) in enumerate(zip(labels, order, ranks, strict=True))
    ]
    found = values(tidy_accuracy(answers(*rows), HELD_OUT))
    for k in (2, 3):
        expected = top_k_accuracy_score(labels, scores, k=k, labels=range(4))
        assert found["all", f"top-{k}"] == pytest.approx(expected)
    assert found["all", "top-1"] == accuracy_score(labels, order[:, 0])
    assert found["all", "balanced top-1"] == pytest.approx(balanced_accuracy_score(labels, order[:, 0]))
    assert found["all", F1] == pytest.approx(f1_score(labels, order[:, 0], average="macro"))
    held = labels >= 2
    expected = f1_score(labels[held], order[held, 0], average="macro", labels=[2, 3])
    assert found["held-out", F1] == pytest.approx(expected)


def test_classifiers_and_domains_are_apart_and_the_order_of_rows_does_not_matter() -> None:
    other = answers(("8", "cat", "cat", 1, 1, 1), ("9", "axe", "cat", 4, 2, 1), domain="photo", classifier="b")
    table = tidy_accuracy(pd.concat([INK, other], ignore_index=True), HELD_OUT)
    assert set(zip(table["classifier"], table["domain"], strict=True)) == {("a", "ink"), ("b", "photo")}
    pd.testing.assert_frame_equal(
        table[table["domain"] == "ink"].reset_index(drop=True), tidy_accuracy(INK, HELD_OUT), check_dtype=False
    )
    key = ["classifier", "domain", "part", "measure"]
    shuffled = tidy_accuracy(pd.concat([INK, other]).sample(frac=1, random_state=0), HELD_OUT)
    pd.testing.assert_frame_equal(
        shuffled.sort_values(key, ignore_index=True), table.sort_values(key, ignore_index=True)
    )


def test_stored_predictions_give_every_accuracy_again(tmp_path: Path) -> None:
    again = INK.assign(classifier="b", rank=INK["rank"] + 1)
    both = pd.concat([INK, again], ignore_index=True)
    listing = ["not read", *(f"{i}" for i in range(8))]
    claim(tmp_path, "circuitry test 1", {}, {"images": dict.fromkeys(listing, "digest")})
    write_predictions(tmp_path / "epoch_1-ink.safetensors", both, listing)
    found = read_predictions(tmp_path / "epoch_1-ink.safetensors")
    pd.testing.assert_frame_equal(found, both[found.columns])
    pd.testing.assert_frame_equal(tidy_accuracy(found, HELD_OUT), tidy_accuracy(both, HELD_OUT))


def test_what_cannot_be_asked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'dot'.*dog"):
        tidy_accuracy(INK, ["dot"])
    write_arrays(tmp_path / "x.safetensors", "circuitry predictions 0", {}, {})
    with pytest.raises(InputError, match="circuitry predictions 0"):
        read_predictions(tmp_path / "x.safetensors")
