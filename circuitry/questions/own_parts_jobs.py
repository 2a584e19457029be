"""The own part of every class in every domain of a data set, and what the model loses without each own part.

An own part is a set of units that a class needs and that other classes do not need. A lesion ablates these units.
"""

import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from circuitry.circuits.budgets import GLOBAL
from circuitry.circuits.edge_methods import with_edges
from circuitry.circuits.graph import Circuit, Scores
from circuitry.circuits.graph_folder import LESIONS, GraphFolder
from circuitry.circuits.methods import CONTRAST, METHODS, method_code
from circuitry.circuits.own_part_of_class import own_part
from circuitry.comparison.lesion_reading import EVERYWHERE
from circuitry.comparison.table import read_named_table, write_named_table
from circuitry.data.domains import DomainFolder
from circuitry.data.folds import Key
from circuitry.data.splits import Records, Split
from circuitry.encoder.roles import counted_sites
from circuitry.encoder.task import Task
from circuitry.interventions.finding_circuits import find_circuit
from circuitry.interventions.intervention_settings import OwnPartSettings
from circuitry.interventions.lesions import lesion, part_overlaps
from circuitry.models.clip import Clip
from circuitry.models.folder_work import FolderWork
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError
from circuitry.runs.jobs import Job, JobFolder
from circuitry.runs.workers import Work

