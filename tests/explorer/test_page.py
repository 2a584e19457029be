"""The page in a browser, from disk: what a reader does is seen in the table view and in the state."""

import csv
import io
import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from circuitry import GraphFolder, compare_domains
from circuitry.circuits.graph_folder import LESIONS
from circuitry.explorer import ExplorerSettings, export_explorer
from circuitry.explorer.view_files import ClassVectors
from circuitry.reports.figures.style import domain_marks
from tests.explorer.made import (
    ATTACK,
    DOMAINS,
    INNER,
    UNITS,
    MadeCards,
    write_alone,
)
from tests.explorer.reader import CAT, Reader
from tests.explorer.test_export import a_view
from tests.explorer.tracer_files import refusals
from tests.support.browser import find_browser

pytestmark = pytest.mark.skipif(
    find_browser() is None, reason="no Chromium or Chrome on this machine"
)


def kept(
    graphs: GraphFolder, domain: str, share: float = 0.2, class_name: str = "cat"
) -> set[str]:
    """The units of a cut, from the scores alone."""
    scores = {
        site: np.abs(graphs[class_name, domain].node_scores[site]) for site in INNER
    }
    most = int(np.ceil(round(share * UNITS, 9)))
    return {
        f"{site}/{unit}"
        for site, values in scores.items()
        for unit in np.argsort(-values)[:most]
    }


def test_a_cut_is_chosen_and_thresholded(reader: Reader, graphs: GraphFolder) -> None:
    reader.open()
    assert reader.state()["className"] == ATTACK
    reader.tab.select_option("#class", "cat")
    reader.tab.wait_for_selector(".page[data-loaded='cat']")
    real = kept(graphs, "real")
    sketch = kept(graphs, "sketch")
    table = reader.table()
    assert set(table) == real | sketch
    assert {
        name for name, cells in table.items() if cells[1] == "shared"
    } == real & sketch
    assert {
        name for name, cells in table.items() if cells[1] == "real only"
    } == real - sketch
    for name in real & sketch:
        site, unit = name.split("/")
        score = graphs["cat", "real"].node_scores[site][int(unit)]
        assert float(table[name][2].replace("−", "-")) == pytest.approx(score, rel=0.01)
    reader.tab.check("#shared")
    assert set(reader.table()) == real & sketch
    reader.tab.uncheck("#shared")
    assert "This cut, measured" in reader.tab.inner_text(".thiscut")
    assert ".50" in reader.tab.inner_text("#measured")
    reader.tab.evaluate(
        "const s = document.getElementById('share'); s.value = 0; s.dispatchEvent(new Event('input'))"
    )
    assert reader.state()["share"] == 0.1
    assert set(reader.table()) == kept(graphs, "real", 0.1) | kept(
        graphs, "sketch", 0.1
    )
    assert "no better than that of random circuits" in reader.tab.inner_text(
        "#measured"
    )
    reader.tab.focus("#edges")
    reader.press("ArrowLeft ArrowLeft ArrowLeft")
    assert reader.tab.inner_text("#edges-table caption") == "0 edges"


def test_hidden_sites_and_unstable_units_leave_the_table(
    reader: Reader, graphs: GraphFolder
) -> None:
    reader.open(**CAT)
    everything = reader.table()
    reader.tab.click(".sites summary")
    reader.tab.click(f".sites label:has-text('{INNER[0]}')")
    assert set(reader.table()) == {
        name for name in everything if not name.startswith(f"{INNER[0]}/")
    }
    reader.open(**CAT, stability=0.1)
    shares = {
        name: [s for s in cells[4].split(", ") if s != "–"]
        for name, cells in everything.items()
    }
    stable = {
        name
        for name, found in shares.items()
        if any(float(s.removesuffix(" %")) > 10 for s in found)
    }
    assert set(reader.table()) == stable
    assert 0 < len(stable) < len(everything)


