"""The own part of every class in every domain of a data set, and what the model loses without each own part.

An own part is a set of units that a class needs and that other classes do not need. A lesion ablates these units.
"""

import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor

from circuitry.circuits.budgets import GLOBAL
from circuitry.circuits.edge_forwards import edge_forwards
from circuitry.circuits.edge_methods import with_edges
from circuitry.circuits.found_on import count_seen
from circuitry.circuits.graph import PIXELS, AttributionGraph, Circuit, Scores
from circuitry.circuits.graph_folder import LESIONS, GraphFolder
from circuitry.circuits.methods import CONTRAST, METHODS, method_code
from circuitry.circuits.own_part_of_class import own_part, own_part_forwards
from circuitry.circuits.unit_methods import Counts
from circuitry.comparison.lesion_reading import EVERYWHERE, wants_more_cells
from circuitry.comparison.table import read_named_table, write_named_table
from circuitry.data.domains import DomainFolder
from circuitry.data.folds import Key
from circuitry.data.splits import Records, Split
from circuitry.encoder.roles import counted_sites
from circuitry.encoder.task import Task, at_model_scale
from circuitry.interventions.ablated_units import (
    Ablated,
    ablations,
    lesion_forwards,
    lesioned_embeddings,
)
from circuitry.interventions.faithfulness import draw_random
from circuitry.interventions.finding_circuits import find_circuit, search_forwards
from circuitry.interventions.intervention_settings import OwnPartSettings
from circuitry.interventions.lesion_design import LesionDesign
from circuitry.interventions.lesions import lesion_cell
from circuitry.interventions.overlaps_of_parts import part_overlaps
from circuitry.models.clip import Clip
from circuitry.models.folder_work import FolderWork
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError
from circuitry.runs.jobs import Job, JobFolder, jobs_left
from circuitry.runs.manifest import NAME
from circuitry.runs.plan import Forwards, Step
from circuitry.runs.workers import Work

OWN_PARTS_FORMAT = "circuitry own parts 2"
FOUND, LESIONED = "found", "lesioned"
"""The two kinds of jobs. ``found`` finds the own parts of a class in a domain. ``lesioned`` ablates own parts on the
unseen images of a class in a domain."""
N_DEPTHS = 5
"""The order of sites is divided into at most this many stretches for `OwnPartSettings.depth`."""

ROW_BYTES = 250
"""About how many bytes a row of a table of lesions takes."""

log = logging.getLogger(__name__)


