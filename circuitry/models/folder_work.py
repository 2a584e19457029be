"""The base of all work on a data set: tasks by class and domain, and the folder of the results.

`FolderWork` joins a model, images by class and domain, and `FolderSettings`. It makes text weights, metrics, baselines
and tasks, reads images, and claims the `JobFolder` of the results. Every question over a folder derives from it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.data.folds import Key
from circuitry.data.images import image_listing
from circuitry.data.splits import Split
from circuitry.encoder.metrics import Metric, metric_name, metric_of_class
from circuitry.encoder.task import Task
from circuitry.models.clip import Clip
from circuitry.models.folder_baselines import FolderBaseline
from circuitry.models.image_pass import read_images
from circuitry.models.options import FolderSettings
from circuitry.models.prompts import as_patterns, templates_of
from circuitry.runs.arguments import Names
from circuitry.runs.errors import InputError, unknown_name
from circuitry.runs.identity import Identity
from circuitry.runs.jobs import Job, JobFolder
from circuitry.runs.leaves import entry_of
from circuitry.runs.workers import Work


class FolderWork:
    """A model, images by class and domain, and settings: the start of all work on a data set.

    Example:
        >>> from circuitry.models import FolderSettings, FolderWork
        >>> work = FolderWork(clip, folder, FolderSettings(n_images=2, metric="margin"))
        >>> photos = work.read(work.split.found_on(("clock", "real")))
        >>> task = work.task(("clock", "real"), photos)
    """

    settings: FolderSettings

    def __init__(
        self,
        clip: Clip,
        images: DomainFolder,
        settings: FolderSettings,
        split: Split | None = None,
    ) -> None:
        """Check the settings before any work is done.

        Args:
            clip: The model.
            images: Its images, sorted by domain and class.
            settings: The questions: number of images, seed, metric, texts and baseline.
            split: The images that find and the images that test (default: by number and seed of the settings). A
                baseline by name is made of as many images by the same seed.
        """
        self.clip = clip
        self.images = images
        self.settings = settings
        self.split = split or Split(images, settings.n_images, settings.seed)
        # Unknown metrics and templates are refused here, before any image is read.
        self._metric = metric_of_class(settings.metric, clip.scale)
        if settings.texts is None:
            raise InputError(
                "Expected texts of the classes, such as 'pooled', but None was given."
            )
        self.templates = {
            domain: templates_of(settings.texts, domain) for domain in images.domains
        }
        self._weights: dict[tuple[str, ...], Tensor] = {}
        # A model is mutable: weights may be loaded, or hooks set, between two steps.
        self._model = clip.identity
        self.baseline = FolderBaseline(
            settings.baseline, clip, images, self.split.n_images, self.split.seed
        )

    def weights(self, domain: str) -> Tensor:
        """Return the text weights of all classes of the data for images of a domain."""
        if domain not in self.templates:
            raise unknown_name("domain", domain, self.templates)
        # Domains with the same templates share weights, which take a pass of the text encoder.
        templates = self.templates[domain]
        if templates not in self._weights:
            self._weights[templates] = self.clip.text_weights(
                self.images.all_classes, templates
            )
        return self._weights[templates]

    def metric_of(self, class_name: str, domain: str) -> Metric:
        """Return the metric of a class on images of a domain."""
        return self._metric(self.weights(domain), self.images.label(class_name))

    def baseline_called(self, name: str) -> FolderBaseline:
        """Return another baseline by name, made of the same images."""
        return replace(self.baseline, choice=name)

    def task(
        self,
        key: Key,
        images: Tensor,
        others: Tensor | None = None,
        sites: Names | None = None,
        work: Work = Work(),
    ) -> Task:
        """Return the task of a class on images of a domain, and perhaps of other classes, without bars of its own."""
        # A counterfactual baseline gives one image for each image of the task, also for images of other classes.
        count = len(images)
        if others is not None:
            count += len(others)
        # The mean takes a pass over all images; the task itself is one of many, so it is silent.
        shown = work.bar("mean baseline") is not None
        return Task(
            self.clip.encoder,
            images,
            self.metric_of(*key),
            baseline=self.baseline.of(*key, count, strict=work.strict, progress=shown),
            others=others,
            sites=sites,
            work=replace(work, progress=False),
        )

    def read(self, records: Sequence[ImageRecord], *, strict: bool = False) -> Tensor:
        """Return the images [B, 3, H, W] that can be read, perhaps none; see `read_images`."""
        self._same_model()
        return read_images(self.clip, records, strict=strict)[1]

    @property
    def asked(self) -> dict[str, Any]:
        """Metric, texts and baseline in plain values."""
        texts = self.settings.texts
        if not isinstance(texts, str):
            texts = list(as_patterns(texts or ()))
        return {
            "metric": metric_name(self.settings.metric),
            "texts": texts,
            "baseline": self.baseline.name,
        }

    @property
    def identity(self) -> Identity:
        """Everything except for images that shapes a number, in plain values."""
        made_with: dict[str, Any] = {
            "classes": list(self.images.all_classes),
            "n_images": self.settings.n_images,
        }
        # The name of a function does not say what it computes.
        if callable(self.settings.metric):
            made_with["metric_code"] = entry_of(self.settings.metric, "the metric")
        # Another tokenizer may read the same texts as other tokens.
        made_with["tokens"] = self._tokens
        made_with["seed"] = self.settings.seed
        if self.baseline.given is not None:
            made_with["baseline_digest"] = self.baseline.given.digest
        model = Identity(model=self.clip.name) | self._same_model()
        return model | made_with | self.asked

    @cached_property
    def _tokens(self) -> str | dict[str, str]:
        """Digest of the tokens of all texts, by domain where they differ by it."""
        classes = self.images.all_classes
        digests = {
            texts: self.clip.tokens_digest(classes, texts)
            for texts in {*self.templates.values()}
        }
        if len(digests) == 1:
            return next(iter(digests.values()))
        return {domain: digests[texts] for domain, texts in self.templates.items()}

    def _same_model(self) -> Identity:
        """Return the identity of the model; refuse a model whose weights or hooks have changed since the start."""
        now = self.clip.identity
        self._model.check(
            now, f"the model when this {type(self).__name__} was made", "the model now"
        )
        return now

    def claim(
        self,
        out: Path,
        file_format: str,
        jobs: Sequence[Job],
        records: Mapping[Key, Iterable[ImageRecord]],
        listings: Mapping[str, Mapping[str, str]] | None = None,
        **shaped_by: Any,
    ) -> JobFolder:
        """Return the folder of some jobs, claimed for this configuration and these images.

        Args:
            out: Path of the folder.
            file_format: Name and version of the files that the jobs leave.
            jobs: Names of the jobs.
            records: The images that the jobs look at, by class and domain.
            listings: Further files that the jobs depend on, with their digests; see `runs.claim`.
            shaped_by: Further settings that shape a number, in plain values; they win over the `identity`.

        Raises:
            InputError: for a folder that was made with another configuration or other images, with the difference,
                and as `read`.
        """
        # An image may serve several classes; it is listed once.
        looked_at = {record for group in records.values() for record in group}
        listed = {"images": _listing(looked_at), **(listings or {})}
        # A baseline that is made of the data looks at images, too.
        if self.baseline.given is None:
            of_baseline = self.baseline.records_of(list(records))
            listed["baseline_images"] = _listing(set(of_baseline))
        return JobFolder(
            Path(out), file_format, self.identity | shaped_by, jobs, listed
        )


def _listing(records: Iterable[ImageRecord]) -> dict[str, str]:
    return image_listing(sorted(records, key=lambda record: record.relative))
