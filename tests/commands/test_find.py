"""One circuit of one class is found, tested on unseen images and drawn; and accuracies of checkpoints."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from circuitry import AttributionGraph
from circuitry.reports.sections.one_circuit import circuit_verdicts
from circuitry.runs import InputError
from tests.support.scripts import assert_drawn, command_module, needs_browser

FEW = {"method": "gradient", "n_images": 2, "n_others": 3, "size": 0.4}


@needs_browser
def test_a_circuit_of_a_class_is_found_and_tested(
    quickstart: Path, model_of_the_quickstart: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    module, out = command_module("find"), quickstart / "find"
    config = module.Config(model="rn-tiny", **model_of_the_quickstart, class_name="fish", domain="real", out=out, **FEW)
    written = module.main(config)
    assert "as many random units" in capsys.readouterr().out
    assert any("fish" in claim or "told" in claim for claim in written.claims)
    graph = AttributionGraph.load(out / "circuit")
    assert (graph.class_name, graph.domain, graph.n_images) == ("fish", "real", 2)
    kept = sum(map(len, graph.kept_units.values())) / sum(len(graph.node_scores[site]) for site in graph.kept_units)
    assert kept == pytest.approx(0.4, abs=0.05)
    tests = pd.read_csv(out / "tables" / "tests.csv")
    assert {"circuit", "complement", "sufficiency", "necessity"} == set(tests["test"])
    assert_drawn(out / "report.html", figures=1)
    subject = module.Subject(config)
    found_on, unseen = subject.own
    assert not {*found_on, *subject.others[0]} & {*unseen, *subject.others[1]}


def test_a_folder_of_pictures_is_enough(
    quickstart: Path, model_of_the_quickstart: dict[str, object], tmp_path: Path
) -> None:
    module, data = command_module("find"), tmp_path / "pictures"
    shutil.copytree(Path(str(model_of_the_quickstart["data"])) / "real" / "fish", data)
    given = model_of_the_quickstart | {"data": data}
    config = module.Config(model="rn-tiny", **given, class_name="fish", classes=("key",), out=tmp_path / "o", **FEW)
    subject = module.Subject(config)
    assert subject.classes == ("key", "fish")
    assert subject.domain == "pictures"
    assert [len(half) for half in subject.own] == [2, 2]
    written = module.main(config)
    assert any("told" in claim or "others" in claim or "few" in claim for claim in written.claims)


@pytest.mark.parametrize(
    ("kept", "rest", "enough", "needed", "says"),
    [
        (0.9, 0.1, True, True, ("enough? Yes", "needed? Yes", "90%", "10%")),
        (0.5, 0.1, True, True, ("enough? Partly",)),
        (0.9, 0.6, True, True, ("needed? Partly", "60%")),
        (0.9, 0.6, False, False, ("enough? No", "needed? No")),
        (0.1, 0.9, True, False, ("enough? No",)),
    ],
)
def test_verdicts_follow_the_tests(kept: float, rest: float, enough: bool, needed: bool, says: tuple[str, ...]) -> None:
    rows = [("sufficiency", 0.9, 40, 0.01, enough), ("necessity", 0.9, 40, 0.01, needed)]
    tested = pd.DataFrame(rows, columns=["test", "value", "n", "p", "holds"])
    values = {"kept": kept, "random": 0.2, "complement": rest}
    curves = pd.DataFrame(
        [(measure, *one, "") for measure in ("selectivity", "faithfulness") for one in values.items()],
        columns=["measure", "circuit", "value", "reason"],
    )
    findings = circuit_verdicts("fish in real", 0.3, curves, tested, (8, 4))
    claims = " ".join(one.claim for one in findings)
    for words in says:
        assert words in claims


def test_accuracies_of_all_checkpoints(
    quickstart: Path, model_of_the_quickstart: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = command_module("evaluate")
    given = model_of_the_quickstart | {"checkpoint": quickstart / "run" / "clip"}
    config = module.Config(model="rn-tiny", **given, domains=("real", "clipart"), out=tmp_path / "o")
    written = module.main(config)
    table = pd.read_csv(tmp_path / "o" / "tables" / "accuracy.csv")
    assert set(table["domain"]) == {"real", "clipart"}
    assert set(table["epoch"]) == {1}
    assert "guessing reaches 25.0%" in written.claims[0]
    assert "epoch" in capsys.readouterr().out
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(InputError, match="no checkpoint"):
        list(module.files(module.Config(model="rn-tiny", checkpoint=tmp_path / "run", data=tmp_path)))
