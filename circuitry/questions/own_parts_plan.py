"""The plan of own parts: which own parts are found, on which images each is found and tested, and what that needs.

An own part is a set of units that a class needs and that other classes do not need. A lesion ablates these units. Where
there are enough images, the own part of a class in a domain is found twice, on two halves of its images (`Split`).
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from circuitry.circuits.edge_forwards import edge_forwards
from circuitry.circuits.methods import CONTRAST, method_code
from circuitry.circuits.own_part_of_class import own_part_forwards
from circuitry.circuits.unit_methods import Counts
from circuitry.comparison.lesion_reading import EVERYWHERE, wants_more_cells
from circuitry.comparison.table import read_named_table
from circuitry.data.domains import DomainFolder
from circuitry.data.folds import Key
from circuitry.data.splits import Records, Split
from circuitry.encoder.roles import counted_sites
from circuitry.interventions.ablated_units import lesion_forwards
from circuitry.interventions.finding_circuits import search_forwards
from circuitry.interventions.information import FEWEST_FITTED
from circuitry.interventions.intervention_settings import OwnPartSettings
from circuitry.models.clip import Clip
from circuitry.models.folder_work import FolderWork
from circuitry.questions.lesion_design import LesionDesign
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError
from circuitry.runs.jobs import Job, JobFolder, jobs_left
from circuitry.runs.manifest import NAME
from circuitry.runs.plan import Forwards, Step

OWN_PARTS_FORMAT = "circuitry own parts 4"
FOUND = "found"
LESIONED = "lesioned"
REFITTED = "refitted"
"""The kinds of jobs. ``found`` finds the own parts of a class in a domain. ``lesioned`` ablates own parts on the unseen
images of a class in a domain. ``refitted`` fits new heads to a model with the own parts of a class in a domain ablated,
to tell whether information is lost. The heads read the embeddings that the first wave of tests has stored."""
EMBEDDINGS_SUFFIX = ".safetensors"
"""Suffix of the files with embeddings of tests, which new heads read."""
SECOND_HALF = "second-half"
"""The folder of the parts that were found on the second half of the images. It lies in the folder of own parts."""
NAME_OF_SEARCH = {1: "own parts", 2: "own parts of the second half"}
"""Names of the steps of a plan and of progress bars, by the half of the images that parts are found on."""
N_DEPTHS = 5
"""The order of sites is divided into at most this many stretches for `OwnPartSettings.depth`."""

ROW_BYTES = 250
"""About how many bytes a row of a table of lesions takes."""


class PartKind(NamedTuple):
    """Kind of own parts. Each class in a domain has at most one part of each kind."""

    share: float
    """The share of the units that a part has."""
    sites: str
    """The name of an entry of `OwnPartsPlan.sites`."""
    half: int
    """The half of the images that parts were found on: 1 or 2."""


class OwnPartsPlan(FolderWork):
    """Choose the images, sites and tests of own parts, and say what the unfinished jobs need.

    `OwnParts` does the jobs.
    """

    settings: OwnPartSettings

    @checked
    def __init__(
        self,
        clip: Clip,
        images: DomainFolder,
        out: str | os.PathLike[str],
        settings: OwnPartSettings | None = None,
        split: Split | None = None,
    ) -> None:
        """Choose the images to find own parts on, and the images to test them on.

        Args:
            clip: The model.
            images: The images, by domain and class.
            out: The folder of own parts and tables.
            settings: How own parts are found and tested.
            split: The images used to find own parts and the images used to test them (default: chosen by number and
                seed of the settings).

        Raises:
            InputError: if no class can be tested. A class needs two images, in one domain or in two, and another class
                in the same domain.
        """
        settings = settings or OwnPartSettings()
        super().__init__(clip, images, settings, split)
        self.out = Path(out)
        self.found_on: dict[Key, Records] = {}
        self.second_half: dict[Key, Records] = {}
        self.unseen: dict[Key, Records] = {}
        self.fitting: dict[Key, Records] = {}
        n_tests = settings.n_tests or settings.n_images
        for domain in images.domains:
            for class_name in images.classes:
                key = (class_name, domain)
                self.found_on[key] = self.split.found_on(key)
                self.second_half[key] = ()
                if settings.second_half:
                    self.second_half[key] = self.split.found_on(key, 2)
                unseen = self.split.unseen(key, after_second_half=settings.second_half)
                self.unseen[key] = unseen[:n_tests]
                self.fitting[key] = unseen[n_tests : n_tests + settings.n_refit]
        self.keys = self._testable()
        self._tests_of_waves = dict[int, dict[Key, dict[Key, bool]]]()
        if not self.keys:
            raise InputError(
                "An own part is found by contrast with another class of the domain, on some images of the class, and "
                f"tested on others, but no class in {images.root} has two images, in one domain or in two, beside "
                "another class: give more classes, or more images."
            )

    def _testable(self) -> list[Key]:
        """Return each (class, domain) whose own part can be found there, and tested there or in another domain."""
        # Without images of other classes there is no contrast, so no own part can be found.
        contrasted = list[Key]()
        for key, records in self.found_on.items():
            if records and self.others(key):
                contrasted.append(key)
        n_domains = Counter(class_name for class_name, _ in contrasted)
        has_unseen = {key[0] for key in contrasted if self.unseen[key]}
        # A part is tested on unseen images of its class, or on images of the class in another domain.
        testable = list[Key]()
        for key in contrasted:
            if key[0] in has_unseen or n_domains[key[0]] > 1:
                testable.append(key)
        return testable

    def finds(self, key: Key, half: int) -> Records:
        """Return the images of a class in a domain on which its own part is found, of one half of its images."""
        return self.found_on[key] if half == 1 else self.second_half[key]

    def others(self, key: Key, half: int = 1) -> Records:
        """Return images of other classes in the domain that are used to find own parts on one half of the images.

        They are taken in turn: the first image of each class, then the second image of each class.
        """
        return self.split.others(key, self.settings.n_others, half=half)

    @cached_property
    def keys_by_half(self) -> dict[int, list[Key]]:
        """Each (class, domain) whose own part is found, by the half of the images that it is found on.

        There is no entry for the second half if no part is found on it.
        """
        again = [k for k in self.keys if self.second_half[k] and self.others(k, 2)]
        return {1: self.keys, 2: again} if again else {1: self.keys}

    @cached_property
    def sites(self) -> dict[str, tuple[str, ...]]:
        """A dictionary from a name to sites. Own parts are found separately among the units of each entry.

        One entry has all sites. If ``depth`` is set, the order of sites is divided at a few places, and each place adds
        two entries: the sites before the place, and the sites after it.
        """
        every = self.settings.sites or counted_sites(self.clip.encoder)
        sites = {EVERYWHERE: every}
        if self.settings.depth:
            # A set, because if there are few sites some cuts are the same. A cut before the first site is left out.
            cuts = {round(i * len(every) / N_DEPTHS) for i in range(1, N_DEPTHS)}
            for cut in sorted(cuts - {0}):
                sites[f"up to {every[cut - 1]}"] = every[:cut]
                sites[f"from {every[cut]}"] = every[cut:]
        return sites

    def sites_of(self, half: int) -> dict[str, tuple[str, ...]]:
        """Return the entries of `sites` among whose units parts are found on one half of the images.

        On the second half parts are found among the units of all sites only.
        """
        return self.sites if half == 1 else {EVERYWHERE: self.sites[EVERYWHERE]}

    @cached_property
    def kinds(self) -> list[PartKind]:
        """The kinds of own parts.

        Among the units of all sites, there is a part of each share. Among the units of only some sites, there is only a
        part of the largest share.
        """
        # Depth is tested at one share only, because each further share would add as many tests.
        *smaller, largest = sorted(set(self.settings.shares))
        kinds = list[PartKind]()
        for half in self.keys_by_half:
            kinds += [PartKind(share, EVERYWHERE, half) for share in smaller]
            kinds += [PartKind(largest, name, half) for name in self.sites_of(half)]
        return kinds

    @property
    def provenance(self) -> dict[str, Any]:
        """All settings and inputs that influence the results, except the images, in plain values."""
        return self.identity | {
            "n_others": self.settings.n_others,
            "second_half": self.settings.second_half,
            "n_tests": self.settings.n_tests,
            "n_refit": self.settings.n_refit,
            "method": self.settings.method,
            "random_draws": self.settings.random_draws,
            "other_cells": self.settings.other_cells,
            "depth": self.settings.depth,
            "shares": list(self.settings.shares),
            "method_code": method_code(self.settings.method),
            "sites": {name: list(sites) for name, sites in self.sites.items()},
        }

    @cached_property
    def design(self) -> LesionDesign:
        """The cells, each a class and a domain, on whose images each own part is tested."""
        return LesionDesign(self.keys, self.settings.other_cells, self.settings.seed)

    @cached_property
    def folder(self) -> JobFolder:
        """The folder of own parts. A folder that was made with other settings or images is refused.

        It contains a folder of tests for each wave (`wave`), and the folder of parts of the second half (`finding`).
        """
        records: dict[Key, Records] = {}
        for key in self.keys:
            records[key] = self.unseen[key] + self.fitting[key]
        for half, keys in self.keys_by_half.items():
            for key in keys:
                records[key] += self.finds(key, half) + self.others(key, half)
        return self.claim(
            self._path_of_parts,
            OWN_PARTS_FORMAT,
            self._jobs_of_search(1),
            records,
            **self.provenance,
        )

    def finding(self, half: int) -> JobFolder:
        """Return the folder of the parts that are found on one half of the images."""
        return self.folder if half == 1 else self._folder_of_second_half

    @cached_property
    def _folder_of_second_half(self) -> JobFolder:
        return JobFolder(
            self.folder.path / SECOND_HALF,
            OWN_PARTS_FORMAT,
            self.provenance,
            self._jobs_of_search(2),
        )

    def _jobs_of_search(self, half: int) -> list[Job]:
        return [(FOUND, *key) for key in self.keys_by_half[half]]

    @property
    def _jobs_of_tests(self) -> list[Job]:
        return [(LESIONED, *key) for key in self.keys]

    def wave(self, number: int) -> JobFolder:
        """Return the folder of a wave of tests; see `LesionDesign`. It lies in the folder of own parts.

        Args:
            number: The number of the wave, from 0.
        """
        # `folder` refuses parts of other settings or images, to which these tests would not belong.
        path = self.folder.path / LESIONED / f"wave-{number}"
        config = self.provenance | {"wave": number}
        return JobFolder(path, OWN_PARTS_FORMAT, config, self._jobs_of_tests)

    @cached_property
    def refitting(self) -> JobFolder:
        """The folder of what new heads read after lesions. It lies in the folder of own parts."""
        jobs = self._jobs_of_refit
        path = self.folder.path / REFITTED
        return JobFolder(path, OWN_PARTS_FORMAT, self.provenance, jobs)

    @property
    def _jobs_of_refit(self) -> list[Job]:
        return [(REFITTED, *key) for key in self.cells_of_refit]

    @cached_property
    def cells_of_refit(self) -> dict[Key, list[Key]]:
        """By part, the cells of its domain among which a new head tells classes apart: its own class and others.

        These are the cells of the first wave of tests that have enough images. A part is left out if its own class or
        all others have not.
        """
        cells: dict[Key, list[Key]] = {part: [] for part in self.keys}
        for cell, parts in self._tests(0).items():
            if self.unseen[cell] and len(self.fitting[cell]) >= FEWEST_FITTED:
                for part in parts:
                    if part[1] == cell[1]:
                        cells[part].append(cell)
        with_others = dict[Key, list[Key]]()
        for part, of_part in cells.items():
            if part in of_part and len(of_part) > 1:
                with_others[part] = of_part
        return with_others

    @property
    def _path_of_parts(self) -> Path:
        return self.out / "parts"

    def _path_of_wave(self, number: int) -> Path:
        return self._path_of_parts / LESIONED / f"wave-{number}"

    def steps(self) -> list[Step]:
        """Return what the unfinished jobs need, as steps of a `Plan`. A folder that is not there yet is not made.

        Of the waves of tests that are not begun only the next one is known, because the others depend on its results.
        """
        steps = list[Step]()
        for half in self.keys_by_half:
            path = self._path_of_parts
            if half == 2:
                path /= SECOND_HALF
            jobs = self._jobs_of_search(half)
            if left := jobs_left(path, jobs, partial(self.finding, half)):
                steps.append(self._step_of_search(half, left))
        n_begun = self._n_waves()
        for number in range(max(1, n_begun)):
            left = jobs_left(
                self._path_of_wave(number),
                self._jobs_of_tests,
                partial(self.wave, number),
            )
            if left:
                steps.append(self._step_of_tests(number, left))
        left = jobs_left(
            self._path_of_parts / REFITTED, self._jobs_of_refit, lambda: self.refitting
        )
        if left:
            steps.append(self._step_of_refit(left))
        if not steps and n_begun < self.design.n_waves:
            waves = list[pd.DataFrame]()
            for number in range(n_begun):
                waves += self._table_of(self.wave(number))
            if waves and wants_more_cells(waves):
                steps.append(self._step_of_tests(n_begun, self._jobs_of_tests))
        return [self.baseline_step(self.keys), *steps] if steps else []

    def _step_of_search(self, half: int, left: Sequence[Job]) -> Step:
        """Return what some jobs need that find parts on one half of the images."""
        forwards = Forwards()
        n_images = 0
        n_own = 0
        for _, class_name, domain in left:
            key = (class_name, domain)
            forwards += self._forwards_to_find(half, key)
            n_own += len(self.finds(key, half))
            n_images += len(self.finds(key, half)) + len(self.others(key, half))
        edges = edge_forwards(
            self.clip.encoder,
            self.sites[EVERYWHERE],
            max(self.settings.shares),
            round(n_own / len(left)),
        )
        forwards += edges * len(left)
        disk = len(left) * self._bytes_of_parts(half)
        return Step(NAME_OF_SEARCH[half], len(left), forwards, n_images, disk)

    def _step_of_tests(self, wave: int, left: Sequence[Job]) -> Step:
        """Return what some jobs of a wave of tests need."""
        forwards = Forwards()
        n_images = 0
        disk = 0
        for _, class_name, domain in left:
            key = (class_name, domain)
            forwards += self._forwards_to_test(wave, key)
            n_images += len(self._tested_on(key))
            disk += 2 * len(list(self._tested(wave, key))) * ROW_BYTES
            if wave == 0:
                disk += self._bytes_of_embeddings(key)
        name = f"lesions {wave + 1} of at most {self.design.n_waves}"
        return Step(name, len(left), forwards, n_images, disk)

    def _step_of_refit(self, left: Sequence[Job]) -> Step:
        """Return what some jobs need that fit new heads."""
        forwards = Forwards()
        n_images = 0
        for _, class_name, domain in left:
            part = (class_name, domain)
            forwards += self._forwards_to_refit(part)
            n_images += self._n_images_of_refit(part)
        n_rows = 2 * len(self.kinds) * sum(map(len, self.cells_of_refit.values()))
        return Step("new heads", len(left), forwards, n_images, n_rows * ROW_BYTES)

    def _n_images_of_refit(self, part: Key) -> int:
        return sum(len(self.fitting[cell]) for cell in self.cells_of_refit[part])

    def _forwards_to_refit(self, part: Key) -> Forwards:
        """Return what the lesions of a part run on the images that fit new heads."""
        n_images = self._n_images_of_refit(part)
        return lesion_forwards(n_images, self._n_lesions_of_part)

    @property
    def _n_lesions_of_part(self) -> int:
        """The number of lesions by which new heads are tested: of own parts of a class and of random units."""
        n_kinds = sum(kind.half == 1 for kind in self.kinds)
        return n_kinds * (1 + self.settings.random_draws)

    def _forwards_to_find(self, half: int, key: Key) -> Forwards:
        """Return what the search on one half of the images of a class in a domain runs, except for edges."""
        method = self.settings.method
        n_own = len(self.finds(key, half))
        n_others = len(self.others(key, half))
        forwards = Forwards()
        for sites in self.sites_of(half).values():
            if method == CONTRAST:
                share = max(self.settings.shares)
                forwards += own_part_forwards(n_own, n_others, share)
            else:
                n_units = sum(self._n_units[site] for site in sites)
                counts = Counts(n_own, n_others, len(sites), n_units)
                forwards += search_forwards(counts, method)
        return forwards

    def _forwards_to_test(self, wave: int, key: Key) -> Forwards:
        """Return what a wave of tests runs on the images of a class in a domain."""
        n_lesions = Counter[int]()
        for _, part, with_random in self._tested(wave, key):
            n_random = self.settings.random_draws if with_random else 0
            n_lesions[self._n_tested(part, key)] += 1 + n_random
        forwards = Forwards()
        for n_images, count in n_lesions.items():
            forwards += lesion_forwards(n_images, count)
        return forwards

    def _tested(self, wave: int, cell: Key) -> Iterator[tuple[PartKind, Key, bool]]:
        """Yield the own parts that a wave tests on the images of a class in a domain.

        Parts of the second half are tested on their own class only, and without random units: what other classes and
        random units lose is known from the parts of the first half.

        Args:
            wave: The number of the wave.
            cell: The class and domain of the images.

        Yields:
            The kind of a part, its class and domain, and whether random units are ablated, too. They always are on
            cells that a new head reads.
        """
        found_again = set(self.keys_by_half.get(2, ()))
        for kind in self.kinds:
            for part, with_random in self._tests(wave)[cell].items():
                if not self._may_test(part, cell):
                    continue
                if kind.half == 1:
                    is_read = wave == 0 and cell in self.cells_of_refit.get(part, ())
                    yield kind, part, with_random or is_read
                elif part in found_again and part[0] == cell[0]:
                    yield kind, part, False

    def _tests(self, wave: int) -> dict[Key, dict[Key, bool]]:
        """Return the tests of a wave; see `LesionDesign.parts_by_cell`.

        Those of the last wave that was asked for are kept, since there may be millions.
        """
        if wave not in self._tests_of_waves:
            self._tests_of_waves = {wave: self.design.parts_by_cell(wave)}
        return self._tests_of_waves[wave]

    @cached_property
    def _n_units(self) -> dict[str, int]:
        return self.clip.encoder.count_units(self.sites[EVERYWHERE])

    def _bytes_of_parts(self, half: int) -> int:
        """Return about how many bytes the own parts of a class in a domain take on disk: costs, ranks and edges."""
        n_units = sum(self._n_units.values())
        n_kept = max(self.settings.shares) * n_units
        return round(8 * (2 * n_units * len(self.sites_of(half)) + n_kept**2 / 2))

    def _bytes_of_embeddings(self, cell: Key) -> int:
        """Return how many bytes the embeddings take that new heads read of the images of a class in a domain."""
        n_images = 0
        for part in self._tests(0)[cell]:
            if cell in self.cells_of_refit.get(part, ()):
                n_images += self._n_tested(part, cell)
        embedding = self.clip.encoder.sites[-1]
        width = self.clip.encoder.count_units([embedding])[embedding]
        return 4 * width * n_images * (1 + self._n_lesions_of_part)

    def _n_waves(self) -> int:
        """Return the number of waves of tests that were begun."""
        n_waves = 0
        while (self._path_of_wave(n_waves) / NAME).is_file():
            n_waves += 1
        return n_waves

    @staticmethod
    def _table_of(wave: JobFolder) -> list[pd.DataFrame]:
        """Return the table of the jobs of a folder, as a list that is empty if no part could be tested."""
        # A job writes one table, or no file if no part could be tested.
        tables = list[pd.DataFrame]()
        for job in wave.jobs:
            for path in wave.files(job):
                if path.suffix != EMBEDDINGS_SUFFIX:
                    tables.append(read_named_table(path))
        return [pd.concat(tables, ignore_index=True)] if tables else []

    def _tested_on(self, key: Key) -> Records:
        """Return the images of a class in a domain that test own parts of this class."""
        return self.unseen[key] or self.found_on[key]

    def _n_tested(self, part: Key, cell: Key) -> int:
        """Return how many images of a class in a domain test a part.

        A part of another class is tested on the first images only, as many as find a part. It is tested on many other
        classes, so few images of each are enough.
        """
        n_images = len(self._tested_on(cell))
        return n_images if part[0] == cell[0] else min(n_images, self.settings.n_images)

    def _may_test(self, part: Key, key: Key) -> bool:
        """Return whether a part was found on other images than those that test it."""
        return part[1] != key[1] or bool(self.unseen[key])
