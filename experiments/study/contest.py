"""A contest of methods that find circuits.

The contest chooses classes and images, lets each method propose circuits of several sizes on one half of the images,
and measures the circuits on the other half.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from circuitry.runs import (
    ALONE,
    Count,
    Job,
    Natural,
    Rank,
    Share,
    Work,
    one_of,
    whole_file,
)
from circuitry.analysis import QuickstartModel
from circuitry.circuits import (
    BUDGETS,
    LEARNED,
    METHODS,
    Circuit,
    MaskSettings,
    MethodName,
)
from circuitry.data import (
    ImageRecord,
    SeedOption,
    chosen_names,
    drawn_by_name,
    image_listing,
)
from circuitry.encoder import (
    Baseline,
    Counterfactual,
    OperationCounter,
    Task,
    counted_sites,
    mean_baseline,
    metric_of_class,
)
from circuitry.interventions import (
    MIB_SIZES,
    AblationSettings,
    measure_circuits,
    propose_circuits,
)
from experiments.unseen_images import (
    ClassImages,
    ClassRecords,
    read_class,
    split_records,
)


@dataclass(frozen=True, kw_only=True)
class ContestSettings(QuickstartModel):
    """Settings of the scoreboard; the defaults are the quickstart's model and images."""

    domain: str = "real"
    """The domain of all images."""
    judged: tuple[str, ...] = ()
    """Classes whose circuits are judged (default: the classes with most images; the seed decides ties)."""
    n_judged: Count = 3
    """How many classes are judged, if --judged names no classes."""
    n_images: Count = 6
    """Images of a class that are used to find circuits. At most as many further images are used to measure circuits."""
    n_others: Count = 18
    """Images of other classes that are used to find circuits, and the most that are used to measure circuits."""
    methods: tuple[MethodName, ...] = tuple(METHODS)
    """Ways to find circuits; see `find_circuit`."""
    budgets: tuple[Annotated[str, one_of(*BUDGETS)], ...] = ("global",)
    """How methods that rank units choose a share of them: the highest scores of all sites together (global), or the
    same share of every site (same-share)."""
    ablations: tuple[Literal["mean", "optimal", "resample"], ...] = ("mean",)
    """What replaces the units outside a circuit when the circuit is measured: their mean over the images used to find
    circuits (mean); constants that are fitted for each circuit (optimal, see `optimal_baseline`); or the values of the
    units in another image (resample)."""
    n_foreign: Natural = 2
    """How many other judged classes have their circuits measured on the images of each class, too."""
    metric: Literal["logit", "margin"] = "margin"
    """The number that units are scored by: the cosine logit of the class, or the margin by which this logit exceeds the
    mean over the other classes."""
    sizes: tuple[Share, ...] = tuple(sorted({*MIB_SIZES, 0.3, 0.4, 0.6, 0.75, 0.9}))
    """Shares of the units that are kept. They are the shares of MIB, over which CPR and CMD are areas, and the shares
    at which circuits begin to recover the answers."""
    steps: Count = 360
    """Number of steps in which masks are learned, for all sizes together."""
    batch_size: Count = 16
    """Number of images in a step of learning masks."""
    sites: tuple[str, ...] | None = None
    """Sites of the circuits; units of other sites are never replaced (default: the sites of `counted_sites`)."""
    random_draws: Natural = 3
    """Number of random circuits of every size."""
    seed: SeedOption = 0


Contestant = tuple[str, str]  # a method and its budget


FIND = "found"
MEASURE = "measured"
"""Steps of a contest. Each class has a job for each step."""


