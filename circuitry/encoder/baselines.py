"""Baselines: the activation that replaces an ablated one.

A baseline is given as one of

- the word ``"zero"``, or, in a `Task` with others, ``"mean-position"`` or ``"mean-unit"``: the mean over its images;
- a `Baseline`: activations by site, one for all images or one for every image, such as `mean_baseline` makes;
- a `Counterfactual`: the same site's activation on other images, one for all or one for every image; or the tensor of
  these images.

`as_baseline` turns all of them into one of these two. Where there is one for every image, they go by their place in the
whole run, so that its cut into batches changes nothing.
"""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitry.encoder.choices import BASELINE_NAMES
from circuitry.encoder.doubles import in_double
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.site_activations import check_finite
from circuitry.encoder.sites import INPUT
from circuitry.encoder.tensor_batches import ImageBatches, Images
from circuitry.runs.errors import InputError
from circuitry.runs.given import Natural, checked, one_of
from circuitry.runs.identity import OF_TOWER, Identity
from circuitry.runs.progress import BRIEF, Bar
from circuitry.runs.provenance import weights_digest


@checked
@dataclass(frozen=True, eq=False)
class Baseline:
    """Activations by site; a site that is not there has baseline zero.

    Example:
        >>> Baseline("median", {"layer4.0": median})    # [1, C, H, W]: the same for every image
    """

    name: str
    """For tables and provenance, such as ``mean-position``; graphs are compared where it is the same."""
    values: Mapping[str, Float[Tensor, "..."]] = field(repr=False)
    """Activation [1, ...] by site for all images, or [B, ...] with one for every image of a run, in their order; sizes
    of 1 are broadcast."""

    made_of: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Parts of the identity of the encoder whose activations these are, where they are known."""

    def __post_init__(self) -> None:
        counts = {
            site: len(v) if isinstance(v, Tensor) and v.dim() else 0
            for site, v in self.values.items()
        }
        for site, count in counts.items():
            if count < 1 or count not in (1, max(counts.values())):
                raise InputError(
                    f"A baseline has a tensor at every site, [1, ...] for all images or [B, ...] with one entry for "
                    f"every image, but {self.name!r} has {count} activations at site {site!r} and up to "
                    f"{max(counts.values())} at others: give the same number everywhere."
                )
        check_finite(self.values, f"Activations of the baseline {self.name!r}")

    @property
    def n_images(self) -> int | None:
        """How many images it has activations for, one by one; None where all images share one."""
        n = max((len(value) for value in self.values.values()), default=1)
        return n if n > 1 else None

    @property
    def digest(self) -> str:
        """Digest of everything that shapes a number."""
        return weights_digest(self.values)

    def activations(
        self, encoder: Encoder, clean: Mapping[str, Tensor], start: Natural = 0
    ) -> dict[str, Tensor]:
        """Return the baseline in place of the activations ``clean`` of a run's images ``start``, ``start`` + 1, ...

        The answer has the sites, shapes, types and devices of ``clean``.

        Raises:
            InputError: for activations of another shape, at a site that the encoder lacks, or of fewer images than the
                run has.
        """
        for site in self.values:
            encoder.position(site)  # which refuses a name that it does not know
        return {
            site: encoder.carry(site, self.at(site, like, start), like)
            for site, like in clean.items()
        }

    def at(self, site: str, like: Tensor, start: Natural = 0) -> Tensor:
        """Return `activations` at one site, in place of the activation ``like`` [B, ...]."""
        value = self.values.get(site)
        if value is None:
            return like.new_zeros(()).expand_as(like)
        if len(value) > 1:
            check_count(self, start + len(like), so_far=True)
            value = value[start : start + len(like)]
        sizes = zip(value.shape[1:], like.shape[1:], strict=False)
        if value.dim() != like.dim() or any(
            size not in (1, wanted) for size, wanted in sizes
        ):
            raise InputError(
                f"The baseline {self.name!r} has activations {list(value.shape)} at site {site!r}, where the encoder's "
                f"are {list(like.shape)}: give a baseline of this encoder, with a first axis of 1 or one per image."
            )
        return value.to(like).expand_as(like)

    def select(
        self, images: Int[Tensor, " some"] | Bool[Tensor, " images"] | slice
    ) -> "Baseline":
        """Return the baseline of some of the images of a run, by their places."""
        return replace(
            self,
            values={
                site: v[images] if len(v) > 1 else v for site, v in self.values.items()
            },
        )

    def check_made_of(self, encoder: Encoder) -> None:
        """Raise `InputError` where these are activations of another model."""
        if self.made_of:  # which no digest is taken for, else
            Identity(self.made_of).check(
                encoder.identity,
                f"the baseline {self.name!r}",
                "the encoder",
                self.made_of,
            )


@checked
@dataclass(frozen=True, eq=False)
class Counterfactual:
    """The same site's activation on other images, in a run without hooks and in evaluation mode.

    Example:
        >>> attribute(encoder, photos, metric, baseline=Counterfactual(photos_without_the_dog))
    """

    images: Float[Tensor, "images channels h w"] = field(repr=False)
    """Images [1, 3, H, W] for all images of a run, or [B, 3, H, W] with one for every image, in their order."""

    def __post_init__(self) -> None:
        if self.images.dim() != 4 or self.images.shape[1] != 3 or not len(self.images):
            raise InputError(
                "Counterfactual images are a tensor [1, 3, height, width] for all images, or one with as many as there "
                f"are images, but a tensor {list(self.images.shape)} was given."
            )
        check_finite({INPUT: self.images}, "Counterfactual images")

    @property
    def name(self) -> str:
        """For tables and provenance."""
        return "counterfactual"

    @property
    def n_images(self) -> int | None:
        """How many images it has activations for, one by one; None where all images share one."""
        return len(self.images) if len(self.images) > 1 else None

    @property
    def digest(self) -> str:
        """Digest of everything that shapes a number."""
        return weights_digest({"counterfactual images": self.images})

    def activations(
        self, encoder: Encoder, clean: Mapping[str, Tensor], start: Natural = 0
    ) -> dict[str, Tensor]:
        """Return the activations of the counterfactual run in place of ``clean``; see `Baseline.activations`.

        They are whole: what a site carries past its units is that run's, too.
        """
        stop = start + max(map(len, clean.values()), default=0)
        check_count(self, stop, so_far=True)
        found = self.run(encoder, clean, slice(start, stop))
        for site, like in clean.items():
            if found[site].shape[1:] != like.shape[1:]:
                raise InputError(
                    f"The counterfactual activations at site {site!r} are {list(found[site].shape)}, but those to be "
                    f"replaced are {list(like.shape)}: give activations of this encoder."
                )
        return {
            site: found[site].to(like).expand_as(like) for site, like in clean.items()
        }

    def run(
        self, encoder: Encoder, sites: Iterable[str], images: slice = slice(None)
    ) -> dict[str, Tensor]:
        """Return the activations at ``sites`` of the one image, or of the chosen images."""
        chosen = self.images[images] if self.n_images else self.images
        found = encoder.read_unhooked(chosen.to(encoder.device, encoder.dtype), sites)
        check_finite(found, "Activations of the counterfactual images")
        return found

    def select(
        self, images: Int[Tensor, " some"] | Bool[Tensor, " images"] | slice
    ) -> "Counterfactual":
        """Return the counterfactual images of some of the images of a run, by their places."""
        return Counterfactual(self.images[images]) if self.n_images else self


AnyBaseline = str | Baseline | Counterfactual | Tensor
"""What a parameter ``baseline`` takes; see the module."""

ZERO = Baseline("zero", {})
"""The study's baseline."""

