"""The study in small: what is trained, and what is concluded from made-up models whose numbers are worked out here."""

from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from circuitry.data import DomainFolder
from circuitry.runs import InputError, Rank, Work
from circuitry.training import ClipTraining, TrainingWork
from experiments.drawn import DRAWN_THINGS, DrawingSettings, write_toy
from experiments.study import sharing, toy_command, toy_models
from experiments.study.claims import WHOLE
from experiments.study.selection import MixtureSettings
from experiments.study.sharing import (
    LABEL_FREE,
    SHARED,
    Measured,
)
from experiments.study.study_run import StudyRun, find_runs
from experiments.study.toy_claims import BY_SET, CLAIMS, OPEN, REFUTED, judged
from experiments.study.toy_command import over_depth, ranking, relations_of
from experiments.study.toy_models import Toy, held_out_folds
from tests.study.made_up_runs import write_run
from tests.support.tiny_clip import saved

SMALL = DrawingSettings(
    2, 1, classes=("car", "fish", "key"), styles=("clipart", "quickdraw", "real")
)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[pd.DataFrame, ClipTraining]]:
    """What the trainer was asked for; it leaves an empty archive as its checkpoint."""
    asked: list[tuple[pd.DataFrame, ClipTraining]] = []

    def train(
        table: Path, out: Path, settings: ClipTraining, work: TrainingWork
    ) -> Path:
        asked.append((pd.read_csv(table, sep="\t"), settings))
        (out / "checkpoints").mkdir(parents=True, exist_ok=True)
        return saved({}, out / "checkpoints" / "epoch_1.pt")

    monkeypatch.setattr(toy_models, "train_clip", train)
    monkeypatch.setattr(
        toy_models, "write_toy", partial(write_toy, workers=1, progress=False)
    )
    return asked


def test_the_toy_is_trained_on_its_mixture(
    tmp_path: Path, trained: list[tuple[pd.DataFrame, ClipTraining]]
) -> None:
    toy = Toy(tmp_path, SMALL, n_folds=3, epochs=1)
    run = toy.run("rn-tiny", 5, MixtureSettings("cg-low", "quickdraw", ("key",)))
    ((table, settings),) = trained
    shown = {tuple(Path(file).parts[-3:-1]) for file in table["filepath"]}
    assert shown == {("real", c) for c in ("car", "fish", "key")} | {
        ("quickdraw", c) for c in ("car", "fish")
    }
    assert len(table) == 2 * 5
    assert (settings.seed, settings.epochs, settings.model) == (5, 1, "rn-tiny")
    assert find_runs(tmp_path) == [run]
    assert (run.setting, run.test_domain, run.held_out) == (
        "cg-low",
        "quickdraw",
        ("key",),
    )


def test_every_class_is_held_out_once() -> None:
    folds = held_out_folds(DRAWN_THINGS, 4)
    assert [len(fold) for fold in folds] == [10] * 4
    assert sorted(name for fold in folds for name in fold) == sorted(DRAWN_THINGS)
    toy = Toy(Path("x"))
    assert [
        next(toy.mixtures("rn-tiny", seed)).held_out_classes for seed in (0, 1, 4)
    ] == [folds[i] for i in (0, 1, 0)]
    for n_folds in (1, 3):
        with pytest.raises(InputError, match=f"40.* {n_folds} "):
            held_out_folds(DRAWN_THINGS, n_folds)


def test_models_that_hold_nothing_out_are_tested_everywhere(
    tmp_path: Path, trained: list[tuple[pd.DataFrame, ClipTraining]]
) -> None:
    toy = Toy(tmp_path, SMALL, n_folds=3, epochs=1)
    for setting, tested in (
        ("upper-high", None),
        ("natural-only", None),
        ("leave-out", "quickdraw"),
    ):
        run = toy.run("rn-tiny", 1, MixtureSettings(setting, "quickdraw", ("fish",)))
        assert (run.test_domain, run.held_out) == (tested, ("fish",))
    names = [one.name for one in Toy(tmp_path).mixtures("rn-tiny", 0)]
    assert len(names) == len(set(names)) == 11
    assert sum(name.startswith(("upper", "natural")) for name in names) == 2


