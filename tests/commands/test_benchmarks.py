"""Benchmarks and validations run, on next to nothing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from circuitry import (
    DomainFolder,
    InputError,
    Task,
    class_logit,
    compare_domains,
    explorer,
)
from circuitry.bases import ResidualStream
from circuitry.circuits.graph_folder import EXTRACTION_FORMAT, WHOLE, graph_file
from circuitry.encoder import Encoder, Stage
from circuitry.runs import claim
from tests.circuits.test_edge_oracles import LN3, ON_PAPER
from tests.circuits.test_measures import random_graph
from tests.explorer.made import make_curve, make_graphs, unpack
from tests.support.micro_transformer import IMAGE, metric, micro_tower
from tests.support.scripts import command_module, script
from tests.support.stream_scores import edge_scores, place_of
from tests.support.towers import make_tower
from tests.support.work import QUIET

SPEED = script("speed_of_circuits")


def test_partial_runs_find_the_scores_of_the_whole_tower() -> None:
    table = pd.concat([SPEED.partial_runs("rn-tiny", 1), SPEED.patching("rn-tiny", 2)])
    assert table["scores"].tolist() == [
        "nodes",
        "edges",
        "nodes, gauss-radau-5",
        "edges, gauss-radau-4",
        "patching",
    ]
    # Other rules have other scores.
    assert table["largest relative difference"].isna().sum() == 2
    assert (table["largest relative difference"].dropna() < 1e-4).all()


def test_the_cost_of_the_study_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SPEED, "matrix_rate", lambda device: 1e9)
    tables = SPEED.growth("rn-tiny", 4)
    assert tables["growth"]["images"].tolist() == [1, 2, 4, 1, 1, 1, 1, 1, 1]
    assert tables["rates"]["GFLOP/s"].iloc[0] == 1
    hours = tables["study"].set_index("rule").loc["left-10"]
    assert hours["GPU hours"] * 3600 * hours["TFLOP/s of a GPU"] == pytest.approx(
        345 * 300 * hours["TFLOP an image"]
    )


def test_all_edges_of_a_transformer_are_timed() -> None:
    row = SPEED.edge_speed("vit-tiny", 1).iloc[0]
    assert row["edges"] == 309
    assert row["peak GiB"] >= row["peak GiB before"]


def test_other_tools_find_the_same_scores_and_are_named_with_their_versions(
    tmp_path: Path,
) -> None:
    module = script("beside_other_tools")
    heads = ("patching of heads", "edges between heads and MLPs")
    module.main(module.Config(tmp_path, towers=("vit-tiny",), jobs=heads, rounds=1))
    table = pd.read_csv(tmp_path / "tools.csv")
    assert set(table["job"]) == set(heads)
    assert {"TransformerLens", "plain PyTorch", "circuitry"} <= set(table["tool"])
    differences = table["largest difference relative to the largest score"]
    assert differences.max() < 1e-5
    provenance = json.loads((tmp_path / "provenance.json").read_text())
    assert {"captum", "transformer-lens"} <= provenance.keys()
    for wrong in ({"jobs": ("head-patching",)}, {"towers": ("vit-small",)}):
        with pytest.raises(InputError, match=r"There is no \w+ '(head-p|vit-s)"):
            module.main(module.Config(**wrong))


def test_many_circuits_are_compared_in_one_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    SPEED.main(SPEED.Config(of="similarity", out=tmp_path, classes=1, results=results))
    measured = pd.read_csv(results / "similarity.csv")
    # 15 pairs of domains, whole and by twelve ordered pairs of folds; in each domain six pairs of folds, four with it.
    assert measured["measures"].tolist() == [5]
    assert measured["pairs"].tolist() == [15 + 15 * 12 + 6 * (6 + 4)]
    assert capsys.readouterr().out.startswith("similarity:\n pairs  measures")
    # The page tells it from there.
    told = json.loads((results / "provenance.json").read_text(encoding="utf-8"))
    assert told["folds"] == 4


def test_a_process_of_the_simulation_that_is_killed_is_named_with_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In place of the command stands a shell, whose second process works only when it is started again."""
    module = script("simulate_scale")
    out = tmp_path / "out"
    shell = tmp_path / "python"
    begun = f"{tmp_path}/begun-$RANK"
    shell.write_text(
        f"#!/bin/bash\necho process $RANK\n"
        f"[ -e {begun} ] || {{ touch {begun}; [ $RANK = 0 ] || kill -9 $$; }}\n"
        f"mkdir -p {out}/run; touch {out}/run/$RANK\n"
    )
    shell.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(shell))
    config = module.Config(out, classes=1, domains=1, images=1)
    log = out / "worker-1.log"
    killed = rf"1 of 2 .*worker 1 \(killed by SIGKILL, see {log}\)"
    with pytest.raises(InputError, match=killed):
        module.main(config)
    assert log.read_text() == "process 1\n"
    module.main(config)
    assert log.read_text() == 2 * "process 1\n"
    assert ", 2 files," in capsys.readouterr().out
    # Both have ended before they are killed.
    module.main(replace(config, kill_after=1))
    assert log.read_text() == 4 * "process 1\n"