class Contest:
    """A model, its images, and the jobs that find and measure circuits."""

    def __init__(self, config: ContestSettings, rank: Rank = ALONE) -> None:
        self.config = config
        self.clip = config.clip(rank, components=True)
        self.images = config.images()
        self.weights = self.clip.text_weights(self.images.all_classes)

    @cached_property
    def classes(self) -> list[str]:
        """The classes whose circuits are judged."""
        config = self.config
        images = self.images
        domain = chosen_names("domain", (config.domain,), images.domains)[0]
        counts = images.counts().loc[domain]
        # Most images first. Ties are decided by a draw that depends on no other class.
        ranked = sorted(
            counts.index,
            key=lambda name: (-counts[name], drawn_by_name(config.seed, name)),
        )
        judged = config.judged or ranked[: config.n_judged]
        return list(chosen_names("class", judged, images.classes))

    @property
    def contestants(self) -> list[Contestant]:
        """The pairs of a method and a budget. Learned masks take part once, without a budget."""
        contestants = []
        for method in self.config.methods:
            # Learning chooses how many units of each site are kept, so no budget shares them out.
            budgets = (LEARNED,) if method == LEARNED else self.config.budgets
            contestants += [(method, budget) for budget in budgets]
        return contestants

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """The sites whose units circuits choose among; units of other sites are never replaced."""
        if self.config.sites is not None:
            return self.config.sites
        return counted_sites(self.clip.encoder)

    def records(self, class_name: str) -> tuple[ClassRecords, ClassRecords]:
        """Return records of the images used to find the circuits of a class, and of the images used to measure them."""
        config = self.config
        return split_records(
            self.images,
            class_name,
            config.domain,
            config.n_images,
            config.n_others,
            config.seed,
        )

    def read(self, class_name: str) -> tuple[ClassImages, ClassImages]:
        """Return the images used to find the circuits of a class, and the images used to measure them."""
        found_on, measured_on = self.records(class_name)
        return read_class(self.clip, found_on), read_class(self.clip, measured_on)

    def task(
        self, class_name: str, images: ClassImages, baseline: Baseline, work: Work
    ) -> Task:
        """Return the task of a class: the model, images of the class and of other classes, and the metric."""
        metric = metric_of_class(self.config.metric, self.clip.scale)
        return Task(
            self.clip.encoder,
            images.own,
            metric(self.weights, self.images.label(class_name)),
            baseline=baseline,
            others=images.others,
            sites=self.sites,
            work=replace(work, progress=False),
        )

    def find(
        self, task: Task
    ) -> Iterator[tuple[Contestant, list[Circuit], dict[str, float]]]:
        """Yield, for each contestant, its circuits of all sizes and their cost.

        The budgets of a method share the cost, because the units are scored once for all of them.
        """
        config = self.config
        masks = MaskSettings(
            steps=config.steps,
            batch_size=config.batch_size,
            seed=config.seed,
        )
        for method in config.methods:
            # Time of the processor, which other programs on the machine do not lengthen.
            started = time.process_time()
            with OperationCounter() as counter:
                circuits = propose_circuits(
                    task, config.sizes, method=method, masks=masks
                )
            cost = {
                "seconds": time.process_time() - started,
                "operations": counter.total,
            }
            if method == LEARNED:
                yield (method, LEARNED), circuits, cost
                continue
            # Circuits of all sizes have the same scores, from which each budget takes its own units.
            scores = circuits[0].source
            for budget in config.budgets:
                sized = [scores.strongest(n, budget=budget) for n in config.sizes]
                yield (method, budget), sized, cost

    def do(
        self,
        job: Job,
        images: tuple[ClassImages, ClassImages],
        folder: Path,
        work: Work,
    ) -> list[Path]:
        """Find the circuits of a class, or measure them, and return the files that were written.

        Args:
            job: The step and the class. Circuits are measured after the circuits of all classes were found, because
                circuits of other classes are measured on the images of each class.
            images: The images of `read`.
            folder: Folder of the results.
            work: How the work is done.
        """
        step, class_name = job
        found_on, measured_on = images
        baseline = mean_baseline(self.clip.encoder, found_on.together)
        # Both tasks have the baseline of the images used to find circuits: no unseen image shapes a circuit.
        seen = self.task(class_name, found_on, baseline, work)
        unseen = self.task(class_name, measured_on, baseline, work)
        paths = list[Path]()
        if step == FIND:
            for proposal in self.find(seen):
                paths += self._write(folder, class_name, *proposal)
            return paths
        settings = AblationSettings(
            random_draws=self.config.random_draws, seed=self.config.seed
        )
        classes = [class_name, *self._next(class_name)]
        for contestant in self.contestants:
            own, *foreign = [
                self.circuits(folder, name, contestant) for name in classes
            ]
            for ablation in self.config.ablations:
                task = unseen
                if ablation == "resample":
                    # Each image gets the units of the image before it.
                    previous = measured_on.together.roll(1, 0)
                    task = replace(unseen, baseline=Counterfactual(previous))
                # Constants are fitted on images that are not measured.
                fitted = seen if ablation == "optimal" else None
                paths.append(curve_file(folder, class_name, contestant, ablation))
                measure_circuits(task, own, settings, foreign, fitted).save(paths[-1])
        return paths

    def _write(
        self,
        folder: Path,
        class_name: str,
        contestant: Contestant,
        circuits: Sequence[Circuit],
        cost: dict[str, float],
    ) -> list[Path]:
        """Write the circuits of a contestant and their cost, and return the files."""
        named = replace(
            circuits[0].source, class_name=class_name, domain=self.config.domain
        )
        n_sizes = len(self.config.sizes)
        paths = files_of(folder, class_name, contestant, n_sizes)
        *circuit_files, cost_file = paths
        for path, circuit in zip(circuit_files, circuits, strict=True):
            # The file of a circuit names its class and domain.
            replace(circuit, source=named).save(path)
        with whole_file(cost_file) as temporary:
            temporary.write_text(json.dumps(cost))
        return paths

    def circuits(
        self, folder: Path, class_name: str, contestant: Contestant
    ) -> list[Circuit]:
        """Return the circuits of a class that a contestant found, in the order of `ContestSettings.sizes`."""
        n_sizes = len(self.config.sizes)
        *circuit_files, _ = files_of(folder, class_name, contestant, n_sizes)
        return [Circuit.load(path) for path in circuit_files]

    def _next(self, class_name: str) -> list[str]:
        """Return the judged classes whose circuits are measured on images of a class, too: the classes that follow."""
        place = self.classes.index(class_name) + 1
        # After the last class the first one follows, so that all classes are measured equally often.
        others = [*self.classes[place:], *self.classes[: place - 1]]
        return others[: self.config.n_foreign]

    def listings(self) -> dict[str, dict[str, str]]:
        """Return the images from which results are computed, with their checksums."""
        # A set, because an image of one class is also an image of other classes for the next class.
        records = set[ImageRecord]()
        for name in self.classes:
            for half in self.records(name):
                records.update(half.own, half.others)
        ordered = sorted(records, key=lambda record: record.relative)
        return {"images": image_listing(ordered)}

    def provenance(self) -> dict[str, Any]:
        """Return the model, the classes and the settings that change results."""
        about: dict[str, Any] = {
            "model": self.clip.name,
            "model_digest": self.clip.digest,
            "classes": self.classes,
        }
        # Digest, classes and the listing of images tell what these fields choose, except the kind of units.
        told = {field.name for field in fields(QuickstartModel)} - {"units"}
        for field in fields(ContestSettings):
            if field.name not in {"judged", "n_judged", *told}:
                value = getattr(self.config, field.name)
                # JSON has lists only, and a resumed contest compares its settings with those of the file.
                about[field.name] = list(value) if isinstance(value, tuple) else value
        return {**about, "sites": list(self.sites)}


def files_of(
    folder: Path, class_name: str, contestant: Contestant, n_sizes: int
) -> list[Path]:
    """Return the files of a class and a contestant: the circuit of each size, then the cost."""
    stem = f"{folder / FIND / class_name}/{'.'.join(contestant)}"
    circuits = [Path(f"{stem}.{i}.safetensors") for i in range(n_sizes)]
    return [*circuits, Path(f"{stem}.json")]


def curve_file(
    folder: Path, class_name: str, contestant: Contestant, ablation: str
) -> Path:
    """Return the file of the measurements of a contestant's circuits of a class."""
    return (
        folder / MEASURE / class_name / f"{'.'.join(contestant)}.{ablation}.safetensors"
    )
