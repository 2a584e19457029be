"""A contest of methods that find circuits: classes and images, what each method proposes, and how it is judged."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

import torch

from circuitry.analysis.quickstart_model import QuickstartModel
from circuitry.circuits import BUDGETS, LEARNED, shares_of
from circuitry.circuits.budgets import Budget
from circuitry.circuits.cost import OperationCounter
from circuitry.circuits.graph import Circuit
from circuitry.circuits.methods import METHODS, MethodName
from circuitry.data import image_listing
from circuitry.data.names import chosen_names, drawn_by_name
from circuitry.encoder import AnyBaseline, Counterfactual, Task, mean_baseline
from circuitry.encoder.metrics import METRICS
from circuitry.interventions import (
    MIB_FRACTIONS,
    AblationSettings,
    MaskSettings,
    counted_sites,
    judge_circuit,
    measure_circuits,
    propose_circuits,
)
from circuitry.judging.scoreboard import unit_overlap
from circuitry.judging.unseen_images import ClassImages, ClassRecords, read_class, split_records
from circuitry.runs import ALONE, InputError, Job, Rank, Work, whole_file
from circuitry.runs.given import Count, Natural, Seed, Share, checked, one_of

CONTEST_BASELINES = ("zero", "mean", "counterfactual")


@checked
@dataclass(frozen=True, kw_only=True)
class ContestSettings(QuickstartModel):
    """Settings of the scoreboard; the defaults are the quickstart's model and images."""

    NOT_BOTH: ClassVar = (("sites", "body"),)

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
    budgets: tuple[Annotated[str, one_of(*BUDGETS, LEARNED)], ...] = (*BUDGETS, LEARNED)
    """How the methods that rank units share a size out over the sites: same-share, global, learned (as many at each
    site as the mask keeps)."""
    baselines: tuple[Annotated[str, one_of(*CONTEST_BASELINES)], ...] = ("zero", "mean")
    """What replaces other units: zero, mean (over the images that circuits are found on), counterfactual (images
    of other classes)."""
    metrics: tuple[Annotated[str, one_of(*METRICS)], ...] = ("logit", "margin")
    """The class's cosine logit, or its lead over the mean of the other classes."""
    sizes: tuple[Share, ...] = tuple(sorted({*MIB_FRACTIONS, 0.3, 0.4, 0.6, 0.75, 0.9}))
    """Shares of the units that are kept: those of MIB, over which CPR and CMD are areas, and where circuits begin to
    work."""
    steps: Count = 360
    """Steps that masks are learned for: all sizes together."""
    batch_size: Count = 16
    """Images of a step."""
    body: bool = True
    """Count only units that compute: readouts and sites that repeat another stay whole; see `counted_sites`."""
    sites: tuple[str, ...] | None = None
    """Sites: of the circuits, in place of --body; others stay whole."""
    autocast: Annotated[str | None, one_of("bfloat16", "float16")] = None
    """Lower precision where PyTorch deems it safe: while masks are trained; see `MaskSettings`."""
    random_draws: Natural = 2
    """Random circuits of every size."""
    stable: Natural = 1
    """Number of classes whose circuits are tested against random ones, and found again: on either half of the images,
    and by masks from another seed."""
    tested_size: Share = 0.3
    """Size of the tested circuits, the nearest on the grid."""
    seed: Seed = 0
    """Seed of all random choices: images, masks and random units."""

    def __post_init__(self) -> None:
        for what in ("methods", "budgets", "baselines", "metrics"):
            if not getattr(self, what):
                raise InputError(f"Expected at least one value after --{what}, but none was given: add one.")
        if LEARNED in self.budgets and LEARNED not in self.methods:
            raise InputError(
                "The budget 'learned' takes the counts of masks: add the method 'learned', or leave it out."
            )


Contestant = tuple[str, str]
"""A method and its budget."""


class Found(NamedTuple):
    """Circuits of all sizes, and what they cost."""

    circuits: list[Circuit]
    cost: dict[str, float]