def test_units_are_walked_pinned_grouped_noted_and_undone(reader: Reader) -> None:
    reader.open(**CAT)
    reader.press("] j p ] p")
    pins = reader.state()["pins"]
    assert [name.split("/")[0] for name in pins] == list(INNER[:2])
    assert reader.state()["selected"] == pins[1]
    reader.press("g")
    reader.tab.fill("#group-name", "edge & <corner>")
    reader.press("Enter")
    assert reader.state()["groups"] == [{"name": "edge & <corner>", "units": pins}]
    assert reader.state()["pins"] == []
    assert "edge & <corner>" in reader.tab.inner_text("#groups")
    reader.tab.fill("#note", "looks like <i>fins</i>")
    reader.tab.fill("#label", "fin")
    assert reader.state()["notes"] == {pins[1]: "looks like <i>fins</i>"}
    assert "looks like <i>fins</i>" in reader.tab.inner_text("#notes")
    assert reader.table()[pins[1]][0] == "fin"
    reader.tab.wait_for_url("**table**fins**")
    before = reader.state()
    reader.tab.reload()
    reader.wait()
    assert reader.state() == before
    reader.press("Escape p")
    reader.tab.click(f"#units tr[data-unit='{pins[0]}'] input")
    assert reader.state()["pins"] == [pins[0]]
    reader.tab.click("#undo")
    assert reader.state()["pins"] == []
    reader.press("Shift+Z")
    assert reader.state()["pins"] == [pins[0]]


def test_units_are_found_by_number_label_and_name(
    reader: Reader, graphs: GraphFolder
) -> None:
    reader.open(**CAT, labels={"a/0": "my unit"})
    reader.press("/")
    counts = {
        site: sum(1 for s, _ in MadeCards(graphs).units() if s == site)
        for site in INNER
    }
    reader.tab.fill("#search", f"{INNER[1]}/")
    assert f"{counts[INNER[1]]} units" in reader.tab.inner_text(".results")
    reader.tab.fill("#search", "<b>stripes</b>")
    first = reader.tab.inner_text("#results li:first-child")
    name = first.split()[0]
    members = sum(
        int(name.split("/")[1]) in graphs[key].kept_units[name.split("/")[0]]
        for key in graphs
    )
    assert f"in {members} of {len(graphs)} circuits" in first
    reader.press("Enter")
    assert reader.state()["selected"] == name


def test_a_card_shows_effects_images_and_neighbours(
    reader: Reader, graphs: GraphFolder
) -> None:
    circuit = graphs["cat", "real"].circuit(3).graph
    name = next(
        n
        for n in circuit
        if n.startswith(f"{INNER[1]}/")
        and circuit.in_degree(n)
        and circuit.out_degree(n)
    )
    reader.open(className="cat", domains=["real"], selected=name)
    reader.tab.wait_for_selector(".top img")
    card = reader.tab.inner_text(".card")
    assert f"strongest in ({circuit.in_degree(name)})" in card
    assert f"strongest out ({circuit.out_degree(name)})" in card
    assert reader.tab.locator(".effects rect").count() == len(graphs)
    assert reader.tab.locator(".top img").count() == 2 * len(DOMAINS)
    assert reader.tab.locator(".top img").first.get_attribute("alt")
    assert reader.tab.locator(".exact .differs").count() > 0
    strongest = max(circuit.in_edges(name, data="weight"), key=lambda edge: edge[2])[0]
    reader.tab.click(".neighbours button >> nth=0")
    assert reader.state()["selected"] == strongest


def test_twins_are_compared_on_two_folds(reader: Reader, graphs: GraphFolder) -> None:
    reader.open(**CAT)
    reader.tab.click(".twins button >> nth=0")
    folds = graphs.folds("cat", "real")
    units = [
        {(s, u) for s in INNER for u in folds[p].kept_units[s].tolist()} for p in (0, 1)
    ]
    shared = {name for name, cells in reader.table().items() if cells[1] == "shared"}
    assert shared == {f"{s}/{u}" for s, u in units[0] & units[1]}
    jaccard = len(units[0] & units[1]) / len(units[0] | units[1])
    shown = reader.tab.inner_text(".twins tbody tr:first-child td:nth-child(2)")
    assert float(shown) == pytest.approx(jaccard, abs=0.0051)


def test_the_ways_in_lead_to_a_pair_and_an_image_lights_units(reader: Reader) -> None:
    reader.open(className="cat", domains=["real"], measure="node_overlap")
    reader.tab.click(".matrix tbody tr:nth-child(1) td:nth-child(3) button")
    assert reader.state()["domains"] == ["real", "sketch"]
    reader.tab.click(".images button.pick >> nth=0")
    assert reader.state()["image"] is not None
    assert "Predictions were not exported" in reader.tab.inner_text(".images")