class OwnParts(FolderWork):
    """The own parts of a model's classes by domain, found on some images and tested on other images.

    An own part is a set of units that a class needs and that other classes do not need.

    Example:
        >>> from circuitry.interventions import OwnPartSettings
        >>> from circuitry.questions import OwnParts
        >>> settings = OwnPartSettings(n_images=2, shares=(0.02,))
        >>> photos = circuitry.DomainFolder("DomainNet", classes=("clock", "cup"), domains=("real",))
        >>> parts = OwnParts(clip, photos, "runs/own", settings)
        >>> tables = parts.run()
        >>> lesion_matrix(tables["lesions"])
        >>> parts.circuits(0.02)["clock", "real"]
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

    def run(self, work: Work = Work()) -> dict[str, pd.DataFrame]:
        """Find and test the own parts. Jobs that are finished are not repeated: their results are read.

        A warning names each class that the model does not know in a domain.

        Returns:
            Two tables. ``lesions`` is a table of `lesion` and ``overlaps`` is a table of `part_overlaps`, both with the
            additional columns share and sites. If each part is tested on a sample of the other classes, the overlaps
            are of parts of one class, and of each part with the parts of the sample.
        """
        lesions = self._joined(self.find_and_test(work))
        pairs = self.design.pairs(self._n_waves())
        overlaps = []
        for share, sites in self.kinds:
            table = part_overlaps(self._parts(share, sites), pairs)
            overlaps.append(table.assign(share=share, sites=sites))
        return {
            "lesions": lesions,
            "overlaps": pd.concat(overlaps, ignore_index=True),
        }

    def find_and_test(self, work: Work = Work()) -> list[pd.DataFrame]:
        """Do the unfinished jobs, together with other processes, until all own parts are found and tested.

        Returns:
            The table of each wave of tests. There is none if the model recognises no class.
        """
        # All parts are found before the first test, because a test needs the parts of many classes.
        find = partial(self._find, work=work)
        self._do(
            self.folder,
            "own parts",
            self._images_that_find,
            find,
            self._forwards_to_find,
            work,
        )
        waves = list[pd.DataFrame]()
        for number in range(self.design.n_waves):
            test = partial(self._test, number, self._tests(number), work=work)
            forwards = partial(self._forwards_to_test, number)
            wave = self.wave(number)
            name = f"lesions {number + 1}"
            self._do(wave, name, self._images_that_test, test, forwards, work)
            waves += self._table_of(wave)
            # All processes read the same tables, so they decide alike whether there is another wave.
            if not waves or not wants_more_cells(waves):
                break
        return waves

    def _do(
        self,
        folder: JobFolder,
        name: str,
        read: Callable[[Key, Work], Any],
        do: Callable[[Key, Any], list[Path]],
        forwards: Callable[[Key], Forwards],
        work: Work,
    ) -> None:
        """Do the unfinished jobs of a folder, together with other processes.

        Args:
            folder: The folder.
            name: The name of the progress bar.
            read: A function that reads the images of a (class, domain).
            do: A function that does the job with these images, and returns the paths of its files.
            forwards: A function that returns what the job runs.
            work: How the work is carried out, such as the rank of this process.
        """
        folder.run(
            lambda job, images: do((job[1], job[2]), images),
            prepare=lambda job: read((job[1], job[2]), work),
            rank=work.rank,
            sizes={job: forwards((job[1], job[2])).count for job in folder.jobs},
            progress=work.bar(name),
            unit="forward",
        )

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

    def lesions(self) -> pd.DataFrame:
        """Return the tables of `lesion` of all finished tests, joined, with the additional columns share and sites.

        Raises:
            InputError: if the model recognises no class, so that there is no own part to test.
        """
        waves = list[pd.DataFrame]()
        # Without any wave the first one says that it is not done.
        for number in range(max(1, self._n_waves())):
            waves += self._table_of(self.wave(number))
        return self._joined(waves)

    def _joined(self, waves: Sequence[pd.DataFrame]) -> pd.DataFrame:
        """Return the tables of all waves as one table, or raise `InputError` if there are none."""
        if not waves:
            raise InputError(
                f"{self.clip.name} recognises no class of {self.images.root} on the images that parts are found on, so "
                "there is no part to test: see the warnings above. Give classes that it knows (circuitry evaluate has "
                "them in tables/accuracy_by_class.csv), other texts, or a linear probe in place of texts."
            )
        return pd.concat(waves, ignore_index=True)

    def circuits(self, share: float | None = None) -> Mapping[Key, Circuit]:
        """Return the own parts of one share by (class, domain). Each is read from its file at each access.

        Args:
            share: The share (default: the largest share of the settings).

        Raises:
            InputError: for a share that is not among the shares of the settings.
        """
        if share is None:
            share = max(self.settings.shares)
        if share not in self.settings.shares:
            raise InputError(
                f"Expected one of the shares {', '.join(map(str, self.settings.shares))} of the units, but "
                f"{share} was given: give one of these, or make another OwnParts with it among its shares."
            )
        return self._parts(share, EVERYWHERE)

    def save_circuits(
        self, share: float | None = None, told: pd.DataFrame | None = None
    ) -> GraphFolder:
        """Write the own parts of one share into a folder of circuits, and return the folder.

        Cards, the explorer and checks can read the folder. It also holds the lesions of these parts as a table, which
        the explorer shows.

        Args:
            share: The share (default: the largest share of the settings).
            told: The table of lesions to store (default: all rows of `lesions`). Only rows of this share and of parts
                at all sites are stored.
        """
        if share is None:
            share = max(self.settings.shares)
        parts = self.circuits(share)
        tested = self.lesions() if told is None else told
        path = self.out / "circuits"
        if not os.access(self.out, os.W_OK):  # a finished run in a read-only folder
            return GraphFolder(path)
        images = {key: self.found_on[key] + self.others(key) for key in parts}
        identity = self.identity | {
            "n_others": self.settings.n_others,
            "method": self.settings.method,
        }
        try:
            folder = GraphFolder.write(path, parts, identity, images)
        except InputError:
            if not (path / LESIONS).is_file():  # the folder holds other circuits
                raise
            # The folder holds own parts of another share, which can be written again.
            shutil.rmtree(path)
            folder = GraphFolder.write(path, parts, identity, images)
        of_share = tested[(tested["share"] == share) & (tested["sites"] == EVERYWHERE)]
        folder.write_lesions(of_share.drop(columns="sites"))
        return folder

    def _images_that_find(self, key: Key, work: Work) -> tuple[Tensor, Tensor] | None:
        """Return images of the class and of other classes, used to find its own part; None if either set is empty."""
        own = self.read(self.found_on[key], strict=work.strict)
        others = self.read(self.others(key), strict=work.strict)
        if len(own) and len(others):
            return own, others
        self._leave_out(key)
        return None

    def _images_that_test(self, key: Key, work: Work) -> Tensor | None:
        """Return images of a class in a domain to test own parts on; None if no image can be read.

        These are unseen images. If the class has no unseen images in this domain, the images that were used to find its
        own part in this domain are returned. They can test only the own parts that were found in other domains.
        """
        own = self.read(self._tested_on(key), strict=work.strict)
        if len(own):
            return own
        self._leave_out(key)
        return None

    def _tested_on(self, key: Key) -> Records:
        return self.unseen[key] or self.found_on[key]

    def _may_test(self, part: Key, key: Key) -> bool:
        """Return whether a part was found on other images than those that test it."""
        return part[1] != key[1] or bool(self.unseen[key])

    def _leave_out(self, key: Key) -> None:
        log.warning(
            "%s in %s: no image, or none of another class, can be read: it is left out",
            *key,
        )

    def _find(self, key: Key, images: tuple[Tensor, Tensor], work: Work) -> list[Path]:
        """Find the own parts of a class in a domain, and return their files.

        If the model does not know the class, there are no files.
        """
        scores_of: dict[str, Scores] = {}
        with self.clip.encoder.running():
            try:
                for name, sites in self.sites.items():
                    scores_of[name] = self._ranked(self.task(key, *images, sites, work))
            except InputError as error:
                log.warning("%s in %s is left out. %s", *key, error)
                return []
        paths = []
        for name, scores in scores_of.items():
            scores = replace(scores, class_name=key[0], domain=key[1])
            part = self._strongest(scores, max(self.settings.shares))
            # Edges are scored for drawings only, and parts by depth are not drawn.
            if name == EVERYWHERE:
                task = self.task(key, *images, self.sites[name], work)
                part = with_edges(task, part)
            graph = part.source.keeping(part.units, part.scored_edges.scores)
            paths.append(self._path(key, name))
            graph.save(paths[-1])
        return paths

    def _ranked(self, task: Task) -> Scores:
        """Return scores of the units by the method of the settings. The first units by score form an own part."""
        # The smaller parts are the strongest units of the largest part.
        largest = max(self.settings.shares)
        if self.settings.method == CONTRAST:
            return own_part(task, share=largest).source
        return find_circuit(task, method=self.settings.method, size=largest).source

    def _strongest(self, scores: Scores, share: float) -> Circuit:
        """Return the part of a share. A larger part contains each smaller part, because both come from one ranking."""
        # An effect is positive if a unit helps. For other scores only the absolute value says how much a unit matters.
        ranking = "signed" if METHODS[self.settings.method].effects else "absolute"
        return scores.strongest(share, ranking, GLOBAL)

    def _test(
        self,
        wave: int,
        tests: Mapping[Key, Mapping[Key, bool]],
        key: Key,
        images: Tensor,
        work: Work,
    ) -> list[Path]:
        """Ablate own parts on the images of a class in a domain, and return the file of the results.

        If the class has no unseen images in this domain, own parts that were found in this domain are left out, because
        these images were used to find them.

        Args:
            wave: The number of the wave of tests.
            tests: The tests of this wave; see `LesionDesign.parts_by_cell`.
            key: The class and domain.
            images: The images.
            work: How the work is carried out.
        """
        task = at_model_scale(self.task(key, images, work=work))
        lesions = list[Ablated]()
        pixels = set[str]()
        for kind in self.kinds:
            for part, with_random in tests[key].items():
                of_part = self._lesions.of_parts[kind].get(part, [])
                if of_part and self._may_test(part, key):
                    # The lesion of the part comes first, before those of random units.
                    lesions += of_part if with_random else of_part[:1]
                    pixels |= self._lesions.pixels[part]
        if not lesions:
            return []
        count_seen({" in ".join(key): task.images}, pixels, "A lesion")
        labels = {name: self.images.label(name) for name in self.images.classes}
        with self.clip.encoder.running():
            embeddings = lesioned_embeddings(task, lesions, self._lesions.n_units)
        table = lesion_cell(key, task, embeddings, lesions, labels)
        path = self._path_of_wave(wave) / key[0] / f"{key[1]}.csv"
        # Parts are found and tested with the same baseline.
        write_named_table(path, table.assign(part_baseline=table["baseline"]))
        return [path]

    @cached_property
    def _lesions(self) -> "_Lesions":
        """The lesions of all parts. Each part is read once, and only the indices of its units stay in memory."""
        lesions = _Lesions({kind: {} for kind in self.kinds}, {}, {})
        for sites in self.sites:
            shares = [share for share, name in self.kinds if name == sites]
            # Random units are drawn for all parts in turn, so that every process draws the same.
            rng = np.random.default_rng(self.settings.seed)
            for key in self._found:
                graph = self._graph(key, sites)
                parts = [self._strongest(graph, share) for share in shares]
                # A draw has one random part for each share.
                drawn = draw_random(parts, self.settings.random_draws, rng)
                for i, (share, part) in enumerate(zip(shares, parts, strict=True)):
                    lesions.of_parts[share, sites][key] = ablations(
                        key, part, drawn[i :: len(parts)], share=share, sites=sites
                    )
                for site in parts[0].units:
                    lesions.n_units[site] = graph.n_units(site)
                lesions.pixels[key] = frozenset(graph.provenance.get(PIXELS, ()))
        return lesions

    @cached_property
    def _found(self) -> list[Key]:
        """The (class, domain) of each part that was found. A class that the model does not know has no part."""
        return [key for key in self.keys if self.folder.files((FOUND, *key))]

    def _parts(self, share: float, sites: str) -> Mapping[Key, Circuit]:
        """Return the own parts that were found, by (class, domain). Each is read from its file at each access.

        Args:
            share: The share of the units that a part has.
            sites: The name of an entry of `sites`.
        """
        return _ReadAtAccess(self._found, partial(self._part, share, sites))

    def _part(self, share: float, sites: str, key: Key) -> Circuit:
        graph = self._graph(key, sites)
        part = self._strongest(graph, share)
        return replace(part, source=graph.among(part.units))

    def _graph(self, key: Key, sites: str) -> AttributionGraph:
        """Return the graph that keeps the units of the part of the largest share."""
        return AttributionGraph.load(self._path(key, sites))

    def _path(self, key: Key, sites: str) -> Path:
        return self.folder.path / FOUND / key[0] / f"{key[1]}.{sites}.safetensors"


class _Lesions(NamedTuple):
    """The lesions of all parts, without the scores by which the parts were chosen."""

    of_parts: dict[tuple[float, str], dict[Key, list[Ablated]]]
    """By share and name of sites, the lesion of each part, followed by the lesions of random units."""
    n_units: dict[str, int]
    """The number of units of each site."""
    pixels: dict[Key, frozenset[str]]
    """Digests of the images that each part was found on."""


class _ReadAtAccess(Mapping[Key, Circuit]):
    """A mapping whose values are read from files at each access, because many circuits need much memory."""

    def __init__(self, keys: Sequence[Key], read: Callable[[Key], Circuit]) -> None:
        self._keys = dict.fromkeys(keys)
        self._read = read

    def __getitem__(self, key: Key) -> Circuit:
        if key not in self._keys:
            raise KeyError(key)
        return self._read(key)

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)
