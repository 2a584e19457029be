"""Programs of the study from end to end, on drawn images: shared features, representations, the supervised baseline."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from circuitry import Comparison, DomainFolder, InputError
from circuitry.models.shipped_weights import shipped_file
from circuitry.training import SaeTraining
from experiments.drawn import DrawingSettings, write_toy
from experiments.judging import planted
from experiments.representations.grams import Grams
from experiments.representations.similarity import compare_representations
from experiments.study.study_run import StudyRun
from experiments.study.supervised import SupervisedTraining
from experiments.study.supervised_model import found_labels, load_supervised
from tests.study.made_up_runs import write_run
from tests.support.assert_same import assert_same
from tests.support.clip_training import WORK
from tests.support.scripts import (
    CLASSES,
    STYLES,
    assert_drawn,
    figure_of,
    needs_browser,
    program_module,
    study_config,
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of four classes in three styles."""
    drawn = DrawingSettings(n_train=5, n_test=4, classes=CLASSES, styles=STYLES)
    return write_toy(
        tmp_path_factory.mktemp("drawn") / "toy", drawn, workers=1, progress=False
    )


@needs_browser
def test_shared_features_are_found_and_drawn(toy: Path, tmp_path: Path) -> None:
    module, run, out = (
        program_module("features"),
        tmp_path / "clip",
        tmp_path / "shared_features",
    )
    (run / "checkpoints").mkdir(parents=True)
    model = {
        "checkpoint": Path(shutil.copy(shipped_file("rn-tiny"), run / "checkpoints")),
        "data": toy,
    }
    short = {"training": SaeTraining(steps=5), "held_out": ("Key",)}
    config = module.Config(**model, **short, out=out, results=out / "results")
    module.main(config)
    assert study_config("features").training == study_config("train-sae").training
    summary = pd.read_csv(out / "results" / "feature_sharing_summary.csv")
    assert set(summary["group"]) == {"all", "held-out"}
    assert module.trained_on(config) is None
    write_run(StudyRun(run, "rn-tiny", "cg-low", "quickdraw", ("key",)))
    assert module.trained_on(config)["setting"] == "cg-low"
    assert_drawn(out / "report.html")
    names = set(pd.read_csv(out / "tables" / "features.csv")["name"])
    images = DomainFolder(toy)
    assert names <= set(module.words(config, config.clip(), images))
    assert Comparison.load(out / "results" / "feature_sharing").groups["held-out"] == (
        "key",
    )
    words = tmp_path / "words.txt"
    words.write_text("car\n\n star \n")
    given = module.Config(
        **model,
        autoencoder=out / "sae.safetensors",
        vocabulary=words,
        out=out / "again",
    )
    module.main(given)
    assert set(pd.read_csv(out / "again" / "tables" / "features.csv")["name"]) <= {
        "car",
        "star",
    }
    assert not (out / "again" / "sae.safetensors").exists()


@needs_browser
def test_representations_are_compared_and_drawn(toy: Path, tmp_path: Path) -> None:
    module, out = program_module("represent"), tmp_path / "representations"
    few = {
        "sites": ("layer3.0", "attnpool"),
        "n_images": 4,
        "folds": 2,
        "permutations": 20,
        "probe_folds": 2,
    }
    subject = {"checkpoint": shipped_file("rn-tiny"), "data": toy, "apart": "quickdraw"}
    config = module.Config(**subject, **few, out=out, results=out / "results")
    module.main(config)
    assert_drawn(out / "report.html")
    committed = {path.name for path in (out / "results").iterdir()}
    names = (
        "cka",
        "cka_over_depth",
        "cka_apart",
        "cka_ceilings",
        "probes",
        "probes_left_out",
    )
    assert committed == {
        *(f"{name}.csv" for name in names),
        "provenance.json",
        "classes.txt",
        "images.txt",
    }
    for name in ("cka_over_depth", "cka_apart"):
        assert len(figure_of(name, out / "results").data) > 0


def test_groups_of_classes_for_cka_are_those_held_out_and_the_others() -> None:
    module, classes = program_module("represent"), [f"class_{i}" for i in range(5)]
    groups = module.class_groups_of(
        module.Config(held_out=("Class 0", "class-3")), classes
    )
    assert groups["held-out"] == ("class_0", "class_3")
    assert groups["seen"] == ("class_1", "class_2", "class_4")
    assert groups["all"] == tuple(classes)
    with pytest.raises(InputError, match="no held-out class 'aircraft carrier' here"):
        module.class_groups_of(study_config("represent"), classes)


