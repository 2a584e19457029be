"""Baselines: a baseline is the activation that replaces an ablated activation.

A parameter ``baseline`` accepts these values:

- ``"zero"``: ablated activations become zero;
- ``"mean-position"`` or ``"mean-unit"``: the mean activation over the ``images`` and ``others`` of a `Task`. A task
  without ``others`` does not accept these names;
- a `Baseline`: activations by site, for example from `mean_baseline`. There is either one activation for all images, or
  one activation for each image;
- a `Counterfactual`: images whose activations replace ablated activations. There is either one counterfactual image for
  all images, or one counterfactual image for each image;
- a tensor of counterfactual images.

A `Task` turns each of these values into a `Baseline` or a `Counterfactual` (see also `as_baseline`). If each image has
a baseline of its own, the baselines are in the order of the images in the whole run, so the division into batches does
not matter.
"""

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
from circuitry.encoder.tensor_batches import (
    ImageBatches,
    Images,
    pixel_digests,
    rows_that_fit,
)
from circuitry.runs.arguments import Natural, checked, one_of
from circuitry.runs.errors import InputError
from circuitry.runs.identity import OF_TOWER, Identity
from circuitry.runs.progress import BRIEF, Bar
from circuitry.runs.provenance import digest, weights_digest


@checked
@dataclass(frozen=True, eq=False)
class Baseline:
    """Activations by site that replace ablated activations.

    At a site that is not listed, zero replaces ablated activations.

    Example:
        >>> activation = encoder.read_unhooked(images, ["layer4.0"])["layer4.0"]
        >>> median = circuitry.Baseline("median", {"layer4.0": activation.median(0, keepdim=True).values})
        >>> circuitry.Task(encoder, images, metric, baseline=median).baseline.name
        'median'
    """

    name: str
    """Name in tables and provenance, such as ``mean-position``. Graphs are compared only if their baselines are equal
    in name and in activations."""
    values: Mapping[str, Float[Tensor, "..."]] = field(repr=False)
    """Activation of each site. It is [1, ...] if all images share one activation, or [B, ...] with one activation for
    each image of a run, in the order of the images. Other axes of size 1 are broadcast."""

    made_of: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Entries of the `Identity` of the encoder that computed the activations, and as ``pixels`` a digest of the images
    of a mean; empty if the encoder is not known."""

    def __post_init__(self) -> None:
        counts = dict.fromkeys(self.values, 0)
        for site, value in self.values.items():
            if isinstance(value, Tensor) and value.dim():
                counts[site] = len(value)
        most = max(counts.values(), default=1)
        for site, count in counts.items():
            if count < 1 or count not in (1, most):
                raise InputError(
                    f"A baseline has a tensor at every site, [1, ...] for all images or [B, ...] with one entry for "
                    f"every image, but {self.name!r} has {count} activations at site {site!r} and up to "
                    f"{most} at others: give the same number everywhere."
                )
        check_finite(self.values, f"Activations of the baseline {self.name!r}")

    @property
    def n_images(self) -> int | None:
        """Number of images that the baseline has activations for, or None if all images share one activation."""
        n = max((len(value) for value in self.values.values()), default=1)
        return n if n > 1 else None

    @property
    def digest(self) -> str:
        """Digest of the activations. Baselines with equal activations have equal digests."""
        return weights_digest(self.values)

    def activations(
        self, encoder: Encoder, clean: Mapping[str, Tensor], start: Natural = 0
    ) -> dict[str, Tensor]:
        """Return the activations that replace the activations of a batch of images if they are ablated.

        Args:
            encoder: The encoder that computed ``clean``.
            clean: Activations of the batch by site, without ablation.
            start: Index of the first image of the batch among all images of the run.

        Returns:
            Activations by site. They have the sites, shapes, types and devices of ``clean``. If a site carries the
            residual stream past its units, the stream is taken from ``clean``.

        Raises:
            InputError: if the baseline has another shape than ``clean``, if it has a site that the encoder lacks, or if
                it has activations for fewer images than the run.
        """
        for site in self.values:
            encoder.position(
                site
            )  # raises for an unknown site, which would otherwise be ignored
        replaced = {}
        for site, like in clean.items():
            replaced[site] = encoder.carry(site, self.at(site, like, start), like)
        return replaced

    def at(self, site: str, like: Tensor, start: Natural = 0) -> Tensor:
        """Return the baseline at one site, in the shape of the activation ``like`` [B, ...]; see `activations`."""
        value = self.values.get(site)
        if value is None:
            # A view of one zero: a whole tensor of zeros at every site would double the memory of a run.
            return like.new_zeros(()).expand_as(like)
        if len(value) > 1:
            check_count(self, start + len(like), so_far=True)
            value = value[start : start + len(like)]
        fits = value.dim() == like.dim()
        if fits:
            sizes = zip(value.shape[1:], like.shape[1:], strict=True)
            fits = all(size in (1, wanted) for size, wanted in sizes)
        if not fits:
            raise InputError(
                f"The baseline {self.name!r} has activations {list(value.shape)} at site {site!r}, where the encoder's "
                f"are {list(like.shape)}: give a baseline of this encoder, with a first axis of 1 or one per image."
            )
        return value.to(like).expand_as(like)

    def select(
        self, images: Int[Tensor, " some"] | Bool[Tensor, " images"] | slice
    ) -> "Baseline":
        """Return the baseline of some images of a run.

        Args:
            images: Indices of the images, a mask over the images, or a slice.
        """
        values = dict(self.values)
        for site, value in values.items():
            if len(value) > 1:
                values[site] = value[images]
        return replace(self, values=values)

    def check_made_of(self, encoder: Encoder) -> None:
        """Raise `InputError` if the activations of the baseline were computed by another model than ``encoder``."""
        # The encoder's identity is read only if it is compared, because this reads all weights.
        if self.made_of:
            known = Identity(self.made_of)
            ours = f"the baseline {self.name!r}"
            known.check(encoder.identity, ours, "the encoder", known)


@checked
@dataclass(frozen=True, eq=False)
class Counterfactual:
    """Images whose activations replace ablated activations, site by site.

    Counterfactual images are run in evaluation mode and without the hooks at sites (`Encoder.read_unhooked`).

    Example:
        >>> from circuitry.encoder import Counterfactual
        >>> circuitry.Task(encoder, images, metric, baseline=Counterfactual(others[:4])).baseline.n_images
        4
    """

    images: Float[Tensor, "images channels h w"] = field(repr=False)
    """Counterfactual images: [1, 3, H, W] if all images of a run share one, or [B, 3, H, W] with one counterfactual
    image for each image of a run, in the order of the images."""

    def __post_init__(self) -> None:
        if self.images.dim() != 4 or self.images.shape[1] != 3 or not len(self.images):
            raise InputError(
                "Counterfactual images are a tensor [1, 3, height, width] for all images, or one with as many as there "
                f"are images, but a tensor {list(self.images.shape)} was given."
            )
        check_finite({INPUT: self.images}, "Counterfactual images")

    @property
    def name(self) -> str:
        """Name in tables and provenance."""
        return "counterfactual"

    @property
    def n_images(self) -> int | None:
        """Number of counterfactual images, or None if all images share one counterfactual image."""
        return len(self.images) if len(self.images) > 1 else None

    @property
    def digest(self) -> str:
        """Digest of the counterfactual images."""
        return weights_digest({"counterfactual images": self.images})

    def activations(
        self, encoder: Encoder, clean: Mapping[str, Tensor], start: Natural = 0
    ) -> dict[str, Tensor]:
        """Run the counterfactual images that belong to a batch of images, and return their activations.

        Args:
            encoder: The encoder that computed ``clean``.
            clean: Activations of the batch by site, without ablation.
            start: Index of the first image of the batch among all images of the run.

        Returns:
            Activations by site. They have the sites, shapes, types and devices of ``clean``. If a site carries the
            residual stream past its units, the stream also comes from the counterfactual images.

        Raises:
            InputError: if there are fewer counterfactual images than the run has images, or if an activation has
                another shape than in ``clean``.
        """
        stop = start + max(map(len, clean.values()), default=0)
        check_count(self, stop, so_far=True)
        activations = self.run(encoder, clean, slice(start, stop))
        for site, like in clean.items():
            activation = activations[site]
            if activation.shape[1:] != like.shape[1:]:
                raise InputError(
                    f"The counterfactual activations at site {site!r} are {list(activation.shape)}, but those to be "
                    f"replaced are {list(like.shape)}: give activations of this encoder."
                )
            activations[site] = activation.to(like).expand_as(like)
        return activations

    def run(
        self, encoder: Encoder, sites: Iterable[str], images: slice = slice(None)
    ) -> dict[str, Tensor]:
        """Run counterfactual images, and return their activations at ``sites``.

        Args:
            encoder: The encoder that runs the images.
            sites: Sites whose activations are returned.
            images: Slice of the counterfactual images to run. It is ignored if all images share one counterfactual
                image.
        """
        shown = self.select(images).images.to(encoder.device, encoder.dtype)
        activations = encoder.read_unhooked(shown, sites)
        check_finite(activations, "Activations of the counterfactual images")
        return activations

    def select(
        self, images: Int[Tensor, " some"] | Bool[Tensor, " images"] | slice
    ) -> "Counterfactual":
        """Return the counterfactual images that belong to some images of a run.

        Args:
            images: Indices of the images, a mask over the images, or a slice.
        """
        if self.n_images is None:
            return self
        return Counterfactual(self.images[images])


AnyBaseline = str | Baseline | Counterfactual | Tensor
"""Types of the values that a parameter ``baseline`` accepts; see `circuitry.encoder.baselines`."""

ZERO = Baseline("zero", {})
"""The baseline that replaces activations by zero. The study uses it."""

MEANS = {"mean-position": "position", "mean-unit": "unit"}
"""For each name of a mean baseline, the argument ``per`` with which `mean_baseline` computes this baseline."""


def as_baseline(value: object) -> Baseline | Counterfactual:
    """Turn the value of a parameter ``baseline`` into a `Baseline` or a `Counterfactual`.

    A tensor of images becomes a `Counterfactual`, and ``"zero"`` becomes the baseline of zeros. A `Baseline` and a
    `Counterfactual` are returned as they are.

    Raises:
        InputError: for any other value. The name of a mean such as ``"mean-position"`` is refused, too, because there
            are no images to compute the mean from. Give the name to a `Task`, or call `mean_baseline`.

    Example:
        >>> from circuitry.encoder import as_baseline
        >>> as_baseline("zero").name, as_baseline(images).name
        ('zero', 'counterfactual')
    """
    if isinstance(value, Baseline | Counterfactual):
        return value
    if isinstance(value, Tensor):
        return Counterfactual(value)
    if isinstance(value, str) and value == ZERO.name:
        return ZERO
    # The names below need images or a data set. A task or `extract` replaces these names before it calls this function.
    # If a name arrives here, there are no images to compute the baseline from.
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
    """Raise `InputError` if a baseline has activations for another number of images than there are.

    A baseline with one activation for all images fits any number of images.

    Args:
        baseline: The baseline to check.
        n_images: Number of images.
        so_far: Whether further images may follow. If True, the baseline may have more activations than ``n_images``.
    """
    n = baseline.n_images
    if n is None or n == n_images or (so_far and n > n_images):
        return
    values = (
        {INPUT: baseline.images}
        if isinstance(baseline, Counterfactual)
        else baseline.values
    )
    site = next(site for site, value in values.items() if len(value) > 1)
    at_least = "at least " if so_far else ""
    raise InputError(
        f"The baseline {baseline.name!r} has {n} activations at site {site!r} for {at_least}{n_images} images: give "
        "one for every image, in the images' order, or one for all."
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
        encoder: The encoder whose activations are averaged.
        images: Reference images: a tensor [B, 3, H, W], or an iterable of batches.
        per: ``"position"`` averages over images. ``"unit"`` averages over images and positions.
        progress: Whether to show a progress bar if the computation takes long.

    Returns:
        A baseline named ``mean-position`` or ``mean-unit``. At every site it has one activation [1, ...] for all
        images. Activations are summed in double precision.

    Raises:
        InputError: if there are no images, if a value is not a batch of images, if a mean is not finite, or if ``per``
            is unknown.

    Example:
        >>> baseline = circuitry.mean_baseline(encoder, images, progress=False)
        >>> baseline.name, baseline.values["input"].shape
        ('mean-position', torch.Size([1, 3, 64, 64]))
    """
    total = None
    if isinstance(images, Tensor) and images.dim() == 4:
        total = len(images)
    bar = Bar(total=total, desc="means", unit="image", disable=not progress, **BRIEF)
    count = 0
    sums = dict[str, Tensor]()
    pixels = list[str]()
    with encoder.running(), bar:
        for batch in ImageBatches(images, encoder, rows_that_fit(encoder, None)):
            _, cache = encoder.run_with_cache(batch, names_filter=list(encoder.sites))
            count += len(batch)
            pixels += pixel_digests(batch)
            for site, activation in cache.items():
                # Sums are collected instead of means of batches, because the last batch may be smaller. They are in
                # double precision, so that the order of thousands of summands changes no digit in single precision.
                of_batch = in_double(activation).sum(0, keepdim=True)
                sums[site] = of_batch if site not in sums else sums[site] + of_batch
            bar.update(len(batch))
        identity = encoder.identity
    values = {}
    for site, summed in sums.items():
        mean = summed / count
        if per == "unit":
            unit = encoder.unit_dim(site) % mean.dim()
            # Axis 0 is the mean image. Every axis except for axis 0 and the axis of the units is an axis of positions.
            positions = [axis for axis in range(1, mean.dim()) if axis != unit]
            if positions:
                mean = mean.mean(positions, keepdim=True).expand_as(mean)
        values[site] = mean.to(encoder.device, encoder.dtype)
    # Weights and stages identify the model of these activations. Hooks and precision of the run are left out, because a
    # mean baseline may be used in other runs of the same model.
    made_of = {name: identity[name] for name in (*OF_TOWER, "stages")}
    # The mean does not depend on the order of the images.
    made_of["pixels"] = digest(sorted(pixels))
    return Baseline(f"mean-{per}", values, made_of)
