"""What notebooks show is a small frame that asks for nothing and runs nothing, whatever names hold."""

import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest

from circuitry import GraphFolder, compare_domains
from circuitry.comparison.comparison_sketch import sketch_matrix
from circuitry.runs import notebook_frame
from tests.circuits.test_measures import random_graph
from tests.explorer.made import ATTACK, INNER, MadeCards, make_graphs

IMAGE = "data:image/webp;base64,"
HOSTILE = f"{ATTACK}</title></style>'><script>alert(1)</script>"


class Tags(HTMLParser):
    """The tags and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def shown_in(value: Any) -> Tags:
    """The page within the one frame of a value; checked to ask for nothing and to run nothing."""
    outer = value if isinstance(value, str) else value._repr_html_()
    assert len(outer) < 1 << 20
    ((tag, attributes),) = Tags(outer).tags
    assert tag == "iframe"
    assert attributes["sandbox"] in (None, "")
    page = attributes["srcdoc"]
    assert page is not None
    found = Tags(page)
    policy = next(values["content"] for name, values in found.tags if name == "meta" and "http-equiv" in values)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "script" not in policy
    for name, values in found.tags:
        assert name not in ("script", "link", "iframe", "object", "a", "form", "base")
        assert not [key for key in values if key.startswith("on") or key in ("href", "srcset")]
        assert (values.get("src") or IMAGE).startswith(IMAGE)
    assert not re.search(r"url\(|@import|https?:", page)
    return found


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> GraphFolder:
    return make_graphs(tmp_path_factory.mktemp("framed") / "circuits")


def test_circuits_are_drawn(graphs: GraphFolder) -> None:
    circuit = graphs["cat", "real"].circuit(3)
    found = shown_in(circuit)
    names = [name for name, _ in found.tags]
    scores = np.array([node["score"] for _, node in circuit.graph.nodes(data=True)])
    assert names.count("circle") == (scores >= 0).sum()
    assert names.count("rect") == (scores < 0).sum()
    assert names.count("path") == circuit.graph.number_of_edges()
    assert all(site in found.text for site in INNER)
    assert repr(circuit) in found.text
    assert repr(graphs["cat", "real"]) in shown_in(graphs["cat", "real"]).text


def test_a_large_circuit_is_small_and_says_what_it_leaves_out() -> None:
    circuit = random_graph(0, "cat", "real", units=3000, fraction=0.5).circuit(3)
    found = shown_in(circuit)
    total = circuit.graph.number_of_edges()
    drawn = sum(name == "path" for name, _ in found.tags)
    assert drawn == 1500 < total
    assert f"1500 of {total} edges" in found.text


def test_cards_show_images_histograms_and_effects(graphs: GraphFolder) -> None:
    cards = MadeCards(graphs)
    unit = next(unit for _, unit in cards.units() if unit % 2 == 0)
    card = cards.card(INNER[0], unit)
    assert "img" not in [name for name, _ in shown_in(card).tags]
    object.__setattr__(card, "thumbnail", cards.thumbnail)
    found = shown_in(card)
    assert sum(name == "img" for name, _ in found.tags) == 2 * len(card.domains)
    bars = sum(name == "rect" for name, _ in found.tags)
    assert bars == (card.counts > 0).sum()
    strongest = card.effects.ravel()[np.nanargmax(np.abs(card.effects))]
    assert f"{strongest:.3g}" in found.text
    assert "“<b>stripes</b>" in found.text
    assert found.text.count("≠") > 1


def test_comparisons_show_matrix_and_ratios(graphs: GraphFolder) -> None:
    comparison = compare_domains(graphs)["node_overlap"]
    found = shown_in(comparison)
    matrix, ratios = comparison.matrix(), comparison.ratios()
    for value in matrix.to_numpy().ravel():
        assert ("–" if np.isnan(value) else f"{value:.3f}") in found.text
    assert all(f"{value:.2f}" in found.text for value in ratios["value"].dropna())
    assert "nan" not in found.text
    assert "<script>alert(2)<script>" in found.text  # a domain


@pytest.mark.parametrize(
    ("alike", "values", "shades"),
    [
        (True, (0.2, 0.6, np.nan), ["0.00", "0.50", "0.00"]),
        (False, (0.2, 0.6, np.nan), ["0.50", "0.00", "0.00"]),
        (False, (0.2, 0.2, np.nan), ["0.00", "0.00", "0.00"]),
    ],
)
def test_cells_are_darker_where_domains_are_more_alike(alike: bool, values: list[float], shades: list[str]) -> None:
    page = sketch_matrix(pd.DataFrame([values], ["real"], ["a", "b", "c"]), alike=alike)
    assert re.findall(r"rgba\(31,95,168,(.{4})\)", page) == shades


@pytest.mark.parametrize("name", [HOSTILE, ATTACK, "a & b &amp; \"c\" 'd'", "שלום\n"])
def test_titles_are_text(name: str) -> None:
    found = shown_in(notebook_frame(name, ""))
    assert name in found.text
    assert [tag for tag, _ in found.tags if tag in ("img", "b")] == []
