"""What domains share is read from tables of own parts and of transfer."""

from itertools import product

import pandas as pd
import pytest

from experiments.study import sharing


def test_own_parts_are_read_across_domains() -> None:
    cells = list(product(("real", "sketch"), ("part", "random")))
    lesions = pd.DataFrame(
        [
            {
                "part_class": c,
                "class": "key",
                "part_domain": source,
                "domain": "sketch",
                "cut": cut,
            }
            | {
                "whole_right": 0.8,
                "right": 0.1
                if source == "sketch"
                else 0.2
                if (cut, c) == ("part", "key")
                else 0.6,
            }
            for source, cut in cells
            for c in ("key", "car")
        ]
    )
    overlaps = pd.DataFrame(
        [
            ("key", "real", "key", "sketch", 0.3, 0.1, 0.2),
            ("key", "real", "car", "real", 0.9, 0.1, 0.9),
        ],
        columns=[
            "class_a",
            "domain_a",
            "class_b",
            "domain_b",
            "overlap",
            "chance",
            "edges",
        ],
    )

    rows = sharing.read_own_parts({"lesions": lesions, "overlaps": overlaps})
    values = {(what, domain): value for what, _, domain, value in rows}
    assert values["lesion", "sketch"] == pytest.approx(
        (1 - 0.2 / 0.8) - (1 - 0.6 / 0.8)
    )
    assert values["part", "real"] == values["part", "sketch"] == pytest.approx(0.2)
    assert values["edges", "sketch"] == pytest.approx(0.2)


def test_answers_kept_are_of_classes_that_the_model_knows() -> None:
    cells = {  # class, circuit's domain, images' domain: right answers of the circuit and of the model
        ("key", "real", "real"): (0.6, 0.8),
        ("key", "sketch", "real"): (0.2, 0.8),
        ("key", "sketch", "sketch"): (0.5, 0.2),  # the model does not know it
        ("key", "real", "sketch"): (0.5, 0.2),
        ("car", "real", "real"): (0.5, 0.5),
        ("car", "sketch", "real"): (0.5, 0.5),
    }
    rows = [(*cell, *right) for cell, right in cells.items()]
    columns = ["class", "circuit_domain", "image_domain", "accuracy", "full_accuracy"]
    found = {
        (what, domain): value
        for what, _, domain, value in sharing.read_transfer(
            pd.DataFrame(rows, columns=columns)
        )
    }
    assert found == pytest.approx(
        {("kept", "real"): (0.75 + 1) / 2, ("transfer", "real"): (0.25 + 1) / 2}
    )
