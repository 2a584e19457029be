"""A model, its circuits, and images that they were not found on: what every causal check of a folder starts from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from circuitry.circuits.graph_folder import GraphFolder, Key
from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.data.images import image_listing
from circuitry.interventions.transfer import ClassScorer
from circuitry.models.baselines import AnyBaseline, Baseline, Counterfactual, as_baseline
from circuitry.models.clip import Clip
from circuitry.models.image_pass import image_batches
from circuitry.models.metrics import Metric, MetricOfClass, metric_name, metric_of_class
from circuitry.models.named_baselines import NamedBaseline
from circuitry.models.prompts import Template, as_patterns, templates_of
from circuitry.runs.errors import InputError
from circuitry.runs.given import check_kinds
from circuitry.runs.provenance import versions
from circuitry.runs.workers import Work


@dataclass(frozen=True, eq=False)
class CausalSettings:
    """On which images circuits are tested, by which metric, and what stands in for the rest."""

    n_images: int = 6
    """Images per class and domain; fewer where there are fewer."""
    n_others: int = 12
    """Images of other classes in the domain, one each of the classes that follow in their order; 0 for none."""
    metric: str | MetricOfClass | None = None
    """What a class is recognised by: ``"logit"``, ``"margin"``, or a function of the text weights and a label (default:
    what the circuits were found by)."""
    texts: str | Sequence[Template] | None = None
    """What describes a class, see `extract` (default: what the circuits were found with)."""
    baseline: AnyBaseline = "zero"
    """What stands in for the units outside a circuit: a name (see `named_baselines`, made of the images that circuits
    were found on), a `Baseline`, or one counterfactual image."""
    seen: bool = False
    """Test on the images that the circuits were found on, instead of others."""
    keep_error: bool = False
    """Whether circuits keep the error units of sites in a feature basis; see `AblationSettings`."""

    def __post_init__(self) -> None:
        if self.n_images < 1 or self.n_others < 0:
            raise InputError(
                "Causal checks need at least one image and zero or more of other classes, but "
                f"n_images={self.n_images} and n_others={self.n_others} were given."
            )
        if not isinstance(self.baseline, str) and as_baseline(self.baseline).n_images is not None:
            raise InputError(
                "Causal checks go over many images under one baseline, but one with an activation for every image was "
                "given: give the name 'counterfactual', or a baseline for all images."
            )


@dataclass(frozen=True)
class ReadImages:
    """The images of a circuit's test that can be read."""

    own: Tensor
    """Images of the class [B, 3, H, W]."""
    others: Tensor | None
    """Images of other classes, None where there are none."""

    def __len__(self) -> int:
        return len(self.own) + (0 if self.others is None else len(self.others))


