"""What the explorer's files hold equals the circuits, comparisons, curves and cards that they were made of."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from circuitry import GraphFolder, compare_domains
from circuitry.cards import TopImages, UnitCard
from circuitry.circuits.budgets import strongest_units
from circuitry.circuits.consensus import find_consensus
from circuitry.explorer import (
    ExplorerSettings,
    ModelView,
    export_explorer,
    read_curves,
)
from circuitry.explorer.circuit_files import series_of
from circuitry.explorer.export import read_about
from circuitry.explorer.packing import pack_script
from circuitry.explorer.template import PAGE, VENDORED, page_modules, render_page
from circuitry.explorer.view_files import ClassVectors, ImageAnswers
from tests.circuits.test_measures import random_graph
from tests.explorer.made import (
    ATTACK,
    CLASSES,
    DOMAINS,
    INNER,
    UNITS,
    MadeCards,
    make_curve,
    unpack,
    write_alone,
)
from tests.support.assert_same import assert_same

THREE_DIGITS = 1e-3


def read(folder: Path, key: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    found, header, arrays = unpack(
        (folder / "data" / f"{key}.js").read_text(encoding="ascii")
    )
    assert found == key
    return header, arrays


def read_series(
    folder: Path, place: int, domain: str, fold: int | None = None
) -> dict[str, np.ndarray]:
    header, arrays = read(folder, f"class/{place}")
    at = next(
        i
        for i, one in enumerate(header["series"])
        if (one["domain"], one["fold"]) == (domain, fold)
    )
    return {name: arrays[f"{at}/{name}"] for name in header["series"][at]["arrays"]}


@pytest.mark.parametrize("fold", [None, 0, 1])
def test_series_hold_the_circuit(
    graphs: GraphFolder, exported: Path, fold: int | None
) -> None:
    graph = (
        graphs["cat", "sketch"] if fold is None else graphs.folds("cat", "sketch")[fold]
    )
    circuit = graph.circuit(3).graph
    found = read_series(exported, 1, "sketch", fold)
    sites = np.repeat(INNER, found["counts"])
    names = [f"{site}/{unit}" for site, unit in zip(sites, found["units"], strict=True)]
    assert set(names) == set(circuit.nodes)
    expected = np.array([circuit.nodes[name]["score"] for name in names])
    assert_same(found["scores"], expected, 0.1, rtol=THREE_DIGITS)
    edges = {}
    start = 0
    for name, into in zip(names, found["into"], strict=True):
        for k in range(start, start + into):
            edges[names[found["from"][k]], name] = found["weights"][k]
        assert (np.diff(found["weights"][start : start + into]) <= 0).all()
        start += into
    assert set(edges) == set(circuit.edges)
    weights = np.array([circuit.edges[edge]["weight"] for edge in edges])
    assert_same(
        np.array(list(edges.values())),
        weights,
        0.1,
        rtol=THREE_DIGITS if fold is None else 1 / 8,
    )


def test_the_strongest_units_of_a_series_are_those_of_a_smaller_circuit(
    graphs: GraphFolder,
) -> None:
    ranked = {
        site: 1 / scores for site, scores in graphs["cat", "sketch"].node_scores.items()
    }
    large, small = (strongest_units(ranked, share, "global") for share in (0.2, 0.1))
    graph = replace(
        graphs["cat", "sketch"], importance=ranked, kept_units=large, edge_scores={}
    )
    _, arrays, _ = series_of(graph.circuit(3), INNER, "")
    sites = np.repeat(INNER, arrays["counts"])
    expected = {(site, unit) for site in INNER for unit in small[site]}
    assert {
        (sites[place], arrays["units"][place])
        for place in arrays["order"][: len(expected)]
    } == expected


def test_series_hold_the_stability_of_the_circuit(
    graphs: GraphFolder, exported: Path
) -> None:
    folds = list(graphs.folds("cat", "real").values())
    expected = find_consensus(
        graphs["cat", "real"].circuit(3), folds, graphs.fold_edges("cat", "real")
    )
    found = read_series(exported, 1, "real")["unitStability"] / 255
    assert_same(
        found, np.concatenate([expected.units[site] for site in INNER]), 0.1, atol=0.002
    )


def test_sites_hold_effects_and_members(graphs: GraphFolder, exported: Path) -> None:
    header, arrays = read(exported, "site/1")
    keys = list(graphs)
    assert header["site"] == INNER[1]
    bits = np.unpackbits(arrays["members"], axis=1)[:, : len(keys)].astype(bool)
    for row, unit in enumerate(arrays["units"]):
        assert bits[row].tolist() == [
            unit in graphs[key].kept_units[INNER[1]] for key in keys
        ]
        scores = np.array([graphs[key].node_scores[INNER[1]][unit] for key in keys])
        close = arrays["effects"][row] / 31 * arrays["scale"][row]
        assert_same(close, scores, 0.01, atol=np.abs(scores).max() / 60)
    index, counts = read(exported, "index")
    assert counts["counts/1"][arrays["units"]].tolist() == bits.sum(1).tolist()
    assert counts["counts/1"].sum() == bits.sum()
    assert [site["units"] for site in index["sites"]] == [UNITS] * 3


def test_the_index_holds_comparisons_and_measured_cuts(
    graphs: GraphFolder, exported: Path
) -> None:
    index, _ = read(exported, "index")
    assert index["classes"] == list(CLASSES)
    assert index["domains"] == list(DOMAINS)
    comparison = compare_domains(graphs)["node_overlap"]
    found = next(
        one for one in index["comparisons"] if one["measure"] == "node_overlap"
    )
    matrix = comparison.matrix()
    ratios = comparison.ratios()
    for a, b, value in found["matrix"]:
        assert value == pytest.approx(matrix.loc[a, b], rel=1e-3)
    values = np.array(
        [row[2] for row in found["ratios"]], float
    )  # None, which JSON has for NaN, is NaN again
    assert values == pytest.approx(ratios["value"].to_numpy(), rel=1e-3, nan_ok=True)
    assert {row[1] for row in found["depth"]} == set(INNER)
    curve = index["curves"][f"{ATTACK}/real"]
    assert curve["verdicts"] == ["cannot be told"] * 3  # there is the metric alone
    # By hand: of the lead 1 - 0 over the baseline, 10 % of the units keep 0, 20 % keep a half.
    assert [row[0] for row in curve["selectivity"]["kept"]] == pytest.approx(
        [0, 0.5, 1], abs=1e-3
    )
    assert [row[0] for row in curve["faithfulness"]["random"]][:2] == pytest.approx(
        [0.015, 0.03], abs=1e-3
    )


def test_curves_of_other_cuts_are_left_out(graphs: GraphFolder, tmp_path: Path) -> None:
    settings = {**make_curve("cat", "real").settings, "sites": ["a"]}
    curves = [
        make_curve("cat", "real", settings=settings),
        make_curve("cat", "sketch", ranking="signed"),
    ]
    for curve, name in zip(curves, ("a", "b"), strict=True):
        curve.save(tmp_path / "curves" / "cat" / f"{name}.safetensors")
    export_explorer(graphs, tmp_path / "out", curves=read_curves(tmp_path / "curves"))
    assert read(tmp_path / "out", "index")[0]["curves"] == {}


@pytest.mark.parametrize(
    ("priced", "scored"),
    [({"price": 0.2}, "the class's log-odds"), ({}, "the metric (logit)")],
)
def test_scores_of_own_parts_are_in_log_odds(
    priced: dict[str, float], scored: str, tmp_path: Path
) -> None:
    graph = random_graph(0, "cat", "real", units=UNITS, fraction=0.2)
    by_contrast = graph.settings | {"method": "contrast"} | priced
    folder = write_alone(replace(graph, settings=by_contrast), tmp_path / "graphs")
    export_explorer(folder, tmp_path / "out")
    assert read(tmp_path / "out", "index")[0]["scored"] == scored


def test_cards_hold_images_heat_and_exact_effects(
    graphs: GraphFolder, exported: Path
) -> None:
    cards = MadeCards(graphs)
    header, arrays = read(exported, "cards/0")
    pictures = read(exported, "pictures")[0]["pictures"]
    unit = int(arrays["units"][0])
    card = cards.card(INNER[0], unit)
    shown = [pictures[number][0] for number in arrays["activation/pictures"][0, 1]]
    assert shown == list(card.top["activation"][DOMAINS[1]].ids)
    # Four bits of 0, 30, 60, 90 in steps of 17, two in a byte.
    assert arrays["activation/grid"].tolist() == [2, 2]
    assert arrays["activation/heat"][0, 0, 0].tolist() == [(0 << 4) | 1, (3 << 4) | 5]
    cells = arrays["exactCells"][: arrays["exactCounts"][0]]
    assert cells.tolist() == np.flatnonzero(card.kept.ravel()).tolist()
    exact = arrays["exactEffects"][: len(cells)]
    assert_same(exact[:, 1], -card.effects.ravel()[cells], 0.1, rtol=THREE_DIGITS)
    assert header["exact"] == ["zero", "mean"]
    for name in {row[0] for row in pictures}:
        assert (
            exported / "thumbnails" / f"{name}.webp"
        ).read_bytes() == cards.thumbnail(name)


class LastFirst(MadeCards):
    """The last images of a domain excite units most; the very last shows a thing that is in no other domain."""

    def __init__(self, graphs: GraphFolder) -> None:
        super().__init__(graphs)
        last = list(self.images)[-1]
        self.images[last] = self.images[last]._replace(item="alone")

    def card(self, site: str, unit: int) -> UnitCard:
        ids = {domain: self.activations(domain)[0][::-1] for domain in DOMAINS}
        top = {
            domain: TopImages(some, np.ones(len(some)), None)
            for domain, some in ids.items()
        }
        return replace(super().card(site, unit), top={"activation": top, "effect": top})


def test_the_same_thing_is_matched_in_every_domain(
    graphs: GraphFolder, tmp_path: Path
) -> None:
    cards = LastFirst(graphs)
    export_explorer(
        graphs, tmp_path, cards=cards, settings=ExplorerSettings(images_per_list=4)
    )
    pictures = read(tmp_path, "pictures")[0]["pictures"]
    (_, arrays) = read(tmp_path, "cards/1")
    numbers = arrays["matched/pictures"]
    values = arrays["matched/values"]
    none = 2**32 - 1
    assert numbers.shape == (len(arrays["units"]), len(DOMAINS), 4)
    _, cat, fish = CLASSES
    for k, thing in enumerate(
        [f"{cat}/2.png", f"{fish}/1.png", f"{cat}/1.png", f"{fish}/0.png"]
    ):  # of each in turn
        shown = [None if n == none else pictures[n][1] for n in numbers[3, :, k]]
        assert shown == [
            f"{d}/{thing}" if thing.startswith(cat) or d != DOMAINS[2] else None
            for d in DOMAINS
        ]
    column = cards.units().index((INNER[1], int(arrays["units"][3])))
    for j, domain in enumerate(DOMAINS):
        ids, table = cards.activations(domain)
        active = [
            0.0 if n == none else table[ids.index(pictures[n][0]), column]
            for n in numbers[3, j]
        ]
        assert_same(values[3, j], np.array(active), 1, rtol=THREE_DIGITS)


def test_held_out_images_say_how_strongly_units_fire(
    graphs: GraphFolder, exported: Path
) -> None:
    _, arrays = read(exported, "images/1")
    pictures = read(exported, "pictures")[0]["pictures"]
    names = [pictures[number] for number in arrays["pictures"]]
    assert [name[2:5] for name in names] == [
        ["cat", domain, False] for domain in DOMAINS
    ]
    cards = MadeCards(graphs)
    place = cards.units().index((INNER[arrays["sites"][0]], int(arrays["units"][0])))
    loudest = max(cards.activations(domain)[1][:, place].max() for domain in DOMAINS)
    ids, values = cards.activations(DOMAINS[0])
    assert arrays["fire"][0, 0] == round(
        15 * values[ids.index(names[0][0]), place] / loudest
    )


def test_units_may_have_more_edges_than_a_byte_counts(tmp_path: Path) -> None:
    graph = random_graph(3, "cat", "real", units=600, fraction=1.0)
    settings = ExplorerSettings(edges_per_node=600)
    export_explorer(
        write_alone(graph, tmp_path / "graphs"), tmp_path / "out", settings=settings
    )
    found = read_series(tmp_path / "out", 0, "real")
    circuit = graph.circuit(600).graph
    assert max(degree for _, degree in circuit.in_degree()) > 255
    assert found["into"].sum() == len(found["from"]) == circuit.number_of_edges()


def test_numbers_have_three_digits_to_a_small_share_of_the_largest() -> None:
    for largest in (0.51, 1.0):
        values = largest * np.geomspace(1 / 16_000, 1, 5000)
        _, _, arrays = unpack(pack_script("a", "b", {}, {"values": values}))
        assert_same(arrays["values"], values, 0.1, rtol=THREE_DIGITS)


def a_view(**changes: Any) -> ModelView:
    """Answers to one image of cats, and words."""
    answer = ImageAnswers(np.array([[1], [0], [1]]), np.array([[0.75], [0.5], [0.25]]))
    known: dict[str, Any] = {
        "class_names": CLASSES,
        "answers": {"sketch/cat/1.png": answer},
        "baseline": "mean-unit",
    }
    return ModelView(
        **(
            known
            | {"words": (), "texts": np.zeros((0, 0)), "direct": {}, "reason": "no"}
            | changes
        )
    )


def test_answers_are_those_of_each_image(graphs: GraphFolder, tmp_path: Path) -> None:
    export_explorer(graphs, tmp_path, cards=MadeCards(graphs), model=a_view())
    assert read(tmp_path, "index")[0]["ablatedTo"] == "mean-unit"
    _, arrays = read(tmp_path, "images/1")
    pictures = read(tmp_path, "pictures")[0]["pictures"]
    rows = {pictures[number][1]: row for row, number in enumerate(arrays["pictures"])}
    assert arrays["shares"][rows["sketch/cat/1.png"], :, 0].tolist() == [
        0.75,
        0.5,
        0.25,
    ]
    assert arrays["answers"][rows["sketch/cat/1.png"], :, 0].tolist() == [1, 0, 1]
    assert np.isnan(arrays["shares"][rows["real/cat/1.png"]]).all()


def test_the_digest_is_of_everything_that_is_shown(
    graphs: GraphFolder, tmp_path: Path
) -> None:
    values = compare_domains(graphs)["node_overlap"]
    answer = a_view().answers["sketch/cat/1.png"]
    texts = np.ones((1, 2))
    near = {"words": ("fur",)}
    words = {
        "texts": texts,
        "direct": {"cat": ClassVectors(("mlp",), ("real",), np.ones((1, 1, 2)))},
    }
    given: list[dict[str, Any]] = [
        *(
            {"curves": [make_curve("cat", "real", **full)]}
            for full in ({}, {"full": np.ones((1, 8))})
        ),
        *(
            {"comparisons": {"a": replace(values, values=table)}}
            for table in (values.values, values.values.assign(value=0.5))
        ),
        *(
            {
                "model": a_view(
                    answers={
                        "sketch/cat/1.png": answer._replace(shares=answer.shares / n)
                    }
                )
            }
            for n in (1, 2)
        ),
        *(
            {"model": a_view(**words | more)}
            for more in (near, {"words": ("fin",)}, near | {"texts": -texts})
        ),
    ]
    exports = set()
    for some in given:
        export_explorer(graphs, tmp_path, **some)
        exports.add(read_about(tmp_path)["export"])
    assert len(exports) == len(given)


def test_an_export_replaces_an_earlier_one_and_leaves_nothing_of_it(
    graphs: GraphFolder, tmp_path: Path
) -> None:
    export_explorer(graphs, tmp_path, cards=MadeCards(graphs))
    first = {path for path in tmp_path.rglob("*.*") if path.is_file()}
    written = export_explorer(graphs, tmp_path, settings=ExplorerSettings(twins=False))
    left = {path for path in tmp_path.rglob("*.*") if path.is_file()}
    assert {path.parent.name for path in first - left} == {
        "cards",
        "images",
        "thumbnails",
        "data",
    }
    assert sum(written.n_bytes.values()) == sum(
        p.stat().st_size for p in left if p.name != "manifest.json"
    )
    assert str(written).startswith(f"explorer: {tmp_path / 'index.html'} (")


def test_vendored_files_are_as_they_were_published() -> None:
    listed = (PAGE / "vendor" / "SHA256SUMS").read_text().splitlines()
    sums = {name: checksum for checksum, name in (line.split() for line in listed)}
    files = {file.name for file in (PAGE / "vendor").iterdir()} - {"SHA256SUMS"}
    assert set(sums) == files >= {*VENDORED.values(), "preact.LICENSE", "htm.LICENSE"}
    for name, checksum in sums.items():
        assert (
            hashlib.sha256((PAGE / "vendor" / name).read_bytes()).hexdigest()
            == checksum
        ), name


def test_names_are_data_and_never_markup() -> None:
    script = pack_script("a", "b", {"name": "</script><script>alert(1)\u2028"}, {})
    assert script.isascii()
    assert "<" not in script
    assert (
        json.loads(f"[{script[15:-3]}]")[1]["name"] == "</script><script>alert(1)\u2028"
    )
    page = render_page("</title><script>alert(1)</script>")
    assert "<script>" not in page
    nonce = page.split("'nonce-")[1].split("'")[0]
    assert (
        page.count(f'nonce="{nonce}"')
        == page.count("<script") + page.count("<style")
        == 3
    )


def test_code_imports_only_known_modules_and_never_sets_markup() -> None:
    modules = page_modules()
    setters = (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
    )
    for name, code in modules.items():
        if name.startswith("circuitry/"):
            imports = [
                line.split('"')[-2]
                for line in code.splitlines()
                if line.startswith("import ")
            ]
            assert set(imports) <= set(modules), name
            assert not any(word in code for word in (*setters, "dangerouslySet")), name