def test_measures_are_judged_by_cases_with_a_known_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module, folder = script("validate_measures"), tmp_path / "graphs"
    jobs = [
        (name, domain)
        for name in ("axe", "cat", "fish")
        for domain in ("real", "sketch")
    ]
    for i, (name, domain) in enumerate(jobs):
        folds: list[int | str] = [WHOLE, 0, 1]
        for j, fold in enumerate(folds):
            made = random_graph(
                i // 2, name, domain, units=60
            )  # the same for a class, but for a little noise
            graph = module.with_noise(made, 0.1, np.random.default_rng(10 * i + j))
            graph.save(graph_file(folder, name, domain, fold))
    claim(
        folder,
        EXTRACTION_FORMAT,
        {"n_folds": 2, "model": "made", "weights": ""},
        jobs=jobs,
    )
    module.main(module.Config(circuits=folder, results=tmp_path, n_circuits=2))
    found = pd.read_csv(tmp_path / "measures.csv").set_index(["case", "measure"])[
        "value"
    ]
    assert (
        found["fresh images", "node_overlap"]
        == found["another domain", "node_overlap"]
        == 1
    )
    assert found["units permuted", "node_overlap"] < 0.2
    assert found["units permuted", "depth_bias"] == 0.5  # permuted units weigh as much
    assert "node_overlap" in capsys.readouterr().out


def test_a_known_share_of_units_is_permuted_and_no_noise_changes_nothing() -> None:
    module, graph = script("validate_measures"), random_graph(0, units=60)
    half = module.permuted_share(graph, 0.5, np.random.default_rng(0))
    for site, scores in graph.node_scores.items():
        assert np.mean(half.node_scores[site] == scores) == 0.5
        assert (
            half.node_scores[site][half.kept_units[site]].tolist()
            == scores[graph.kept_units[site]].tolist()
        )
    same = module.with_noise(graph, 0.0, np.random.default_rng(0))
    for pair, scores in graph.edge_scores.items():
        assert np.array_equal(same.edge_scores[pair], scores)


def test_methods_are_compared_with_exact_cuts_of_every_edge() -> None:
    module = script("benchmark_edges")
    stream = ResidualStream.of(Encoder.from_tower(micro_tower()))
    cuts = module.with_nodes(edge_scores(stream, IMAGE, metric, "cuts"))
    readers = tuple(map(str, stream.readers))
    for edge, (_, cut) in ON_PAPER.items():
        assert cuts[place_of(stream, *edge)] == pytest.approx(cut)
    # Head 0 writes b at both tokens: without it streams are (4, 0) and (4, 1), n0 = 8, 7, the metric 12 + 11 + 2.
    assert cuts[-1, 1] == pytest.approx(33 - 25)
    # The embedding of nothing: the metric is 0.
    assert cuts[-2, -1] == pytest.approx(33)
    out_of = module.with_nodes(edge_scores(stream, IMAGE, metric))[-1, :2].tolist()
    assert out_of == pytest.approx([8 + 9 * LN3 + 18 + 3 + 4, 16 - 8])
    tables = []
    for method, scores in (
        ("plain", -cuts),
        ("5 points", 2 * cuts),
        ("RelP", 0 * cuts),
    ):
        rows = pd.DataFrame(module.correlations(readers, scores, cuts))
        tables += [
            rows.assign(baseline="zero", method=method, circuit=name, seconds=1.0)
            for name in "ab"
        ]
    found = module.summarise(pd.concat(tables)).set_index(["edges", "method"])
    columns = ["spearman", "pearson", "strongest tenth found"]
    assert found.loc[("all", "5 points"), columns].tolist() == pytest.approx([1, 1, 1])
    assert found.loc[
        ("all", "plain"), ["spearman", "spearman of sizes"]
    ].tolist() == pytest.approx([-1, 1])
    assert found.loc["all", "nearer than plain"].to_dict() == {
        "plain": 0,
        "5 points": 2,
        "RelP": 2,
    }
    assert found.loc[("queries and keys", "RelP"), "n_edges"] == 4
    assert found.loc[("values", "RelP"), "spearman"] == 0


