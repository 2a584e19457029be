"""Laws of the sampling design of lesions, for any number of classes and domains, some of them without images."""

from collections import Counter
from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitry.data.folds import Key
from circuitry.questions.lesion_design import LesionDesign

KEYS = st.builds(
    lambda n_classes, n_domains: [
        (f"class{label}", f"domain{domain}")
        for label, domain in product(range(n_classes), range(n_domains))
    ],
    st.integers(2, 12),
    st.integers(1, 4),
)


def cells_of_parts(design: LesionDesign, wave: int) -> dict[Key, list[Key]]:
    cells: dict[Key, list[Key]] = {key: [] for key in design.keys}
    for cell, parts in design.parts_by_cell(wave).items():
        for part in parts:
            cells[part].append(cell)
    return cells


@settings(max_examples=20, deadline=None)
@given(keys=KEYS, other_cells=st.integers(1, 30), seed=st.integers(0, 99))
def test_parts_are_tested_on_their_class_everywhere_and_on_a_balanced_sample_of_others(
    keys: list[Key], other_cells: int, seed: int
) -> None:
    design = LesionDesign(keys, other_cells, seed)
    n_domains = len(design.domains)
    n_classes = len(keys) // n_domains
    before = 0
    for wave, n_others in enumerate(design.others_by_wave):
        for part, cells in cells_of_parts(design, wave).items():
            assert len(cells) == len(set(cells))
            own = [cell for cell in cells if cell[0] == part[0]]
            assert len(own) == (n_domains if wave == 0 else 0)
            others = Counter(domain for name, domain in cells if name != part[0])
            assert set(others.values()) <= {n_others - before}
        n_parts = [len(parts) for parts in design.parts_by_cell(wave).values()]
        assert len(set(n_parts)) == 1  # all cells are used equally often
        before = n_others
    assert design.others_by_wave[-1] == n_classes - 1
    first = design.others_by_wave[0]
    assert first == min(n_classes - 1, -(-other_cells // n_domains))
    assert all(np.diff(design.others_by_wave) > 0)


@settings(max_examples=20, deadline=None)
@given(
    keys=KEYS,
    other_cells=st.integers(1, 30),
    seed=st.integers(0, 99),
    left_out=st.sets(st.integers(0, 40), max_size=12),
)
def test_all_waves_together_test_each_part_on_each_cell_once_even_with_gaps(
    keys: list[Key], other_cells: int, seed: int, left_out: set[int]
) -> None:
    keys = [key for i, key in enumerate(keys) if i not in left_out] or keys
    design = LesionDesign(keys, other_cells, seed)
    tested = Counter[tuple[Key, Key]]()
    for wave in range(design.n_waves):
        for cell, parts in design.parts_by_cell(wave).items():
            assert list(parts) == [key for key in keys if key in parts]
            tested.update((part, cell) for part in parts)
    assert tested == Counter(product(keys, keys))
    assert design.pairs(design.n_waves) == [
        (a, b) for i, a in enumerate(keys) for b in keys[i + 1 :]
    ]
    again = LesionDesign(keys, other_cells, seed)
    assert all(
        design.parts_by_cell(i) == again.parts_by_cell(i) for i in range(design.n_waves)
    )


def test_few_cells_are_all_tested_at_once_and_always_beside_random_units() -> None:
    keys = list(product("abcd", ("real", "sketch")))
    design = LesionDesign(keys, other_cells=6, seed=0)
    assert design.others_by_wave == (3,)
    assert design.parts_by_cell(0) == {cell: dict.fromkeys(keys, True) for cell in keys}


def test_of_a_sample_random_units_are_tested_on_the_own_class_and_one_other_a_domain() -> (
    None
):
    keys = list(product("abcdefgh", ("real", "sketch")))
    design = LesionDesign(keys, other_cells=4, seed=0)
    assert design.others_by_wave == (2, 4, 7)
    beside = Counter[tuple[Key, str, bool]]()
    for cell, parts in design.parts_by_cell(0).items():
        for part, with_random in parts.items():
            if with_random:
                beside[part, cell[1], part[0] == cell[0]] += 1
    assert beside == Counter(product(keys, ("real", "sketch"), (True, False)))
    for wave in (1, 2):
        assert not any(
            any(parts.values()) for parts in design.parts_by_cell(wave).values()
        )
    other_seed = LesionDesign(keys, other_cells=4, seed=1)
    assert other_seed.parts_by_cell(0) != design.parts_by_cell(0)
    pairs = design.pairs(1)
    assert (("a", "real"), ("a", "sketch")) in pairs
    assert len(pairs) < len(keys) * (len(keys) - 1) / 2