@dataclass(frozen=True, eq=False)
class CircuitsUnderTest:
    """A model, its circuits, and images to test them on.

    Raises:
        InputError: for circuits of another model, or a metric, texts or baseline that are not known.
    """

    clip: Clip
    images: DomainFolder
    graphs: GraphFolder
    settings: CausalSettings = field(default_factory=CausalSettings)

    def __post_init__(self) -> None:
        check_kinds(clip=(self.clip, Clip), images=(self.images, DomainFolder), graphs=(self.graphs, GraphFolder))
        made_with = self._found_with["model_digest"]
        if made_with != self.clip.digest:
            raise InputError(
                f"The circuits in {self.graphs.path} are of the model with digest {made_with}, but {self.clip.name} "
                f"with digest {self.clip.digest} was given: give the checkpoint that they were found in, in the same "
                "feature basis, if any."
            )
        metric_of_class(self._metric)
        _ = self._templates, self._named_baseline  # refused here if unknown

    @cached_property
    def keys(self) -> list[Key]:
        """Every (class, domain) that has a circuit and is selected.

        Raises:
            InputError: when there is none.
        """
        chosen = [(c, d) for c, d in self.graphs if c in self.images.classes and d in self.images.domains]
        if not chosen:
            raise InputError(f"No circuit in {self.graphs.path} is of a class and domain of {self.images!r}.")
        return chosen

    @property
    def tested_on(self) -> str:
        """Which images the checks take, in words."""
        return "the images that they were found on" if self.settings.seen else "images that they were not found on"

    def own_records(self, key: Key) -> tuple[ImageRecord, ...]:
        """Return images of a class and domain on which its circuit was not found.

        Raises:
            InputError: when it was found on all of them.
        """
        return self._unseen(key)[: self.settings.n_images]

    def other_records(self, key: Key) -> tuple[ImageRecord, ...]:
        """Return images of other classes in the domain on which no circuit was found."""
        (class_name, domain), classes = key, self.images.classes
        place = classes.index(class_name) + 1
        following = [name for name in (*classes[place:], *classes[: place - 1]) if (name, domain) in self.graphs]
        return tuple(self._unseen((name, domain))[0] for name in following[: self.settings.n_others])

    @cached_property
    def scorer(self) -> ClassScorer:
        """How embeddings are scored for a class."""
        classes = self.images.all_classes
        made = {one: self.clip.text_weights(classes, one) for one in dict.fromkeys(self._templates.values())}
        weights = {domain: made[one] for domain, one in self._templates.items()}
        return ClassScorer(weights, {name: i for i, name in enumerate(classes)}, metric_of_class(self._metric))

    def metric_of(self, class_name: str, domain: str) -> Metric:
        """Return the metric of a class on images of a domain."""
        return self.scorer.metric_of(class_name, domain)

    def baseline_of(self, key: Key, n_images: int) -> Baseline | Counterfactual:
        """Return what stands in for ablated units on a number of images of a class in a domain, or of its test."""
        if self._named_baseline is None:
            return as_baseline(self.settings.baseline)
        return self._named_baseline.of(*key, n_images)

    def baseline_found_with(self, key: Key, n_images: int) -> Baseline | Counterfactual:
        """Return the baseline that a circuit was found with, on a number of images.

        Raises:
            InputError: for one that was not given to `extract` by name, and is not known here.
        """
        return self._baseline_called(self.graphs[key].settings["baseline"]).of(*key, n_images)

    def read(self, key: Key, work: Work) -> ReadImages:
        """Return the images of a circuit's test, those that can be read."""
        own, others = (
            read_images(self.clip, records, strict=work.strict)
            for records in (self.own_records(key), self.other_records(key))
        )
        return ReadImages(own, others if len(others) else None)

    def found_on(self, class_name: str, domain: str) -> Tensor:
        """Return the images of a class and domain on which its circuit was found; see `read_some`."""
        return self.read_some(self._ranked((class_name, domain))[: self._found_with["n_images"]])

    def read_some(self, records: Sequence[ImageRecord]) -> Tensor:
        """Return the images [B, 3, H, W] that can be read.

        Raises:
            InputError: when there is none.
        """
        images = read_images(self.clip, records)
        if not len(images):
            one = records[0]
            raise InputError(f"No image of {one.class_name!r} in {one.domain!r} can be read: look at {one.path}.")
        return images

    @cached_property
    def config(self) -> dict[str, Any]:
        """Everything but images that shapes a number, in plain values."""
        settings, texts = self.settings, self._texts
        named = isinstance(settings.baseline, str)
        given = None if named else as_baseline(settings.baseline)
        return {
            "circuits": self.graphs.manifest["config_hash"],
            "model_digest": self.clip.digest,
            "classes": list(self.images.all_classes),
            "n_images": settings.n_images,
            "n_others": settings.n_others,
            "metric": metric_name(self._metric),
            "texts": texts if isinstance(texts, str) else list(as_patterns(texts)),
            "baseline": settings.baseline if given is None else given.name,
            "baseline_digest": None if given is None else given.digest,
            "seen": settings.seen,
            "keep_error": settings.keep_error,
        }

    def listings(self) -> dict[str, dict[str, str]]:
        """Return the images that shape a number, with size and checksum of each file; see `manifest.claim`."""
        listings = {"images": {r for key in self.keys for r in (*self.own_records(key), *self.other_records(key))}}
        if self._named_baseline is not None:
            listings["baseline_images"] = set(self._named_baseline.records_of(self.keys))
        return {
            name: image_listing(sorted(records, key=lambda record: record.relative))
            for name, records in listings.items()
            if records
        }

    def provenance(self) -> dict[str, Any]:
        """Return what made numbers of this: model, circuits, settings, versions."""
        hidden = ("circuits", "model_digest", "baseline_digest", "classes")
        mine = {name: value for name, value in self.config.items() if name not in hidden}
        return {"model": self.clip.name, "circuits": self.graphs.settings, **mine, **versions()}

    @property
    def _found_with(self) -> dict[str, Any]:
        config: dict[str, Any] = self.graphs.manifest["config"]
        return config

    def _ranked(self, key: Key) -> tuple[ImageRecord, ...]:
        """Return all images of a class and domain, first those that its circuit was found on."""
        return self.images.select(*key, None, self._found_with["seed"])

    def _unseen(self, key: Key) -> tuple[ImageRecord, ...]:
        ranked = self._ranked(key)
        chosen = ranked if self.settings.seen else ranked[self._found_with["n_images"] :]
        if not chosen:
            raise InputError(
                f"The circuit of {key[0]!r} in {key[1]!r} was found on all of its {len(ranked)} images, so none is "
                "left to test it on: extract with fewer images, or allow the same ones (seen=True, --seen)."
            )
        return chosen

    @property
    def _metric(self) -> str | MetricOfClass:
        asked = self.settings.metric
        return self._found_with["metric"] if asked is None else asked

    @property
    def _texts(self) -> str | Sequence[Template]:
        asked = self.settings.texts
        return self._found_with["texts"] if asked is None else asked

    @cached_property
    def _templates(self) -> dict[str, tuple[str, ...]]:
        """Prompt templates by domain."""
        return {domain: templates_of(self._texts, domain) for domain in self.images.domains}

    @cached_property
    def _named_baseline(self) -> NamedBaseline | None:
        """The baseline where it is given by name, made of the images that circuits were found on."""
        name = self.settings.baseline
        return self._baseline_called(name) if isinstance(name, str) else None

    def _baseline_called(self, name: str) -> NamedBaseline:
        return NamedBaseline(name, self.clip, self.images, self._found_with["n_images"], self._found_with["seed"])


def read_images(clip: Clip, records: Sequence[ImageRecord], *, strict: bool = False) -> Tensor:
    """Return the images [B, 3, H, W] that can be read, none perhaps; the others are left out with a warning each.

    Raises:
        InputError: with ``strict``, for one that cannot be read.
    """
    encoder = clip.encoder
    none = torch.zeros(0, 3, *encoder.image_size, device=encoder.device, dtype=encoder.dtype)
    return torch.cat([none, *(batch for _, batch in image_batches(encoder, clip.preprocess, records, strict=strict))])