MEANS = {f"mean-{per}": per for per in ("position", "unit")}
"""What `mean_baseline` keeps apart, by the name of its baseline."""


def as_baseline(value: object) -> Baseline | Counterfactual:
    """Return the baseline that is meant, see the module."""
    if isinstance(value, Baseline | Counterfactual):
        return value
    if isinstance(value, Tensor):
        return Counterfactual(value)
    if isinstance(value, str) and value == ZERO.name:
        return ZERO
    if isinstance(value, str) and value in MEANS:
        raise InputError(
            f"The baseline {value!r} is a mean over images of several classes, which are not known here: give "
            f"mean_baseline(encoder, images, {MEANS[value]!r}), or a Task with others."
        )
    if isinstance(value, str) and value in BASELINE_NAMES:
        raise InputError(
            f"The baseline {value!r} is made of a data set, which is not known here: give FolderBaseline({value!r}, "
            "clip, images).of(class_name, domain, n), or find the circuits with extract()."
        )
    raise InputError(
        "A baseline is 'zero', 'mean-position' or 'mean-unit' of a Task with others, counterfactual images [1 or as "
        "many as there are images, 3, height, width], or a Baseline such as mean_baseline(encoder, images), but "
        f"{value!r} was given."
    )


def check_count(
    baseline: Baseline | Counterfactual, n_images: int, *, so_far: bool = False
) -> None:
    """Check that a baseline with one activation for every image has one for each of a run's."""
    n = baseline.n_images
    if n is None or n == n_images or (so_far and n > n_images):
        return
    many = (
        INPUT
        if isinstance(baseline, Counterfactual)
        else next(s for s, v in baseline.values.items() if len(v) > 1)
    )
    raise InputError(
        f"The baseline {baseline.name!r} has {n} activations at site {many!r} for "
        f"{'at least ' if so_far else ''}{n_images} images: give one for every image, in the images' order, or "
        "one for all."
    )


