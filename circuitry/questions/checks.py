"""Causal checks of all circuits in a folder: their faithfulness on new images.

The checks use images that were not used to find the circuits. Faithfulness is measured in the jobs of a `JobFolder`,
which stores the results. Several processes may share the jobs. An interrupted run is resumed, and
damaged files are repaired.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from circuitry.circuits.budgets import RANKINGS
from circuitry.circuits.graph import AttributionGraph, Circuit
from circuitry.circuits.graph_folder import GraphFolder
from circuitry.data.domains import DomainFolder
from circuitry.data.folds import Key
from circuitry.data.splits import Records
from circuitry.encoder.baselines import ZERO
from circuitry.encoder.metrics import METRICS
from circuitry.encoder.task import Task
from circuitry.interventions.curves import FaithfulnessCurve
from circuitry.interventions.faithfulness import faithfulness_curve
from circuitry.interventions.intervention_settings import (
    MIB_SIZES,
    AblationSettings,
    CheckSettings,
)
from circuitry.models.clip import Clip
from circuitry.models.folder_work import FolderWork
from circuitry.models.options import FolderSettings
from circuitry.questions.check_images import CheckImages
from circuitry.runs.arguments import Names, Natural, checked
from circuitry.runs.errors import InputError
from circuitry.runs.jobs import Job
from circuitry.runs.workers import Work

# If the meaning of the files changes, change the number: then an older folder is refused and not misread.
FAITHFULNESS_FORMAT = "circuitry faithfulness 4"
CURVE_DRAWS = 2
"""Number of random circuits that each circuit of a curve is compared with."""
FOREIGN = 3
"""The largest number of other classes whose circuits are measured for comparison with each circuit."""
_FOUND_BY = ("metric", "ready_metric", "text_weights", "class_weights")
"""Settings of a graph that say which metric was used to find it."""

CheckedImages = tuple[Tensor, Tensor | None]
"""The readable images to check a circuit on: images of the class [B, 3, H, W], and images of other classes or None."""

log = logging.getLogger(__name__)


class CausalChecks(FolderWork):
    """The causal checks of a model's circuits.

    The images were not used to find the circuits, unless the settings ask for these images.

    Example:
        >>> from circuitry.interventions import CheckSettings
        >>> checks = circuitry.CausalChecks(clip, folder, graphs, CheckSettings(n_images=1))
        >>> curves = checks.extract_faithfulness("runs/x-faithfulness", rankings=("absolute",), random_draws=1)
        >>> len(curves)
        4
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
        """Prepare the checks of a model's circuits on images.

        Args:
            clip: The model that was used to find the circuits.
            images: The images, by class and domain.
            graphs: The folder of the circuits.
            settings: The settings of the checks. By default metric, texts, baseline and budget are taken from the
                circuits.

        Raises:
            InputError: if the circuits were found with another model.
        """
        settings = settings or CheckSettings()
        # Sites and units of another model may have the same names, but they are other units.
        made_with = graphs.identity
        made_with.check(
            clip.identity, f"the circuits in {graphs.path}", f"the given {clip.name}"
        )
        asked = settings.as_found(made_with)
        self.graphs = graphs
        self.chosen = CheckImages(images, graphs, settings)
        super().__init__(clip, images, asked, self.chosen.split)
        self._found_by: FolderWork = self
        if settings.metric is not None or settings.texts is not None:
            # The checks may have another metric or other texts than the circuits were found with.
            metric = made_with["metric"]
            # If the metric is a function, a manifest has only its name, so the function of the checks is taken.
            if metric not in METRICS:
                metric = asked.metric
            # `task_found_with` replaces the baseline. Here it is zero, which needs no pass over images.
            found_by = FolderSettings(
                metric=metric, texts=made_with["texts"], baseline=ZERO.name
            )
            self._found_by = FolderWork(clip, images, found_by)

    @property
    def size(self) -> float:
        """The share of units that the circuits kept when they were found."""
        return float(self.graphs.manifest["config"]["size"])

    def circuit(self, key: Key) -> Circuit:
        """Return the circuit of a class and domain, as units without edges."""
        return self._graph(key).circuit(None)

    def _graph(self, key: Key) -> AttributionGraph:
        """Return the graph of a class and domain, without the records that must not be compared with the task.

        A test raises an error if the graph has other settings than the task, and warns if they share images. If the
        user gave the checks a metric or texts, the graph's record of its metric is removed. If the user asked for the
        images that were used to find the circuits, the graph's record of these images is removed.
        """
        graph = self.graphs[key]
        # Tests compare these entries with the entries of the task. If they differ, tests raise an error or warn.
        settings = dict(graph.settings)
        if self._found_by is not self:
            for name in _FOUND_BY:
                settings.pop(name, None)
        provenance = {} if self.settings.seen else graph.provenance
        return replace(graph, settings=settings, provenance=provenance)

    def _foreign(self, key: Key) -> list[AttributionGraph]:
        """Return the graphs of at most `FOREIGN` other classes in the same domain.

        They are the classes after the class of ``key`` in the order of the circuits. After the last class comes the
        first one.
        """
        names = [name for name, domain in self.chosen.keys if domain == key[1]]
        # In a circle, so that every circuit is compared equally often as the circuit of another class.
        place = names.index(key[0])
        followers = (names[place + 1 :] + names[:place])[:FOREIGN]
        return [self._graph((name, key[1])) for name in followers]

    def images_of(self, key: Key, work: Work = Work()) -> CheckedImages:
        """Return the readable images to check the circuit of a class and domain on."""
        # Without images of other classes only the selectivity is unknown.
        own = self.read(self.chosen.own(key), strict=work.strict)
        others = self.read(self.chosen.others(key), strict=work.strict)
        return own, others if len(others) else None

    def found_on(self, class_name: str, domain: str) -> Tensor:
        """Return the images [B, 3, H, W] that were used to find the circuit of a class and domain.

        Raises:
            InputError: if these images are not among the given images, or cannot be read.
        """
        records = self.chosen.found_on((class_name, domain))
        if not records:
            raise InputError(
                f"None of the images that found the circuit of {class_name!r} in {domain!r} is among {self.images!r}: "
                "give the images of its run."
            )
        images = self.read(records)
        if not len(images):
            first = records[0]
            raise InputError(
                f"No image of {first.class_name!r} in {first.domain!r} can be read: look at {first.path}."
            )
        return images

    def task_found_with(self, key: Key, work: Work = Work()) -> Task:
        """Return the task that was used to find the circuit of a class and domain."""
        images = self.found_on(*key)
        named = self.baseline_called(self.graphs[key].settings["baseline"])
        return Task(
            self.clip.encoder,
            images,
            self._found_by.metric_of(*key),
            baseline=named.of(*key, len(images)),
            work=work,
        )

    @property
    def provenance(self) -> dict[str, Any]:
        """The settings that influence the results, in addition to the circuits."""
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
        """Measure faithfulness curves of every (class, domain) and write them into a folder.

        Args:
            out: The folder. An existing folder is resumed.
            rankings: Rules by which units are ranked (`RANKINGS`). A circuit keeps the first units of a ranking, and
                there is a curve for each ranking.
            sizes: Sizes of the circuits, as shares of the units. By default they are the sizes of the MIB benchmark,
                and the size at which the circuits were found.
            random_draws: The number of random circuits of every size.
            one_site: True ablates at one site at a time, with a curve for each site. Circuits of other classes are then
                left out. False ablates at all sites together.
            work: How the work is carried out: rank of this process, memory, unreadable images, and progress bar.

        Returns:
            The curves, class by class. A warning names each class and domain without a readable image.

        Raises:
            InputError: for a folder that was made with other settings or images (the message says what differs), or if
                no image at all can be read. The errors of `faithfulness_curve` are raised, too.
        """
        settings = AblationSettings(
            budget=self.settings.budget,
            sizes=sorted({*MIB_SIZES, self.size}) if sizes is None else sizes,
            random_draws=random_draws,
            seed=self.settings.seed,
        )
        # All settings that influence results are claimed, so that a resumed folder never mixes two settings.
        records: dict[Key, Records] = {}
        for key in self.chosen.tested:
            records[key] = self.chosen.own(key) + self.chosen.others(key)
        folder = self.claim(
            Path(out),
            FAITHFULNESS_FORMAT,
            self.chosen.tested,
            records,
            circuits=self.graphs.identity.key,
            n_others=self.settings.n_others,
            seen=self.settings.seen,
            rankings=list(rankings),
            budget=settings.budget,
            sizes=list(settings.sizes),
            random_draws=random_draws,
            one_site=one_site,
        )
        asked = [replace(settings, ranking=ranking) for ranking in rankings]

        def measure(job: Job, images: CheckedImages) -> list[Path]:
            key = (job[0], job[1])
            paths = []
            # Within this block the digest of the encoder is computed once for all curves.
            with self.clip.encoder.running():
                for curve, sites in self._curves(key, images, asked, one_site, work):
                    name = f"{key[1]}.{curve.ranking}.{sites}.safetensors"
                    paths.append(folder.path / key[0] / name)
                    curve.save(paths[-1])
            return paths

        folder.run(
            measure,
            prepare=lambda job: self.images_of((job[0], job[1]), work),
            rank=work.rank,
            progress=work.bar("faithfulness"),
            unit="circuit",
        )
        files = {job: folder.files(job) for job in folder.jobs}
        if not any(files.values()):
            raise InputError(
                f"None of the images to check the circuits in {self.graphs.path} on can be read: look at the files in "
                f"{self.images.root}."
            )
        curves = list[FaithfulnessCurve]()
        for job, paths in files.items():
            curves += map(FaithfulnessCurve.load, paths)
            if not paths:
                message = "%s is left out: none of the images can be read"
                log.warning(message, " in ".join(job))
        return curves

    def _curves(
        self,
        key: Key,
        images: CheckedImages,
        asked: Sequence[AblationSettings],
        one_site: bool,
        work: Work,
    ) -> Iterator[tuple[FaithfulnessCurve, str]]:
        """Yield the curves of a circuit, each with the name of the sites that are ablated.

        Nothing is yielded if no image of the class can be read.

        Args:
            key: The class and domain of the circuit.
            images: The images to test on.
            asked: The settings of the curves, one for each ranking.
            one_site: Whether to ablate at one site at a time.
            work: Memory that the runs may use.
        """
        if not len(images[0]):
            return
        graph = self._graph(key)
        foreign: list[AttributionGraph] = []
        # None means all sites at once.
        places: list[list[str] | None] = [None]
        # To measure circuits of other classes at every site, too, would take several times as long.
        if one_site:
            places = [[site] for site in graph.inner_sites]
        else:
            foreign = self._foreign(key)
        for settings in asked:
            for sites in places:
                task = self.task(key, *images, sites, work)
                curve = faithfulness_curve(task, graph, settings, foreign)
                made_with = curve.settings | {"circuits": self.graphs.identity.key}
                yield replace(curve, settings=made_with), ",".join(sites or ["all"])