def test_a_merge_with_a_base_set_is_timed(tmp_path: Path) -> None:
    module = script("speed_of_training")
    config = module.Config(out=tmp_path, images=6 * 345 * 4, base_images=1000)
    measured = module.mixtures(config)
    lists = (tmp_path / "domainnet-8280").glob("*_train.txt")
    listed = sum(len(path.read_text().splitlines()) for path in lists)
    assert measured["images listed"] == listed
    assert measured["base lines"] == 1000
    assert measured["chosen"] < listed
    base = pd.read_csv(tmp_path / "mixture.tsv", sep="\t", nrows=1000)
    assert base["filepath"].iloc[-1].endswith("00000/000000999.jpg")


def test_a_promise_is_measured_on_other_circuits_than_it_was_made_on(
    tmp_path: Path,
) -> None:
    module = script("benchmark_rules")
    for domain in ("real", "sketch"):
        for name in ("axe", "cat"):
            (tmp_path / domain / name).mkdir(parents=True)
            (tmp_path / domain / name / "0.png").touch()
    images = DomainFolder(tmp_path)
    first, others = module.drawn_circuits(
        images, module.Config(data=tmp_path, circuits=2)
    )
    assert (len(first), len(others), len({*first, *others})) == (2, 2, 4)
    assert (
        len(module.drawn_circuits(images, module.Config(data=tmp_path, circuits=3))[1])
        == 1
    )  # four are all
    with pytest.raises(
        InputError,
        match=r"Expected more than 4 classes in domains.* has images of 4: give more",
    ):
        module.drawn_circuits(images, module.Config(data=tmp_path, circuits=8))


@pytest.mark.parametrize(
    ("name", "diverging"),
    [
        ("resnet", {"attnpool"}),
        ("clip-efficientnet", {"head"}),
        ("efficientnet", {"bn2", "global_pool", "classifier"}),
    ],
)
def test_sites_where_a_cosine_does_not_converge_stand_apart(
    name: str, diverging: set[str]
) -> None:
    """Through pooling and a layer whose bias is zero it diverges as at the embedding itself; a bias ends that."""
    encoder = Encoder.from_tower(make_tower(name))
    task = Task(
        encoder,
        torch.randn(2, 3, *encoder.image_size),
        class_logit(torch.randn(3, 16), 0),
    )
    assert set(encoder.sites) - set(script("benchmark_rules").converging(task)) == {
        "input",
        *diverging,
    }


@pytest.mark.parametrize(
    ("end", "promised"),
    [("zero", False), (torch.tensor([3.0, 1.0, 2.0]).reshape(1, 3, 1, 1), True)],
)
def test_nothing_is_promised_where_references_disagree(
    end: str | Tensor, promised: bool
) -> None:
    """Of x / |x| the effect of a unit on the way to zero grows as 1 / (1 - t): its integral has no bound."""
    module = script("benchmark_rules")
    normed = Stage("sum", lambda x: x + nn.functional.normalize(x, dim=1), 1)
    encoder = Encoder(
        nn.Linear(1, 1), (Stage("hidden", lambda x: x.flatten(1), 1), normed), (1, 1)
    )
    pixels = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1)
    task = Task(
        encoder,
        pixels,
        lambda out: out @ torch.tensor([1.0, 0.0, -1.0]),
        baseline=end,
        work=QUIET,
    )
    measured = module.measure(
        [("one", task)], (module.SECOND, *module.CANDIDATES), module.REFERENCE
    )
    nodes = module.choose(measured, 0.2).set_index("kind").loc["nodes"]
    assert bool(nodes["promised"] <= 0.2) is promised
    assert bool(nodes["references differ"] > 0.1) is not promised