@checked
def mean_baseline(
    encoder: Encoder,
    images: Images,
    per: Annotated[str, one_of("position", "unit")] = "position",
    *,
    progress: bool = True,
) -> Baseline:
    """Return the mean activation at every site over a reference set of images.

    Args:
        images: Reference images: a tensor [B, 3, H, W], or batches of them.
        per: ``"position"`` keeps the positions apart; ``"unit"`` averages over them too.
        progress: Whether to show a bar where it takes longer.

    Returns:
        A baseline with an activation [1, ...] at every site, for all images, named ``mean-position`` or ``mean-unit``.
        Sums are made in double precision.

    Raises:
        InputError: when there are no images, or other things than batches of them, a mean is not finite, or ``per`` is
            something else.

    Example:
        >>> baseline = mean_baseline(encoder, images)
        >>> attribute(encoder, images, metric, baseline=baseline)
    """
    count, sums = 0, dict[str, Tensor]()
    total = len(images) if isinstance(images, Tensor) and images.dim() == 4 else None
    with (
        encoder.running(),
        Bar(
            total=total, desc="means", unit="image", disable=not progress, **BRIEF
        ) as bar,
    ):
        for batch in ImageBatches(images, encoder, sys.maxsize):
            _, cache = encoder.run_with_cache(
                batch, names_filter=lambda name: name in encoder.sites
            )
            count += len(batch)
            for site, activation in cache.items():
                of_batch = in_double(activation).sum(0, keepdim=True)
                sums[site] = of_batch if site not in sums else sums[site] + of_batch
            bar.update(len(batch))
        identity = encoder.identity
        made_of = {name: identity[name] for name in (*OF_TOWER, "stages")}
    if not count:
        raise InputError(
            "A mean baseline needs at least one reference image, but there were none."
        )
    means = {site: total / count for site, total in sums.items()}
    if per == "unit":
        for site, mean in means.items():
            unit = encoder.unit_dim(site) % mean.dim()
            positions = [axis for axis in range(1, mean.dim()) if axis != unit]
            if positions:
                means[site] = mean.mean(positions, keepdim=True).expand_as(mean)
    values = {
        site: mean.to(encoder.device, encoder.dtype) for site, mean in means.items()
    }
    return Baseline(f"mean-{per}", values, made_of)
