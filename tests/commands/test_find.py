"""One circuit of one class is found, tested on unseen images and drawn; and accuracies of checkpoints."""

import shutil
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

import circuitry
from circuitry import CausalChecks, Circuit, DomainFolder, GraphFolder, load_clip
from circuitry.cards import CardFolder
from circuitry.interventions import CheckSettings, FaithfulnessCurve
from circuitry.questions import one_class
from circuitry.reports.sections.one_circuit import circuit_verdicts
from circuitry.runs import InputError
from experiments.drawn import DrawingSettings, write_toy
from tests.support.scripts import CLASSES, command_module

FEW = {"method": "gradient", "n_images": 2, "n_others": 3, "size": 0.4}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    few = DrawingSettings(1, 4, classes=CLASSES, styles=("clipart", "real"))
    return write_toy(
        tmp_path_factory.mktemp("find") / "toy", few, workers=1, progress=False
    )


@pytest.fixture(scope="module")
def config(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    module, out = command_module("find"), tmp_path_factory.mktemp("fish")
    config = module.Config(
        model="rn-tiny", data=toy, class_name="fish", domain="real", out=out, **FEW
    )
    module.main(config)
    return config


def test_a_circuit_of_a_class_is_found_and_tested(
    config: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    module = command_module("find")
    written = module.main(config)  # everything is read
    assert "as many random units" in capsys.readouterr().out
    assert written.claims
    circuit = Circuit.load(config.out / "circuit.safetensors")
    scores = circuit.source
    assert (scores.class_name, scores.domain, scores.n_images) == ("fish", "real", 2)
    kept = circuit.size
    assert kept == pytest.approx(0.4, abs=0.05)
    others = [
        Circuit.load(config.out / f"other.{place}.safetensors") for place in range(2)
    ]
    assert {"fish"}.isdisjoint(one.source.class_name for one in others)
    assert [one.size for one in others] == pytest.approx([kept] * 2, abs=0.01)
    assert "circuits of other classes" in pd.read_csv(
        config.out / "tables" / "recovered.csv"
    )
    tests = pd.read_csv(config.out / "tables" / "tests.csv")
    assert {"circuit", "complement", "sufficiency", "necessity"} == set(tests["test"])
    page = written.report.read_text(encoding="utf-8")
    assert written.claims[0].split(":")[0] in page
    assert "The circuit of fish in real" in page
    run = module.question_of(config)
    tested = {*run.unseen, *run.others(unseen=True)}
    assert not {*run.found_on, *run.others()} & tested


def test_cards_checks_and_the_explorer_read_what_is_found(
    config: Any, toy: Path
) -> None:
    graphs, key = GraphFolder(config.out / "circuits"), ("fish", "real")
    found = Circuit.load(config.out / "circuit.safetensors")
    kept = {site: units.tolist() for site, units in graphs[key].kept_units.items()}
    assert kept == {site: found.units[site].tolist() for site in kept}
    assert graphs[key].circuit().count
    read = {"circuits": graphs.path, "model": "rn-tiny", "data": toy}
    cards = command_module("cards").main
    cards(command_module("cards").Config(**read, n_images=2, exact_units=0))
    made = CardFolder(config.out / "cards")
    assert {image.relative for image in made.images.values() if image.found_on} == set(
        graphs[key].provenance["images"]
    )
    checks = CausalChecks(
        load_clip("rn-tiny").in_components(),
        DomainFolder(toy),
        graphs,
        CheckSettings(n_others=1),
    )
    (own, others) = checks.chosen.own(key), checks.chosen.others(key)
    assert len(own) == 2  # the other half
    assert others[0].relative not in graphs[key].provenance["others"]
    page = command_module("explore")
    page.main(
        page.Config(run=config.out, **{name: read[name] for name in ("model", "data")})
    )
    assert (config.out / "explorer" / "index.html").is_file()


def test_an_interrupted_search_goes_on(
    config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = command_module("find")
    again = replace(config, out=tmp_path / "again")
    shutil.copytree(config.out, again.out)
    for made in (
        again.out / "tests.csv",
        again.out / "circuits" / "manifest.json",
        again.out / "report.html",
    ):
        made.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(one_class, "judge_circuit", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            module.main(again)
    assert not (again.out / "report.html").exists()
    for name in ("find_circuit", "measure_circuits"):  # done, and not done again
        monkeypatch.setattr(one_class, name, pytest.fail)
    module.main(again)
    for table in ("recovered", "tests", "curves"):
        one, other = (
            (out / "tables" / f"{table}.csv").read_text()
            for out in (config.out, again.out)
        )
        assert one == other
    with pytest.raises(InputError, match=r"size.*0\.4.*0\.5"):
        module.main(replace(config, size=0.5))
    with pytest.raises(
        InputError, match=r"clipart/.*\.png"
    ):  # images that shape its baseline alone
        module.main(replace(config, domains=("real",)))
    assert replace(config, out=None).folder == Path("runs/find/fish-real")
    assert replace(config, out=None, domain=None).folder == Path("runs/find/fish")


def test_a_second_search_of_a_folder_waits_for_the_first(
    config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = command_module("find").question_of(replace(config, out=tmp_path / "again"))
    find = circuitry.find_circuit
    seconds = list[Future[Any]]()
    labels = list[int]()

    def find_beside_another(*given: Any, **named: Any) -> Circuit:
        labels.append(given[0].metric.label)
        assert len(labels) == len(set(labels)), "found twice"
        if not seconds:
            seconds.append(pool.submit(run.run))
            wait(seconds, timeout=0.5)
        return find(*given, **named)

    monkeypatch.setattr(one_class, "find_circuit", find_beside_another)
    with ThreadPoolExecutor(1) as pool:
        answer = run.run()
        other = seconds[0].result()
    for site, scores in answer.circuit.source.node_scores.items():
        assert scores.tolist() == other.circuit.source.node_scores[site].tolist()
    pd.testing.assert_frame_equal(answer.tests, other.tests)


def test_a_folder_of_pictures_is_enough(toy: Path, tmp_path: Path) -> None:
    module, data = command_module("find"), tmp_path / "pictures"
    shutil.copytree(toy / "real" / "fish", data)
    run = module.question_of(
        module.Config(
            model="rn-tiny", data=data, class_name="fish", classes=("key",), **FEW
        )
    )
    assert run.images.all_classes == ("key", "fish")
    assert run.key == ("fish", "pictures")
    assert [len(run.found_on), len(run.unseen)] == [2, 2]
    # Another place of the folder ranks its images alike.
    for record in run.images.records:
        assert record.relative == f"pictures/fish/{record.path.name}"
        assert record.path.parent == data.resolve()
    assert len(run.task_unseen.images) == 2
    assert run.task_unseen.others is None


def verdicts(kept: float, rest: float, tests: dict[str, float | bool]) -> str:
    """Return what is said of a circuit; as many random units recover 20 %, and 5 % to 80 % is left without them."""
    given = {
        "missed": True,
        "without": 0.8,
        "others": 4,
        "numbers": 3,
        "seen": 0,
    } | tests
    rows = [
        ("sufficiency", 1.0, 40, 0.01, True, 0.1, 0.3),
        ("necessity", 0.9, 40, 0.01, given["missed"], 0.05, given["without"]),
    ]
    tested = pd.DataFrame(
        rows, columns=["test", "value", "n", "p", "holds", "random_low", "random_high"]
    )
    tested["n_seen"] = given["seen"]
    own = np.arange(8 + given["others"]) < 8
    runs = {
        "full": 1.0,
        "empty": 0.0,
        "kept": kept,
        "complement": rest,
        "random": 0.2,
        "foreign": 0.2,
    }
    shape = {
        "full": (),
        "empty": (),
        "kept": (1,),
        "complement": (1,),
        "random": (1, 1),
        "foreign": (1, 1),
    }

    def numbers(value: float) -> np.ndarray:
        """Metric, KL of one nat with nothing kept, and the class for that share of its images alone."""
        return np.stack(
            [
                value * own,
                np.full(len(own), 1 - value),
                own * (np.arange(len(own)) < 8 * value),
            ]
        )

    arrays: Any = {
        name: numbers(runs[name])[: given["numbers"]].reshape(
            -1, *shape[name], len(own)
        )
        for name in runs
    }
    curve = FaithfulnessCurve(
        (0.3,), "absolute", (30,), **arrays, own=own, group=np.zeros(len(own), int)
    )
    return " ".join(
        f"{one.claim} {one.certainty}" for one in circuit_verdicts(curve, tested)
    )


@pytest.mark.parametrize(
    ("kept", "rest", "tests", "says"),
    [
        (
            0.9,
            0.1,
            {},
            ("It works and is the class's own", "needed? Yes", "90%", "10%"),
        ),
        (0.5, 0.1, {}, ("It works in part",)),
        (0.9, 0.6, {}, ("needed? Partly", "60%")),
        (0.9, 0.6, {"missed": False}, ("needed? No:",)),
        (0.0, 0.9, {}, ("It does nothing",)),
        (
            0.9,
            -0.2,
            {"without": 0.07},
            ("needed? Cannot be told", "(keeps -20%)", "so does", "(keeps 5% to 7%)"),
        ),
        (0.9, -0.2, {"missed": False}, ("needed? Cannot be told", "-20%", "5% to 80%")),
        (
            0.9,
            0.1,
            {"others": 0},
            (
                "work? Cannot be told: no images of other",
                "needed? Cannot be told",
                "90%",
            ),
        ),
        (
            0.9,
            0.1,
            {"seen": 3},
            ("It works", "needed? Yes", "3 of them have pixels that found"),
        ),
        (
            0.9,
            0.1,
            {"seen": 8},
            ("needed? Cannot be told: the 8 images that test it", "none of them new"),
        ),
        (
            0.9,
            0.1,
            {"numbers": 1},
            ("work? Cannot be told: the metric has no candidate", "90%", "20%"),
        ),
    ],
)
def test_verdicts_follow_the_tests(
    kept: float, rest: float, tests: dict[str, Any], says: tuple[str, ...]
) -> None:
    said = verdicts(kept, rest, tests)
    for words in says:
        assert words in said


def test_accuracies_are_printed_and_kept(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = command_module("evaluate")
    written = module.main(module.Config(model="rn-tiny", data=toy, out=tmp_path / "o"))
    table = pd.read_csv(tmp_path / "o" / "tables" / "accuracy_by_class.csv")
    assert set(table["domain"]) == {"real", "clipart"}
    assert "guessing reaches 25.0%" in written.claims[0]
    assert "clipart" in capsys.readouterr().out
    run = tmp_path / "run" / "checkpoints"
    run.mkdir(parents=True)
    config = module.Config(model="rn-tiny", checkpoint=run.parent, data=toy)
    with pytest.raises(InputError, match="no checkpoint"):
        list(module.files(config))
    for epoch in (1, 2):
        (run / f"epoch_{epoch}.safetensors").touch()
    assert list(module.files(config)) == [
        (1, run / "epoch_1.safetensors"),
        (2, run / "epoch_2.safetensors"),
    ]


@pytest.mark.parametrize(
    "wrong", [{"texts": "photo"}, {"selectivity": 0.5, "size": None}]
)
def test_a_refused_search_claims_no_folder(
    wrong: dict[str, Any], config: Any, toy: Path, tmp_path: Path
) -> None:
    module, data = command_module("find"), tmp_path / "pictures"
    shutil.copytree(toy / "real" / "fish", data)
    alone = replace(
        config, data=data, domain=None, classes=("key",), out=tmp_path / "out"
    )
    with pytest.raises(InputError, match="|".join([*map(str, wrong), "'photo'"])):
        module.main(replace(alone, **wrong))
    assert not alone.out.exists()


def test_a_search_for_other_units_is_another(config: Any) -> None:
    module = command_module("find")
    channels, components = (
        replace(config, model="vit-tiny", units=units)
        for units in ("channels", "components")
    )
    made = [module.question_of(asked).made_with for asked in (channels, components)]
    assert made[0]["weights"] == made[1]["weights"]
    assert made[0] != made[1]


def test_one_image_is_evaluated(toy: Path, tmp_path: Path) -> None:
    module, image = command_module("evaluate"), next((toy / "real" / "fish").iterdir())
    (tmp_path / "data" / "real" / "fish").mkdir(parents=True)
    shutil.copy(image, tmp_path / "data" / "real" / "fish")
    written = module.main(
        module.Config(model="rn-tiny", data=tmp_path / "data", out=tmp_path / "o")
    )
    table = pd.read_csv(tmp_path / "o" / "tables" / "accuracy.csv")
    assert table[["domain", "all", "chance"]].to_numpy().tolist() == [
        ["real", 1.0, 1.0]
    ]
    assert "guessing reaches 100.0%" in written.claims[0]
    assert "Cannot be told" in written.claims[1]