def test_what_is_seen_is_exported_with_how_far_to_trust_it(
    reader: Reader, graphs: GraphFolder
) -> None:
    reader.open(**CAT, most=0, pins=[], groups=[{"name": "=g", "units": ["a/1"]}])
    real, sketch = (
        graphs["cat", domain].circuit(3).graph for domain in ("real", "sketch")
    )
    lines = reader.export("edges.csv").splitlines()
    remarks = [line for line in lines if line.startswith("# ")]
    assert "Do not read it as a mechanism" in " ".join(
        remarks
    ) or "above that of random" in " ".join(remarks)
    rows = list(csv.DictReader(io.StringIO("\n".join(lines[len(remarks) :]))))
    found = {
        tuple(
            f"{row[f'{end}_site']}/{row[f'{end}_unit']}"
            for end in ("upstream", "downstream")
        )
        for row in rows
    }
    assert found == set(real.edges) | set(sketch.edges)
    graphml = ET.fromstring(reader.export("graphml"))
    space = {"g": "http://graphml.graphdrawing.org/xmlns"}
    assert {node.get("id") for node in graphml.iterfind(".//g:node", space)} == set(
        real
    ) | set(sketch)
    assert len(graphml.findall(".//g:edge", space)) == len(found)
    drawing = ET.fromstring(reader.export("svg"))
    marks = [e for e in drawing.iter() if e.tag.endswith(("circle", "polygon"))]
    assert len(marks) == len(set(real) | set(sketch))
    assert reader.export("png")[1:4] == "PNG"
    reader.open(
        **CAT
    )  # at first the 20 strongest units are drawn, and a pinned one besides
    weakest = min(
        set(real) | set(sketch),
        key=lambda name: max(
            abs(g.nodes[name]["score"]) for g in (real, sketch) if name in g
        ),
    )
    for pins, n, chosen in ([], 20, ""), ([weakest], 21, " and 1 chosen"):
        reader.open(**CAT, pins=pins)
        assert (
            f"The 20 strongest{chosen} of {len(marks)} units"
            in reader.tab.inner_text(".saw")
        )
        assert (
            sum(
                e.tag.endswith(("circle", "polygon"))
                for e in ET.fromstring(reader.export("svg")).iter()
            )
            == n
        )
    for hidden in ([], [INNER[0]]):
        reader.open(**CAT, hidden=hidden)
        remarks = [
            line
            for line in reader.export("units.csv").splitlines()
            if line.startswith("# ")
        ]
        assert any(INNER[0] in line and "hidden" in line for line in remarks) == bool(
            hidden
        )


@pytest.mark.parametrize("class_name", ["cat", ATTACK])
def test_the_page_writes_graphs_with_the_numbers_of_their_circuits(
    reader: Reader, graphs: GraphFolder, class_name: str
) -> None:
    domains = list(DOMAINS[:2])
    reader.open(className=class_name, domains=domains)
    files = [
        json.loads(text)
        for text in reader.exports("circuit-tracer.json", len(domains)).values()
    ]
    assert "2 files" in reader.tab.inner_text(".message[role=status]")
    cards = MadeCards(graphs)
    for domain, page in zip(domains, files, strict=True):
        assert refusals(page) == []
        told = page["metadata"]["info"]["description"]
        # Each file tells of its own circuit.
        assert all((f"{one}: " in told) == (one == domain) for one in domains)
        assert page["metadata"]["prompt"] == f"an image of {class_name} in {domain}"
        circuit = graphs[class_name, domain].circuit(3)
        labels = {node["node_id"]: node["clerp"] for node in page["nodes"][:-1]}
        names = {one: label.split()[0] for one, label in labels.items()}
        scores = {names[n["node_id"]]: n["score"] for n in page["nodes"][:-1]}
        # The page has three digits.
        expected = dict(circuit.graph.nodes(data="score"))
        assert scores == pytest.approx(expected, rel=1e-3)
        for one, label in labels.items():
            name = cards.card(*circuit_unit(names[one])).name
            assert label == names[one] + ("" if name is None else f" {name.name}")
        links = {
            (names[link["source"]], names.get(link["target"], "class")): link["weight"]
            for link in page["links"]
        }
        last = f"{circuit.source.sites[-1]}/"
        effects = {
            (unit, "class"): score
            for unit, score in expected.items()
            if unit.startswith(last)
        }
        edges = {(a, b): w for a, b, w in circuit.graph.edges(data="weight")}
        assert links == pytest.approx(edges | effects, rel=1e-3)
        ranked = sorted(scores, key=lambda unit: -abs(scores[unit]))
        pinned = {names.get(one, "class") for one in page["qParams"]["pinnedIds"]}
        assert pinned == {*ranked[:10], "class"}


