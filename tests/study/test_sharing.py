"""What domains share is read from tables of own parts, and from circuits that are kept in each domain."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from circuitry import AttributionGraph, Circuit, Encoder, Task, class_logit
from circuitry.encoder import Stage
from experiments.study import sharing
from tests.support.work import QUIET


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


def encoder() -> Encoder:
    """Input [B,3,1,1] = units of site `u`; embedding (u0 + u1, u2): class 0 is the first axis, class 1 the second."""
    stages = (
        Stage("u", lambda x: x.flatten(1), 1),
        Stage("embedding", lambda u: torch.stack([u[:, 0] + u[:, 1], u[:, 2]], 1), 1),
    )
    return Encoder(nn.Linear(1, 1), stages, (1, 1))


def circuit(*units: int) -> Circuit:
    scores = {"input": np.zeros(3), "u": np.zeros(3), "embedding": np.zeros(2)}
    kept = {
        "input": np.array([0]),
        "u": np.array(units),
        "embedding": np.array([0, 1]),
    }
    return AttributionGraph(tuple(scores), scores, {}, 1, kept_units=kept).circuit(None)


def task(*pixels: tuple[float, float, float], label: int = 0) -> Task:
    images: Tensor = torch.tensor(pixels)[:, :, None, None]
    return Task(encoder(), images, class_logit(torch.eye(2), label), work=QUIET)


def test_answers_kept_are_of_classes_that_the_model_knows() -> None:
    # A cat shows as u0 in photos and as u1 in sketches; u2 speaks for dogs. Of the sketches two of three are right.
    tasks = {
        ("cat", "photo"): task((4.0, 0.0, 3.0), (4.0, 0.0, 3.0)),
        ("cat", "sketch"): task((0.0, 4.0, 3.0), (1.0, 4.0, 0.0), (0.0, 3.0, 4.0)),
        ("dog", "photo"): task((4.0, 0.0, 3.0), label=1),  # the model does not know it
    }
    circuits = {
        ("cat", "photo"): circuit(0, 2),
        ("cat", "sketch"): circuit(1, 2),
        ("dog", "photo"): circuit(2),
    }
    found = {
        (what, domain): value
        for what, _, domain, value in sharing.kept_answers(tasks, circuits)
    }
    # The photos' circuit recognises the second sketch alone, one of the two that the model recognises.
    assert found == pytest.approx(
        {
            ("kept", "photo"): 1,
            ("kept", "sketch"): 1,
            ("transfer", "photo"): 0,
            ("transfer", "sketch"): 1 / 2,
        }
    )
