"""Tables of several networks: accuracy by style, and the order of pairs of styles."""

from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from experiments.real_networks import (
    accuracy,
    agreement,
    colours,
    depth,
    pairs_of_styles,
)


def test_accuracy_counts_each_class_once() -> None:
    seen = pd.DataFrame(
        {
            "domain": ["ink"] * 4,
            "class": ["cat", "cat", "cat", "dog"],
            "rank": [1, 2, 3, 1],
        }
    )
    (row,) = accuracy(seen).to_dict("records")
    assert row["value"] == pytest.approx((1 / 3 + 1) / 2)
    assert (row["n_classes"], row["n_images"], row["n_right"]) == (2, 4, 2)


def test_depth_tells_what_two_parts_share_of_the_units_of_a_stage() -> None:
    units = {"ink": ([0, 1], [2]), "oil": ([1, 3], [2])}
    parts = {
        ("cat", style): SimpleNamespace(
            units=dict(
                zip(
                    ("blocks.1.0.bn2", "blocks.1.1.bn2"), map(np.array, of), strict=True
                )
            )
        )
        for style, of in units.items()
    }
    run: Any = SimpleNamespace(circuits=lambda: parts)
    (row,) = depth(run).to_dict("records")
    assert (row["parts"], row["stage"], row["overlap"]) == (
        "one class in two styles",
        "blocks.1",
        2 / 4,
    )
    assert (row["units"], row["shared"], row["of_parts"]) == (6, 2, 1)


def test_pairs_of_styles_tell_overlaps_and_what_is_left_in_both_directions() -> None:
    keys = [(name, style) for style in ("ink", "oil") for name in ("cat", "dog")]
    shared = {
        ("cat", "cat"): 0.3,
        ("dog", "dog"): 0.1,
        ("cat", "dog"): 0.05,
        ("dog", "cat"): 0.15,
    }
    overlaps = [
        (*a, *b, shared.get((a[0], b[0]), 0.0)) for a, b in combinations(keys, 2)
    ]
    lesions = [
        (*a, *b, "part", 1.0, (0.4 if a[1] == "ink" else 0.2) if a[0] == b[0] else 1.0)
        for a in keys
        for b in keys
    ]
    columns = [
        "part_class",
        "part_domain",
        "class",
        "domain",
        "cut",
        "whole_right",
        "right",
    ]
    (row,) = pairs_of_styles(
        pd.DataFrame(lesions, columns=columns),
        pd.DataFrame(
            overlaps, columns=["class_a", "domain_a", "class_b", "domain_b", "overlap"]
        ),
    ).to_dict("records")
    assert (row["domain_a"], row["domain_b"], row["n_classes"]) == ("ink", "oil", 2)
    assert [row["one class"], row["two classes"], row["left"]] == pytest.approx(
        [0.2, 0.1, 0.3]
    )


def test_networks_agree_where_they_order_pairs_of_styles_alike() -> None:
    pairs = [{"domain_a": a, "domain_b": b} for a, b in combinations("abcd", 2)]
    rows = [
        {
            "model": model,
            **pair,
            "one class": sign * i,
            "two classes": i % 2,
            "left": i,
            "colours, 2 levels": i,
        }
        for model, sign in (("one", 1), ("other", -1))
        for i, pair in enumerate(pairs)
    ]
    found = agreement(pd.DataFrame(rows)).set_index(
        ["model", "what", "with_model", "with"]
    )["rho"]
    assert found["one", "one class", "other", "one class"] == pytest.approx(-1)
    assert found["one", "left", "other", "left"] == pytest.approx(1)
    assert found["other", "one class", "other", "colours, 2 levels"] == pytest.approx(
        -1
    )


def test_colours_are_of_the_images_that_found_parts(tmp_path: Path) -> None:
    found_on: dict[tuple[str, str], Any] = {}
    for style, colour in (("ink", "black"), ("oil", "black"), ("wax", "white")):
        path = tmp_path / f"{style}.png"
        Image.new("RGB", (4, 4), colour).save(path)
        found_on["cat", style] = [SimpleNamespace(path=path)]
    run: Any = SimpleNamespace(
        found_on=found_on, images=SimpleNamespace(domains=("ink", "oil", "wax"))
    )
    common = colours(run).set_index(["domain_a", "domain_b"])["colours, 2 levels"]
    assert (common["ink", "oil"], common["wax", "ink"], len(common)) == (1, 0, 6)