def circuit_unit(name: str) -> tuple[str, int]:
    site, _, unit = name.rpartition("/")
    return site, int(unit)


def one_token(file: dict[str, Any]) -> None:
    file["metadata"]["prompt_tokens"] = ["cat"]


def at_the_first_token(file: dict[str, Any]) -> None:
    for node in file["nodes"]:
        node["ctx_idx"] = 0


SPOILT: dict[str, Callable[[dict[str, Any]], Any]] = {
    "threshold": lambda file: file["metadata"].update(node_threshold=None),
    "plain name": lambda file: file["metadata"].update(scan="hf-hub:timm/x"),
    "in quotes": lambda file: file["nodes"][-1].update(clerp="cat"),
    "most tokens": one_token,
    "token before": at_the_first_token,
    "weight": lambda file: file["links"][0].update(weight=None),
    "pinned": lambda file: file["qParams"].update(pinnedIds=["9_9_9"]),
}


@pytest.mark.parametrize("why", SPOILT)
def test_readers_refuse_what_the_explorer_wrote_before(
    reader: Reader, why: str
) -> None:
    reader.open(className="cat", domains=["real"])
    file = json.loads(reader.export("circuit-tracer.json"))
    SPOILT[why](file)
    assert why in " ".join(refusals(file))


def test_pins_and_groups_go_into_the_graph(reader: Reader, graphs: GraphFolder) -> None:
    units = [f"{site}/{graphs['cat', 'real'].kept_units[site][0]}" for site in INNER]
    group = {"name": "edge & <corner>", "units": units[1:]}
    reader.open(className="cat", domains=["real"], pins=units[:1], groups=[group])
    file = json.loads(reader.export("circuit-tracer.json"))
    ids = {node["clerp"].split()[0]: node["node_id"] for node in file["nodes"]}
    logit = file["nodes"][-1]["node_id"]
    assert file["qParams"]["pinnedIds"] == [ids[units[0]], logit]
    assert file["qParams"]["supernodes"] == [
        [group["name"], *(ids[unit] for unit in units[1:])]
    ]
    assert refusals(file) == []


def test_a_state_file_is_saved_and_dropped(reader: Reader) -> None:
    reader.open(**CAT, pins=["a/1"], notes={"a/1": "n"}, view="table")
    with reader.tab.expect_download() as download:
        reader.click_export("state")
    saved = Path(download.value.path()).read_text()
    before = reader.state()
    reader.open()
    assert "opened" in reader.drop(saved)
    assert reader.state() == before
    strange = json.loads(saved)
    strange["state"] |= {
        "domains": ["nowhere"],
        "pins": ["a/999"],
        "onload": "alert(3)",
    }
    message = reader.drop(json.dumps(strange))
    assert all(word in message for word in ("domains", "pins", "onload"))
    assert reader.state()["notes"] == {"a/1": "n"}
    assert "onload" not in reader.state()


def test_answers_are_shown_with_what_was_ablated(
    browser: Any, graphs: GraphFolder, tmp_path: Path
) -> None:
    distances = replace(compare_domains(graphs)["node_overlap"], alike=False)
    given: dict[str, Any] = {
        "cards": MadeCards(graphs),
        "model": a_view(),
        "comparisons": {"node_overlap": distances},
    }
    given["settings"] = ExplorerSettings(held_out_images=1)
    export_explorer(graphs, tmp_path, **given)
    reader = Reader(browser, tmp_path).open(**CAT, matrixOf="all")
    reader.tab.click(".images .of:nth-child(2) button.pick")
    table = reader.tab.wait_for_selector(".answers").inner_text()
    assert "mean-unit" in table
    assert "cat 75 %" in table
    reader.tab.click(".images .of:nth-child(1) button.pick")
    assert (
        "not asked"
        in reader.tab.wait_for_selector(".images .strip > .hint").inner_text()
    )
    shades = reader.tab.eval_on_selector_all(
        ".matrix .cell",
        "cells => cells.map(c => [c.textContent, c.style.getPropertyValue('--shade')])",
    )
    by_value = {float(text): float(shade) for text, shade in shades if text != "–"}
    assert by_value[min(by_value)] == 1
    assert by_value[max(by_value)] == 0
    reader.tab.context.close()


