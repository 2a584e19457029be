"""The class that ``circuitry find`` is asked about: its images and those of others in halves, and the model's task."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice

from circuitry import Clip, Task
from circuitry.commands.find_command import Config
from circuitry.data.domains import ImageRecord
from circuitry.data.image_sources import IMAGE_SUFFIXES
from circuitry.data.names import chosen_names
from circuitry.encoder.baselines import AnyBaseline
from circuitry.encoder.metrics import Metric, metric_of_class
from circuitry.encoder.roles import counted_sites
from circuitry.models.folder_baselines import FolderBaseline
from circuitry.models.image_pass import read_images
from circuitry.models.prompts import templates_of
from circuitry.runs import InputError, Work


class Subject:
    """The model, the images of the class and of others, and what is asked."""

    def __init__(self, config: Config) -> None:
        self.config = config
        files = (
            (path for path in config.data.iterdir() if path.is_file())
            if config.data.is_dir()
            else ()
        )
        of_images = any(path.suffix.lower() in IMAGE_SUFFIXES for path in files)
        self.images = None if of_images else config.images()
        if self.images is None and config.baseline not in (None, "zero"):
            raise InputError(
                f"The baseline {config.baseline} takes images of other classes: {config.data} has none."
            )
        alone = tuple(dict.fromkeys((*(config.classes or ()), config.class_name)))
        self.classes = alone if self.images is None else self.images.all_classes
        (self.class_name,) = chosen_names("class", (config.class_name,), self.classes)
        self.domain = self._domain()
        own, others = self._own(), self._others()
        if len(own) < 2:
            raise InputError(
                f"A circuit is found on some images and tested on others, but there is {len(own)} of {self.class_name} "
                f"in {self.domain}: give at least 2."
            )
        self.own, self.others = (
            halves(own, config.n_images),
            halves(others, config.n_others),
        )

    def _domain(self) -> str:
        if self.images is None:
            return self.config.domain or self.config.data.resolve().name
        if self.config.domain is None and len(self.images.domains) > 1:
            raise InputError(
                f"A circuit is found in one domain, but {self.config.data} has {', '.join(self.images.domains)}: "
                "choose one with --domain."
            )
        (domain,) = chosen_names(
            "domain",
            (self.config.domain or self.images.domains[0],),
            self.images.domains,
        )
        return domain

    def _own(self) -> list[ImageRecord]:
        if self.images is not None:
            return list(
                self.images.select(self.class_name, self.domain, None, self.config.seed)
            )
        paths = sorted(
            path
            for path in self.config.data.resolve().iterdir()
            if path.suffix.lower() in IMAGE_SUFFIXES
        )
        return [
            ImageRecord(path, path.name, self.domain, self.class_name) for path in paths
        ]

    def _others(self) -> list[ImageRecord]:
        """Return images of other classes in the domain, one of each class, then the second of each."""
        if self.images is None:
            return []
        names = [name for name in self.images.classes if name != self.class_name]
        ranked = [
            self.images.select(name, self.domain, None, self.config.seed)
            for name in names
        ]
        rounds = range(max(map(len, ranked), default=0))
        return [of_class[i] for i in rounds for of_class in ranked if i < len(of_class)]

    @cached_property
    def clip(self) -> Clip:
        """The model."""
        return self.config.clip(parts=True)

    @cached_property
    def metric(self) -> Metric:
        """What the class is recognised by."""
        if self.config.texts is None:
            raise InputError(
                "Expected texts of the classes, such as pooled, but none were given."
            )
        weights = self.clip.text_weights(
            self.classes, templates_of(self.config.texts, self.domain)
        )
        return metric_of_class(self.config.metric or "logit", self.clip.scale)(
            weights, self.classes.index(self.class_name)
        )

    @cached_property
    def _baseline(self) -> FolderBaseline | None:
        if self.images is None:
            return None
        name = self.config.baseline or "mean-position"
        return FolderBaseline(
            name, self.clip, self.images, self.config.n_images, self.config.seed
        )

    @property
    def baseline_name(self) -> str:
        """What replaces ablated activations."""
        return "zero" if self._baseline is None else self._baseline.name

    @property
    def baseline_records(self) -> tuple[ImageRecord, ...]:
        """The images that the baseline is made of."""
        return (
            ()
            if self._baseline is None
            else self._baseline.records(self.class_name, self.domain)
        )

    @property
    def records(self) -> list[ImageRecord]:
        """All images that are looked at."""
        return [
            record
            for of_kind in (self.own, self.others)
            for half in of_kind
            for record in half
        ]

    def of_other_classes(self, n: int) -> "Iterator[Subject]":
        """Yield the same question about other classes of the domain that have images enough, those that follow."""
        if (images := self.images) is not None:
            names = images.following(self.class_name)
            for name in islice(
                (one for one in names if len(images.select(one, self.domain, 2)) == 2),
                n,
            ):
                other = Subject(replace(self.config, class_name=name))
                other.clip = self.clip
                other._baseline = (
                    self._baseline
                )  # of the same images, whose means are taken once
                yield other

    @cached_property
    def found_on(self) -> Task:
        """The task on the images that find the circuit."""
        return self._task(0)

    @cached_property
    def unseen(self) -> Task:
        """The task on the unseen images."""
        return self._task(1)

    def _task(self, half: int) -> Task:
        (_, own), (_, others) = (
            read_images(self.clip, records[half]) for records in (self.own, self.others)
        )
        if not len(own):
            raise InputError(
                f"No image of {self.class_name} in {self.domain} can be read: see the warnings above."
            )
        given = others if len(others) else None
        baseline: AnyBaseline = "zero"
        if self._baseline is not None:
            baseline = self._baseline.of(
                self.class_name, self.domain, len(own) + len(others)
            )
        sites, work = counted_sites(self.clip.encoder), Work(progress=True)
        return Task(
            self.clip.encoder,
            own,
            self.metric,
            baseline=baseline,
            others=given,
            sites=sites,
            work=work,
        )


def halves(
    records: Sequence[ImageRecord], most: int
) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """Return images to find a circuit on, and as many others to test it on."""
    n = min(most, (len(records) + 1) // 2)
    return list(records[:n]), list(records[n : 2 * n])
