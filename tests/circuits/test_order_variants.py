"""The order of the domains under other settings: cuts by hand, extractions against plain ones."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from circuitry import Clip, DomainFolder, GraphFolder, compare_domains, extract, left_rule
from circuitry.circuits import Extraction, ExtractionSettings
from circuitry.circuits.order_variants import extract_variants, order_stability, with_fraction
from circuitry.comparison.order_stability import mean_with_others
from circuitry.runs import Work
from tests.circuits.test_graph import small_graph

QUIET = Work(progress=False)
SETTINGS = ExtractionSettings(node_fraction=0.25, rule=left_rule(2), parts=2)


@pytest.fixture(scope="module")
def extraction(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Extraction:
    """A finished extraction of two classes in three domains."""
    folder, rng = tmp_path_factory.mktemp("order"), np.random.default_rng(0)
    for domain in ("clipart", "real", "sketch"):
        for name in ("axe", "cat"):
            (folder / "images" / domain / name).mkdir(parents=True)
            for i in range(2):
                pixels = rng.integers(0, 256, size=(32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "images" / domain / name / f"{i}.png")
    found = Extraction(clip, DomainFolder(folder / "images"), folder / "run", SETTINGS)
    found.run(QUIET)
    return found


def test_another_share_keeps_the_units_with_the_largest_scores() -> None:
    graph = small_graph()
    cut = with_fraction(graph, 0.5)
    for site, scores in graph.node_scores.items():
        n = int(np.ceil(len(scores) / 2))
        assert set(cut.kept_units[site]) == set(np.argsort(-np.abs(scores), kind="stable")[:n])
    assert cut.settings["node_fraction"] == 0.5
    assert not cut.edge_scores


def test_a_variant_has_the_scores_of_an_extraction_with_that_setting(extraction: Extraction, tmp_path: Path) -> None:
    variants = extract_variants(extraction, 1, QUIET)
    assert set(variants) == {
        ("baseline", "mean-position"),
        ("class texts", "own-style"),
        ("metric", "margin"),
        ("rule", "left-10"),
    }
    (name,) = {name for name, _ in variants["metric", "margin"]}
    plain = extract(
        extraction.clip,
        extraction.images,
        tmp_path / "margin",
        classes=[name],
        node_fraction=0.25,
        rule=left_rule(2),
        metric="margin",
        parts=2,
        work=QUIET,
    )
    for key, graph in variants["metric", "margin"].items():
        cut = with_fraction(graph, SETTINGS.node_fraction)
        for site in graph.node_scores:
            np.testing.assert_allclose(graph.node_scores[site], plain[key].node_scores[site], rtol=1e-4, atol=1e-7)
            assert list(cut.kept_units[site]) == list(plain[key].kept_units[site])
    assert extract_variants(extraction, 0) == {}


def test_orders_are_those_of_comparisons_by_hand(extraction: Extraction) -> None:
    graphs = GraphFolder(extraction.out)
    variants = extract_variants(extraction, 1, QUIET)
    found = order_stability(graphs, variants)
    table = found.table.set_index(["varied", "setting"])
    assert set(table.index.get_level_values(0)) == {
        *("default", "share of kept units", "images", "measure", "classes"),
        *("baseline", "class texts", "metric", "rule"),
    }
    default = compare_domains(graphs, measures=["node_overlap", "spearman"])
    means = [mean_with_others(one.matrix()) for one in default.values()]
    expected = means[0].rank().corr(means[1].rank())  # NaN where all are alike
    assert table["rho"]["measure", "spearman"] == pytest.approx(expected, nan_ok=True)
    assert table["least"]["default", ""] == means[0].idxmin()
    few = {key: graph for key, graph in graphs.items() if key in set(variants["metric", "margin"])}
    by_hand = compare_domains(few, measures=["node_overlap"])["node_overlap"]
    left = set(default["node_overlap"].left_out)
    over_sites = by_hand.values[~by_hand.values["site"].isin(left)].groupby(["domain_a", "domain_b"])["value"].mean()
    assert found.default.matrix().loc["clipart", "sketch"] == pytest.approx(over_sites["clipart", "sketch"])
    assert table["n_classes"]["metric", "margin"] == 1
    assert table["n_classes"]["default", ""] == 2
