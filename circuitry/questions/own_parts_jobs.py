"""The own part of every class in every domain of a data set, and what the model loses without each own part.

An own part is a set of units that a class needs and that other classes do not need. A lesion ablates these units. The
images, the tests and what they need are chosen by `OwnPartsPlan`; here the jobs are done.
"""

import logging
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from circuitry.circuits.budgets import GLOBAL
from circuitry.circuits.edge_methods import with_edges
from circuitry.circuits.found_on import count_seen
from circuitry.circuits.graph import PIXELS, AttributionGraph, Circuit, Scores
from circuitry.circuits.graph_folder import LESIONS, GraphFolder
from circuitry.circuits.methods import CONTRAST, METHODS
from circuitry.circuits.own_part_of_class import own_part
from circuitry.comparison.lesion_reading import EVERYWHERE, wants_more_cells
from circuitry.comparison.table import write_named_table
from circuitry.data.folds import Key
from circuitry.encoder.metrics import ClassLogit, answer_metric
from circuitry.encoder.task import Task, at_model_scale
from circuitry.encoder.unit_kinds import name_kinds
from circuitry.interventions.ablated_units import (
    Ablated,
    ablations,
    lesioned_embeddings,
)
from circuitry.interventions.faithfulness import draw_random
from circuitry.interventions.finding_circuits import find_circuit
from circuitry.interventions.information import (
    FEWEST_FITTED,
    information_left,
    join_information,
)
from circuitry.interventions.lesions import lesion_cell
from circuitry.interventions.overlaps_of_parts import part_overlaps
from circuitry.questions.own_parts_plan import (
    EMBEDDINGS_SUFFIX,
    FOUND,
    LESIONED,
    NAME_OF_SEARCH,
    OWN_PARTS_FORMAT,
    OwnPartsPlan,
    PartKind,
)
from circuitry.runs.arrays import read_arrays, write_arrays
from circuitry.runs.errors import InputError
from circuitry.runs.jobs import JobFolder
from circuitry.runs.plan import Forwards
from circuitry.runs.workers import Work

log = logging.getLogger(__name__)


