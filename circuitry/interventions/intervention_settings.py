"""Settings of searches, measurements and checks of circuits. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

from circuitry import encoder
from circuitry.circuits.budgets import BUDGETS, RANKINGS, SAME_SHARE, BudgetName
from circuitry.circuits.circuit_settings import OwnShare, UnitMethod
from circuitry.circuits.methods import CONTRAST
from circuitry.data.shared_options import NImages, NOthers, option
from circuitry.encoder.choices import BASELINE_NAMES
from circuitry.models.options import (
    BaselineChoice,
    FolderSettings,
    MetricChoice,
    TextsChoice,
)
from circuitry.runs.arguments import (
    ABOVE_ZERO,
    DISTINCT,
    SOME,
    Count,
    Natural,
    Seed,
    Share,
    between,
    checked,
    one_of,
)
from circuitry.runs.errors import InputError

MIB_SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""The circuit sizes of the MIB benchmark."""
MOST_SELECTIVE = 1.5
"""A circuit may tell its class from others better than the model does, but a larger target is a mistake."""
Selectivity = Annotated[
    float,
    between(
        f"a share of the model's own selectivity in (0, {MOST_SELECTIVE:g}]",
        ABOVE_ZERO,
        MOST_SELECTIVE,
        "write 0.8 for 80 %",
    ),
]


@checked
@dataclass(frozen=True)
class AblationSettings:
    """Which circuits are measured, and beside which random ones.

    Example:
        >>> AblationSettings(sizes=(0.1, 0.5), ranking="signed", random_draws=10).budget
    """

    HOW_TO_GET: ClassVar = "give AblationSettings(...)"

    ranking: Annotated[str, one_of(*RANKINGS)] = "absolute"
    """Which units come first, see `budgets.RANKINGS`."""
    budget: BudgetName | None = None
    """How the size of a circuit is shared out over the sites, see `circuitry.circuits.budgets` (default: every site
    keeps the same share, as in the study)."""
    sizes: Annotated[Sequence[Share], SOME] = MIB_SIZES
    """Sizes of the circuits of a curve as shares of the units, ascending in (0, 1]."""
    random_draws: Natural = 5
    """Random circuits of every size, nested like the circuit itself."""
    seed: Seed = 0
    """Seed of the random circuits."""

    def __post_init__(self) -> None:
        if list(self.sizes) != sorted(set(self.sizes)):
            raise InputError(
                f"A curve needs ascending sizes, but {tuple(self.sizes)} was given: sort them."
            )


@checked
@dataclass(frozen=True, kw_only=True)
class CheckSettings(FolderSettings):
    """Settings of `CausalChecks`. Mean and counterfactual baselines are those that circuits were found with.

    Example:
        >>> settings = CheckSettings(n_images=2, n_others=3)
        >>> settings.as_found(graphs.manifest["config"]).baseline
    """

    n_images: NImages = 6
    """Images that circuits were not found on."""
    n_others: NOthers = 12
    """Unseen images of other classes in the domain: the first of each class that follows, then the second of each."""
    metric: MetricChoice = None
    """Metric of the checks (default: that of the circuits)."""
    texts: TextsChoice = None
    """Texts of the candidate classes (default: those of the circuits)."""
    baseline: BaselineChoice = None
    """Baseline of ablated units (default: that of the circuits)."""
    seen: bool = False
    """Check on the images that the circuits were found on, instead of others."""
    budget: Annotated[str | None, one_of(*BUDGETS), option(choices=BUDGETS)] = None
    """How a size is shared out over the sites: same-share or global; see `AblationSettings` (default: that of the
    circuits)."""

    def __post_init__(self) -> None:
        if self.baseline is None or isinstance(self.baseline, str):
            return
        # The images of a folder are not known here, so activations cannot belong to them one by one.
        if encoder.as_baseline(self.baseline).n_images is not None:
            raise InputError(
                "Causal checks use one baseline for many images, but one with an activation for every image was given: "
                "give the name 'counterfactual', or a baseline for all images."
            )

    def as_found(self, config: Mapping[str, Any]) -> "CheckSettings":
        """Return these settings with metric, texts, baseline and budget of the circuits where none is given.

        Args:
            config: The configuration in the manifest of the circuits.
        """
        found = dict[str, Any]()
        for name in ("metric", "texts", "baseline", "budget"):
            if getattr(self, name) is None:
                # A manifest without a budget is of circuits with the same share of every site.
                found[name] = config.get(name, SAME_SHARE)
        baseline = found.get("baseline", "zero")
        # A manifest has the digest of activations, which are not stored with the circuits.
        if baseline not in BASELINE_NAMES or (
            baseline != "zero" and "baseline_digest" in config
        ):
            raise InputError(
                f"The circuits were found with activations as baseline, {baseline!r}: give a baseline to check them "
                f"with, such as these activations, or one of {', '.join(BASELINE_NAMES)}."
            )
        return replace(self, **found)


@checked
@dataclass(frozen=True, kw_only=True)
class OwnPartSettings(FolderSettings):
    """Settings of `OwnParts`.

    Example:
        >>> OwnPartSettings(n_images=2, shares=(0.01, 0.02)).method
        'contrast'
    """

    n_images: NImages = 6
    """Images of a class in a domain that a part is found on, at most half of them; as many at most test it."""
    n_others: NOthers = 24
    """Images of other classes in the domain to contrast with: the first of each, then the second of each."""
    sites: Annotated[tuple[str, ...] | None, DISTINCT] = None
    """Sites whose units parts may have (default: the sites that compute)."""
    method: UnitMethod = CONTRAST
    """How units are ranked: contrast; another one for comparison."""
    shares: Annotated[tuple[OwnShare, ...], SOME] = (0.005, 0.01, 0.02)
    """Shares of the units that parts have. The report shows the smallest share whose loss takes the classes, or the
    largest."""
    depth: bool = False
    """Also find parts of the largest share among the units up to each of some sites, and from each of them on."""
    random_draws: Count = 1
    """Number of random parts beside each part, with as many units at every site."""
