"""The study on real pictures: which pictures train and test, which models are trained, and what is written."""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from circuitry.data import DomainFolder
from circuitry.models import load_clip
from circuitry.models.shipped_weights import shipped_file
from circuitry.runs import InputError, Rank, Work, WorkSettings
from circuitry.training import ClipTraining, clip_preset
from experiments.study import (
    claims_report,
    real_claims,
    real_command,
    sharing,
)
from experiments.study.checkpoint_accuracy import EvaluationSet, extract_accuracies
from experiments.study.claim_tables import claim_tests
from experiments.study.claims import WHOLE
from experiments.study.real_command import Config, main, models_of
from experiments.study.real_models import RealStudy
from experiments.study.relations import jackknife_over, picks_the_better
from experiments.study.sharing import SharingSettings, named_runs
from experiments.study.study_run import StudyRun, find_runs
from tests.support.work import QUIET

DOMAINS = ("cartoon", "photo", "sketch")
CLASSES = ("car", "cup", "fish", "house")


def write_pictures(
    root: Path,
    n: int,
    domains: Sequence[str] = DOMAINS,
    classes: Sequence[str] = CLASSES,
) -> Path:
    """Write pictures of one colour each."""
    for d, domain in enumerate(domains):
        for c, name in enumerate(classes):
            folder = root / domain / name
            folder.mkdir(parents=True)
            for i in range(n):
                picture = Image.new("RGB", (8, 8), (60 * d, 60 * c, 5 * i))
                picture.save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures") / "root", 30)


def study(data: Path, out: Path, per_cell: int | None = None) -> RealStudy:
    return RealStudy(data, out, "photo", "sketch", per_cell)


def test_a_fifth_of_the_pictures_tests_by_a_rule_of_names(
    pictures: Path, tmp_path: Path
) -> None:
    whole = study(pictures, tmp_path)
    few = study(pictures, tmp_path, 24)
    for domain, name in (("sketch", "car"), ("photo", "house")):
        names = [f"{domain}/{name}/{i}.png" for i in range(30)]
        numbers = {file: int(sha256(file.encode()).hexdigest(), 16) for file in names}
        ordered = sorted(names, key=lambda file: numbers[file])
        for one, used in ((whole, ordered), (few, ordered[:24])):
            for split, left in (("test", {0}), ("train", {1, 2, 3, 4})):
                found = one.images(split).select(name, domain)
                expected = {file for file in used if numbers[file] % 5 in left}
                assert {record.relative for record in found} == expected


def test_lists_divide_pictures_where_there_are_some(
    pictures: Path, tmp_path: Path
) -> None:
    root = write_pictures(tmp_path / "listed", 2)
    for domain in DOMAINS:
        for split, i in (("train", 0), ("test", 1)):
            lines = [f"{domain}/{name}/{i}.png {c}" for c, name in enumerate(CLASSES)]
            (root / f"{domain}_{split}.txt").write_text("\n".join(lines))
    listed = study(root, tmp_path)
    assert {record.path.name for record in listed.images("train").records} == {"0.png"}
    assert {record.path.name for record in listed.images("test").records} == {"1.png"}


def test_each_seed_holds_another_pair_out(pictures: Path, tmp_path: Path) -> None:
    pairs = study(pictures, tmp_path).pairs()
    assert sorted(pairs) == sorted(combinations(CLASSES, 2))
    assert pairs != sorted(pairs)
    assert pairs == study(pictures, tmp_path / "elsewhere").pairs()
    with pytest.raises(InputError, match=r"6 pairs.* 0 to 5, not 6"):
        list(study(pictures, tmp_path).mixtures(6, ["sketch"], None))