class OwnParts(OwnPartsPlan):
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

    def run(self, work: Work = Work()) -> dict[str, pd.DataFrame]:
        """Find and test the own parts. Jobs that are finished are not repeated: their results are read.

        A warning names each class that the model does not know in a domain.

        Returns:
            Two tables. ``lesions`` is a table of `lesion`, of the parts that were found on the first half of the
            images, with the further columns share, sites, half, and units (the names of the kinds of units).
            ``overlaps`` is a table of `part_overlaps` with the further columns share and sites. If each part is tested
            on a sample of the other classes, the overlaps are of parts of one class, and of each part with the parts of
            the sample.
        """
        lesions = self._joined(self.find_and_test(work))
        pairs = self.design.pairs(self._n_waves())
        overlaps = list[pd.DataFrame]()
        for kind in self.kinds:
            if kind.half == 1:
                again = kind._replace(half=2)
                second = self._parts(again) if again in self.kinds else {}
                table = part_overlaps(self._parts(kind), pairs, second)
                overlaps.append(table.assign(share=kind.share, sites=kind.sites))
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
        for half in self.keys_by_half:
            self._do(
                self.finding(half),
                NAME_OF_SEARCH[half],
                partial(self._images_that_find, half),
                partial(self._find, half, work=work),
                partial(self._forwards_to_find, half),
                work,
            )
        waves = list[pd.DataFrame]()
        for number in range(self.design.n_waves):
            test = partial(self._test, number, work=work)
            forwards = partial(self._forwards_to_test, number)
            wave = self.wave(number)
            name = f"lesions {number + 1}"
            self._do(wave, name, self._images_that_test, test, forwards, work)
            waves += self._table_of(wave)
            # All processes read the same tables, so they decide alike whether there is another wave.
            if not waves or not wants_more_cells(waves):
                break
        if self.cells_of_refit:
            self._do(
                self.refitting,
                "new heads",
                self._images_of_refit,
                partial(self._refit, work=work),
                self._forwards_to_refit,
                work,
            )
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

    def lesions(self, half: int = 1) -> pd.DataFrame:
        """Return the tables of `lesion` of all finished tests, joined, with the columns share, sites and half.

        Args:
            half: The half of the images that the parts were found on. Parts of the second half are tested on images of
                their own class only, and without random units.

        Raises:
            InputError: if the model recognises no class, so that there is no own part to test.
        """
        waves = list[pd.DataFrame]()
        # Without any wave the first one says that it is not done.
        for number in range(max(1, self._n_waves())):
            waves += self._table_of(self.wave(number))
        return self._joined(waves, half)

    def _joined(self, waves: Sequence[pd.DataFrame], half: int = 1) -> pd.DataFrame:
        """Return the rows of one half in all waves as one table, or raise `InputError` if there are no waves."""
        if not waves:
            raise InputError(
                f"{self.clip.name} recognises no class of {self.images.root} on the images that parts are found on, so "
                "there is no part to test: see the warnings above. Give classes that it knows (circuitry evaluate has "
                "them in tables/accuracy_by_class.csv), other texts, or a linear probe in place of texts."
            )
        table = pd.concat(waves, ignore_index=True)
        of_half = table[table["half"] == half].reset_index(drop=True)
        information = list[pd.DataFrame]()
        if half == 1 and self.cells_of_refit:
            information = self._table_of(self.refitting)
        return join_information(of_half, information)

    def circuits(
        self, share: float | None = None, half: int = 1
    ) -> Mapping[Key, Circuit]:
        """Return the own parts of one share by (class, domain). Each is read from its file at each access.

        Args:
            share: The share (default: the largest share of the settings).
            half: The half of the images that the parts were found on. Fewer classes may have a part of the second half.

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
        return self._parts(PartKind(share, EVERYWHERE, half))

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
        folder.write_lesions(of_share.drop(columns=["sites", "half"]))
        return folder

    def _images_that_find(
        self, half: int, key: Key, work: Work
    ) -> tuple[Tensor, Tensor] | None:
        """Return images of the class and of other classes, used to find its own part; None if either set is empty."""
        own = self.read(self.finds(key, half), strict=work.strict)
        others = self.read(self.others(key, half), strict=work.strict)
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

    def _leave_out(self, key: Key) -> None:
        log.warning(
            "%s in %s: no image, or none of another class, can be read: it is left out",
            *key,
        )

    def _find(
        self, half: int, key: Key, images: tuple[Tensor, Tensor], work: Work
    ) -> list[Path]:
        """Find the own parts of a class in a domain on one half of its images, and return their files.

        If the model does not know the class, there are no files.
        """
        scores_of: dict[str, Scores] = {}
        with self.clip.encoder.running():
            try:
                for name, sites in self.sites_of(half).items():
                    scores_of[name] = self._ranked(self.task(key, *images, sites, work))
            except InputError as error:
                words = "%s in %s is left out of the parts of half %d of the images. %s"
                log.warning(words, *key, half, error)
                return []
        paths = []
        for name, scores in scores_of.items():
            scores = replace(scores, class_name=key[0], domain=key[1])
            part = self._strongest(scores, max(self.settings.shares))
            # Parts by depth are neither drawn nor compared by edges.
            if name == EVERYWHERE:
                task = self.task(key, *images, self.sites[name], work)
                part = with_edges(task, part)
            graph = part.source.keeping(part.units, part.scored_edges.scores)
            paths.append(self._path(key, name, half))
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
        key: Key,
        images: Tensor,
        work: Work,
    ) -> list[Path]:
        """Ablate own parts on the images of a class in a domain, and return the files of the results.

        These are a table, and the embeddings that new heads read.

        If the class has no unseen images in this domain, own parts that were found in this domain are left out, because
        these images were used to find them.

        Args:
            wave: The number of the wave of tests.
            key: The class and domain.
            images: The images.
            work: How the work is carried out.
        """
        of_class = list[Ablated]()
        of_others = list[Ablated]()
        pixels = set[str]()
        for kind, part, with_random in self._tested(wave, key):
            if of_part := self._lesions.of_parts[kind].get(part, []):
                tested = of_class if part[0] == key[0] else of_others
                # The lesion of the part comes first, before those of random units.
                tested += of_part if with_random else of_part[:1]
                pixels |= self._lesions.pixels[kind.half, part]
        count_seen({" in ".join(key): images}, pixels, "A lesion")
        labels = {name: self.images.label(name) for name in self.images.classes}
        tables = list[pd.DataFrame]()
        stored = dict[str, np.ndarray]()
        for lesions in (of_class, of_others):
            if lesions:
                n_images = self._n_tested(lesions[0].found_on, key)
                tests = images[:n_images]
                task = at_model_scale(self.task(key, tests, work=work))
                with self.clip.encoder.running():
                    embeddings = lesioned_embeddings(task, lesions)
                tables.append(lesion_cell(key, task, embeddings, lesions, labels))
                stored |= self._read_by_heads(key, lesions, embeddings)
        if not tables:
            return []
        table = pd.concat(tables, ignore_index=True)
        kinds = self.clip.encoder.kinds
        table = table.assign(
            # Parts are found and tested with the same baseline.
            part_baseline=table["baseline"],
            units=name_kinds(kinds[site] for site in self.sites[EVERYWHERE]),
        )
        path = self._path_of_wave(wave) / key[0] / f"{key[1]}.csv"
        write_named_table(path, table)
        if wave > 0 or not stored:
            return [path]
        path_of_embeddings = path.with_suffix(EMBEDDINGS_SUFFIX)
        write_arrays(path_of_embeddings, OWN_PARTS_FORMAT, {}, stored)
        return [path, path_of_embeddings]

    def _read_by_heads(
        self,
        cell: Key,
        lesions: Sequence[Ablated],
        embeddings: Float[Tensor, "runs images d"],
    ) -> dict[str, Float[np.ndarray, "_ images d"]]:
        """Return the embeddings of a cell that new heads read, by the class of the part.

        Args:
            cell: The class and domain of the images.
            lesions: The lesions.
            embeddings: The embeddings of the whole model, followed by those after each lesion.
        """
        runs_of = defaultdict[str, list[int]](list)
        for run, lesion in enumerate(lesions, start=1):
            if lesion.told["half"] == 1:
                part = lesion.found_on
                if cell in self.cells_of_refit.get(part, ()):
                    runs_of[part[0]].append(run)
        return {
            class_name: embeddings[[0, *runs]].cpu().numpy()
            for class_name, runs in runs_of.items()
        }

    def _stored_embeddings(self, cell: Key, part: Key) -> Tensor:
        """Return the embeddings of a cell's tests after the lesions of a part."""
        # The table of the cell comes first.
        path = self.wave(0).files((LESIONED, *cell))[1]
        stored = read_arrays(path, OWN_PARTS_FORMAT, "file of embeddings")[1]
        return torch.from_numpy(stored[part[0]])

    def _images_of_refit(self, part: Key, work: Work) -> dict[Key, Tensor] | None:
        """Return by cell the images that fit a new head; None if too few can be read."""
        images = dict[Key, Tensor]()
        for cell in self.cells_of_refit[part]:
            fits = self.read(self.fitting[cell], strict=work.strict)
            if len(fits) >= FEWEST_FITTED:
                images[cell] = fits
        if part in images and len(images) > 1:
            return images
        log.warning(
            "%s in %s: too few images can be read to fit a new head, so it is not told whether information is lost",
            *part,
        )
        return None

    def _refit(self, part: Key, images: Mapping[Key, Tensor], work: Work) -> list[Path]:
        """Fit new heads to the model with the own parts of a class in a domain ablated, and return the file of results.

        Args:
            part: The class and domain.
            images: By cell, the images that fit a new head.
            work: How the work is carried out.
        """
        lesions = list[Ablated]()
        for kind, of_kind in self._lesions.of_parts.items():
            if kind.half == 1:
                lesions += of_kind.get(part, [])
        if not lesions:
            return []
        metrics = dict[str, ClassLogit]()
        tested = dict[str, Tensor]()
        fitted = dict[str, Tensor]()
        with self.clip.encoder.running():
            for cell, of_cell in images.items():
                task = at_model_scale(self.task(cell, of_cell, work=work))
                name = cell[0]
                metrics[name] = answer_metric(task.metric, "A lesion takes")
                tested[name] = self._stored_embeddings(cell, part)
                fitted[name] = lesioned_embeddings(task, lesions)
        table = information_left(part[1], metrics, lesions, tested, fitted)
        path = self.refitting.path / part[0] / f"{part[1]}.csv"
        write_named_table(path, table)
        return [path]

    @cached_property
    def _lesions(self) -> "_Lesions":
        """The lesions of all parts. Each part is read once, and only the indices of its units stay in memory."""
        lesions = _Lesions({kind: {} for kind in self.kinds}, {})
        for half, keys in self._found.items():
            # Parts of the second half are not compared with random units.
            n_draws = self.settings.random_draws if half == 1 else 0
            for sites in self.sites_of(half):
                kinds = [k for k in self.kinds if (k.sites, k.half) == (sites, half)]
                # Random units are drawn for all parts in turn, so that every process draws the same.
                rng = np.random.default_rng(self.settings.seed)
                for key in keys:
                    graph = self._graph(key, sites, half)
                    parts = [self._strongest(graph, kind.share) for kind in kinds]
                    # A draw has one random part for each share.
                    drawn = draw_random(parts, n_draws, rng)
                    for i, (kind, part) in enumerate(zip(kinds, parts, strict=True)):
                        lesions.of_parts[kind][key] = ablations(
                            key, part, drawn[i :: len(parts)], **kind._asdict()
                        )
                    pixels = frozenset(graph.provenance.get(PIXELS, ()))
                    lesions.pixels[half, key] = pixels
        return lesions

    @cached_property
    def _found(self) -> dict[int, list[Key]]:
        """The (class, domain) of each part that was found, by the half of the images that it was found on.

        A class that the model does not know has no part.
        """
        found = dict[int, list[Key]]()
        for half, keys in self.keys_by_half.items():
            folder = self.finding(half)
            found[half] = [key for key in keys if folder.files((FOUND, *key))]
        return found

    def _parts(self, kind: PartKind) -> Mapping[Key, Circuit]:
        """Return the own parts of a kind, by (class, domain). Each is read from its file at each access."""
        keys = self._found.get(kind.half, [])
        return _ReadAtAccess(keys, partial(self._part, kind))

    def _part(self, kind: PartKind, key: Key) -> Circuit:
        graph = self._graph(key, kind.sites, kind.half)
        part = self._strongest(graph, kind.share)
        return replace(part, source=graph.among(part.units))

    def _graph(self, key: Key, sites: str, half: int) -> AttributionGraph:
        """Return the graph that keeps the units of the part of the largest share."""
        return AttributionGraph.load(self._path(key, sites, half))

    def _path(self, key: Key, sites: str, half: int) -> Path:
        folder = self.finding(half).path / FOUND / key[0]
        return folder / f"{key[1]}.{sites}.safetensors"


class _Lesions(NamedTuple):
    """The lesions of all parts, without the scores by which the parts were chosen."""

    of_parts: dict[PartKind, dict[Key, list[Ablated]]]
    """By the kind of parts, the lesion of each part, followed by the lesions of random units."""
    pixels: dict[tuple[int, Key], frozenset[str]]
    """By half and by (class, domain), digests of the images that each part was found on."""


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