def test_own_parts_show_what_the_model_loses_without_them(
    browser: Any, graphs: GraphFolder, tmp_path: Path
) -> None:
    own_parts = GraphFolder(shutil.copytree(graphs.path, tmp_path / "circuits"))
    right = {
        ("cat", "real"): (0.0, 1.0),
        ("cat", "sketch"): (0.25, 0.75),
        ("=cmd|fish", "real"): (0.9, 1.0),
    }
    tested = right | {
        (ATTACK, "real"): (0.5, 1.0),
        ("=cmd|fish", "sketch"): (0.0, 0.0),
    }  # fish there is not known
    lesions = [
        ("cat", "real", *cell, cut, 5, 4, 0.0 if left == one == 0 else 1.0, value)
        for cell, (left, one) in tested.items()
        for cut, value in (("part", left), ("random", one))
    ]
    names = "part_class part_domain class domain cut n_units n_images whole_right right"
    pd.DataFrame(lesions, columns=names.split()).to_csv(
        own_parts.path / LESIONS, index=False
    )
    export_explorer(own_parts, tmp_path / "page")
    reader = Reader(browser, tmp_path / "page").open(**CAT)
    assert "own parts" in reader.tab.inner_text(".saw")
    rows = reader.tab.eval_on_selector_all(
        ".lost tbody tr", "rows => rows.map(r => r.innerText.split(/\\s+/).slice(-2))"
    )
    # cat; the two others, of which the page's own class loses more; their mean by style; and random units
    assert rows == [
        [".00", ".25"],
        [".50", "–"],
        [".90", "–"],
        [".70", "–"],
        ["1.00", ".75"],
    ]
    matrix = reader.tab.eval_on_selector_all(
        ".matrix td button", "cells => cells.map(c => c.textContent)"
    )
    assert matrix == [".00", ".25"]
    assert "mean of 1 class" in str(
        reader.tab.get_attribute(".matrix td button >> nth=0", "title")
    )
    reader.tab.context.close()


def test_a_pooling_pair_has_a_card_of_its_words(
    browser: Any, graphs: GraphFolder, tmp_path: Path
) -> None:
    pairs = ("head 0 x b/3", "head 1 x b/5")
    unit = "b/3"
    vectors = np.array(
        [[[0.5, 0.25], [0.125, 0.0]], [[-0.5, 0.125], [0.25, 0.0]]]
    )  # [domains, pairs, d]
    direct = {"cat": ClassVectors(pairs, DOMAINS[:2], vectors)}
    texts = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    export_explorer(
        graphs,
        tmp_path,
        model=a_view(
            words=("cat", "fur", "fin"), texts=texts, direct=direct, reason=""
        ),
    )
    reader = Reader(browser, tmp_path).open(**CAT)
    reader.tab.click(f"#direct button:has-text('{pairs[0]}')")
    rows = reader.tab.locator(".component tbody tr")
    found = [
        [cell.split(", ") for cell in rows.nth(i).locator("td").all_inner_texts()]
        for i in range(2)
    ]
    assert found[0] == [
        ["cat 0.5", "fur 0.25", "fin −0.5"],
        ["fin −0.5", "fur 0.25", "cat 0.5"],
    ]
    assert found[1] == [
        ["fin 0.5", "fur 0.13", "cat −0.5"],
        ["cat −0.5", "fur 0.13", "fin 0.5"],
    ]
    reader.tab.click(".component > button")
    assert reader.state()["selected"] == unit
    reader.tab.select_option("#class", ATTACK)
    reader.wait()
    assert reader.tab.locator(".component, #direct").count() == 0
    reader.tab.context.close()


def test_the_same_thing_is_shown_in_every_domain(reader: Reader) -> None:
    reader.open(**CAT)
    reader.press("]")
    reader.tab.select_option("#top-by", "matched")
    shown = [
        [
            text.rsplit("/", 1)[1]
            for text in of.locator("img").evaluate_all("all => all.map(one => one.alt)")
        ]
        for of in reader.tab.locator(".top .of").all()
    ]
    assert shown == [["0.png", "1.png"]] * len(DOMAINS)


