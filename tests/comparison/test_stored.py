"""A stored comparison comes back with every digit and name; a flipped byte in any of its files is noticed."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitry import Comparison, InputError
from tests.comparison.test_comparison import comparison, directed, values

NAMES = ["NA", "nan", "", "None", "1", "1e3", 'a "b", c', "ä\nö", "True", "=1+1", "'=1", "'a", "-1", "''@x"]


def named(name: str, value: float) -> Comparison:
    table = values((None,)).drop_duplicates(["domain_a", "domain_b"]).assign(**{"class": name}, value=value, p=0.1)
    return Comparison("x", table)


def assert_restored(made: Comparison, folder: Path) -> None:
    found = Comparison.load(folder)
    for name in (field.name for field in fields(made)):
        before, after = getattr(made, name), getattr(found, name)
        if isinstance(before, pd.DataFrame):
            pd.testing.assert_frame_equal(before.reset_index(drop=True), after, check_dtype=False, rtol=0, atol=0)
        else:
            assert before == after, name


@pytest.mark.parametrize(
    "made",
    [
        lambda: replace(comparison(), alike=False, chance_of="random features", left_out={"b": "few"}, seed=3),
        lambda: comparison((None,)),
        directed,
    ],
)
def test_what_is_saved_is_loaded_unless_a_byte_is_flipped(made: Callable[[], Comparison], tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "x"
    made().save(folder)
    assert_restored(made(), folder)
    rng = np.random.default_rng(0)
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        for place in rng.integers(0, len(content), 3):
            flipped = bytearray(content)
            flipped[place] ^= 1 << int(rng.integers(7))
            path.write_bytes(flipped)
            with pytest.raises(InputError, match=path.name):
                Comparison.load(folder)
        path.write_bytes(content)
    assert_restored(made(), folder)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(NAMES), st.floats(allow_nan=True))
def test_names_and_numbers_are_not_changed(tmp_path_factory: pytest.TempPathFactory, name: str, value: float) -> None:
    folder = tmp_path_factory.mktemp("stored")
    named(name, value).save(folder)
    assert_restored(named(name, value), folder)