def test_several_processes_train_each_model_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []

    def run(self: Toy, *job: Any, wait: bool = True, work: TrainingWork) -> StudyRun:
        asked.append(job)
        if not wait and len(asked) == 1:
            raise BlockingIOError("held by another process")
        return StudyRun(tmp_path / job[2].name, job[0], job[2].setting, None)

    monkeypatch.setattr(Toy, "run", run)
    config = toy_command.Config(out=tmp_path, models=("vit-tiny-8",), seeds=(3,))
    found = toy_command.trained(config, Work(Rank(1, 2)))
    assert [one.setting for one in found] == [
        "natural-only",
        "leave-out",
        "cg-low",
        "cg-high",
        "upper-high",
    ]
    assert {seed for _, seed, _ in asked} == {3}
    assert (
        len(asked) == 6
    )  # each once in its own order, and once more the one that another process had
    assert asked[0][2].setting == "leave-out"


def made_up(
    rows: list[dict[str, Any]], shared: Sequence[tuple[Any, ...]] = ()
) -> Measured:
    """Return made-up measurements; what is not given is unknown."""
    points = pd.DataFrame(rows)
    points = points.reindex(
        columns=[*points, *(name for name in SHARED | LABEL_FREE if name not in points)]
    )
    table = pd.DataFrame(
        shared, columns=["run", "test_domain", "what", "site", "domain", "value"]
    )
    return Measured(points, table, pd.DataFrame())


def settings_of(
    values: dict[str, list[float]], domain: str = "quickdraw"
) -> list[dict[str, Any]]:
    """Return a point for each setting and seed."""
    return [
        {
            "run": f"{setting}-{domain}-{seed}",
            "setting": setting,
            "model": "rn-tiny",
            "seed": seed,
        }
        | {
            "test_domain": domain,
            "held_out": value,
            "alone": value,
            "in_domain": 0.5,
            "distance": 1 + value,
        }
        | {"held_out_classes": f"fold {seed % 2}"}
        for setting, of_seeds in values.items()
        for seed, value in enumerate(of_seeds)
    ]


def row(table: pd.DataFrame, claim: str, models: str = "all") -> Any:
    """Return the first measure of a claim."""
    return table[(table["claim"] == claim) & (table["models"] == models)].iloc[0]


def test_claims_are_judged_by_intervals_over_models() -> None:
    low, high, out = [0.1, 0.2, 0.3], [0.4, 0.45, 0.62], [0.2, 0.5, 0.5]
    found = made_up(
        settings_of(
            {
                "cg-low": low,
                "cg-high": high,
                "leave-out": out,
                "aligned": [0.41, 0.46, 0.63],
            }
        )
    )
    table = judged(found)
    diversity = row(table, "diversity")
    differences = np.subtract(high, low)
    half = stats.t.ppf(0.975, 2) * differences.std(ddof=1) / np.sqrt(3)
    assert diversity["value"] == pytest.approx(differences.mean())
    assert (diversity["low"], diversity["high"]) == pytest.approx(
        (differences.mean() - half, differences.mean() + half)
    )
    assert (diversity["n_models"], diversity["n_independent"], diversity["share"]) == (
        3,
        3,
        1.0,
    )
    assert diversity["verdict"] == "borne out"
    assert diversity["p"] == pytest.approx(2 / 8)  # all signs alike, of eight
    assert row(table, "leave-out")["verdict"] == OPEN
    assert (
        row(table, "alignment-accuracy")["verdict"] == "borne out"
    )  # a rise of one point is less than five
    assert (
        row(table, "alignment")["verdict"] == REFUTED
    )  # the distance rises by a point in every model
    assert set(table["claim"]) == {claim.name for claim in CLAIMS}
    assert np.isnan(row(table, "features")["value"])


def test_test_domains_of_one_seed_count_once() -> None:
    both = [
        one
        for domain in ("quickdraw", "sketch")
        for one in settings_of({"cg-low": [0.1, 0.2], "cg-high": [0.3, 0.5]}, domain)
    ]
    told = row(judged(made_up(both)), "diversity")
    assert (told["n_models"], told["n_independent"]) == (4, 2)
    assert told["high"] - told["value"] == pytest.approx(
        stats.t.ppf(0.975, 1) * 0.05
    )  # as if each were there once


def test_models_that_hold_out_the_same_classes_count_once() -> None:
    found = made_up(
        settings_of({"cg-low": [0.1, 0.2, 0.3], "cg-high": [0.3, 0.5, 0.4]})
    )  # seeds 0 and 2 share them
    told = row(judged(found), "diversity", BY_SET)
    sets = np.array([(0.2 + 0.1) / 2, 0.3])
    half = stats.t.ppf(0.975, 1) * sets.std(ddof=1) / np.sqrt(2)
    assert (told["value"], told["high"]) == pytest.approx(
        (sets.mean(), sets.mean() + half)
    )
    assert (told["n_models"], told["n_independent"], told["verdict"]) == (3, 2, OPEN)
    assert told["p"] == pytest.approx(2 / 4)


