"""The own part of every class in every domain of a data set, and what the model loses without each."""

import logging
import os
import shutil
from collections import Counter
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
from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.data.parts import Key
from circuitry.encoder.roles import counted_sites
from circuitry.encoder.task import Task
from circuitry.interventions.finding_circuits import find_circuit
from circuitry.interventions.intervention_settings import OwnPartSettings
from circuitry.interventions.lesions import lesion, part_overlaps
from circuitry.models.clip import Clip
from circuitry.models.folder_work import FolderWork
from circuitry.runs.errors import InputError
from circuitry.runs.given import checked
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
        >>> parts = OwnParts(clip, DomainFolder("DomainNet"), "runs/own", OwnPartSettings(n_images=6))
        >>> tables = parts.run()
        >>> lesion_matrix(tables["lesions"])     # rows: found on, columns: tested on
        >>> parts.circuits(0.02)["cat", "photo"]
    """

    settings: OwnPartSettings

    @checked
    def __init__(
        self,
        clip: Clip,
        images: DomainFolder,
        out: str | os.PathLike[str],
        settings: OwnPartSettings | None = None,
    ) -> None:
        """Choose the images; refuse a domain with one class.

        Args:
            clip: The model.
            images: Its images, sorted by domain and class.
            out: Folder of parts and tables.
            settings: How parts are found and tested.

        Raises:
            InputError: where no class has two images, in one domain or in two, beside another class.
        """
        settings = settings or OwnPartSettings()
        super().__init__(clip, images, settings)
        self.out, self.found_on, self.unseen = (
            Path(out),
            dict[Key, list[ImageRecord]](),
            dict[Key, list[ImageRecord]](),
        )
        for key in ((c, d) for d in images.domains for c in images.classes):
            records = list(images.select(*key, None, settings.seed))
            n = min(settings.n_images, (len(records) + 1) // 2)
            self.found_on[key], self.unseen[key] = (
                records[:n],
                records[n : n + settings.n_images],
            )
        there = [
            key for key in self.found_on if self.found_on[key] and self.others(key)
        ]
        tested = {name for name, domain in there if self.unseen[name, domain]}
        styles = Counter(name for name, _ in there)
        self.keys = [key for key in there if key[0] in tested or styles[key[0]] > 1]
        self._loaded = dict[Path, Circuit]()
        if not self.keys:
            raise InputError(
                "An own part is found by contrast with another class of the domain, on some images of the class, and "
                f"tested on others, but no class in {images.root} has two images, in one domain or in two, beside "
                "another class: give more classes, or more images."
            )

    def others(self, key: Key) -> list[ImageRecord]:
        """Return images of other classes in the domain that find parts: the first of each, then the second of each."""
        found_on = [
            self.found_on.get((name, key[1]), [])
            for name in self.images.following(key[0])
        ]
        rounds = range(max(map(len, found_on), default=0))
        taken = (
            of_class[i] for i in rounds for of_class in found_on if i < len(of_class)
        )
        return list(taken)[: self.settings.n_others]

    @cached_property
    def sites(self) -> dict[str, tuple[str, ...]]:
        """The sites at which parts may have units, by name: everywhere, and by depth."""
        every = self.settings.sites or counted_sites(self.clip.encoder)
        found = {EVERYWHERE: every}
        places = sorted(
            {round(i * len(every) / N_DEPTHS) for i in range(1, N_DEPTHS)} - {0}
        )
        for place in places if self.settings.depth else ():
            found[f"up to {every[place - 1]}"], found[f"from {every[place]}"] = (
                every[:place],
                every[place:],
            )
        return found

    @property
    def kinds(self) -> list[tuple[float, str]]:
        """Share and name of sites of the parts: every share everywhere, the largest one at all sites by name."""
        *first, last = sorted(set(self.settings.shares))
        return [
            *((share, EVERYWHERE) for share in first),
            *((last, name) for name in self.sites),
        ]

    @property
    def provenance(self) -> dict[str, Any]:
        """Everything except for images that shapes a number, in plain values."""
        names = ("n_others", "method", "random_draws", "depth")
        asked = {name: getattr(self.settings, name) for name in names} | {
            "shares": list(self.settings.shares)
        }
        asked |= {"method_code": method_code(self.settings.method)}
        return (
            self.identity
            | asked
            | {"sites": {name: list(some) for name, some in self.sites.items()}}
        )

    @cached_property
    def folder(self) -> JobFolder:
        """The folder of jobs, claimed for this configuration."""
        records = {
            key: self.found_on[key] + self.unseen[key] + self.others(key)
            for key in self.keys
        }
        jobs = [(kind, *key) for kind in (FOUND, LESIONED) for key in self.keys]
        return self.claim(
            self.out / "parts", OWN_PARTS_FORMAT, jobs, records, **self.provenance
        )

    def run(self, work: Work = Work()) -> dict[str, pd.DataFrame]:
        """Find and test the parts; what is finished is read.

        Returns:
            ``lesions``: table of `lesion` with columns share and sites; ``overlaps``: table of `part_overlaps` with the
            same. A warning names the classes that the model does not know in a domain.
        """
        for kind, what in ((FOUND, "own parts"), (LESIONED, "lesions")):
            self.folder.run(
                lambda job, images: (self._find if job[0] == FOUND else self._test)(
                    (job[1], job[2]), images, work
                ),
                prepare=lambda job: self._read(job, work),
                rank=work.rank,
                only=[job for job in self.folder.jobs if job[0] == kind],
                progress=work.bar(what),
                unit="class",
            )
        overlaps = [
            part_overlaps(self._parts(share, sites)).assign(share=share, sites=sites)
            for share, sites in self.kinds
        ]
        return {
            "lesions": self.lesions(),
            "overlaps": pd.concat(overlaps, ignore_index=True),
        }

    def lesions(self) -> pd.DataFrame:
        """Return the tables of `lesion` of the tests that are done, with columns share and sites."""
        tables = [
            read_named_table(path)
            for job in self.folder.jobs
            if job[0] == LESIONED
            for path in self.folder.files(job)
        ]
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
        share = max(self.settings.shares) if share is None else share
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
        share = max(self.settings.shares) if share is None else share
        parts, tested = self.circuits(share), self.lesions() if told is None else told
        images = {key: [*self.found_on[key], *self.others(key)] for key in parts}
        identity = self.identity | {
            "n_others": self.settings.n_others,
            "method": self.settings.method,
        }
        path = self.out / "circuits"
        if not os.access(self.out, os.W_OK):  # a finished run that can only be read
            return GraphFolder(path)
        try:
            folder = GraphFolder.write(path, parts, identity, images)
        except InputError:
            if not (path / LESIONS).is_file():  # other circuits
                raise
            shutil.rmtree(
                path
            )  # own parts of another share, which can be written again
            folder = GraphFolder.write(path, parts, identity, images)
        of_share = tested[(tested["share"] == share) & (tested["sites"] == EVERYWHERE)]
        folder.write_lesions(of_share.drop(columns="sites"))
        return folder

    def _read(self, job: Job, work: Work) -> tuple[Tensor, Tensor] | None:
        """Return the images of a job: of the class, and of others, which a test has none of."""
        kind, key = job[0], (job[1], job[2])
        records = (
            self.found_on[key]
            if kind == FOUND
            else self.unseen[key] or self.found_on[key]
        )
        own = self.read(records, strict=work.strict)
        others = (
            self.read(self.others(key), strict=work.strict)
            if kind == FOUND
            else own[:0]
        )
        if len(own) and (len(others) or kind == LESIONED):
            return own, others
        log.warning(
            "%s in %s: no image, or none of another class, can be read: it is left out",
            *key,
        )
        return None

    def _find(self, key: Key, images: tuple[Tensor, Tensor], work: Work) -> list[Path]:
        """Find the parts of a class in a domain; none where the model does not know it."""
        paths, graphs = list[Path](), dict[str, Scores]()
        with self.clip.encoder.running():
            try:
                for name, sites in self.sites.items():
                    graphs[name] = self._ranked(self.task(key, *images, sites, work))
            except InputError as error:
                log.warning("%s in %s is left out. %s", *key, error)
                return []
        ranking = "signed" if METHODS[self.settings.method].effects else "absolute"
        for share, name in self.kinds:
            graph = replace(graphs[name], class_name=key[0], domain=key[1])
            part = graph.strongest(share, ranking, GLOBAL)
            if name == EVERYWHERE:
                part = with_edges(self.task(key, *images, self.sites[name], work), part)
            paths.append(self._path(key, share, name))
            part.save(paths[-1])
        return paths

    def _ranked(self, task: Task) -> Scores:
        """Return the units in the order in which parts have them."""
        if self.settings.method == CONTRAST:
            return own_part(task, share=max(self.settings.shares)).source
        return find_circuit(
            task, method=self.settings.method, size=max(self.settings.shares)
        ).source

    def _test(self, key: Key, images: tuple[Tensor, Tensor], work: Work) -> list[Path]:
        """Ablate all parts on a class's unseen images in a domain; where it has none, parts of other domains."""
        task, path = (
            self.task(key, images[0], work=work),
            self.folder.path / LESIONED / key[0] / f"{key[1]}.csv",
        )
        draws, tables = self.settings.random_draws, list[pd.DataFrame]()
        with self.clip.encoder.running():
            for share, sites in self.kinds:
                parts = self._parts(share, sites)
                if not self.unseen[key]:
                    parts = {
                        found_on: part
                        for found_on, part in parts.items()
                        if found_on[1] != key[1]
                    }
                if parts:
                    found = lesion(
                        {key: task}, parts, random_draws=draws, seed=self.settings.seed
                    )
                    tables.append(found.assign(share=share, sites=sites))
        if not tables:
            return []
        write_named_table(path, pd.concat(tables, ignore_index=True))
        return [path]

    def _parts(self, share: float, sites: str) -> dict[Key, Circuit]:
        """Return the parts of a share at some sites that were found."""
        there = {key: self._path(key, share, sites) for key in self.keys}
        for key, path in there.items():
            if path not in self._loaded and path in self.folder.files((FOUND, *key)):
                self._loaded[path] = Circuit.load(path)
        return {
            key: self._loaded[path]
            for key, path in there.items()
            if path in self._loaded
        }

    def _path(self, key: Key, share: float, sites: str) -> Path:
        return (
            self.folder.path
            / FOUND
            / key[0]
            / f"{key[1]}.{sites}.{share:g}.safetensors"
        )
