"""Label tables: classes found, and those of two data sets merged."""

import json

from experiments.study.supervised_model import merged_labels
from tests.conftest import shared

IMAGENET = ("n1", "n2", "n3", "n4")
DOMAINNET = ("aircraft_carrier", "axe", "lion")


def test_merged_by_hand() -> None:
    table = merged_labels(IMAGENET, DOMAINNET, {"aircraft carrier": [2], "axe": None, "lion": [0, 3]})
    assert table.classes == (*IMAGENET, *DOMAINNET)
    assert table.labels == {"n1": 6, "n2": 1, "n3": 4, "n4": 6, "aircraft_carrier": 4, "axe": 5, "lion": 6}


def test_the_studys_1345_outputs() -> None:
    partners = json.loads(shared("facts/domainnet_to_imagenet.json").read_text())
    imagenet = [f"n{i:08d}" for i in range(1000)]
    table = merged_labels(imagenet, sorted(partners), partners)
    assert len(table.classes) == len(table.labels) == 1345
    merged = [name for name in imagenet if table.labels[name] >= 1000]
    assert len(merged) == sum(len(indices or ()) for indices in partners.values())
    lions = {i for i, name in enumerate(imagenet) if table.labels[name] == table.labels["lion"]}
    assert lions == set(partners["lion"])
