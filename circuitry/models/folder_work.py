"""The base class of every analysis of a folder of images, such as an analysis that finds circuits or tests them.

`FolderWork` has a model, images by class and domain, and `FolderSettings`. From these it makes text weights, metrics,
baselines and tasks for each class and domain. It also reads images, and claims the `JobFolder`, the folder in which the
analysis stores its results.
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
from circuitry.runs.plan import Forwards, Step
from circuitry.runs.workers import Work


class FolderWork:
    """A model, images by class and domain, and settings: the base class of every analysis of a folder of images.

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
        """Check the settings before any image is read.

        Args:
            clip: The model.
            images: The images, sorted by domain and class.
            settings: Number of images, seed, metric, texts and baseline.
            split: Which images are used to find circuits, and which to test them (default: a `Split` with the number of
                images and the seed of ``settings``). A baseline that is computed from the data uses the number of
                images and the seed of the split.

        Raises:
            InputError: for an unknown metric, unknown texts, or an unknown baseline.
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
        # A model is mutable: a user may load weights or set hooks between two calls.
        self._model = clip.identity
        self.baseline = FolderBaseline(
            settings.baseline, clip, images, self.split.n_images, self.split.seed
        )

    def weights(self, domain: str) -> Tensor:
        """Return the text weights of all classes of the data set [classes, D], for images of a domain."""
        if domain not in self.templates:
            raise unknown_name("domain", domain, self.templates)
        # Domains with the same templates share their weights, because each set of weights needs a run of the text
        # encoder.
        templates = self.templates[domain]
        if templates not in self._weights:
            self._weights[templates] = self.clip.text_weights(
                self.images.all_classes, templates
            )
        return self._weights[templates]

    def metric_of(self, class_name: str, domain: str) -> Metric:
        """Return the metric of a class, with the text weights for images of a domain."""
        return self._metric(self.weights(domain), self.images.label(class_name))

    def baseline_called(self, name: str) -> FolderBaseline:
        """Return the baseline with this name. Its model, number of images and seed are the same as in `baseline`."""
        return replace(self.baseline, choice=name)

    def task(
        self,
        key: Key,
        images: Tensor,
        others: Tensor | None = None,
        sites: Names | None = None,
        work: Work = Work(),
    ) -> Task:
        """Return the task of a class on images of a domain. The task itself shows no progress bars.

        Args:
            key: The class and the domain.
            images: Images [B, 3, H, W] of the class.
            others: Images of other classes (default: no images).
            sites: Sites of the task (default: as in `Task`).
            work: Processes, memory and progress. If progress is shown, a bar appears while a mean baseline is computed.
        """
        # A counterfactual baseline gives one image for each image of the task, also for each image of other classes.
        count = len(images)
        if others is not None:
            count += len(others)
        # Computing the mean takes a pass over all images. The task is one of many, so it shows no bars.
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
        """Return the images that can be read [B, 3, H, W]; B is 0 if no image can be read.

        Args:
            records: The images.
            strict: Whether an unreadable image file raises an error. If False, the file is skipped with a warning.

        Raises:
            InputError: for images that the model's linear probe was fitted on; if the weights or hooks of the model
                have changed since this object was made; and for an unreadable file if ``strict``.
        """
        self._same_model()
        return read_images(self.clip, records, strict=strict)[1]

    def baseline_step(self, keys: Sequence[Key]) -> Step:
        """Return what the baselines of some classes and domains need in each process."""
        n_images = len(self.baseline.records_of(keys))
        return Step("baseline", 1, Forwards(alone=n_images), n_images)

    @property
    def asked(self) -> dict[str, Any]:
        """The chosen metric, class texts and baseline, as values that JSON can hold.

        The keys of the dictionary are ``metric``, ``texts`` and ``baseline``.
        """
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
        """Identity of everything that changes a result, except for the images: model, settings, texts and baseline."""
        made_with: dict[str, Any] = {
            "classes": list(self.images.all_classes),
            "n_images": self.settings.n_images,
        }
        # The name of a function does not say what the function computes.
        if callable(self.settings.metric):
            made_with["metric_code"] = entry_of(self.settings.metric, "the metric")
        # Another tokenizer may turn the same texts into other tokens.
        made_with["tokens"] = self._tokens
        made_with["seed"] = self.settings.seed
        if self.baseline.given is not None:
            made_with["baseline_digest"] = self.baseline.given.digest
        model = Identity(model=self.clip.name) | self._same_model()
        return model | made_with | self.asked

    @cached_property
    def _tokens(self) -> str | dict[str, str]:
        """Digest of the tokens of all class texts.

        If the texts differ between domains, it is a dictionary from each domain to a digest.
        """
        classes = self.images.all_classes
        digests = {
            texts: self.clip.tokens_digest(classes, texts)
            for texts in {*self.templates.values()}
        }
        if len(digests) == 1:
            return next(iter(digests.values()))
        return {domain: digests[texts] for domain, texts in self.templates.items()}

    def _same_model(self) -> Identity:
        """Return the identity of the model.

        Raises:
            InputError: if the weights or hooks of the model have changed since this object was made.
        """
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
        """Claim a folder for the results of jobs, and return it.

        The configuration and the images are written to a new folder. A folder with results of earlier jobs must have
        the same configuration and images.

        Args:
            out: Path of the folder.
            file_format: Name and version of the format of the files that the jobs write.
            jobs: Names of the jobs.
            records: The images that the jobs read, by class and domain.
            listings: Further files that the jobs depend on, with their digests; see `runs.claim`.
            shaped_by: Further settings that change a result, as values that JSON can hold. They replace entries of the
                same name in the `identity`.

        Raises:
            InputError: if the folder was made with another configuration or other images (the message names the
                difference), or if the weights or hooks of the model have changed since this object was made.
        """
        # Several classes may use the same image; it is listed once.
        looked_at = {record for group in records.values() for record in group}
        listed = {"images": _listing(looked_at), **(listings or {})}
        # A baseline that is computed from the data depends on images, too.
        if self.baseline.given is None:
            of_baseline = self.baseline.records_of(list(records))
            listed["baseline_images"] = _listing(set(of_baseline))
        return JobFolder(
            Path(out), file_format, self.identity | shaped_by, jobs, listed
        )


def _listing(records: Iterable[ImageRecord]) -> dict[str, str]:
    return image_listing(sorted(records, key=lambda record: record.relative))