def test_the_mixtures_of_a_seed(pictures: Path, tmp_path: Path) -> None:
    one = study(pictures, tmp_path)
    names = [mixture.name for mixture in one.mixtures(0, ["sketch", "cartoon"], None)]
    main_settings = ("leave-out", "cg-low", "cg-high")
    assert names == [
        "natural-only",
        "upper-high-sketch",
        *(f"{setting}-sketch" for setting in main_settings),
        *(f"{setting}-cartoon" for setting in main_settings),
        "upper-low-sketch",
        "aligned-sketch",
        "class-interpolation-0.2-sketch",
    ]
    # One other domain is no interpolation between none and all.
    four = write_pictures(tmp_path / "four", 30, (*DOMAINS, "art_painting"))
    further = [
        list(study(four, tmp_path).mixtures(seed, ["sketch"], ["domain-interpolation"]))
        for seed in range(3)
    ]
    others = [mixture.other_domains for (mixture,) in further]
    assert others == [("art_painting",), ("cartoon",), ("art_painting",)]
    assert [m.name for m in one.mixtures(1, ["cartoon"], ["cg-low", "aligned"])] == [
        "cg-low-cartoon"
    ]


def test_texts_have_the_words_of_captions(pictures: Path, tmp_path: Path) -> None:
    tests = claim_tests(study(pictures, tmp_path).images("test"))
    assert tests.templates == {
        "trained words": [
            "an image of a {}.",
            "a cartoon of a {}.",
            "a photo of a {}.",
            "a sketch of a {}.",
        ],
        "all templates": "pooled",
    }


def test_bad_pictures_are_refused(pictures: Path, tmp_path: Path) -> None:
    for domains, classes, message in (
        (("photo",), CLASSES, "'sketch'.* has photo: .*--far"),
        (("art", "sketch"), CLASSES, "'photo'.* has art, sketch: .*--natural-domain"),
        (DOMAINS, CLASSES[:3], "at least 4 are needed.* has 3: add classes"),
    ):
        root = write_pictures(
            tmp_path / message[:3].strip("'") / "bad", 8, domains, classes
        )
        with pytest.raises(InputError, match=message):
            study(root, tmp_path).images("train")
    root = write_pictures(tmp_path / "lacking", 8)
    for file in (root / "sketch" / "car").iterdir():
        file.unlink()
    with pytest.raises(InputError, match="car in sketch has 0 pictures"):
        study(root, tmp_path).images("train")


def test_a_model_is_trained_on_its_mixture(
    pictures: Path, tmp_path: Path, trained: list[tuple[pd.DataFrame, ClipTraining]]
) -> None:
    one = study(pictures, tmp_path)
    (mixture,) = one.mixtures(2, ["sketch"], ["cg-low"])
    run = one.run(replace(clip_preset("rn-tiny"), seed=2), mixture)
    ((table, settings),) = trained
    held_out = one.pairs()[2]
    shown = {tuple(Path(file).parts[-3:-1]) for file in table["filepath"]}
    photos = {("photo", name) for name in CLASSES}
    assert shown == photos | {("sketch", c) for c in CLASSES if c not in held_out}
    tests = {record.path for record in one.images("test").records}
    assert not tests & set(map(Path, table["filepath"]))
    assert settings.seed == 2
    assert (run.setting, run.test_domain, run.held_out) == (
        "cg-low",
        "sketch",
        held_out,
    )
    # Photographs alone are compared on the pair of their seed, in every test domain.
    (mixture,) = one.mixtures(2, ["sketch"], ["natural-only"])
    alone = one.run(replace(clip_preset("rn-tiny"), seed=2), mixture)
    assert (alone.test_domain, alone.held_out) == (None, held_out)


def test_several_processes_train_each_model_once(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, bool]] = []

    def run(
        self: RealStudy,
        training: ClipTraining,
        mixture: Any,
        *,
        wait: bool = True,
        work: Any,
    ) -> StudyRun:
        asked.append((mixture.setting, wait))
        if not wait and len(asked) == 1:
            raise BlockingIOError("held by another process")
        return StudyRun(
            tmp_path / mixture.name, str(training.model), mixture.setting, None
        )

    monkeypatch.setattr(RealStudy, "run", run)
    monkeypatch.setattr(
        real_command,
        "judged_accuracies",
        lambda *_, **__: pd.DataFrame({"value": [1]}),
    )
    config = Config(
        data=pictures, out=tmp_path, models=("rn-tiny",), settings=("cg-low", "cg-high"),
        domains=("sketch",),
    )  # fmt: skip
    found = models_of(config, [0], Work(Rank(1, 2)))
    assert [one.setting for one in found.runs] == ["cg-low", "cg-high"]
    # The second process begins with the second model; the model of another process is waited for at the end.
    assert asked == [("cg-high", False), ("cg-low", False), ("cg-high", True)]


