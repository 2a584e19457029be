"""The sheet of the strongest units shows those with the largest effects."""

from pathlib import Path

import numpy as np

from circuitry.reports.sections.units import SHOWN_UNITS, unit_report
from tests.explorer.made import MadeCards, make_graphs


def test_the_strongest_units_are_shown(tmp_path: Path) -> None:
    cards = MadeCards(make_graphs(tmp_path / "circuits", ("axe", "cat"), ("real", "sketch")))
    page = unit_report(cards).write(tmp_path / "report.html").read_text()
    graphs = cards.graphs
    sizes = {
        f"{site}/{unit}": max(abs(graphs[key].node_scores[site][unit]) for key in graphs)
        for site, unit in cards.units()
    }
    strongest = sorted(sizes, key=lambda name: -sizes[name])[:SHOWN_UNITS]
    places = [page.find(f"<td>{name}</td>") for name in strongest]
    assert min(places) > 0
    assert places == sorted(places)
    assert page.count('<img src="data:image/png') == 1
    assert "&lt;b&gt;stripes&lt;/b&gt;" in page
    assert np.abs(list(sizes.values())).max() == sizes[strongest[0]]
