"""A class's own part and lesions, on networks whose own units are known, and against plain loops."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from circuitry import (
    AttributionGraph,
    DomainFolder,
    GraphFolder,
    Task,
    class_logit,
    in_feature_basis,
    load_clip,
)
from circuitry.bases import SparseAutoencoder
from circuitry.circuits import own_part, score_edges, with_edges
from circuitry.circuits.graph_folder import LESIONS
from circuitry.comparison import (
    lesion_matrix,
    lesion_summary,
    overlap_summary,
    style_verdicts,
)
from circuitry.comparison.lesion_reading import told_share
from circuitry.encoder import Counterfactual
from circuitry.interventions import (
    circuit_of,
    find_circuit,
    lesion,
    part_overlaps,
)
from circuitry.questions import OwnParts
from circuitry.reports import Report
from circuitry.reports.sections.own_parts import (
    add_own_parts,
    matrix_with_counts,
    own_part_findings,
    own_part_tables,
)
from circuitry.runs import InputError
from experiments.drawn import DrawingSettings, write_toy
from tests.support.extraction import contents
from tests.support.planted_classes import (
    COMMON,
    OWN_UNITS,
    PlantedClasses,
    planted_classes,
)
from tests.support.scripts import command_module
from tests.support.work import QUIET

NET = planted_classes()
SITE = "units"


def n_units(net: PlantedClasses) -> int:
    return int(net.encoder(net.images(0, 1, 0), stop=SITE).shape[1])


EYE, ZERO = torch.eye(n_units(NET)), torch.zeros(n_units(NET))
HALVES = {
    SITE: SparseAutoencoder(EYE, ZERO, EYE / 2, ZERO)
}  # the other half is the error, which stays
LATENTS = replace(NET, encoder=in_feature_basis(NET.encoder, HALVES))
KINDS = pytest.mark.parametrize(("net", "decoded"), [(NET, 1.0), (LATENTS, 0.5)])


def quiet(task: Task) -> Task:
    return replace(task, work=QUIET)


def found(net: PlantedClasses, label: int, units: int) -> set[int]:
    part = own_part(quiet(net.task(label)), share=units / n_units(net))
    assert part.count == units
    return set(part.units[SITE].tolist())


@pytest.mark.parametrize("label", range(3))
def test_own_units_are_found_and_neither_those_of_all_classes_nor_of_others(
    label: int,
) -> None:
    assert found(NET, label, OWN_UNITS) == set(NET.own[label])
    plain = find_circuit(
        quiet(NET.task(label)), method="gradient", size=OWN_UNITS / n_units(NET)
    )
    assert set(plain.units[SITE].tolist()) != set(NET.own[label])


def test_units_that_stand_in_for_each_other_are_found_one_after_the_other() -> None:
    net = planted_classes(copies=2)
    part, own = found(net, 0, 10), set(net.own[0])
    assert own <= part
    assert not part & set(range(36, 36 + COMMON))  # what every class needs


@KINDS
def test_costs_are_slopes_of_the_log_odds_by_plain_gradients(
    net: PlantedClasses, decoded: float
) -> None:
    task = quiet(net.task(1))
    units, code = (stage.run for stage in NET.encoder.stages)
    own, mean = units(task.images), units(torch.cat([task.images, task.others])).mean(0)  # type: ignore[arg-type, list-item]
    gates = torch.ones(len(mean), requires_grad=True)
    logits = 20 * F.normalize(code(own + decoded * (gates - 1) * (own - mean)), dim=-1)
    rest = torch.cat([logits[:, :1], logits[:, 2:]], 1)
    (slopes,) = torch.autograd.grad((logits[:, 1] - rest.logsumexp(-1)).mean(), gates)
    scores = own_part(task, share=0.1).source.node_scores[SITE]
    np.testing.assert_allclose(scores, slopes.numpy(), rtol=1e-4, atol=1e-5)


@KINDS
def test_a_lesion_is_read_as_plain_loops_read_it(
    net: PlantedClasses, decoded: float
) -> None:
    tasks = {(str(label), "drawn"): quiet(net.task(label, 4, 1)) for label in range(4)}
    parts = {
        (str(label), "drawn"): own_part(quiet(net.task(label)), share=0.1)
        for label in range(2)
    }
    table = lesion(tasks, parts, random_draws=2)
    assert table.groupby(["part_class", "cut"]).size().tolist() == [4] * 4
    units, code = (stage.run for stage in NET.encoder.stages)
    for row in table[table["cut"] == "part"].to_dict("records"):
        task = tasks[row["class"], row["domain"]]
        acts = units(task.images)  # type: ignore[arg-type]
        both = torch.cat([task.images, task.others])  # type: ignore[list-item]
        mean = units(both).mean(0)
        for unit in parts[row["part_class"], "drawn"].units[SITE]:
            acts[:, unit] += decoded * (mean - acts)[:, unit]
        p = (20 * F.normalize(code(acts).double(), dim=-1)).softmax(-1)
        assert row["right"] == (p.argmax(-1) == int(row["class"])).double().mean()
        assert (
            row["taken_for"] == (p.argmax(-1) == int(row["part_class"])).double().mean()
        )
        of_class = p[:, [int(row["class"])]]
        odds = (of_class / (1 - of_class)).log().mean()
        assert row["log_odds"] == pytest.approx(float(odds), rel=1e-3)
        assert row["rank"] == 1 + (p > of_class).sum(-1).double().mean()
    own = table[table["part_class"] == table["class"]].groupby("cut")["log_odds"].mean()
    assert own["part"] < own["random"]


def test_overlaps_are_those_of_sets_and_chance_is_that_of_random_units() -> None:
    task = quiet(NET.task(0))
    a, b = (circuit_of(task, {SITE: some}) for some in ([0, 1, 2, 3], [2, 3, 4]))
    (row,) = part_overlaps({("x", "real"): a, ("y", "real"): b}).to_dict("records")
    assert row["overlap"] == 2 / 5
    rng, n = np.random.default_rng(0), n_units(NET)
    draws = [
        len({*rng.permutation(n)[:4]} & {*rng.permutation(n)[:3]}) for _ in range(4000)
    ]
    assert row["chance"] == pytest.approx(
        np.mean(draws) / (7 - np.mean(draws)), rel=0.1
    )


def test_edges_between_units_of_a_part_are_those_of_its_own_images() -> None:
    task, units = (
        replace(quiet(NET.task(0)), sites=("units", "code")),
        {"units": [0, 1, 2], "code": [0, 1]},
    )
    images = torch.cat([task.images, task.others])  # type: ignore[list-item]
    task = replace(
        task, baseline=Counterfactual(images.flip(0))
    )  # an end for every image, those of others last
    circuit = with_edges(task, circuit_of(task, units))
    counterfactual = Counterfactual(images.flip(0)[: len(task.images)])  # type: ignore[arg-type]
    own = replace(task, others=None, baseline=counterfactual)
    scored = score_edges(own, {site: np.array(of) for site, of in units.items()})
    assert set(circuit.scored_edges.scores) == {("units", "code")}
    np.testing.assert_array_equal(
        circuit.scored_edges.scores["units", "code"], scored.scores["units", "code"]
    )
    assert circuit.source.settings["edge_method"] == "squared"


def test_edges_of_a_smaller_part_are_some_of_those_of_the_larger() -> None:
    task = quiet(NET.task(0))
    larger = with_edges(task, own_part(task, share=0.2))
    smaller = larger.source.strongest(0.1, "signed", "global")
    assert isinstance(larger.source, AttributionGraph)
    found = larger.source.among(smaller.units)
    expected = with_edges(task, smaller).source
    assert isinstance(expected, AttributionGraph)
    assert 0 < smaller.count < larger.count
    assert found.settings == expected.settings
    assert list(found.kept_units) == list(expected.kept_units)
    for site, units in expected.kept_units.items():
        np.testing.assert_array_equal(found.kept_units[site], units)
    assert list(found.edge_scores) == list(expected.edge_scores)
    for pair, scores in expected.edge_scores.items():
        np.testing.assert_allclose(found.edge_scores[pair], scores, rtol=1e-5)


def cell(
    part: tuple[str, str], image: tuple[str, str], right: float, whole: float = 1.0
) -> dict[str, Any]:
    named = dict(
        zip(
            ("part_class", "part_domain", "class", "domain"),
            (*part, *image),
            strict=True,
        )
    )
    # A class that keeps all answers keeps its log-odds of 5; one that keeps none falls by 10.
    odds = {"whole_log_odds": 5.0, "log_odds": 10 * right / whole - 5}
    return {**named, "cut": "part", "whole_right": whole, "right": right, **odds}


def lesions(a_on_b: float, others: float = 1.0) -> pd.DataFrame:
    keys = [(name, domain) for name in "xy" for domain in ("a", "b")]
    rows = [
        cell(p, i, (0.0 if p[1] == i[1] else a_on_b) if p[0] == i[0] else others)
        for p in keys
        for i in keys
    ]
    return pd.DataFrame([*rows, cell(("x", "a"), ("z", "a"), 0.0, whole=0.2)])


OVERLAPS = pd.DataFrame(
    [
        ("x", "a", 1, "x", "b", 2, 0.3, 0.01, 0.2),
        ("x", "a", 1, "y", "a", 1, 0.02, 0.01, 0.0),
        ("y", "a", 2, "y", "b", 1, 0.3, 0.01, 0.1),
    ],
    columns=[
        "class_a",
        "domain_a",
        "half_a",
        "class_b",
        "domain_b",
        "half_b",
        "overlap",
        "chance",
        "edges",
    ],
).assign(edges_chance=0.0, n_a=8, n_b=8)


@pytest.mark.parametrize(
    ("a_on_b", "others", "verdict"),
    [
        (0.0, 1.0, "the same part"),
        (0.5, 1.0, "overlapping parts"),
        (0.9, 1.0, "other parts"),
        (0.0, 0.5, "no own part"),
    ],
)
def test_a_part_is_the_same_if_it_takes_the_evidence_in_both_styles(
    a_on_b: float, others: float, verdict: str
) -> None:
    said = style_verdicts(lesions(a_on_b, others), OVERLAPS)
    assert said["by_transfer"].tolist() == [verdict, verdict]


def test_a_part_without_an_unseen_image_in_its_own_style_cannot_be_told() -> None:
    table = lesions(0.0)
    own_cell = (table["part_class"] == "x") & (table["class"] == "x")
    unseen = own_cell & (table["part_domain"] == "a") & (table["domain"] == "a")
    said = style_verdicts(table[~unseen], OVERLAPS).set_index("class")["by_transfer"]
    assert said.to_dict() == {"y": "the same part"}
    alone = table[table["part_class"] == table["class"]]
    assert set(style_verdicts(alone, OVERLAPS)["by_transfer"]) == {"cannot be told"}


def test_summaries_leave_out_classes_that_the_model_does_not_know() -> None:
    table = lesions(0.5)
    assert lesion_matrix(table).to_numpy().tolist() == [[0.0, 0.5], [0.5, 0.0]]
    assert lesion_matrix(table, "other classes").to_numpy().tolist() == [
        [1.0, 1.0],
        [1.0, 1.0],
    ]
    by_styles = lesion_summary(table, ["styles"]).set_index(["styles", "answers"])[
        "value"
    ]
    assert by_styles["another style", "own class"] == 0.5
    kinds = overlap_summary(OVERLAPS).set_index(["parts", "compared"])
    said = kinds.loc["one class in two styles"]
    assert said["value"].to_dict() == pytest.approx({"units": 0.3, "edges": 0.15})
    assert said["n_pairs"].tolist() == [2, 2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"others": None}, "others"),
        ({"metric": lambda e: e[:, 0]}, "class_logit"),
        ({"images": NET.images(2, 3, 0)}, "none of the 3 images"),
        ({"others": NET.images(0, 3, 0)}, "tells from the class"),
    ],
)
def test_what_no_part_can_be_found_with_is_refused(
    change: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        own_part(replace(quiet(NET.task(0)), **change))


def test_a_part_of_two_styles_has_their_mean_costs_and_is_of_one_class() -> None:
    one, two = (quiet(NET.task(0, seed=seed)) for seed in (0, 1))
    both, *alone = (
        own_part(some, share=0.1).source.node_scores[SITE]
        for some in ([one, two], one, two)
    )
    np.testing.assert_allclose(both, np.mean(alone, axis=0), rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match="one class"):
        own_part([one, quiet(NET.task(1))])


def test_without_a_share_cuts_go_on_while_the_class_is_above_chance() -> None:
    part = own_part(quiet(NET.task(0)))
    assert all(p > 1 / 6 for _, p in part.made_with["tried"][:-1])
    assert part.size == pytest.approx(
        0.2, abs=0.01
    )  # it never is at chance: units of two classes are left
    assert "chance is 0.17" in part.made_with["note"]


def test_the_smallest_share_that_takes_the_classes_is_told() -> None:
    shares = [
        lesions(0.0).assign(share=share, sites="everywhere") for share in (0.01, 0.02)
    ]
    assert told_share(pd.concat(shares)) == 0.01


def test_the_share_is_told_by_the_style_that_found_the_part_alone() -> None:
    elsewhere = lesions(0.9)  # taken in its own style, and kept in the other
    swapped = elsewhere.assign(right=np.where(elsewhere["right"] == 0.0, 0.9, 0.0))
    own_class = elsewhere["part_class"] == elsewhere["class"]
    not_own = elsewhere.assign(
        right=np.where(own_class, swapped["right"], elsewhere["right"])
    )
    for table, share in ((elsewhere, 0.01), (not_own, 0.02)):
        shares = [table.assign(share=one, sites="everywhere") for one in (0.01, 0.02)]
        # A larger share at some sites alone is none that a report could tell.
        shares.append(table.assign(share=0.05, sites="layer4"))
        assert told_share(pd.concat(shares)) == share


def test_answers_that_a_lesion_adds_are_told_as_more_and_not_as_kept() -> None:
    gained = lesions(0.0).query("`class` != 'z'")
    gained.loc[gained["part_class"] != gained["class"], ["whole_right", "right"]] = [
        [0.5, 0.6]
    ]
    gained.loc[(gained["part_class"] == "x") & (gained["class"] == "y"), "right"] = 0.5
    summary = lesion_summary(gained, ["cut"]).set_index("answers").loc["other classes"]
    assert summary["value"] == pytest.approx(1.1)
    assert summary["low"] == 0.0
    assert summary["high"] == pytest.approx(
        1.1 + 12.706 * 0.1, abs=1e-3
    )  # Student's, two classes apart by 0.2
    kept = (
        lesion_summary(lesions(0.0), ["cut"]).set_index("answers").loc["other classes"]
    )
    assert (kept["value"], kept["high"]) == (1.0, 1.0)
    found = [
        gained.assign(share=0.02, sites="everywhere", cut=cut)
        for cut in ("part", "random")
    ]
    tables = own_part_tables(
        pd.concat(found), OVERLAPS.assign(share=0.02, sites="everywhere")
    )
    claim = own_part_findings(tables)[0].claim
    assert (
        "of its right answers a class keeps 0.00 [0.00, 0.00], other classes gain some (1.10 [0.00, 2.37] "
        in claim
    )
    assert "times as many right answers as before)" in claim


def told_lesions(**columns: Any) -> pd.DataFrame:
    """Return lesions of parts and of random units, as a report takes them, with further columns."""
    table = lesions(0.0).assign(share=0.02, sites="everywhere", **columns)
    # Of other classes x falls by 1 and y by 3.
    others = table["part_class"] != table["class"]
    table.loc[others, "log_odds"] -= table.loc[others, "class"].map({"x": 1, "y": 3})
    random = table.assign(cut="random", right=1.0, log_odds=5.0)
    return pd.concat([table, random], ignore_index=True)


def test_a_finding_says_what_was_ablated_what_the_nearest_lose_and_among_how_many() -> (
    None
):
    overlaps = OVERLAPS.assign(share=0.02, sites="everywhere", n_a=3)
    table = told_lesions(
        candidates=7, rank=2.5, baseline="zero", units="heads", nearness=1.0
    )
    found = own_part_findings(own_part_tables(table, overlaps))
    claim = found[0].claim
    for phrase in (
        "2.0% of the units (heads) at their zero",
        "those of the nearest among them by 2.00",
        "after as many random units those of the class by 0.00",
        "the nearest among them keep 1.00",
        "among 7 candidates; the class is then at rank 2.50",
    ):
        assert phrase in claim
    # The classes fall by 10. Others fall by 1 and 3, so their mean is between 2 - 12.7 and 2 + 12.7.
    assert "(at least 0.7 times the fall of other classes)" in claim
    assert "cannot be told: 3 pictures found each part" in found[1].certainty
    assert "0.3" not in found[1].certainty


def test_a_matrix_of_lesions_says_the_number_of_classes_behind_each_cell() -> None:
    table = lesions(0.5)
    alone = table[
        (table["class"] != "y") | (table["domain"] != "b")
    ]  # y has no unseen image in b
    said = matrix_with_counts(alone)
    assert said.to_numpy().tolist()[0] == ["0.00 (2)", "0.50 (1)"]
    assert lesion_matrix(alone, values="n_classes").to_numpy().tolist() == [
        [2, 1],
        [2, 1],
    ]
    report = Report("Parts")
    told = [
        alone.assign(share=0.02, sites="everywhere", cut=cut)
        for cut in ("part", "random")
    ]
    add_own_parts(
        report,
        own_part_tables(
            pd.concat(told), OVERLAPS.assign(share=0.02, sites="everywhere")
        ),
        ["a", "b"],
    )
    figures = report.plotly_figures.values()
    (cells,) = [
        figure
        for figure in figures
        if "answers left, images of the own" in str(figure.layout.title.text)
    ]
    assert np.asarray(cells.data[0].text).tolist() == [[2, 1], [2, 1]]
    assert "n = %{text:.0f}" in cells.data[0].texttemplate


def test_a_contrast_with_one_class_alone_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    own_part(replace(quiet(NET.task(0)), others=NET.images(3, 4, 0)), share=0.1)
    assert "more classes" in caplog.text


def test_a_part_of_many_units_is_refused_and_so_is_one_of_edges_or_of_another_model() -> (
    None
):
    task = quiet(NET.task(0))
    with pytest.raises(InputError, match=r"0\.2"):
        own_part(task, share=0.5)
    other = planted_classes(copies=2)
    part = own_part(quiet(other.task(0)), share=0.1)
    edges = replace(part, edges=part.its_edges)
    for wrong, words in ((part, "weights"), (edges, "edges")):
        with pytest.raises(InputError, match=words):
            lesion({("0", "drawn"): task}, {("0", "drawn"): wrong})


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("own")
    toy = write_toy(
        folder / "toy",
        DrawingSettings(0, 4, seed=0, first=30),
        workers=1,
        progress=False,
    )
    (toy / "real" / "key").rename(toy / "key")  # no key in real, so none of two styles
    (toy / "real_test.txt").unlink()
    for name in (
        "fish",
        "key",
    ):  # of each one image in clipart stays, so that key is a contrast alone
        for path in sorted((toy / "clipart" / name).glob("*.png"))[1:]:
            path.unlink()
    asked = {
        "classes": ("car", "clock", "fish", "key"),
        "domains": ("real", "clipart"),
        "split": None,
    }
    few = {"n_images": 1, "shares": (0.005, 0.02)}
    return command_module("own_parts").Config(
        model="rn-tiny", data=toy, out=folder / "run", **asked, **few
    )


def test_parts_are_found_on_other_images_than_those_that_test_them(
    config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = command_module("own_parts").main(config)
    assert written.claims[0].startswith("Do classes have parts of their own?")
    run = OwnParts(config.clip(components=True), config.images(), config.out, config)
    assert all(not set(run.found_on[key]) & set(run.unseen[key]) for key in run.keys)
    assert len(run.unseen["fish", "clipart"]) == 0
    assert ("key", "clipart") not in run.keys
    assert not run.folder.unfinished()
    listed = (config.out / "parts" / "images.json").read_text(encoding="utf-8")
    looked_at = {
        record.relative
        for key in run.keys
        for record in (*run.found_on[key], *run.others(key))
    }
    assert all(name in listed for name in looked_at)
    lesions = run.run(QUIET)["lesions"]
    of_fish = lesions[(lesions["class"] == "fish") & (lesions["domain"] == "clipart")]
    assert set(of_fish["part_domain"]) == {
        "real"
    }  # the one image found the part of clipart
    assert set(lesions["share"]) == {0.005, 0.02}
    small, large = (run.circuits(share) for share in (0.005, 0.02))
    assert all(
        set(small[key].units[site]) <= set(large[key].units[site])
        for key in small
        for site in small[key].units
    )
    graphs = GraphFolder(config.out / "circuits")
    assert set(graphs) == set(small)
    assert graphs.lesions is not None
    assert len(graphs.lesions) == len(lesions) / 2  # of the share that is told
    for share in (0.005, 0.02, 0.02):  # classes that are known tell another share
        assert run.save_circuits(share).manifest["config"]["size"] == pytest.approx(
            share, rel=0.2
        )
    (config.out / "circuits" / LESIONS).unlink()
    with pytest.raises(InputError, match="circuits"):  # not of own parts: they stay
        run.save_circuits(0.005)
    assert run.save_circuits(0.02).lesions is not None
    monkeypatch.setattr(
        "os.access", lambda *_: False
    )  # a finished run that can only be read
    before = contents(config.out)
    assert set(run.save_circuits(0.02)) == set(small)
    assert contents(config.out) == before
    row = part_overlaps(large).iloc[-1]
    a, b = (
        set(
            large[key]
            .scored_edges.strongest(3)
            .to_pandas()
            .iloc[:, :4]
            .itertuples(index=False, name=None)
        )
        for key in (
            (row["class_a"], row["domain_a"]),
            (row["class_b"], row["domain_b"]),
        )
    )
    assert a
    assert row["edges"] == pytest.approx(len(a & b) / len(a | b))
    assert (config.out / "report.html").is_file()


def test_python_finds_the_parts_of_the_command_without_being_told_the_scale(
    config: Any,
) -> None:
    run = OwnParts(config.clip(components=True), config.images(), config.out, config)
    run.run(QUIET)
    clip = load_clip("rn-tiny").in_components()
    weights = clip.text_weights(run.images.all_classes)
    by_command = run.circuits(0.02)
    assert len(by_command) > 3
    for key, part in by_command.items():
        own, others = (
            run.read(records) for records in (run.found_on[key], run.others(key))
        )
        metric = class_logit(weights, run.images.label(key[0]))
        task = Task(
            clip.encoder,
            own,
            metric,
            baseline=run.task(key, own, others).baseline,
            others=others,
            work=QUIET,
        )
        found = own_part(task, share=0.02)
        assert {site: sorted(units) for site, units in found.units.items()} == {
            site: sorted(units) for site, units in part.units.items()
        }
        assert (
            found.source.settings["scale"]
            == part.source.settings["scale"]
            == pytest.approx(14.585, abs=1e-3)
        )
    with pytest.raises(InputError, match=r"0\.005, 0\.02.*0\.03"):
        run.circuits(0.03)


def edited(path: Path) -> str:
    """Change a digit of a table; return a pattern of what is said of it."""
    *rows, last = path.read_text().splitlines()
    digit = re.search(r"\d(?=\D*$)", last)
    assert digit is not None
    last = last[: digit.start()] + str((int(digit[0]) + 1) % 10) + last[digit.end() :]
    path.write_text("\n".join([*rows, last, ""]))
    return rf"{path} is damaged or was edited.*again, which repairs it"


def test_what_was_edited_or_exchanged_in_a_folder_of_own_parts_is_refused(
    config: Any, tmp_path: Path
) -> None:
    command_module("own_parts").main(config)
    shutil.copytree(config.out, tmp_path / "run")
    config = replace(config, out=tmp_path / "run")
    finished, parts, circuits = (
        contents(config.out),
        config.out / "parts",
        config.out / "circuits",
    )
    explore = command_module("explore").Config(circuits=circuits, run=config.out)

    def opened() -> OwnParts:
        return OwnParts(
            config.clip(components=True), config.images(), config.out, config
        )

    told = edited(circuits / LESIONS)
    with pytest.raises(InputError, match=told):
        command_module("explore").main(explore)
    told = edited(parts / "lesioned" / "wave-0" / "car" / "real.csv")
    with pytest.raises(InputError, match=told):
        opened().lesions()
    one, other = (
        parts / "found" / name / "real.everywhere.safetensors"
        for name in ("car", "clock")
    )
    exchanged = other.read_bytes(), one.read_bytes()
    one.write_bytes(exchanged[0])
    other.write_bytes(exchanged[1])
    with pytest.raises(InputError, match=f"{one} is damaged or was edited"):
        opened().circuits()
    command_module("own_parts").main(config)
    assert contents(config.out) == finished


def test_depth_parts_the_sites_at_a_few_places(config: Any) -> None:
    run = OwnParts(
        config.clip(components=True),
        config.images(),
        config.out / "deep",
        replace(config, depth=True),
    )
    everywhere, *cut = run.sites.values()
    few = replace(config, sites=everywhere[2:4])
    assert OwnParts(run.clip, run.images, run.out, few).sites == {
        "everywhere": everywhere[2:4]
    }
    assert all(
        (*early, *late) == everywhere
        for early, late in zip(cut[::2], cut[1::2], strict=True)
    )
    shares = {half: [k.share for k in run.kinds if k.half == half] for half in (1, 2)}
    assert shares == {1: [0.005, *[0.02] * (1 + len(cut))], 2: [0.005, 0.02]}


def test_the_report_says_at_which_depth_and_draws_it() -> None:
    everywhere = lesions(0.5).assign(share=0.02, sites="everywhere")
    early, late = (everywhere.assign(sites=name) for name in ("up to a", "from b"))
    early.loc[early["part_class"] == early["class"], "right"] = 1.0
    random = pd.concat([everywhere, early, late])
    random = random.assign(cut="random", right=1.0, log_odds=5.0)
    tables = own_part_tables(
        pd.concat([everywhere, early, late, random]),
        OVERLAPS.assign(share=0.02, sites="everywhere"),
    )
    said = [finding.claim for finding in own_part_findings(tables)]
    assert said[0].startswith("Do classes have parts of their own? Yes")
    assert "style? Partly: of 2 classes and pairs of styles" in said[1]
    assert "by transfer overlapping parts 2; by units cannot be told 2" in said[1]
    assert "Units from b take the answers" in said[2]
    report = Report("Parts")
    add_own_parts(report, tables, ["a", "b"])
    assert len(report.plotly_figures) == 8


def test_one_part_in_two_styles_cannot_be_told_where_none_spares_the_others() -> None:
    found = [
        lesions(0.0, others=0.5).assign(share=0.02, sites="everywhere", cut=cut)
        for cut in ("part", "random")
    ]
    tables = own_part_tables(
        pd.concat(found), OVERLAPS.assign(share=0.02, sites="everywhere")
    )
    assert (
        "Cannot be told: of 2 classes and pairs of styles by transfer no own part 2"
        in own_part_findings(tables)[1].claim
    )


def test_lesions_of_classes_that_the_model_does_not_know_say_nothing() -> None:
    own = {
        "part_class": "cat",
        "class": "cat",
        "part_domain": "ink",
        "domain": "ink",
        "cut": "part",
    }
    table = pd.DataFrame([own | {"whole_right": 0.4, "right": 0.1}])
    assert lesion_summary(table).empty
    assert list(lesion_summary(table)) == list(
        lesion_summary(table.assign(whole_right=0.5))
    )


def test_a_folder_without_contrast_and_a_model_that_knows_no_class_are_refused(
    config: Any,
) -> None:
    table = lesions(0.0).assign(share=0.02, sites="everywhere", whole_right=0.2)
    with pytest.raises(InputError, match="50%"):
        own_part_tables(table, OVERLAPS.assign(share=0.02, sites="everywhere"))
    images = DomainFolder(config.data, classes=["car"], domains=["real"], split=None)
    with pytest.raises(InputError, match="contrast"):
        OwnParts(load_clip("rn-tiny"), images, config.out / "x")


def test_an_interval_of_shares_ends_at_one_unless_the_share_itself_is_above() -> None:
    part = {"part_domain": "a", "domain": "a", "cut": "part", "whole_right": 1.0}
    classes = ["x", "y", "z"]
    table = pd.DataFrame({**part, "part_class": classes, "class": classes})
    within = lesion_summary(table.assign(right=[0.4, 1.0, 1.0])).iloc[0]
    assert within["low"] < within["value"] < within["high"] == 1.0
    above = lesion_summary(table.assign(right=[1.0, 1.2, 1.4])).iloc[0]
    assert above["high"] > above["value"] > 1.0
