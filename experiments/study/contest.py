"""A contest of methods that find circuits: classes and images, what each method proposes, and how it is judged."""

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
from circuitry.data import SeedOption, chosen_names, drawn_by_name, image_listing
from circuitry.encoder import (
    Baseline,
    Counterfactual,
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
from experiments.operations import OperationCounter
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
    """The domain."""
    judged: tuple[str, ...] = ()
    """Classes whose circuits are judged (default: by the protocol)."""
    n_judged: Count = 3
    """How many classes are judged, where --judged names none."""
    n_images: Count = 6
    """Images of a class in a domain: to find circuits on, and as many at most to measure on."""
    n_others: Count = 18
    """Images of other classes: likewise."""
    methods: tuple[MethodName, ...] = tuple(METHODS)
    """Ways to find circuits; see `find_circuit`."""
    budgets: tuple[Annotated[str, one_of(*BUDGETS)], ...] = ("global",)
    """How the methods that rank units share a size out over the sites: global, same-share."""
    ablations: tuple[Literal["mean", "optimal", "resample"], ...] = ("mean",)
    """What replaces other units where circuits are measured: the mean over the images that they are found on; constants
    on top of it for each circuit (`optimal_baseline`); or the units of another image."""
    n_foreign: Natural = 2
    """Judged classes whose circuits are measured on each class's images, too."""
    metric: Literal["logit", "margin"] = "margin"
    """What units are scored by: the class's cosine logit, or its lead over the mean of the other classes."""
    sizes: tuple[Share, ...] = tuple(sorted({*MIB_SIZES, 0.3, 0.4, 0.6, 0.75, 0.9}))
    """Shares of the units that are kept: those of MIB, over which CPR and CMD are areas, and where circuits begin to
    work."""
    steps: Count = 360
    """Steps that masks are learned for: all sizes together."""
    batch_size: Count = 16
    """Images of a step."""
    sites: tuple[str, ...] | None = None
    """Sites: of the circuits; others stay whole (default: those that compute, see `counted_sites`)."""
    autocast: Literal["bfloat16", "float16"] | None = None
    """Lower precision where PyTorch deems it safe: while masks are trained; see `MaskSettings`."""
    random_draws: Natural = 3
    """Random circuits of every size."""
    seed: SeedOption = 0


Contestant = tuple[str, str]  # a method and its budget


FIND, MEASURE = (
    "found",
    "measured",
)
"""Steps of a contest, one job of each for every class."""


class Contest:
    """A model and images, and what every job does with them."""

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
        counts = images.counts().loc[
            chosen_names("domain", (config.domain,), images.domains)[0]
        ]
        ranked = sorted(
            counts.index,
            key=lambda name: (-counts[name], drawn_by_name(config.seed, name)),
        )
        return list(
            chosen_names(
                "class", config.judged or ranked[: config.n_judged], images.classes
            )
        )

    @property
    def contestants(self) -> list[Contestant]:
        """Each method with each budget; masks have their own counts."""
        config = self.config
        return [
            (m, b)
            for m in config.methods
            for b in ((LEARNED,) if m == LEARNED else config.budgets)
        ]

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """The sites whose units count; the others stay whole."""
        if self.config.sites is not None:
            return self.config.sites
        return counted_sites(self.clip.encoder)

    def records(self, class_name: str) -> tuple[ClassRecords, ClassRecords]:
        """Return images of the class and of others to find circuits on, and then to measure on."""
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
        """Return images to find circuits on, and images to measure on."""
        found_on, measured_on = self.records(class_name)
        return read_class(self.clip, found_on), read_class(self.clip, measured_on)

    def task(
        self, class_name: str, images: ClassImages, baseline: Baseline, work: Work
    ) -> Task:
        """Return what is asked of the model about some images of a class."""
        return Task(
            self.clip.encoder,
            images.own,
            metric_of_class(self.config.metric, self.clip.scale)(
                self.weights, self.images.label(class_name)
            ),
            baseline=baseline,
            others=images.others,
            sites=self.sites,
            work=replace(work, progress=False),
        )

    def find(
        self, task: Task
    ) -> Iterator[tuple[Contestant, list[Circuit], dict[str, float]]]:
        """Yield circuits of every size by each method and budget, and their cost; scores serve all budgets."""
        config = self.config
        asked = {
            name: getattr(config, name)
            for name in ("steps", "batch_size", "seed", "autocast")
        }
        for method in config.methods:
            started = time.process_time()
            with OperationCounter() as counter:
                circuits = propose_circuits(
                    task, config.sizes, method=method, masks=MaskSettings(**asked)
                )
            cost = {
                "seconds": time.process_time() - started,
                "operations": counter.total,
            }
            if method == LEARNED:
                yield (method, LEARNED), circuits, cost
                continue
            for budget in config.budgets:
                yield (
                    (method, budget),
                    [
                        circuits[0].source.strongest(n, budget=budget)
                        for n in config.sizes
                    ],
                    cost,
                )

    def do(
        self,
        job: Job,
        images: tuple[ClassImages, ClassImages],
        folder: Path,
        work: Work,
    ) -> list[Path]:
        """Find the circuits of a class, or measure them, once those of all classes are found."""
        step, class_name = job
        found_on, measured_on = images
        baseline = mean_baseline(self.clip.encoder, found_on.together)
        seen, unseen = (self.task(class_name, side, baseline, work) for side in images)
        if step == FIND:
            return [
                path
                for found in self.find(seen)
                for path in self._write(folder, class_name, *found)
            ]
        settings = AblationSettings(
            random_draws=self.config.random_draws, seed=self.config.seed
        )
        paths = list[Path]()
        for contestant in self.contestants:
            own, *foreign = (
                self.circuits(folder, name, contestant)
                for name in (class_name, *self._next(class_name))
            )
            for ablation in self.config.ablations:
                task = unseen
                if (
                    ablation == "resample"
                ):  # each image has the units of the one before it
                    task = replace(
                        unseen, baseline=Counterfactual(measured_on.together.roll(1, 0))
                    )
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
    ) -> Iterator[Path]:
        named = replace(
            circuits[0].source, class_name=class_name, domain=self.config.domain
        )
        *places, cost_file = files_of(
            folder, class_name, contestant, len(self.config.sizes)
        )
        for path, one in zip(places, circuits, strict=True):
            replace(one, source=named).save(path)
            yield path
        with whole_file(cost_file) as temporary:
            temporary.write_text(json.dumps(cost))
        yield cost_file

    def circuits(
        self, folder: Path, class_name: str, contestant: Contestant
    ) -> list[Circuit]:
        """Return the circuits of a class that were found, by size."""
        return [
            Circuit.load(path)
            for path in files_of(
                folder, class_name, contestant, len(self.config.sizes)
            )[:-1]
        ]

    def _next(self, class_name: str) -> list[str]:
        """Return the judged classes that follow, whose circuits are measured, too."""
        place = self.classes.index(class_name) + 1
        return [*self.classes[place:], *self.classes[: place - 1]][
            : self.config.n_foreign
        ]

    def listings(self) -> dict[str, dict[str, str]]:
        """Return the images that shape a number, with their checksums."""
        records = {
            r
            for name in self.classes
            for side in self.records(name)
            for part in side
            for r in part
        }
        return {
            "images": image_listing(sorted(records, key=lambda record: record.relative))
        }

    def provenance(self) -> dict[str, Any]:
        """Return what shapes a number."""
        not_asked = {
            "judged",
            "n_judged",
            *(field.name for field in fields(QuickstartModel)),
        } - {"units"}
        asked = [
            field.name
            for field in fields(ContestSettings)
            if field.name not in not_asked
        ]
        values = {name: getattr(self.config, name) for name in asked}
        plain = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }
        made = {
            "model": self.clip.name,
            "model_digest": self.clip.digest,
            "classes": self.classes,
        }
        return {**made, **plain, "sites": list(self.sites)}


def files_of(
    folder: Path, class_name: str, contestant: Contestant, n_sizes: int
) -> list[Path]:
    """Return the files of a class, method and budget: a circuit for each size, and the cost."""
    stem = f"{folder / FIND / class_name}/{'.'.join(contestant)}"
    return [
        *(Path(f"{stem}.{i}.safetensors") for i in range(n_sizes)),
        Path(f"{stem}.json"),
    ]


def curve_file(
    folder: Path, class_name: str, contestant: Contestant, ablation: str
) -> Path:
    """Return the file of the measured circuits of a class, method and budget."""
    return (
        folder / MEASURE / class_name / f"{'.'.join(contestant)}.{ablation}.safetensors"
    )
