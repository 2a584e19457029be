"""A contest of methods that find circuits: classes and images, what each method proposes, and how it is judged."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from circuitry.runs import ALONE, Count, InputError, Job, Natural, Rank, Seed, Share, Work, one_of, whole_file
from circuitry.analysis import QuickstartModel
from circuitry.circuits import BUDGETS, LEARNED, METHODS, Circuit, MethodName, OperationCounter, shares_of
from circuitry.data import chosen_names, drawn_by_name, image_listing
from circuitry.encoder import Baseline, Task, class_logit, mean_baseline, metric_of_class
from circuitry.interventions import (
    MIB_FRACTIONS,
    AblationSettings,
    MaskSettings,
    counted_sites,
    measure_circuits,
    propose_circuits,
)
from experiments.unseen_images import ClassImages, ClassRecords, read_class, split_records


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
    budgets: tuple[Annotated[str, one_of(*BUDGETS, LEARNED)], ...] = (*BUDGETS, LEARNED)
    """How the methods that rank units share a size out over the sites: same-share, global, learned (as many at each
    site as the mask keeps)."""
    metric: Literal["logit", "margin"] = "margin"
    """What units are scored by: the class's cosine logit, or its lead over the mean of the other classes."""
    sizes: tuple[Share, ...] = tuple(sorted({*MIB_FRACTIONS, 0.3, 0.4, 0.6, 0.75, 0.9}))
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
    random_draws: Natural = 2
    """Random circuits of every size."""
    seed: Seed = 0
    """Seed of all random choices: images, masks and random units."""

    def __post_init__(self) -> None:
        if LEARNED in self.budgets and LEARNED not in self.methods:
            raise InputError(
                "The budget 'learned' takes the counts of masks: add the method 'learned', or leave it out."
            )


Contestant = tuple[str, str]  # a method and its budget


BASELINE = "mean"  # what replaces other units: the mean over the images that circuits are found on


Found = tuple[list[Circuit], dict[str, float]]  # circuits of all sizes, and what they cost


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
    def contestants(self) -> list[Contestant]:
        """Each method with each budget; masks have their own counts."""
        config = self.config
        return [(m, b) for m in config.methods for b in ((LEARNED,) if m == LEARNED else config.budgets)]

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """The sites whose units count; the others stay whole."""
        if self.config.sites is not None:
            return self.config.sites
        images = self.read(self.classes[0])[0].own
        return counted_sites(Task(self.clip.encoder, images, class_logit(self.weights, 0)))

    def records(self, class_name: str) -> tuple[ClassRecords, ClassRecords]:
        """Return images of the class and of others to find circuits on, and then to measure on."""
        config = self.config
        return split_records(self.images, class_name, config.domain, config.n_images, config.n_others, config.seed)

    def read(self, class_name: str) -> tuple[ClassImages, ClassImages]:
        """Return images to find circuits on, and images to measure on."""
        found_on, measured_on = self.records(class_name)
        return read_class(self.clip, found_on), read_class(self.clip, measured_on)

    def task(self, class_name: str, images: ClassImages, baseline: Baseline, work: Work) -> Task:
        """Return what is asked of the model about some images of a class."""
        return Task(
            self.clip.encoder,
            images.own,
            metric_of_class(self.config.metric, self.clip.scale)(self.weights, self.images.label(class_name)),
            baseline=baseline,
            others=images.others,
            sites=self.sites,
            work=replace(work, progress=False),
        )

    def find(self, task: Task) -> dict[Contestant, Found]:
        """Return circuits of every size by each method and budget; units are scored once for all budgets."""
        config, found = self.config, dict[Contestant, Found]()
        asked = {name: getattr(config, name) for name in ("steps", "batch_size", "seed", "autocast")}
        cuts: dict[str, list[Any]] = {budget: [budget] * len(config.sizes) for budget in config.budgets}
        for method in sorted(config.methods, key=lambda name: name != LEARNED):
            started = time.process_time()
            with OperationCounter() as counter:
                circuits = propose_circuits(task, config.sizes, method=method, masks=MaskSettings(**asked))
            cost = {"seconds": time.process_time() - started, "operations": counter.total}
            source = circuits[0].source
            if method == LEARNED:
                n_units = {site: len(scores) for site, scores in source.node_scores.items()}
                found[method, LEARNED] = circuits, cost
                cuts[LEARNED] = [shares_of(one.units, n_units) for one in circuits]
                continue
            for budget in config.budgets:
                pairs = zip(config.sizes, cuts[budget], strict=False)  # a mask may have fewer sizes
                found[method, budget] = [source.strongest(size, budget=cut) for size, cut in pairs], cost
        return found

    def do(self, job: Job, images: tuple[ClassImages, ClassImages], folder: Path, work: Work) -> list[Path]:
        """Find circuits and measure them; write curve, scores and cost."""
        (class_name,) = job
        found_on, measured_on = images
        baseline = mean_baseline(self.clip.encoder, found_on.together)
        found = self.find(self.task(class_name, found_on, baseline, work))
        unseen = self.task(class_name, measured_on, baseline, work)
        settings = AblationSettings(random_draws=self.config.random_draws, seed=self.config.seed)
        paths = list[Path]()
        for contestant in self.contestants:
            circuits, cost = found[contestant]
            source, units = circuits[0].source, dict(circuits[0].units)
            named = replace(source, kept_units=units, class_name=class_name, domain=self.config.domain)
            mine = files_of(folder, (class_name, *contestant))
            measure_circuits(unseen, [replace(one, source=named) for one in circuits], settings).save(mine[0])
            named.save(mine[1])
            with whole_file(mine[2]) as temporary:
                temporary.write_text(json.dumps(cost))
            paths += mine
        return paths

    def listings(self) -> dict[str, dict[str, str]]:
        """Return the images that shape a number, with their checksums."""
        records = {r for name in self.classes for side in self.records(name) for part in side for r in part}
        return {"images": image_listing(sorted(records, key=lambda record: record.relative))}

    def provenance(self) -> dict[str, Any]:
        """Return what shapes a number."""
        not_asked = {"judged", "n_judged", *(field.name for field in fields(QuickstartModel))} - {"units"}
        asked = [field.name for field in fields(ContestSettings) if field.name not in not_asked]
        values = {name: getattr(self.config, name) for name in asked}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        made = {"model": self.clip.name, "model_digest": self.clip.digest, "classes": self.classes}
        return {**made, **plain, "baseline": BASELINE, "sites": list(self.sites)}


def files_of(folder: Path, name: Sequence[str]) -> list[Path]:
    """Return the files of a class, method and budget: curve, scores and cost."""
    class_name, method, budget = name
    stem = folder / class_name / f"{method}.{budget}"
    return [Path(f"{stem}.{kind}") for kind in ("curve.safetensors", "graph.safetensors", "json")]