def test_all_pairs_of_domains_are_compared_over_the_classes_that_all_have() -> None:
    module, classes = program_module("represent"), tuple("abcdefg")
    rng, rows = np.random.default_rng(0), {}
    for domain in ("painting", "real", "sketch"):
        rows[domain] = rng.normal(size=(len(classes), 5))
    rows["painting"][2] = np.nan  # it has no image of c
    grams = [
        Grams(domain, classes, {"site": own @ own.T}) for domain, own in rows.items()
    ]
    groups = module.in_all_domains({"all": classes, "held-out": ("a", "c")}, grams)
    assert groups == {"all": tuple("abdefg"), "held-out": ("a",)}
    found = compare_representations(
        [one.only(groups["all"]) for one in grams], ("linear",), permutations=1
    ).pairs
    value = found.query("domain_a == 'real' and domain_b == 'sketch'")["value"].item()

    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        n = len(k)
        k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
        ones = k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 * (k @ m).sum() / (n - 2)
        return float(np.trace(k @ m) + ones) / (n * (n - 3))

    kept = [0, 1, 3, 4, 5, 6]  # painting's classes, for the pair without painting, too
    k, m = (rows[domain][kept] @ rows[domain][kept].T for domain in ("real", "sketch"))
    assert_same(value, hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m)), at_least=0.01)


def test_a_supervised_baseline_is_trained(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = program_module("train-supervised")
    small = SupervisedTraining(model="rn-tiny", epochs=1, batch_size=16, milestones=())
    module.main(
        module.Config(out=tmp_path / "run", data=toy, training=small, work=WORK)
    )
    printed = capsys.readouterr().out
    assert "balanced top-1" in printed
    model = load_supervised(
        tmp_path / "run" / "supervised" / "checkpoints" / "epoch_1.safetensors"
    )
    assert model.table.classes == CLASSES
    unmerged = module.label_table(module.Config(out=tmp_path, data=toy))(["b", "a"])
    assert unmerged.classes == ("a", "b")  # no folder of ImageNet's
    assert (
        module.label_table(module.Config(out=tmp_path, table=tmp_path / "x"))
        is found_labels
    )


@needs_browser
def test_methods_are_judged_and_drawn(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circuitry.interventions.optimal_ablation.STEPS", 4)
    # What each rule finds in planted circuits is tested with them.
    for kind in ("RULES", "SEARCHED"):
        monkeypatch.setattr(planted, kind, dict([*vars(planted)[kind].items()][:1]))
    module, out = program_module("scoreboard"), tmp_path / "scoreboard"
    given = {"data": toy, "n_judged": 2, "n_images": 1, "n_others": 4}
    tiny = {
        "sizes": (0.3, 0.8),
        "steps": 4,
        "batch_size": 2,
        "random_draws": 1,
        "seed": 1,
    }
    budgets, ablations = ("same-share", "global"), ("mean", "optimal", "resample")
    asked = {
        "methods": ("patching", "learned"),
        "budgets": budgets,
        "ablations": ablations,
    }
    counted = module.Contest(module.Config(**given)).sites
    # What is read out, and the image, are not counted.
    assert not {"input", "attnpool"} & {*counted}
    config = module.Config(
        **(given | tiny | asked),
        sites=counted[-4:],
        out=out,
        results=out / "results" / "made",
    )
    module.main(config)
    assert_drawn(out / "report.html")
    summary = pd.read_csv(out / "results" / "made" / "summary.csv")
    contestants = [
        *(("patching", budget) for budget in budgets),
        ("learned", "learned"),
    ]
    assert set(zip(summary["method"], summary["budget"], strict=True)) == set(
        contestants
    )
    assert set(summary["baseline"]) == set(ablations)
    agreement = summary.query("what == 'rank correlation'").set_index("method")["value"]
    assert agreement["patching"].tolist() == pytest.approx([1] * 6)
    assert summary.query("what == 'seconds'")["n_classes"].tolist() == [2] * 9
    provenance = json.loads((out / "results" / "made" / "provenance.json").read_text())
    assert provenance["sites"] == [*counted[-4:]]
    (found_on, others), (measured_on, held_out) = module.Contest(config).records("fish")
    assert not {*found_on, *others} & {*measured_on, *held_out}
    assert not {r for r in (*others, *held_out) if r.class_name == "fish"}
    for folder in program_module("figures").MODELS:
        (out / "results" / folder).symlink_to(out / "results" / "made")
    for name in ("scoreboard_cost", "scoreboard_answers"):
        drawn = figure_of(name, out / "results").data
        shown = [trace.name for trace in drawn if trace.showlegend]
        assert len(drawn) >= 4
        assert len(shown) == len(set(shown)) >= 2
