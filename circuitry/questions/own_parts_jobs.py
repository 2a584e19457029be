"""The own part of every class in every domain of a data set, and what the model loses without each."""

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
"""Jobs: the parts of a class in a domain; and all parts ablated on its unseen images."""
N_DEPTHS = 5
"""Places in the order of sites that `OwnPartSettings.depth` cuts at, at most, beside both ends."""

log = logging.getLogger(__name__)


class OwnParts(FolderWork):
    """The own parts of a model's classes by domain, found on some images and tested on others.

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
        """Choose the images; refuse a domain with one class.

        Args:
            clip: The model.
            images: Its images, sorted by domain and class.
            out: Folder of parts and tables.
            settings: How parts are found and tested.
            split: The images that find and those that test (default: by number and seed of the settings).

        Raises:
            InputError: where no class has two images, in one domain or in two, beside another class.
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
        """Return the classes and domains whose part can be found, and tested here or in another domain."""
        # Without images of other classes there is no contrast to find a part by.
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
        """Return images of other classes in the domain that find parts: the first of each, then the second of each."""
        return self.split.others(key, self.settings.n_others)

    @cached_property
    def sites(self) -> dict[str, tuple[str, ...]]:
        """The sites at which parts may have units, by name: everywhere, and by depth."""
        every = self.settings.sites or counted_sites(self.clip.encoder)
        sites = {EVERYWHERE: every}
        if self.settings.depth:
            # A set, since few sites have fewer cuts; none before the first site, which would leave nothing.
            cuts = {round(i * len(every) / N_DEPTHS) for i in range(1, N_DEPTHS)}
            for cut in sorted(cuts - {0}):
                sites[f"up to {every[cut - 1]}"] = every[:cut]
                sites[f"from {every[cut]}"] = every[cut:]
        return sites

    @property
    def kinds(self) -> list[tuple[float, str]]:
        """Share and name of sites of the parts: every share everywhere, the largest one at all sites by name."""
        # Depth is asked at one share: each further share would double the tests.
        *smaller, largest = sorted(set(self.settings.shares))
        everywhere = [(share, EVERYWHERE) for share in smaller]
        return everywhere + [(largest, name) for name in self.sites]

    @property
    def provenance(self) -> dict[str, Any]:
        """Everything except for images that shapes a number, in plain values."""
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
        """The folder of jobs, claimed for this configuration."""
        records: dict[Key, Records] = {}
        for key in self.keys:
            records[key] = self.found_on[key] + self.unseen[key] + self.others(key)
        # First the parts of all classes: tests take them.
        jobs = [(FOUND, *key) for key in self.keys]
        jobs += [(LESIONED, *key) for key in self.keys]
        return self.claim(
            self.out / "parts", OWN_PARTS_FORMAT, jobs, records, **self.provenance
        )

    def run(self, work: Work = Work()) -> dict[str, pd.DataFrame]:
        """Find and test the parts; what is finished is read.

        Returns:
            ``lesions``: table of `lesion` with columns share and sites; ``overlaps``: table of `part_overlaps` with the
            same. A warning names the classes that the model does not know in a domain.
        """
        # All parts are found before any is tested: a test takes parts of every class.
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
        """Do this process's share of the jobs of a kind, with the name of their bar."""
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
        """Return the tables of `lesion` of the tests that are done, with columns share and sites."""
        # A job leaves one table, or none where no part could be tested.
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
        """Return the parts of a share (default: the largest), by (class, domain), once they are found.

        Raises:
            InputError: for a share that was not asked for.
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
        """Write the parts of a share as a folder that cards, the explorer and checks read, and return it.

        The table of their lesions lies in it, which the explorer shows: all of `lesions`, or those that are told.
        """
        if share is None:
            share = max(self.settings.shares)
        parts = self.circuits(share)
        tested = self.lesions() if told is None else told
        path = self.out / "circuits"
        if not os.access(self.out, os.W_OK):  # a finished run that can only be read
            return GraphFolder(path)
        images = {key: self.found_on[key] + self.others(key) for key in parts}
        identity = self.identity | {
            "n_others": self.settings.n_others,
            "method": self.settings.method,
        }
        try:
            folder = GraphFolder.write(path, parts, identity, images)
        except InputError:
            if not (path / LESIONS).is_file():  # other circuits
                raise
            # Own parts of another share, which can be written again.
            shutil.rmtree(path)
            folder = GraphFolder.write(path, parts, identity, images)
        of_share = tested[(tested["share"] == share) & (tested["sites"] == EVERYWHERE)]
        folder.write_lesions(of_share.drop(columns="sites"))
        return folder

    def _images_that_find(self, key: Key, work: Work) -> tuple[Tensor, Tensor] | None:
        """Return images of the class and of others, if there are both."""
        own = self.read(self.found_on[key], strict=work.strict)
        others = self.read(self.others(key), strict=work.strict)
        if len(own) and len(others):
            return own, others
        self._leave_out(key)
        return None

    def _images_that_test(self, key: Key, work: Work) -> Tensor | None:
        """Return unseen images of the class; where it has none, those that find: they test parts of other domains."""
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
        """Find the parts of a class in a domain; none where the model does not know it."""
        graphs: dict[str, Scores] = {}
        with self.clip.encoder.running():
            try:
                for name, sites in self.sites.items():
                    graphs[name] = self._ranked(self.task(key, *images, sites, work))
            except InputError as error:
                log.warning("%s in %s is left out. %s", *key, error)
                return []
        paths = []
        # Effects are positive where a unit helps; other scores say by their size how much a unit matters.
        ranking = "signed" if METHODS[self.settings.method].effects else "absolute"
        for share, name in self.kinds:
            graph = replace(graphs[name], class_name=key[0], domain=key[1])
            # All shares cut one ranking, so that a larger part holds each smaller one.
            part = graph.strongest(share, ranking, GLOBAL)
            # Edges are for drawings, and parts by depth are not drawn.
            if name == EVERYWHERE:
                part = with_edges(self.task(key, *images, self.sites[name], work), part)
            paths.append(self._path(key, share, name))
            part.save(paths[-1])
        return paths

    def _ranked(self, task: Task) -> Scores:
        """Return the units in the order in which parts have them."""
        # The strongest units of the largest part are the smaller parts.
        largest = max(self.settings.shares)
        if self.settings.method == CONTRAST:
            return own_part(task, share=largest).source
        return find_circuit(task, method=self.settings.method, size=largest).source

    def _test(self, key: Key, images: Tensor, work: Work) -> list[Path]:
        """Ablate all parts on a class's unseen images in a domain; where it has none, parts of other domains."""
        task = self.task(key, images, work=work)
        tables = []
        with self.clip.encoder.running():
            for share, sites in self.kinds:
                parts = self._parts(share, sites)
                # Without unseen images, the images of this domain found its own parts: these are not tested on them.
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
        """Return the parts of a share at some sites that were found."""
        parts = {}
        for key in self.keys:
            path = self._path(key, share, sites)
            # Every test takes all parts, so each is read once.
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