def test_quickdraw_is_set_beside_the_other_domains() -> None:
    points = settings_of({"cg-high": [0.3, 0.4]})
    values = {"quickdraw": 0.2, "real": 0.5, "sketch": 0.7}
    shared = [
        (
            one["run"],
            "quickdraw",
            "cka",
            WHOLE,
            domain,
            value + 0.1 * one["seed"] * (domain == "real"),
        )
        for one in points
        for domain, value in values.items()
    ]
    told = row(judged(made_up(points, shared)), "cka")
    assert told["value"] == pytest.approx(np.mean([0.2 - 0.6, 0.2 - 0.65]))
    assert told["share"] == 1.0
    gaps = settings_of({"cg-high": [0.3, 0.4], "upper-high": [0.8, 0.7]})
    gaps += settings_of({"cg-high": [0.6, 0.6], "upper-high": [0.7, 0.8]}, "sketch")
    assert row(judged(made_up(gaps)), "quickdraw")["value"] == pytest.approx(
        np.mean([0.5 - 0.1, 0.3 - 0.2])
    )


def test_sites_are_told_apart_for_quickdraw_and_the_others() -> None:
    points = settings_of({"cg-high": [0.3, 0.4], "cg-low": [0.3]})
    values = {"quickdraw": 0.2, "real": 0.5, "sketch": 0.7}
    shared = [
        (
            one["run"],
            "quickdraw",
            "cka",
            site,
            domain,
            value + one["seed"] + (one["setting"] == "cg-low"),
        )
        for one in points
        for site in ("late", WHOLE, "early")
        for domain, value in values.items()
    ]
    table = over_depth(made_up(points, shared))
    assert table["site"].tolist() == ["late", "early"]  # in the order of the model
    assert table[["quickdraw", "others", "n_models"]].to_numpy() == pytest.approx(
        np.array([[0.7, 1.1, 2]] * 2)
    )


def test_relations_leave_out_each_seed() -> None:
    rng = np.random.default_rng(0)
    rows = settings_of(
        {s: list(rng.random(4)) for s in ("cg-low", "cg-high", "leave-out")}
    )
    found = made_up(rows)
    points = found.points.assign(cka=rng.random(12))
    table = relations_of(found._replace(points=points)).set_index(["what", "with"])
    each = [
        stats.spearmanr(
            *points.loc[points["seed"] != seed, ["cka", "alone"]].to_numpy().T
        ).statistic
        for seed in range(4)
    ]
    assert table.loc[("cka", "alone"), "least_seed"] == pytest.approx(min(each))
    assert table.loc[("cka", "alone"), "most_seed"] == pytest.approx(max(each))
    whole, *by_set = (
        stats.spearmanr(
            *points.loc[points["held_out_classes"] != one, ["cka", "alone"]]
            .to_numpy()
            .T
        ).statistic
        for one in ("none", "fold 0", "fold 1")
    )
    half = (
        stats.t.ppf(0.975, 1) * abs(by_set[0] - by_set[1]) / 2
    )  # the jackknife's error of two
    assert table.loc[("cka", "alone"), "low_set"] == pytest.approx(
        max(whole - half, -1)
    )
    assert table.loc[("cka", "alone"), "high_set"] == pytest.approx(
        min(whole + half, 1)
    )


def test_ranking_counts_pairs_of_models_of_one_kind() -> None:
    rows = settings_of({"cg-low": [0.1, 0.2, 0.3]}) + settings_of(
        {"cg-low": [0.6, 0.5]}, "sketch"
    )
    found = made_up(rows)
    points = found.points.assign(confidence=[1, 3, 2, 9, 8.0])
    table = ranking(found._replace(points=points)).query(
        "what == 'confidence, the larger'"
    )
    assert table[["right", "n_pairs"]].to_numpy().tolist() == [[3 / 4, 4]]


