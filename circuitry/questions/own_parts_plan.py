"""The plan of own parts: which own parts are found, on which images each is found and tested, and what that needs.

An own part is a set of units that a class needs and that other classes do not need. A lesion ablates these units.
"""

import os
from collections import Counter
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

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
from circuitry.interventions.finding_circuits import search_forwards
from circuitry.interventions.intervention_settings import OwnPartSettings
from circuitry.interventions.lesion_design import LesionDesign
from circuitry.interventions.lesions import lesion_forwards
from circuitry.models.clip import Clip
from circuitry.models.folder_work import FolderWork
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError
from circuitry.runs.jobs import Job, JobFolder, jobs_left
from circuitry.runs.manifest import NAME
from circuitry.runs.plan import Forwards, Step

OWN_PARTS_FORMAT = "circuitry own parts 2"
FOUND, LESIONED = "found", "lesioned"
"""The two kinds of jobs. ``found`` finds the own parts of a class in a domain. ``lesioned`` ablates own parts on the
unseen images of a class in a domain."""
N_DEPTHS = 5
"""The order of sites is divided into at most this many stretches for `OwnPartSettings.depth`."""

ROW_BYTES = 250
"""About how many bytes a row of a table of lesions takes."""


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
        self.unseen: dict[Key, Records] = {}
        for domain in images.domains:
            for class_name in images.classes:
                key = (class_name, domain)
                self.found_on[key] = self.split.found_on(key)
                self.unseen[key] = self.split.unseen(key, settings.n_images)
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

    def others(self, key: Key) -> Records:
        """Return images of other classes in the domain that are used to find own parts.

        They are taken in turn: the first image of each class, then the second image of each class.
        """
        return self.split.others(key, self.settings.n_others)

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

    @property
    def kinds(self) -> list[tuple[float, str]]:
        """The kinds of own parts: pairs of a share of the units, and a name of an entry of `sites`.

        Among the units of all sites, there is a part of each share. Among the units of only some sites, there is only a
        part of the largest share.
        """
        # Depth is tested at one share only, because each further share would add as many tests.
        *smaller, largest = sorted(set(self.settings.shares))
        everywhere = [(share, EVERYWHERE) for share in smaller]
        return everywhere + [(largest, name) for name in self.sites]

    @property
    def provenance(self) -> dict[str, Any]:
        """All settings and inputs that influence the results, except the images, in plain values."""
        return self.identity | {
            "n_others": self.settings.n_others,
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

        It contains a folder of tests for each wave (`wave`).
        """
        records: dict[Key, Records] = {}
        for key in self.keys:
            records[key] = self.found_on[key] + self.unseen[key] + self.others(key)
        return self.claim(
            self._path_of_parts,
            OWN_PARTS_FORMAT,
            self._jobs(FOUND),
            records,
            **self.provenance,
        )

    def _jobs(self, kind: str) -> list[Job]:
        return [(kind, *key) for key in self.keys]

    def wave(self, number: int) -> JobFolder:
        """Return the folder of a wave of tests; see `LesionDesign`. It lies in the folder of own parts.

        Args:
            number: The number of the wave, from 0.
        """
        # `folder` refuses parts of other settings or images, to which these tests would not belong.
        path = self.folder.path / LESIONED / f"wave-{number}"
        config = self.provenance | {"wave": number}
        return JobFolder(path, OWN_PARTS_FORMAT, config, self._jobs(LESIONED))

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
        path = self._path_of_parts
        left = jobs_left(path, self._jobs(FOUND), lambda: self.folder)
        if left:
            forwards = Forwards()
            n_images = 0
            encoder = self.clip.encoder
            largest = max(self.settings.shares)
            n_own = 0
            for _, class_name, domain in left:
                key = (class_name, domain)
                forwards += self._forwards_to_find(key)
                n_own += len(self.found_on[key])
                n_images += len(self.found_on[key]) + len(self.others(key))
            edges = edge_forwards(
                encoder, self.sites[EVERYWHERE], largest, round(n_own / len(left))
            )
            forwards += edges * len(left)
            disk = len(left) * self._bytes_of_parts
            steps.append(Step("own parts", len(left), forwards, n_images, disk))
        n_begun = self._n_waves()
        for number in range(max(1, n_begun)):
            left = jobs_left(
                self._path_of_wave(number),
                self._jobs(LESIONED),
                partial(self.wave, number),
            )
            if left:
                steps.append(self._step_of_tests(number, left))
        if not steps and n_begun < self.design.n_waves:
            waves = list[pd.DataFrame]()
            for number in range(n_begun):
                waves += self._table_of(self.wave(number))
            if waves and wants_more_cells(waves):
                steps.append(self._step_of_tests(n_begun, self._jobs(LESIONED)))
        return [self.baseline_step(self.keys), *steps] if steps else []

    def _step_of_tests(self, wave: int, left: Sequence[Job]) -> Step:
        """Return what some jobs of a wave of tests need."""
        forwards = Forwards()
        n_images = 0
        n_rows = 0
        for _, class_name, domain in left:
            key = (class_name, domain)
            forwards += self._forwards_to_test(wave, key)
            n_images += len(self._tested_on(key))
            n_rows += 2 * len(self.kinds) * len(self._tests(wave)[key])
        name = f"lesions {wave + 1} of at most {self.design.n_waves}"
        return Step(name, len(left), forwards, n_images, n_rows * ROW_BYTES)

    def _forwards_to_find(self, key: Key) -> Forwards:
        """Return what the search for the own parts of a class in a domain runs, except for edges."""
        method = self.settings.method
        n_own = len(self.found_on[key])
        n_others = len(self.others(key))
        forwards = Forwards()
        for sites in self.sites.values():
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
        n_lesions = 0
        for part, with_random in self._tests(wave)[key].items():
            if self._may_test(part, key):
                n_cuts = 1 + self.settings.random_draws if with_random else 1
                n_lesions += len(self.kinds) * n_cuts
        return lesion_forwards(len(self._tested_on(key)), n_lesions)

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

    @property
    def _bytes_of_parts(self) -> int:
        """About how many bytes the own parts of a class in a domain take: costs, ranks and edges."""
        n_units = sum(self._n_units.values())
        n_kept = max(self.settings.shares) * n_units
        return round(8 * (2 * n_units * len(self.sites) + n_kept**2 / 2))

    def _n_waves(self) -> int:
        """Return the number of waves of tests that were begun."""
        n_waves = 0
        while (self._path_of_wave(n_waves) / NAME).is_file():
            n_waves += 1
        return n_waves

    @staticmethod
    def _table_of(wave: JobFolder) -> list[pd.DataFrame]:
        """Return the table of a wave, as a list that is empty if no part could be tested."""
        # A job writes one table. It writes no file if no part could be tested.
        tables = list[pd.DataFrame]()
        for job in wave.jobs:
            tables += map(read_named_table, wave.files(job))
        return [pd.concat(tables, ignore_index=True)] if tables else []

    def _tested_on(self, key: Key) -> Records:
        return self.unseen[key] or self.found_on[key]

    def _may_test(self, part: Key, key: Key) -> bool:
        """Return whether a part was found on other images than those that test it."""
        return part[1] != key[1] or bool(self.unseen[key])