OWN_PARTS_FORMAT = "circuitry own parts 1"
FOUND, LESIONED = "found", "lesioned"
"""The two kinds of jobs. ``found`` finds the own parts of a class in a domain. ``lesioned`` ablates the own parts of
all classes on the unseen images of a class in a domain."""
N_DEPTHS = 5
"""The order of sites is divided into at most this many stretches for `OwnPartSettings.depth`."""

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
        self._loaded: dict[Path, Circuit] = {}
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
            "depth": self.settings.depth,
            "shares": list(self.settings.shares),
            "method_code": method_code(self.settings.method),
            "sites": {name: list(sites) for name, sites in self.sites.items()},
        }

    @cached_property
    def folder(self) -> JobFolder:
        """The folder of the jobs. A folder that was made with other settings or images is refused."""
        records: dict[Key, Records] = {}
        for key in self.keys:
            records[key] = self.found_on[key] + self.unseen[key] + self.others(key)
        # The parts of all classes come first, because the tests need them.
        jobs = [(FOUND, *key) for key in self.keys]
        jobs += [(LESIONED, *key) for key in self.keys]
        return self.claim(
            self.out / "parts", OWN_PARTS_FORMAT, jobs, records, **self.provenance
        )

    def run(self, work: Work = Work()) -> dict[str, pd.DataFrame]:
        """Find and test the own parts. Jobs that are finished are not repeated: their results are read.

        A warning names each class that the model does not know in a domain.

        Returns:
            Two tables. ``lesions`` is a table of `lesion` and ``overlaps`` is a table of `part_overlaps`, both with the
            additional columns share and sites.
        """
        # All parts are found before the first test, because a test needs the parts of every class.
        self._do(FOUND, "own parts", self._images_that_find, self._find, work)
        self._do(LESIONED, "lesions", self._images_that_test, self._test, work)
        overlaps = []
        for share, sites in self.kinds:
            table = part_overlaps(self._parts(share, sites))
            overlaps.append(table.assign(share=share, sites=sites))
        return {
            "lesions": self.lesions(),
            "overlaps": pd.concat(overlaps, ignore_index=True),
        }

    def _do(
        self,
        kind: str,
        name: str,
        read: Callable[[Key, Work], Any],
        do: Callable[[Key, Any, Work], list[Path]],
        work: Work,
    ) -> None:
        """Do the unfinished jobs of one kind, together with other processes.

        Args:
            kind: ``found`` or ``lesioned``.
            name: The name of the progress bar.
            read: A function that reads the images of a (class, domain).
            do: A function that does the job with these images, and returns the paths of its files.
            work: How the work is carried out, such as the rank of this process.
        """
        self.folder.run(
            lambda job, images: do((job[1], job[2]), images, work),
            prepare=lambda job: read((job[1], job[2]), work),
            rank=work.rank,
            only=self._jobs(kind),
            progress=work.bar(name),
            unit="class",
        )

    def _jobs(self, kind: str) -> list[Job]:
        return [job for job in self.folder.jobs if job[0] == kind]

    def lesions(self) -> pd.DataFrame:
        """Return the tables of `lesion` of all finished tests, joined, with the additional columns share and sites.

        Raises:
            InputError: if the model recognises no class, so that there is no own part to test.
        """
        # A job writes one table. It writes no file if no part could be tested.
        tables = list[pd.DataFrame]()
        for job in self._jobs(LESIONED):
            tables += map(read_named_table, self.folder.files(job))
        if not tables:
            raise InputError(
                f"{self.clip.name} recognises no class of {self.images.root} on the images that parts are found on, so "
                "there is no part to test: see the warnings above. Give classes that it knows (circuitry evaluate has "
                "them in tables/accuracy_by_class.csv), other texts, or a linear probe in place of texts."
            )
        return pd.concat(tables, ignore_index=True)

    def circuits(self, share: float | None = None) -> dict[Key, Circuit]:
        """Return the own parts of one share by (class, domain), as far as they are found.

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
        own = self.read(self.unseen[key] or self.found_on[key], strict=work.strict)
        if len(own):
            return own
        self._leave_out(key)
        return None

    def _leave_out(self, key: Key) -> None:
        log.warning(
            "%s in %s: no image, or none of another class, can be read: it is left out",
            *key,
        )

    def _find(self, key: Key, images: tuple[Tensor, Tensor], work: Work) -> list[Path]:
        """Find the own parts of a class in a domain, and return their files.

        If the model does not know the class, there are no files.
        """
        graphs: dict[str, Scores] = {}
        with self.clip.encoder.running():
            try:
                for name, sites in self.sites.items():
                    graphs[name] = self._ranked(self.task(key, *images, sites, work))
            except InputError as error:
                log.warning("%s in %s is left out. %s", *key, error)
                return []
        paths = []
        # An effect is positive if a unit helps. For other scores only the absolute value says how much a unit matters.
        ranking = "signed" if METHODS[self.settings.method].effects else "absolute"
        for share, name in self.kinds:
            graph = replace(graphs[name], class_name=key[0], domain=key[1])
            # The parts of all shares come from one ranking, so that a larger part contains each smaller part.
            part = graph.strongest(share, ranking, GLOBAL)
            # Edges are scored for drawings only, and parts by depth are not drawn.
            if name == EVERYWHERE:
                part = with_edges(self.task(key, *images, self.sites[name], work), part)
            paths.append(self._path(key, share, name))
            part.save(paths[-1])
        return paths

    def _ranked(self, task: Task) -> Scores:
        """Return scores of the units by the method of the settings. The first units by score form an own part."""
        # The smaller parts are the strongest units of the largest part.
        largest = max(self.settings.shares)
        if self.settings.method == CONTRAST:
            return own_part(task, share=largest).source
        return find_circuit(task, method=self.settings.method, size=largest).source

    def _test(self, key: Key, images: Tensor, work: Work) -> list[Path]:
        """Ablate all own parts on the images of a class in a domain, and return the file of the results.

        If the class has no unseen images in this domain, own parts that were found in this domain are left out, because
        these images were used to find them.
        """
        task = self.task(key, images, work=work)
        tables = []
        with self.clip.encoder.running():
            for share, sites in self.kinds:
                parts = self._parts(share, sites)
                # Without unseen images, the images here were used to find the parts of this domain, which therefore
                # cannot be tested on them.
                if not self.unseen[key]:
                    domain = key[1]
                    parts = {of: parts[of] for of in parts if of[1] != domain}
                if parts:
                    table = lesion(
                        {key: task},
                        parts,
                        random_draws=self.settings.random_draws,
                        seed=self.settings.seed,
                    )
                    tables.append(table.assign(share=share, sites=sites))
        if not tables:
            return []
        path = self.folder.path / LESIONED / key[0] / f"{key[1]}.csv"
        write_named_table(path, pd.concat(tables, ignore_index=True))
        return [path]

    def _parts(self, share: float, sites: str) -> dict[Key, Circuit]:
        """Return the own parts that were found, by (class, domain).

        Args:
            share: The share of the units that a part has.
            sites: The name of an entry of `sites`.
        """
        parts = {}
        for key in self.keys:
            path = self._path(key, share, sites)
            # Every test needs all parts, so each part is read only once.
            if path not in self._loaded:
                # A class that the model does not know has no part.
                if path not in self.folder.files((FOUND, *key)):
                    continue
                self._loaded[path] = Circuit.load(path)
            parts[key] = self._loaded[path]
        return parts

    def _path(self, key: Key, share: float, sites: str) -> Path:
        name = f"{key[1]}.{sites}.{share:g}.safetensors"
        return self.folder.path / FOUND / key[0] / name