class Contest:
    """A model and images, and what every job does with them."""

    def __init__(self, config: ContestSettings, rank: Rank = ALONE) -> None:
        self.config, self.clip, self.images = config, config.clip(rank), config.images()
        self.weights = self.clip.text_weights(self.images.all_classes)

    @cached_property
    def classes(self) -> list[str]:
        """The classes whose circuits are judged."""
        config, images = self.config, self.images
        counts = images.counts().loc[chosen_names("domain", (config.domain,), images.domains)[0]]
        ranked = sorted(counts.index, key=lambda name: (-counts[name], drawn_by_name(config.seed, name)))
        return list(chosen_names("class", config.judged or ranked[: config.n_judged], images.classes))

    @property
    def jobs(self) -> list[Job]:
        """Class, baseline and metric of each job, which has all methods and budgets."""
        config = self.config
        return [(c, b, k) for c in self.classes for b in config.baselines for k in config.metrics]

    @property
    def contestants(self) -> list[Contestant]:
        """Each method with each budget; masks have their own counts."""
        config = self.config
        return [(m, b) for m in config.methods for b in ((LEARNED,) if m == LEARNED else config.budgets)]

    @cached_property
    def sites(self) -> tuple[str, ...] | None:
        """The sites whose units count; the others stay whole."""
        if self.config.sites is not None or not self.config.body:
            return self.config.sites
        images = self.read(self.classes[0])[0].own
        return counted_sites(Task(self.clip.encoder, images, METRICS["logit"](self.weights, 0)))

    def records(self, class_name: str) -> tuple[ClassRecords, ClassRecords]:
        """Return images of the class and of others to find circuits on, and then to measure on."""
        config = self.config
        return split_records(self.images, class_name, config.domain, config.n_images, config.n_others, config.seed)

    def read(self, class_name: str) -> tuple[ClassImages, ClassImages]:
        """Return images to find circuits on, and images to measure on."""
        found_on, measured_on = self.records(class_name)
        return read_class(self.clip, found_on), read_class(self.clip, measured_on)

    def baselines(self, name: str, found_on: ClassImages, measured_on: ClassImages) -> tuple[AnyBaseline, AnyBaseline]:
        """Return a baseline made of the images that circuits are found on, for these and for those measured on."""
        if name == "zero":
            return name, name
        if name == "mean":
            mean = mean_baseline(self.clip.encoder, found_on.together)
            return mean, mean
        pool = found_on.others  # the others take the next image in turn, not themselves
        places = [torch.cat([torch.arange(len(a)), 1 + torch.arange(len(b))]) for a, b in (found_on, measured_on)]
        first, second = (Counterfactual(pool[place % len(pool)]) for place in places)
        return first, second

    def task(self, class_name: str, metric: str, images: ClassImages, baseline: AnyBaseline, work: Work) -> Task:
        """Return what is asked of the model about some images of a class."""
        return Task(
            self.clip.encoder,
            images.own,
            METRICS[metric](self.weights, self.images.label(class_name)),
            baseline=baseline,
            others=images.others,
            sites=self.sites,
            work=replace(work, progress=False),
        )

    def find(self, task: Task, seed: int, methods: Sequence[str]) -> dict[Contestant, Found]:
        """Return circuits of every size by each of some methods and budgets; units are scored once for all budgets."""
        config, found = self.config, dict[Contestant, Found]()
        masks = MaskSettings(steps=config.steps, batch_size=config.batch_size, seed=seed, autocast=config.autocast)
        shares: Sequence[Budget] = []
        for method in sorted(methods, key=lambda name: name != LEARNED):
            started = time.process_time()
            with OperationCounter() as counter:
                circuits = propose_circuits(task, config.sizes, method=method, masks=masks)
            cost = {"seconds": time.process_time() - started, "operations": counter.total}
            if method == LEARNED:
                found[method, LEARNED] = Found(circuits, cost)
                n_units = {site: len(scores) for site, scores in circuits[0].source.node_scores.items()}
                shares = [shares_of(one.units, n_units) for one in circuits]
                continue
            for budget in config.budgets:
                budgets = shares if budget == LEARNED else [budget] * len(circuits)
                found[method, budget] = Found(
                    [
                        circuits[0].source.strongest(size, budget=one)
                        for size, one in zip(config.sizes, budgets, strict=True)
                    ],
                    cost,
                )
        return found

    def do(self, job: Job, images: tuple[ClassImages, ClassImages], folder: Path, work: Work) -> list[Path]:
        """Find circuits, measure and test them; write curve, scores, cost, tests and stability."""
        class_name, baseline, metric = job
        config, (found_on, measured_on) = self.config, images
        for_finding, for_measuring = self.baselines(baseline, found_on, measured_on)
        found = self.find(self.task(class_name, metric, found_on, for_finding, work), config.seed, config.methods)
        unseen = self.task(class_name, metric, measured_on, for_measuring, work)
        settings = AblationSettings(random_draws=config.random_draws, seed=config.seed)
        stable = class_name in self.classes[: config.stable]
        stability = self.stability(job, images, found, work) if stable else {}
        paths = list[Path]()
        for contestant in self.contestants:
            circuits, cost = found[contestant]
            first = circuits[0]
            named = replace(first.source, kept_units=dict(first.units), class_name=class_name, domain=config.domain)
            circuits = [replace(one, source=named) for one in circuits]
            facts: dict[str, Any] = {**cost, "stability": stability.get(contestant, [])}
            if stable:
                tested = config.sizes.index(min(config.sizes, key=lambda size: abs(size - config.tested_size)))
                facts["tests"] = judge_circuit(unseen, circuits[tested], minimality=False).to_dict("records")
            mine = files_of(folder, (class_name, *contestant, baseline, metric))
            measure_circuits(unseen, circuits, settings).save(mine[0])
            named.save(mine[1])
            with whole_file(mine[2]) as temporary:
                temporary.write_text(json.dumps(facts))
            paths += mine
        return paths

    def stability(
        self, job: Job, images: tuple[ClassImages, ClassImages], found: Mapping[Contestant, Found], work: Work
    ) -> dict[Contestant, list[dict[str, Any]]]:
        """Return how alike circuits are by size: of two halves of the images, and of masks from another seed."""
        class_name, baseline, metric = job
        config, (found_on, measured_on) = self.config, images
        ends = self.baselines(baseline, found_on, measured_on)[0]
        again = []
        for half in (found_on.half(0), found_on.half(1)):
            end = self.baselines(baseline, half, half)[0] if baseline == "counterfactual" else ends
            again.append(self.find(self.task(class_name, metric, half, end, work), config.seed, config.methods))
        pairs: dict[str, Sequence[Mapping[Contestant, Found]]] = {"other images": again}
        if LEARNED in config.methods:
            task = self.task(class_name, metric, found_on, ends, work)
            pairs["other seed"] = (found, self.find(task, config.seed + 1, [LEARNED]))
        rows: dict[Contestant, list[dict[str, Any]]] = {}
        for kind, (first, second) in pairs.items():
            for contestant in second:
                twins = zip(config.sizes, first[contestant].circuits, second[contestant].circuits, strict=True)
                for size, a, b in twins:
                    overlap, chance = unit_overlap(a, b)
                    row = {"kind": kind, "size": size, "value": overlap, "chance": chance}
                    rows.setdefault(contestant, []).append(row)
        return rows

    def listings(self) -> dict[str, dict[str, str]]:
        """Return the images that shape a number, with their checksums."""
        records = {r for name in self.classes for side in self.records(name) for part in side for r in part}
        return {"images": image_listing(sorted(records, key=lambda record: record.relative))}

    def provenance(self) -> dict[str, Any]:
        """Return what shapes a number."""
        config = self.config
        names = (
            *(
                "domain",
                "n_images",
                "n_others",
                "methods",
                "budgets",
                "baselines",
                "metrics",
                "sizes",
                "steps",
                "batch_size",
            ),
            *("units", "random_draws", "stable", "tested_size", "seed", "autocast"),
        )
        asked = {name: getattr(config, name) for name in names}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asked.items()}
        made = {"model": self.clip.name, "model_digest": self.clip.digest, "classes": self.classes}
        return {**made, "sites": list(self.sites or self.clip.encoder.sites), **plain}


def files_of(folder: Path, name: Sequence[str]) -> list[Path]:
    """Return the files of a class, method, budget, baseline and metric: curve, scores, and cost with tests."""
    class_name, *rest = name
    stem = folder / class_name / ".".join(rest)
    return [Path(f"{stem}.{kind}") for kind in ("curve.safetensors", "graph.safetensors", "json")]
