"""Every circuit on a page of its own."""

from dataclasses import replace
from pathlib import Path

from circuitry.reports.circuit_pages import write_circuit_pages
from tests.circuits.test_graph import small_graph


def test_every_circuit_has_a_page_that_the_index_links(tmp_path: Path) -> None:
    graphs = {
        (name, domain): replace(small_graph(), class_name=name, domain=domain)
        for name, domain in (("alarm clock", "sketch"), ("alarm clock", "real"), ("axe", "real"))
    }
    index = write_circuit_pages(graphs, tmp_path / "circuits")
    text = index.read_text(encoding="utf-8")
    assert text.count("<td><a href=") == len(graphs)
    assert '<a href="../report.html">' in text
    assert 'href="alarm%20clock/sketch.html"' in text
    for name, domain in graphs:
        page = tmp_path / "circuits" / name / f"{domain}.html"
        assert f"{name} in {domain}" in page.read_text(encoding="utf-8")
        assert page.stat().st_size < 200_000
    assert (tmp_path / "circuits" / "plotly.min.js").stat().st_size > 10**6