@pytest.mark.parametrize("width", [390, 800, 1280, 1920])
def test_nothing_is_wider_than_the_screen(reader: Reader, width: int) -> None:
    reader.tab.set_viewport_size({"width": width, "height": 800})
    reader.open(**CAT)
    assert reader.tab.evaluate("document.documentElement.scrollWidth") <= width
    assert reader.tab.is_visible("nav.tabs") == (width <= 800)


def test_a_domain_keeps_its_mark_and_colour(reader: Reader) -> None:
    seen = []
    for domains in (["real", "sketch"], ["sketch"]):
        reader.open(className="cat", domains=domains)
        chip = reader.tab.locator("[aria-label=Domains] button:has-text('sketch')")
        seen.append(
            (
                chip.inner_text()[0],
                chip.evaluate("e => e.style.getPropertyValue('--line')").upper(),
            )
        )
    mark = domain_marks(DOMAINS)["sketch"]
    assert seen == [(mark.glyph, mark.colour.upper())] * 2  # as in the report


def test_ratios_have_ones_on_the_diagonal_and_tables_are_sorted(reader: Reader) -> None:
    reader.open(**CAT, measure="node_overlap", matrixOf="ratio")
    assert reader.tab.inner_text(".matrix .ceiling >> nth=0") == "1.00"
    numbers = (
        [abs(float(cell.strip("–−") or 0)) for cell in cells[2:4]]
        for cells in reader.table().values()
    )
    sizes = [max(both) for both in numbers]
    assert sizes == sorted(sizes, reverse=True)
    reader.tab.click("#units th:first-child button")
    assert list(reader.table()) == sorted(
        reader.table(), key=lambda name: (name[0], int(name[2:]))
    )
    assert reader.tab.get_attribute("#units th:first-child", "aria-sort") == "ascending"


def test_a_card_begins_with_images_which_a_click_enlarges(reader: Reader) -> None:
    reader.open(**CAT)
    reader.press("]")
    reader.tab.wait_for_selector(".top img")
    titles = reader.tab.locator(".card h3").all_inner_texts()
    assert (
        titles.index("Top images")
        < titles.index("Effect on the metric (logit)")
        < titles.index("Activations")
    )
    reader.tab.click(".top button.zoom >> nth=0")
    assert "activation" in reader.tab.inner_text("dialog.enlarged")
    reader.press("Escape")
    reader.tab.wait_for_selector("dialog", state="detached")
    assert reader.state()["selected"] is not None


def test_what_is_missing_is_said(reader: Reader) -> None:
    reader.open(**CAT)
    for key, word in ("g", "none is pinned"), ("n", "none is chosen"):
        reader.press(key)
        assert word in reader.tab.inner_text(".message[role=status]")
    reader.open(className="dgo", selected="a/999")
    assert all(
        word in reader.tab.inner_text(".message[role=status]")
        for word in ("class “dgo”", "unit “a/999”")
    )
    reader.open(**CAT)
    reader.tab.evaluate(
        "location.hash = encodeURIComponent(JSON.stringify({className: 'dgo'}))"
    )
    assert "class “dgo”" in reader.tab.inner_text(".message[role=status]")
    reader.press("] p g")
    reader.tab.click("#view-rows")
    assert reader.tab.evaluate("document.activeElement.id") == "view-rows"


def test_a_circuit_without_edges_and_parts_is_drawn(
    browser: Any, graphs: GraphFolder, tmp_path: Path
) -> None:
    source = graphs["cat", "real"]
    export_explorer(
        write_alone(replace(source, edge_scores={}), tmp_path / "circuits"),
        tmp_path / "explorer",
    )
    reader = Reader(browser, tmp_path / "explorer").open()
    n = sum(len(source.kept_units[site]) for site in INNER)
    assert f"All {n} units of the circuit of cat in real" in reader.tab.inner_text(
        ".saw"
    )
    drawing = ET.fromstring(reader.export("svg"))
    sizes = {
        float(mark.get("r", 0))
        for mark in drawing.iter()
        if mark.tag.endswith("circle")
    }
    assert len(sizes) > n / 2  # by effect
    assert len(reader.table()) == n
    assert reader.complaints == []
    reader.tab.context.close()
