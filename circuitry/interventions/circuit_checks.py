"""Causal checks of a whole folder of circuits, on images that they were not found on.

Faithfulness and transfer leave a `JobFolder`: shared among processes, resumed where it stopped, and repaired.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from circuitry.circuits.budgets import RANKINGS
from circuitry.circuits.graph import AttributionGraph, Circuit
from circuitry.circuits.graph_folder import GraphFolder
from circuitry.comparison.table import read_named_table, write_named_table
from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.data.parts import Key
from circuitry.encoder.baselines import ZERO
from circuitry.encoder.metrics import METRICS
from circuitry.encoder.task import Task
from circuitry.interventions.check_images import CheckedImages, CheckImages
from circuitry.interventions.curves import FaithfulnessCurve
from circuitry.interventions.faithfulness import faithfulness_curve
from circuitry.interventions.intervention_settings import (
    MIB_SIZES,
    AblationSettings,
    CheckSettings,
)
from circuitry.interventions.pixels import circuit_pixels
from circuitry.interventions.transfer import interchange, transfer_circuits
from circuitry.models.clip import Clip
from circuitry.models.folder_work import FolderWork
from circuitry.models.options import FolderSettings
from circuitry.runs.errors import InputError
from circuitry.runs.given import Count, Names, Natural, checked
from circuitry.runs.jobs import Job, JobFolder
from circuitry.runs.workers import Work

FAITHFULNESS_FORMAT = "circuitry faithfulness 4"
TRANSFER_FORMAT = "circuitry transfer 2"
FOREIGN = 3
"""Other classes whose circuits are measured beside each circuit, at most."""
_FOUND_BY = ("metric", "ready_metric", "text_weights", "class_weights")
"""Settings of a graph that say by what metric it was found."""

log = logging.getLogger(__name__)


class CausalChecks(FolderWork):
    """The causal checks of a model's circuits, on images that they were not found on.

    Example:
        >>> checks = CausalChecks(clip, DomainFolder("DomainNet"), GraphFolder("runs/x"), CheckSettings(n_images=10))
        >>> curves = checks.extract_faithfulness("runs/x-faithfulness")
        >>> table = checks.extract_transfer("runs/x-transfer")["transfer"]
    """

    settings: CheckSettings

    @checked
    def __init__(
        self,
        clip: Clip,
        images: DomainFolder,
        graphs: GraphFolder,
        settings: CheckSettings | None = None,
    ) -> None:
        """Join a model, its circuits, and images to check them on."""
        settings = settings or CheckSettings()
        found = graphs.identity
        found.check(
            clip.identity, f"the circuits in {graphs.path}", f"the given {clip.name}"
        )
        asked = settings.as_found(found)
        super().__init__(
            clip, images, asked, chosen=(int(found["n_images"]), int(found["seed"]))
        )
        self.graphs, self.chosen = graphs, CheckImages(images, graphs, settings)
        self._found_by: FolderWork = self
        if (
            settings.metric is not None or settings.texts is not None
        ):  # these may be others
            metric = found["metric"] if found["metric"] in METRICS else asked.metric
            self._found_by = FolderWork(
                clip,
                images,
                FolderSettings(metric=metric, texts=found["texts"], baseline=ZERO.name),
            )

    @property
    def size(self) -> float:
        """The share of units that circuits kept when they were found."""
        return float(self.graphs.manifest["config"]["size"])

    def circuit(self, key: Key) -> Circuit:
        """Return the units of a class and domain that are kept."""
        return self._graph(key).circuit(None)

    def _graph(self, key: Key) -> AttributionGraph:
        """Return a graph; if the checks may have another metric or texts, without the settings that name its own.

        Where the checks are asked to take the images that found it, it does not name those.
        """
        graph, left_out = (
            self.graphs[key],
            _FOUND_BY if self._found_by is not self else (),
        )
        settings = {
            name: made for name, made in graph.settings.items() if name not in left_out
        }
        return replace(
            graph,
            settings=settings,
            provenance={} if self.settings.seen else graph.provenance,
        )

    def _followers(self, key: Key) -> list[str]:
        """Return the classes that follow, whose circuits of the domain are measured on the class's images."""
        names = [name for name, domain in self.chosen.keys if domain == key[1]]
        place = names.index(key[0])
        return (names[place + 1 :] + names[:place])[:FOREIGN]

    def images_of(self, key: Key, work: Work = Work()) -> CheckedImages:
        """Return the images of a circuit's checks that can be read."""
        own, others = (
            self.read(of(key), strict=work.strict)
            for of in (self.chosen.own, self.chosen.others)
        )
        return own, others if len(others) else None

    def found_on(self, class_name: str, domain: str) -> Tensor:
        """Return the images [B, 3, H, W] of a class and domain on which its circuit was found."""
        return self._read_some(self.chosen.found_on((class_name, domain)))

    def _read_some(self, records: Sequence[ImageRecord]) -> Tensor:
        images = self.read(records)
        if not len(images):
            one = records[0]
            raise InputError(
                f"No image of {one.class_name!r} in {one.domain!r} can be read: look at {one.path}."
            )
        return images

    def task_found_with(self, key: Key, work: Work = Work()) -> Task:
        """Return the task that a circuit was found with."""
        images = self.found_on(*key)
        baseline = self.baseline_called(self.graphs[key].settings["baseline"]).of(
            *key, len(images)
        )
        return Task(
            self.clip.encoder,
            images,
            self._found_by.metric_of(*key),
            baseline=baseline,
            work=work,
        )

    @property
    def provenance(self) -> dict[str, Any]:
        """What shapes the numbers, beside the circuits."""
        names = ("n_images", "n_others", "seen", "budget", "seed")
        return self.asked | {name: getattr(self.settings, name) for name in names}

    def extract_faithfulness(
        self,
        out: str | os.PathLike[str],
        *,
        rankings: Names = RANKINGS,
        sizes: Sequence[float] | None = None,
        random_draws: Natural = 5,
        one_site: bool = False,
        work: Work = Work(),
    ) -> list[FaithfulnessCurve]:
        """Measure the faithfulness curve of every (class, domain) by every ranking into a folder.

        Args:
            rankings: Which units come first, a curve for each; see `AblationSettings`.
            sizes: Sizes of the circuits (default: MIB's, and that of the circuits as they were found).
            one_site: Ablate at one site at a time, a curve for each, instead of at all sites together, and leave out
                the circuits of other classes.

        Returns:
            The curves, class by class; a warning names each class and domain without a readable image.

        Raises:
            InputError: for a folder made with other settings or images, with the difference; when no image at all can
                be read; and what `faithfulness_curve` raises.
        """
        if sizes is None:
            sizes = sorted({*MIB_SIZES, self.size})
        cut = {"budget": self.settings.budget, "sizes": list(sizes)}
        asked = {"rankings": list(rankings), **cut, "random_draws": random_draws}
        folder = self._claim(
            out, FAITHFULNESS_FORMAT, self.chosen.tested, **asked, one_site=one_site
        )
        settings = AblationSettings(
            budget=self.settings.budget,
            sizes=sizes,
            random_draws=random_draws,
            seed=self.settings.seed,
        )

        def measure(job: Job, images: CheckedImages) -> list[Path]:
            key = class_name, domain = job[0], job[1]
            graph, paths = self._graph(key), []
            foreign = (
                []
                if one_site
                else [self._graph((one, domain)) for one in self._followers(key)]
            )
            with (
                self.clip.encoder.running()
            ):  # one digest of the encoder for all curves
                for ranking in rankings if len(images[0]) else ():
                    for sites in (
                        [[site] for site in graph.inner_sites] if one_site else [None]
                    ):
                        task = self.task(key, *images, sites, work)
                        curve = faithfulness_curve(
                            task, graph, replace(settings, ranking=ranking), foreign
                        )
                        curve = replace(
                            curve,
                            settings=curve.settings
                            | {"circuits": self.graphs.identity.key},
                        )
                        paths.append(
                            folder.path
                            / class_name
                            / f"{domain}.{ranking}.{_name(sites)}.safetensors"
                        )
                        curve.save(paths[-1])
            return paths

        folder.run(
            measure,
            prepare=lambda job: self.images_of((job[0], job[1]), work),
            rank=work.rank,
            progress=work.bar("faithfulness"),
            unit="circuit",
        )
        return [FaithfulnessCurve.load(path) for path in self._results(folder)]

    def extract_transfer(
        self,
        out: str | os.PathLike[str],
        *,
        one_site: bool = False,
        exchange: bool = True,
        work: Work = Work(),
    ) -> dict[str, pd.DataFrame]:
        """Keep and interchange circuits between all domains, class by class, into a folder.

        Args:
            one_site: Also keep circuits at one site at a time, with everything else as it is.

        Returns:
            ``transfer``: table of `transfer_circuits` with the column ``sites``: ``all`` or the one site; with
            ``exchange`` also ``interchange``: table of `interchange`. A warning names each class without a readable
            image.
        """
        by_class: dict[str, list[Key]] = {}
        for key in self.chosen.tested:
            by_class.setdefault(key[0], []).append(key)
        jobs = [(class_name,) for class_name in by_class]
        folder = self._claim(
            out, TRANSFER_FORMAT, jobs, one_site=one_site, exchange=exchange
        )

        def measure(job: Job, images: Mapping[Key, CheckedImages]) -> list[Path]:
            (class_name,) = job
            if not images:
                return []
            circuits, tables = (
                {key: self.circuit(key) for key in by_class[class_name]},
                {},
            )
            with (
                self.clip.encoder.running()
            ):  # one digest of the encoder for all tables
                inner = (
                    next(iter(circuits.values())).source.inner_sites if one_site else ()
                )
                for sites in (None, *([site] for site in inner)):
                    tasks = {
                        key: self.task(key, *found, sites, work)
                        for key, found in images.items()
                    }
                    moved = transfer_circuits(tasks, circuits)
                    tables[f"transfer/{class_name}/{_name(sites)}.csv"] = moved
                if exchange:
                    tasks = {
                        key: self.task(key, *found, work=work)
                        for key, found in images.items()
                    }
                    tables[f"interchange/{class_name}.csv"] = interchange(
                        tasks, circuits, seed=self.settings.seed
                    )
            for name, table in tables.items():
                write_named_table(folder.path / name, table)
            return [folder.path / name for name in tables]

        def read(job: Job) -> dict[Key, CheckedImages]:
            found = {key: self.images_of(key, work) for key in by_class[job[0]]}
            return {key: images for key, images in found.items() if len(images[0])}

        folder.run(
            measure,
            prepare=read,
            rank=work.rank,
            progress=work.bar("transfer"),
            unit="class",
        )
        made: dict[str, list[pd.DataFrame]] = {"transfer": [], "interchange": []}
        for path in self._results(folder):
            kind, table = path.relative_to(folder.path).parts[0], _read_table(path)
            made[kind].append(
                table.assign(sites=path.stem) if kind == "transfer" else table
            )
        return {
            kind: pd.concat(tables, ignore_index=True)
            for kind, tables in made.items()
            if tables
        }

    def pixels(
        self, class_name: str, domain: str, *, n_images: Count = 3, work: Work = Work()
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return a few images as bytes [B, H, W, 3], and the maps of `circuit_pixels` on them."""
        key = class_name, domain
        images = self._read_some(self.chosen.own(key))[:n_images]
        task = self.task(key, images, work=work)
        maps = circuit_pixels(task, self.circuit(key))
        return self.clip.shown(images), {
            title: found.cpu().numpy() for title, found in maps.items()
        }

    def _claim(
        self,
        out: str | os.PathLike[str],
        file_format: str,
        jobs: Sequence[Job],
        **asked: Any,
    ) -> JobFolder:
        records = {
            key: (*self.chosen.own(key), *self.chosen.others(key))
            for key in self.chosen.tested
        }
        settings = self.settings
        mine = {name: getattr(settings, name) for name in ("n_others", "seen")}
        circuits = self.graphs.identity.key
        return self.claim(
            Path(out), file_format, jobs, records, circuits=circuits, **mine, **asked
        )

    def _results(self, folder: JobFolder) -> list[Path]:
        """Return the files of all jobs in order; a warning names those without readable images."""
        files = {job: folder.files(job) for job in folder.jobs}
        if not any(files.values()):
            raise InputError(
                f"None of the images to check the circuits in {self.graphs.path} on can be read: look at the files in "
                f"{self.images.root}."
            )
        for job in (job for job, paths in files.items() if not paths):
            log.warning(
                "%s is left out: none of the images can be read", " in ".join(job)
            )
        return [path for paths in files.values() for path in paths]


def _read_table(path: Path) -> pd.DataFrame:
    # A class may be called NA; only what is measured can be missing.
    columns = pd.read_csv(path, nrows=0).columns
    named = ["class", "circuit_domain", "image_domain", "reason"]
    return read_named_table(
        path, na_values={name: [""] for name in columns.difference(named)}
    )


def _name(sites: Sequence[str] | None) -> str:
    return "all" if sites is None else ",".join(sites)
