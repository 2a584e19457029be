"""Runs are evaluated and related to what domains share."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from circuitry.models import register_model
from circuitry.runs import InputError, WorkSettings
from circuitry.runs.command_line import read_line
from experiments.over_models import compare_models
from experiments.study import sharing
from experiments.study.sharing import STUDY_MEASURES, SharingSettings, shared_by
from experiments.study.study_run import TABLE_COLUMNS, StudyRun
from experiments.study.supervised_model import (
    LabelTable,
    build_classifier,
    write_classifier,
)
from tests.comparison.similarities import similarities
from tests.study.made_up_runs import write_run
from tests.support.scripts import (
    CLASSES,
    assert_drawn,
    figure_of,
    needs_browser,
    program_module,
)


def write_runs(folder: Path, quickstart: Path, held_out: tuple[str, ...]) -> None:
    """Write three runs of the model of the quickstart: two seeds of a setting, and photographs alone."""
    for setting, seed in (("cg-high", 0), ("cg-high", 1), ("natural-only", 0)):
        run = folder / f"{setting}-{seed}"
        run.mkdir(parents=True)
        (run / "checkpoints").symlink_to(quickstart / "run" / "clip" / "checkpoints")
        test_domain = None if setting == "natural-only" else "quickdraw"
        write_run(StudyRun(run, "rn-tiny", setting, test_domain, held_out, seed))


@needs_browser
def test_runs_are_evaluated_and_drawn(quickstart: Path, tmp_path: Path) -> None:
    module = program_module("generalization")
    write_runs(tmp_path / "runs", quickstart, ("key",))
    # As in the plan, whose lines are an array: two models are evaluated before the tables of all are made.
    for name in ("cg-high-0", "natural-only-0"):
        line = (
            f"--no-tables --no-progress --runs {tmp_path}/runs/{name} --data {quickstart}/run/toy "
            f"--test-domains quickdraw --out {tmp_path}/out"
        )
        alone, _ = read_line(module.Config, line.split())
        module.main(alone)
    early = {
        path: path.stat().st_mtime_ns
        for path in tmp_path.glob("runs/*/evaluation/*/*.csv")
    }
    assert {path.parents[2].name for path in early} == {"cg-high-0", "natural-only-0"}
    assert not (tmp_path / "out").exists()
    supervised = tmp_path / "runs" / "supervised"
    labels = LabelTable(CLASSES, {name: i for i, name in enumerate(CLASSES)})
    classifier = build_classifier(register_model("rn-tiny"), len(CLASSES), 0.9)[0]
    write_classifier(
        supervised / "checkpoints" / "epoch_1.safetensors",
        classifier,
        "rn-tiny",
        labels,
    )
    write_run(
        StudyRun(
            supervised, "rn-tiny", "cg-high", "quickdraw", ("key",), supervised=True
        )
    )
    own = {
        "runs": tmp_path / "runs",
        "test_domains": ("quickdraw",),
        "out": tmp_path / "out",
    }
    module.main(
        module.Config(
            **own, data=quickstart / "run" / "toy", results=tmp_path / "results"
        )
    )
    assert_drawn(tmp_path / "out" / "report.html", figures=2)
    assert early == {path: path.stat().st_mtime_ns for path in early}
    table = pd.read_csv(tmp_path / "results" / "settings.csv").query(
        "setting == 'cg-high' and domain == 'quickdraw'"
    )
    assert table.groupby("trained")["seeds"].unique().map(list).to_dict() == {
        "CLIP": [2],
        "supervised": [1],
    }
    kinds = pd.read_csv(tmp_path / "results" / "told_apart.csv")
    assert (
        kinds[["held_out", "alone", "centred", "predicted_held_out", "harmonic_mean"]]
        .notna()
        .all(axis=None)
    )
    assert kinds["own_style"].isna().equals(kinds["trained"] == "supervised")
    assert "no class was screened" in (tmp_path / "out" / "report.html").read_text(
        encoding="utf-8"
    )
    module.main(
        module.Config(**own, data=quickstart / "run" / "toy", epochs_shown=(1,))
    )
    assert set(
        pd.read_csv(tmp_path / "out" / "tables" / "evaluation.csv")["epoch"]
    ) == {1}
    for name in ("accuracy_by_setting", "effective_robustness"):
        assert len(figure_of(name, tmp_path / "results").data) >= 2


@needs_browser
def test_claims_are_judged_on_models_of_a_table(
    quickstart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = program_module("claims")
    checkpoint = quickstart / "run" / "clip" / "checkpoints" / "epoch_1.pt"
    models = [
        (checkpoint, "rn-tiny", setting, "quickdraw", "key, car", seed)
        for seed, setting in product((0, 1), ("cg-high", "cg-low"))
    ]
    models.append((checkpoint, "rn-tiny", "upper-high", "quickdraw", "key, car", 0))
    table = pd.DataFrame(models, columns=list(TABLE_COLUMNS))
    table.to_csv(tmp_path / "models.csv", index=False)
    measured = list[pd.DataFrame]()

    def of_one_model(*asked: Any) -> pd.DataFrame:
        """All models are one model, measured once. Numbers are moved, to tell models apart."""
        if measured:
            last = measured[-1]
            measured.append(last.assign(value=last["value"] + 1))
        else:
            measured.append(shared_by(*asked))
        return measured[-1]

    monkeypatch.setattr(sharing, "shared_by", of_one_model)
    config = module.Config(
        runs=(tmp_path / "models.csv",),
        data=quickstart / "run" / "toy",
        sharing=SharingSettings(
            domains=("real",),
            n_images=2,
            n_tested=1,
            sae_steps=5,
            study_circuits=True,
        ),
        out=tmp_path / "out",
        results=tmp_path / "results",
        work=WorkSettings(progress=False),
    )
    module.main(config)
    points = pd.read_csv(tmp_path / "results" / "points.csv")
    # The upper bound has seen the classes in the test domain, so it is not asked what its domains share.
    assert points["setting"].tolist() == ["cg-high", "cg-low", "cg-high", "cg-low"]
    names = ["overlap", "shift", "depth_bias", "features"]
    names += [f"study_{name}" for name in STUDY_MEASURES]
    for table, (_, point) in zip(measured, points.iterrows(), strict=True):
        of_whole = table.query("domain == 'quickdraw' and site == 'whole'")
        expected = of_whole.set_index("what")["value"][names]
        assert point[names].tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    judgements = pd.read_csv(tmp_path / "results" / "claims.csv")
    # All models are one, so that no setting differs from another. One set of held-out classes has no spread.
    row = judgements.query("claim == 'diversity' and way == 'as written'").iloc[0]
    assert (row["value"], row["n_units"], row["verdict"]) == (0, 1, "cannot be told")
    by_class = judgements.query("claim == 'diversity' and way == 'classes as units'")
    assert by_class["n_units"].tolist() == [2]
    drawn = figure_of("sharing_against_accuracy", tmp_path / "results")
    heights = {float(y) for trace in drawn.data for y in trace.y if y is not None}
    assert heights == set(points["held_out_all"])
    page = tmp_path / "out" / "results" / "report.html"
    text = page.read_text(encoding="utf-8")
    assert_drawn(page, figures=text.count('class="plotly-graph-div"'))
    with pytest.raises(InputError, match="far domain 'ink'"):
        module.main(replace(config, far="ink"))


def test_sharing_is_set_side_by_side_over_settings(tmp_path: Path) -> None:
    module = program_module("features-over-settings")

    def results(name: str, setting: str | None, seed: int, sketch: float) -> str:
        folder = tmp_path / name
        similarities(4, seed=len([*tmp_path.iterdir()]) + 1).save(
            folder / "feature_sharing"
        )
        scores = product(("all", "held-out"), (("real", 0.5), ("sketch", sketch)))
        rows = [
            (group, domain, value, value - 0.1, value + 0.1, 4)
            for group, (domain, value) in scores
        ]
        columns = ["group", "domain", "value", "low", "high", "n_classes"]
        pd.DataFrame(rows, columns=columns).to_csv(
            folder / "feature_sharing_summary.csv", index=False
        )
        run = {
            "model": "RN50",
            "setting": setting,
            "test_domain": "sketch",
            "seed": seed,
        }
        about = {"model": "RN50", "trained_on": None if setting is None else run}
        (folder / "provenance.json").write_text(json.dumps(about))
        return str(folder)

    low = [
        results(f"low{seed}", "cg-low", seed, value)
        for seed, value in enumerate((0.1, 0.3, 0.6))
    ]
    high, other = results("high", "cg-high", 0, 0.4), results("other", None, 0, 0.2)
    folders = (*low, high, f"openai={other}")
    module.main(
        module.Config(
            features=folders, group="all", test_domain="real", out=tmp_path / "out"
        )
    )
    table = pd.read_csv(
        tmp_path / "out" / "tables" / "sharing_over_settings.csv"
    ).set_index("setting")
    assert table.index.tolist() == ["cg-low", "cg-high", "openai"]
    assert table["test_domain"].tolist() == ["sketch", "sketch", "real"]
    assert table["score"].tolist() == pytest.approx([1 / 3, 0.4, 0.5])
    squares = (0.7 / 3) ** 2 + (0.1 / 3) ** 2 + (0.8 / 3) ** 2
    assert table["deviation"]["cg-low"] == pytest.approx((squares / 2) ** 0.5)
    assert table[["lowest", "models"]].to_numpy().tolist() == [[2, 3], [1, 1], [0, 1]]
    tests = pd.read_csv(tmp_path / "out" / "tables" / "sharing_tests.csv")
    models = [
        similarities(4, seed=seed) for seed in (1, 2, 3, 4)
    ]  # all whose test domain is sketch
    expected = compare_models(models)
    pd.testing.assert_frame_equal(tests[list(expected)], expected, check_dtype=False)
    assert set(tests["test_domain"]) == {"sketch"}
    for wrong, words in (
        ((), "--features"),
        ((str(tmp_path),), str(tmp_path)),
        ((other,), f"name={other}"),
    ):
        with pytest.raises(InputError, match=words):
            module.main(module.Config(features=wrong))
    with pytest.raises(InputError, match=r"'ink'.*'held-out'.*real, sketch"):
        module.main(module.Config(features=(f"x={other}",), test_domain="ink"))