def test_the_study_is_written(
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trained: list[tuple[pd.DataFrame, ClipTraining]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = ("leave-out", "cg-low", "cg-high", "aligned")

    def shared(
        runs: Sequence[StudyRun], images: DomainFolder, *_: Any, **__: Any
    ) -> pd.DataFrame:
        assert {run.test_domain for run in runs} == {"sketch"}
        assert {run.seed for run in runs} == {0}
        rows = [
            (name, what, WHOLE, domain, i + 0.1 * (domain == "sketch"), "sketch")
            for i, name in enumerate(named_runs(runs))
            for what in ("overlap", "reach")
            for domain in images.domains
        ]
        columns = ["run", "what", "site", "domain", "value", "test_domain"]
        return pd.DataFrame(rows, columns=columns)

    monkeypatch.setattr(claims_report, "shared_of_runs", shared)
    config = Config(
        data=pictures, out=tmp_path / "out", results=tmp_path / "results", n_shared=1,
        models=("rn-tiny",), seeds=(0, 1), settings=settings,
        work=WorkSettings(progress=False),
    )  # fmt: skip
    main(config)
    assert len(trained) == 2 * (3 * 2 + 1)
    accuracies = pd.read_csv(tmp_path / "results" / "accuracies.csv")
    assert set(accuracies["epoch"]) == {2, 3}
    assert set(accuracies["setting"]) == set(settings)
    judgements = pd.read_csv(tmp_path / "results" / "claims.csv")
    # All models are one: no setting differs from another.
    row = judgements.query("claim == 'diversity' and way == 'as written'").iloc[0]
    assert (row["value"], row["n_units"], row["n_models"]) == (0, 2, 4)
    points = pd.read_csv(tmp_path / "results" / "points.csv")
    assert points["overlap"].tolist() == pytest.approx([3.1, 2.1, 1.1, 0.1])
    assert {"relations.csv", "ranking.csv", "verdicts.csv", "seeds.csv"} <= {
        path.name for path in (tmp_path / "results").iterdir()
    }
    page = (tmp_path / "out" / "results" / "report.html").read_text(encoding="utf-8")
    assert all(claim.question in page for claim in real_claims.CLAIMS)
    # Accuracies are those of the model on the pictures that test.
    clip = load_clip("rn-tiny")
    images = config.study.images("test")
    weights = clip.text_weights(
        images.classes, claim_tests(images).templates["trained words"]
    )
    pair = config.study.pairs()[0]
    right = list[bool]()
    for record in images.select(pair[0], "sketch"):
        pixels = clip.preprocess(Image.open(record.path).convert("RGB"))[None]
        answer = int((clip.encoder(pixels) @ weights.T).argmax())
        right.append(images.classes[answer] == pair[0])
    table = accuracies.query(
        "seed == 0 and domain == 'sketch' and texts == 'trained words' and measure == 'balanced top-1' and epoch == 3"
    )
    table = table.query("test_domain == 'sketch' and setting == 'cg-low'")
    found = table[table["class"] == pair[0]]["value"]
    assert found.tolist() == pytest.approx([np.mean(right)])
    capsys.readouterr()


def test_sharing_is_measured_on_the_pictures_that_test(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = list[DomainFolder]()

    def note(*given: Any) -> list[tuple[str, str, str, float]]:
        seen.extend(one for one in given if isinstance(one, DomainFolder))
        return []

    for name in ("embeddings", "cka", "features", "circuits", "own_parts"):
        monkeypatch.setattr(sharing, f"_by_{name}", note)
    images = study(pictures, tmp_path, 20).images("test")
    settings = SharingSettings(domains=("photo",))
    quiet = (tmp_path / "out", settings, QUIET)
    sharing.shared_by(load_clip("rn-tiny"), images, ["car", "cup"], ["sketch"], *quiet)
    assert len(seen) == 5
    listed = {record.relative for record in images.records}
    for used in seen:
        assert {record.relative for record in used.records} <= listed
    few = seen[-1]
    assert (few.classes, set(few.domains)) == (("car", "cup"), {"photo", "sketch"})
    assert len(few) == sum(
        len(images.select(name, domain))
        for name in few.classes
        for domain in few.domains
    )


def test_a_table_of_models_is_enough(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").symlink_to(shipped_file("rn-tiny"))
    (tmp_path / "epoch_7.safetensors").symlink_to(shipped_file("rn-tiny"))
    table = tmp_path / "models.csv"
    header = "checkpoint,model,setting,test_domain,held_out,seed\n"
    table.write_text(
        f'{header}mine.safetensors,rn-tiny,cg-high,sketch,"car, house",1\n'
        "epoch_7.safetensors,rn-tiny,natural-only,,car,0\n"
    )
    first, second = find_runs(table)
    assert (first.held_out, first.seed, first.test_domain) == (
        ("car", "house"),
        1,
        "sketch",
    )
    assert (second.setting, second.test_domain) == ("natural-only", None)
    assert list(first.checkpoints()) == [1]
    assert list(second.checkpoints([3])) == [7]
    tests = EvaluationSet(study(pictures, tmp_path).images("test"), CLASSES)
    evaluated = extract_accuracies([first, second], tests, work=QUIET)
    by_run = evaluated.groupby("run")["epoch"].unique().map(list)
    assert by_run.to_dict() == {"0-mine": [1], "1-epoch_7": [7]}
    assert set(evaluated.query("run == '0-mine'")["held_out_classes"]) == {"car, house"}

    for lines, message in (
        ("checkpoint,model\n", "lacks setting, test_domain, held_out, seed"),
        (f"{header}a.pt,rn-tiny,cg-hihg,sketch,car,0\n", "'cg-hihg'.*cg-high"),
        (f"{header}a.pt,rn-tiny,cg-low,sketch,car,one\n", "'one'.* a.pt"),
    ):
        table.write_text(lines)
        with pytest.raises(InputError, match=message):
            find_runs(table)
    with pytest.raises(InputError, match="table of models"):
        find_runs(tmp_path / "no.csv")


def test_better_models_are_picked_within_strata() -> None:
    points = pd.DataFrame(
        {
            "run": list("abcdef"),
            "test_domain": ["x"] * 3 + ["y"] * 3,
            "number": [1.0, 2.0, 3.0, 9.0, 8.0, np.nan],
            "accuracy": [0.1, 0.3, 0.2, 0.5, 0.5, 0.9],
        }
    )
    # In x two of three pairs are right; in y two models are equal, and one has no number.
    right, n_pairs = picks_the_better(points, "number", "accuracy")
    assert (right, n_pairs) == (2 / 3, 3)
    assert picks_the_better(points, "number", "accuracy", -1)[0] == pytest.approx(1 / 3)
    assert np.isnan(picks_the_better(points[3:], "number", "accuracy")[0])


def test_pairs_are_left_out_together() -> None:
    rng = np.random.default_rng(0)
    points = pd.DataFrame(
        {
            "run": [f"r{i}" for i in range(12)],
            "test_domain": "x",
            "pair": np.repeat(["a", "b", "c"], 4),
            "number": rng.normal(size=12),
            "accuracy": rng.normal(size=12),
        }
    )
    row = jackknife_over(points, ["number"], ["accuracy"], "pair").iloc[0]
    rho = points["number"].corr(points["accuracy"], method="spearman")
    without = np.array(
        [
            rows["number"].corr(rows["accuracy"], method="spearman")
            for rows in (points[points["pair"] != name] for name in "abc")
        ]
    )
    error = np.sqrt(2 / 3 * ((without - without.mean()) ** 2).sum())
    reach = 4.302652729911275 * error  # Student's, two degrees of freedom
    assert row[["low", "high"]].tolist() == pytest.approx(
        [max(rho - reach, -1), min(rho + reach, 1)]
    )
    assert row["n_values"] == 3
