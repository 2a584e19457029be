"""What causal checks are made on: a model, its circuits, and images that the circuits were not found on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from circuitry.circuits.graph_folder import GraphFolder
from circuitry.data.batches import load_batches
from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.models.baselines import ZERO, Baseline, mean_baseline
from circuitry.models.clip import Clip
from circuitry.models.feature_basis import parse_saes
from circuitry.models.metrics import Metric, MetricOfClass, class_logit, class_margin
from circuitry.models.settings import ModelSettings
from circuitry.runs.errors import InputError
from circuitry.runs.provenance import digest, versions, weights_digest

METRICS: Mapping[str, MetricOfClass] = {"logit": class_logit, "margin": class_margin}
"""What is asked of a circuit: the study's cosine logit, or its lead over the mean logit of the other classes."""

Key = tuple[str, str]
"""(class, domain)."""


@dataclass(frozen=True, eq=False)
class Subject:
    """What causal checks are made on: a model, its circuits, and images that they were not found on.

    Example:
        >>> subject = Subject(clip, DomainFolder("DomainNet"), GraphFolder("runs/x/circuits"), n_images=10)
        >>> curves = study_faithfulness(subject, "runs/x/faithfulness")
    """

    clip: Clip
    images: DomainFolder
    graphs: GraphFolder
    n_images: int = 6
    """Images per class and domain; fewer where there are fewer."""
    n_others: int = 12
    """Images of other classes in the domain, one each of the classes that follow in their order; 0 for none."""
    metric: str = "logit"
    """One of `METRICS`."""
    baseline: Baseline = ZERO
    """What stands for units outside a circuit."""
    seen: bool = False
    """Test on the images that the circuits were found on, instead of others."""
    keep_error: bool = False
    """Whether circuits keep the error units of sites in a feature basis; see `faithfulness_curve`."""

    def __post_init__(self) -> None:
        made_with = self.graphs.manifest["config"]["model_digest"]
        if made_with != self.clip.digest:
            raise InputError(
                f"The circuits in {self.graphs.path} are of the model with digest {made_with}, but {self.clip.name} "
                f"with digest {self.clip.digest} was given: give the checkpoint that they were found in, in the same "
                "feature basis, if any."
            )
        if self.metric not in METRICS:
            raise InputError(f"Expected one of the metrics {', '.join(METRICS)}, but {self.metric!r} was given.")
        if self.n_images < 1 or self.n_others < 0:
            raise InputError(
                "Causal checks need at least one image and zero or more of other classes, but "
                f"n_images={self.n_images} and n_others={self.n_others} were given."
            )

    @property
    def tested_on(self) -> str:
        """Which images the checks take, in words."""
        return "the images that they were found on" if self.seen else "images that they were not found on"

    @cached_property
    def weights(self) -> Tensor:
        """Text weights of all classes of the data."""
        return self.clip.text_weights(self.images.all_classes)

    @property
    def keys(self) -> list[Key]:
        """Every (class, domain) that has a circuit and is selected."""
        chosen = [(c, d) for c, d in self.graphs if c in self.images.classes and d in self.images.domains]
        if not chosen:
            raise InputError(f"No circuit in {self.graphs.path} is of a class and domain of {self.images!r}.")
        return chosen

    def of_class(self, class_name: str) -> Metric:
        """Return the metric of a class."""
        return METRICS[self.metric](self.weights, self.images.label(class_name))

    def batch(self, class_name: str, domain: str) -> Tensor:
        """Return images of a class and domain on which its circuit was not found [B, 3, H, W]."""
        return self._loaded(self._unseen(class_name, domain)[: self.n_images])

    def others(self, class_name: str, domain: str) -> Tensor | None:
        """Return images of other classes in the domain on which no circuit was found, or None if none are wanted."""
        classes = self.images.classes
        place = classes.index(class_name) + 1
        following = [name for name in (*classes[place:], *classes[: place - 1]) if (name, domain) in self.graphs]
        wanted = following[: self.n_others]
        return self._loaded([self._unseen(name, domain)[0] for name in wanted]) if wanted else None

    def found_on(self, class_name: str, domain: str) -> Tensor:
        """Return the images of a class and domain on which its circuit was found [B, 3, H, W]."""
        return self._loaded(self._ranked(class_name, domain)[: self.graphs.manifest["config"]["n_images"]])

    def _ranked(self, class_name: str, domain: str) -> tuple[ImageRecord, ...]:
        return self.images.select(class_name, domain, None, self.graphs.manifest["config"]["seed"])

    def _unseen(self, class_name: str, domain: str) -> tuple[ImageRecord, ...]:
        ranked = self._ranked(class_name, domain)
        chosen = ranked if self.seen else ranked[self.graphs.manifest["config"]["n_images"] :]
        if not chosen:
            raise InputError(
                f"The circuit of {class_name!r} in {domain!r} was found on all of its {len(ranked)} images, so none "
                "is left to test it on: extract with fewer images, or allow the same ones (seen=True, --seen)."
            )
        return chosen

    def _loaded(self, records: Sequence[ImageRecord]) -> Tensor:
        return torch.cat(list(load_batches([r.path for r in records], self.clip.preprocess, batch_size=64)))

    def config(self) -> dict[str, Any]:
        """Return everything of this that shapes a number."""
        return {
            "circuits": self.graphs.manifest["config_hash"],
            "classes": digest(self.images.all_classes),
            "n_images": self.n_images,
            "n_others": self.n_others,
            "metric": self.metric,
            "baseline": self.baseline.name,
            "baseline_digest": weights_digest(self.baseline.values),
            "seen": self.seen,
            "keep_error": self.keep_error,
        }

    def provenance(self) -> dict[str, Any]:
        """Return what made numbers of this: model, circuits, settings, versions."""
        circuits = self.graphs.manifest["config"]
        mine = {name: value for name, value in self.config().items() if name not in ("baseline_digest", "circuits")}
        return {"model": self.clip.name, "circuits": dict(circuits), **mine, **versions()}


