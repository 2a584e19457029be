"""The sampling design of lesions: the classes and domains on whose images each own part is tested.

The images of a class in a domain are a *cell*. Testing each part on each cell takes as many tests as the square of the
number of cells. So where there are many cells, each part is tested on a sample of them.

Does not import torch.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, product

import numpy as np

from circuitry.data.folds import Key


@dataclass(frozen=True, eq=False)
class LesionDesign:
    """Decide which own parts are tested on which cells.

    A part is tested on the cells of its own class in all domains, and on a sample of the cells of other classes. The
    sample is drawn by circles. For each domain of parts and each domain of cells, the seed puts the classes into a
    circle. A part is tested on the cells that follow its own class in the circle. So all cells test equally many parts,
    if every class has a cell in every domain.

    The sample grows in waves. Each wave doubles the number of other cells that a part was tested on, until the last
    wave completes all cells. If there are few cells, the first wave tests all of them.

    Example:
        >>> from circuitry.questions.lesion_design import LesionDesign
        >>> keys = [(name, "real") for name in ("clock", "cup", "car", "house")]
        >>> design = LesionDesign(keys, other_cells=2, seed=0)
        >>> design.others_by_wave
        (2, 3)
        >>> tests = design.parts_by_cell(wave=0)
        >>> len(tests["clock", "real"])
        3
    """

    keys: Sequence[Key]
    """The (class, domain) of each cell. Each cell also has an own part."""
    other_cells: int
    """Number of cells of other classes that test a part in the first wave. It is rounded up, so that each domain has
    equally many of these cells."""
    seed: int
    """Seed of the circles."""

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """The domains of all cells."""
        return tuple(dict.fromkeys(domain for _, domain in self.keys))

    @cached_property
    def others_by_wave(self) -> tuple[int, ...]:
        """For each wave, the number of cells of other classes in a domain that have tested a part after the wave."""
        n_classes = len({class_name for class_name, _ in self.keys})
        cells_of = [domain for _, domain in self.keys]
        # A class that has no cell in a domain is tested on all cells of the domain.
        most = max(min(cells_of.count(name), n_classes - 1) for name in self.domains)
        numbers = [-(-self.other_cells // len(self.domains))]
        while numbers[-1] < most:
            numbers.append(2 * numbers[-1])
        numbers[-1] = most
        return tuple(numbers)

    @property
    def n_waves(self) -> int:
        """The number of waves until each part is tested on all cells."""
        return len(self.others_by_wave)

    def parts_by_cell(self, wave: int) -> dict[Key, dict[Key, bool]]:
        """Return the parts that a wave tests on each cell, in the order of the keys.

        Args:
            wave: The number of the wave, from 0.

        Returns:
            By cell, a dictionary from each part to whether random units are also ablated on the cell, to compare the
            part with. If one wave tests all cells, they always are. Otherwise they are ablated on the cells of the
            part's own class, and on one other cell in each domain.
        """
        tests: dict[Key, dict[Key, bool]] = {cell: {} for cell in self.keys}
        before = self.others_by_wave[wave - 1] if wave else 0
        for part, domain in product(self.keys, self.domains):
            own_cell = (part[0], domain)
            if wave == 0 and own_cell in tests:
                tests[own_cell][part] = True
            following = self._following(part, domain, tests)
            new = islice(following, before, self.others_by_wave[wave])
            for place, cell in enumerate(new, before):
                tests[cell][part] = self.n_waves == 1 or place == 0
        return tests

    def pairs(self, n_waves: int) -> list[tuple[Key, Key]]:
        """Return the pairs of parts that are compared with each other after the first waves.

        These are the parts of one class, and each part with the parts of the cells that it was tested on. If each part
        was tested on all cells, these are all pairs.
        """
        places = {key: place for place, key in enumerate(self.keys)}
        chosen = set[tuple[int, int]]()
        for wave in range(n_waves):
            for cell, parts in self.parts_by_cell(wave).items():
                for part in parts:
                    if part != cell:
                        first = min(places[part], places[cell])
                        chosen.add((first, max(places[part], places[cell])))
        return [(self.keys[i], self.keys[j]) for i, j in sorted(chosen)]

    @cached_property
    def _circles(self) -> dict[tuple[str, str], list[str]]:
        """All classes in random order, by the domain of parts and the domain of cells."""
        classes = list(dict.fromkeys(class_name for class_name, _ in self.keys))
        rng = np.random.default_rng(self.seed)
        circles = dict[tuple[str, str], list[str]]()
        for pair in product(self.domains, self.domains):
            circles[pair] = [classes[i] for i in rng.permutation(len(classes))]
        return circles

    def _following(
        self, part: Key, domain: str, cells: Mapping[Key, object]
    ) -> Iterator[Key]:
        """Yield the cells of a domain that follow a part's class in the circle."""
        circle = self._circles[part[1], domain]
        own = circle.index(part[0])
        for other in circle[own + 1 :] + circle[:own]:
            if (other, domain) in cells:
                yield other, domain