def test_the_first_rule_that_keeps_the_error_is_chosen() -> None:
    module = script("benchmark_rules")
    of_rule = dict.fromkeys((module.SECOND, *module.CANDIDATES), 0.01) | {
        "left-1": 0.5,
        "gauss-radau-3": 0.3,
    }
    rows = [
        (kind, rule, "early", False, error)
        for kind in ("nodes", "edges")
        for rule, error in of_rule.items()
    ]
    measured = pd.DataFrame(rows, columns=["kind", "rule", "place", "apart", "error"])
    for error, rule in (
        (0.6, "left-1"),
        (0.3, "gauss-radau-3"),
        (0.1, "midpoint-3"),
        (0.001, "midpoint-20"),
    ):
        assert module.choose(measured, error)["rule"].tolist() == [rule, rule]


def test_a_promise_is_set_against_the_mean_over_sites_and_circuits() -> None:
    module = script("benchmark_rules")
    rows = [
        (circuit, kind, rule, place, place in ("input", "embedding"), error * size)
        for circuit, size in (("axe in real", 1), ("cat in sketch", 3))
        for kind in ("nodes", "edges")
        for rule, error in (("left-10", 0.1), ("midpoint-4", 0.2))
        for place, error in (
            ("input", 9),
            ("early", error),
            ("late", 3 * error),
            ("embedding", 5),
        )
    ]
    table = module.summary(
        pd.DataFrame(
            rows, columns=["circuit", "kind", "rule", "place", "apart", "error"]
        )
    )
    found = table.set_index(["kind", "rule"]).loc[("nodes", "left-10")]
    # Means over sites 0.2 and 0.6: their mean, and Student's interval of two, 12.706 * 0.2.
    assert found[["mean", "low", "high"]].tolist() == pytest.approx(
        [0.4, 0.4 - 2.5412, 0.4 + 2.5412], abs=1e-3
    )
    assert found[["circuits", "worst at", "not converging", "image"]].tolist() == [
        2,
        "late",
        10,
        18,
    ]
    assert found["worst"] == pytest.approx(0.6)
    chosen = pd.DataFrame(
        {
            "kind": ["nodes", "edges"],
            "rule": "midpoint-4",
            "promised": 0.4,
            "references differ": 0,
        }
    )
    promised = module.promise(
        chosen, table.assign(**{"node cost": 0.5, "edge cost": 0.25})
    ).set_index("kind")
    columns = ["rule", "promised", "measured", "cost", "error of the study's rule"]
    assert promised.loc["edges", columns].tolist() == [
        "midpoint-4",
        0.4,
        pytest.approx(0.8),
        0.25,
        pytest.approx(0.4),
    ]


def test_the_explorer_of_a_run_has_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = command_module("explore")
    graphs = make_graphs(tmp_path / "circuits", ("axe", "cat"), ("real", "sketch"))
    make_curve("axe", "real").save(
        tmp_path / "faithfulness" / "axe" / "real.absolute.all.safetensors"
    )
    for name, comparison in compare_domains(graphs).items():
        comparison.save(tmp_path / "comparisons" / name)
    module.main(module.Config(run=tmp_path))
    _, index, _ = unpack((tmp_path / "explorer" / "data" / "index.js").read_text())
    assert list(index["curves"]) == ["axe/real"]
    assert {one["measure"] for one in index["comparisons"]} == {
        "node_overlap",
        "edge_jaccard",
        "wl_kernel",
    }
    served: list[object] = []
    monkeypatch.setattr(
        explorer,
        "serve_explorer",
        lambda *given, **settings: served.append((*given, settings)),
    )
    (tmp_path / "explorer" / "data" / "index.js").write_text("kept")
    module.main(module.Config(run=tmp_path, serve=True, port=8123))
    assert served == [
        (tmp_path / "explorer", {"live": None, "port": 8123, "open_page": False})
    ]
    assert (tmp_path / "explorer" / "data" / "index.js").read_text() == "kept"
    (tmp_path / "explorer" / "index.html").unlink()
    module.main(module.Config(run=tmp_path, serve=True))
    assert (tmp_path / "explorer" / "index.html").is_file()