BASELINES = ("zero", "mean-position", "mean-unit")


@dataclass(frozen=True)
class SubjectSettings(ModelSettings):
    """Which model, circuits and images; the defaults are those that the quickstart leaves behind."""

    circuits: Path = Path("runs/quickstart/circuits")
    """Folder of graphs that `extract`, the quickstart or compare_circuits.py wrote."""
    n_images: int = 6
    """Images per class and domain, none of those that the circuits were found on."""
    n_others: int = 12
    """Images of other classes per class and domain."""
    metric: str = "logit"
    """logit: the study's cosine logit; margin: its lead over the mean logit of the other classes."""
    baseline: str = "zero"
    """What units outside a circuit are put to: zero, mean-position or mean-unit (means over the images)."""
    seen: bool = False
    """Test on the images that the circuits were found on, instead of others."""
    sae: tuple[str, ...] = ()
    """Sites whose units are features of a sparse autoencoder, as SITE=PATH; those that the circuits were found with."""
    keep_error: bool = False
    """Keep what autoencoders miss in every circuit, instead of putting it to the baseline, too."""

    def load(self) -> "Subject":
        """Read model, images and circuits.

        Raises:
            InputError: for what is missing or does not fit.
        """
        if self.baseline not in BASELINES:
            raise InputError(f"Expected one of the baselines {', '.join(BASELINES)}, but {self.baseline!r} was given.")
        if not self.circuits.is_dir():
            raise InputError(
                f"There are no circuits at {self.circuits}: run experiments/quickstart.py or compare_circuits.py "
                "first, and give their folder with --circuits."
            )
        clip = self.clip().in_basis(parse_saes(self.sae))
        subject = Subject(
            clip,
            self.images(),
            GraphFolder(self.circuits),
            self.n_images,
            self.n_others,
            self.metric,
            seen=self.seen,
            keep_error=self.keep_error,
        )
        if self.baseline == "zero":
            return subject
        reference = (subject.batch(*key)[:1] for key in subject.keys)
        mean = mean_baseline(clip.encoder, reference, per=self.baseline.removeprefix("mean-"))
        return replace(subject, baseline=mean)