def test_own_parts_are_read_across_domains() -> None:
    cells = list(product(("real", "sketch"), ("part", "random")))
    lesions = pd.DataFrame(
        [
            {
                "part_class": c,
                "class": "key",
                "part_domain": source,
                "domain": "sketch",
                "cut": cut,
            }
            | {
                "whole_right": 0.8,
                "right": 0.1
                if source == "sketch"
                else 0.2
                if (cut, c) == ("part", "key")
                else 0.6,
            }
            for source, cut in cells
            for c in ("key", "car")
        ]
    )
    overlaps = pd.DataFrame(
        [
            ("key", "real", "key", "sketch", 0.3, 0.1, 0.2),
            ("key", "real", "car", "real", 0.9, 0.1, 0.9),
        ],
        columns=[
            "class_a",
            "domain_a",
            "class_b",
            "domain_b",
            "overlap",
            "chance",
            "edges",
        ],
    )

    rows = sharing.read_own_parts({"lesions": lesions, "overlaps": overlaps})
    values = {(what, domain): value for what, _, domain, value in rows}
    assert values["lesion", "sketch"] == pytest.approx(
        (1 - 0.2 / 0.8) - (1 - 0.6 / 0.8)
    )
    assert values["part", "real"] == values["part", "sketch"] == pytest.approx(0.2)
    assert values["edges", "sketch"] == pytest.approx(0.2)


def test_answers_kept_are_of_classes_that_the_model_knows() -> None:
    cells = {  # class, circuit's domain, images' domain: right answers of the circuit and of the model
        ("key", "real", "real"): (0.6, 0.8),
        ("key", "sketch", "real"): (0.2, 0.8),
        ("key", "sketch", "sketch"): (0.5, 0.2),  # the model does not know it
        ("key", "real", "sketch"): (0.5, 0.2),
        ("car", "real", "real"): (0.5, 0.5),
        ("car", "sketch", "real"): (0.5, 0.5),
    }
    rows = [(*cell, *right) for cell, right in cells.items()]
    columns = ["class", "circuit_domain", "image_domain", "accuracy", "full_accuracy"]
    found = {
        (what, domain): value
        for what, _, domain, value in sharing.read_transfer(
            pd.DataFrame(rows, columns=columns)
        )
    }
    assert found == pytest.approx(
        {("kept", "real"): (0.75 + 1) / 2, ("transfer", "real"): (0.25 + 1) / 2}
    )


def made_up_sharing(
    clip: object,
    images: DomainFolder,
    held_out: Sequence[str],
    test_domains: Sequence[str],
    *_: object,
) -> pd.DataFrame:
    """Stand for `shared_by`, whose measures of a model `test_programs` takes: whole numbers more for each measure."""
    assert held_out == ("car", "key")
    rows = [
        (what, site, domain, i + 0.5 * (site == WHOLE and domain == "quickdraw"))
        for i, what in enumerate(SHARED | LABEL_FREE)
        for site in ("layer4.0", WHOLE)
        for domain in images.domains
    ]
    table = pd.DataFrame(rows, columns=["what", "site", "domain", "value"])
    (test_domain,) = test_domains
    return table.assign(test_domain=test_domain)


def test_the_study_in_small_is_written(
    quickstart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    for setting, seed in (("cg-high", 0), ("natural-only", 0), ("upper-high", 1)):
        folder = tmp_path / "runs" / f"{setting}-{seed}"
        folder.mkdir(parents=True)
        (folder / "checkpoints").symlink_to(quickstart / "run" / "clip" / "checkpoints")
        domain = "quickdraw" if setting == "cg-high" else None
        runs.append(StudyRun(folder, "rn-tiny", setting, domain, ("car", "key"), seed))
        write_run(runs[-1])
    monkeypatch.setattr(toy_command, "trained", lambda *_: runs)
    monkeypatch.setattr(
        Toy, "images", lambda self: DomainFolder(quickstart / "run" / "toy")
    )
    monkeypatch.setitem(toy_models.TESTED, "rn-tiny", ("quickdraw",))
    monkeypatch.setattr(sharing, "shared_by", made_up_sharing)
    config = toy_command.Config(
        out=tmp_path / "out", models=("rn-tiny",), results=tmp_path / "results"
    )
    toy_command.main(config)
    points = pd.read_csv(tmp_path / "results" / "points.csv")
    assert set(points["test_domain"]) == {"quickdraw"}
    assert points[[*SHARED, *LABEL_FREE]].to_numpy().tolist() == [
        [0.5 + i for i in range(len(SHARED | LABEL_FREE))]
    ] * len(runs)
    claims = pd.read_csv(tmp_path / "results" / "claims.csv")
    assert set(claims["claim"]) == {claim.name for claim in CLAIMS}
    assert (
        claims.query("claim == 'quickdraw'")["n_models"].max() == 0
    )  # no cg-high of sketch
    page = (tmp_path / "out" / "results" / "report.html").read_text(encoding="utf-8")
    assert all(claim.question in page for claim in CLAIMS)
    assert page.count('class="plotly-graph-div"') == 4
