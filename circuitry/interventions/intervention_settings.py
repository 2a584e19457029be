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
from circuitry.runs.errors import InputError
from circuitry.runs.given import (
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
    """Which circuits are measured, and beside which random ones."""

    HOW_TO_GET: ClassVar = "give AblationSettings(...)"

    ranking: Annotated[str, one_of(*RANKINGS)] = "absolute"
    """Which units come first, see `budgets.RANKINGS`."""
    budget: BudgetName | None = None
    """How the size of a circuit is shared out over the sites, see `circuitry.circuits.budgets` (default: the same share
    of every site, the study's)."""
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
    """Settings of `CausalChecks`. Mean and counterfactual baselines are of the images that circuits were found on."""

    n_images: NImages = 6
    """Images that circuits were not found on."""
    n_others: NOthers = 12
    """One from each class that follows, per class and domain."""
    metric: MetricChoice = None
    """None for what the circuits were found by; so are texts and baseline."""
    texts: TextsChoice = None
    baseline: BaselineChoice = None
    seen: bool = False
    """Check on the images that the circuits were found on, instead of others."""
    budget: Annotated[str | None, one_of(*BUDGETS), option(choices=BUDGETS)] = None
    """How a size is shared out over the sites: same-share or global; see `AblationSettings` (default: that of the
    circuits)."""

    def __post_init__(self) -> None:
        given = self.baseline
        if (
            given is not None
            and not isinstance(given, str)
            and encoder.as_baseline(given).n_images is not None
        ):
            raise InputError(
                "Causal checks use one baseline for many images, but one with an activation for every image was given: "
                "give the name 'counterfactual', or a baseline for all images."
            )

    def as_found(self, config: Mapping[str, Any]) -> "CheckSettings":
        """Return these settings with metric, texts, baseline and budget of the circuits where none is given.

        Args:
            config: The configuration in the manifest of the circuits.
        """
        names = ("metric", "texts", "baseline", "budget")
        found = {
            name: config.get(name, SAME_SHARE)
            for name in names
            if getattr(self, name) is None
        }
        baseline = found.get("baseline", "zero")
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
    """Settings of `OwnParts`."""

    n_images: NImages = 6
    """Images of a class in a domain that a part is found on, at most half of them; as many at most test it."""
    n_others: NOthers = 24
    """Images of other classes in the domain to contrast with: the first of each, then the second of each."""
    sites: Annotated[tuple[str, ...] | None, DISTINCT] = None
    """Sites: those that may have units of a part (default: those that compute)."""
    method: UnitMethod = CONTRAST
    """How units are ranked: contrast; another one for comparison."""
    shares: Annotated[tuple[OwnShare, ...], SOME] = (0.005, 0.01, 0.02)
    """Shares of the units that parts have; the report tells the smallest that takes the classes, else the largest."""
    depth: bool = False
    """Find parts of the largest share among the units up to, and among those from, each of some sites, too."""
    random_draws: Count = 1
    """Random parts beside each, with as many units at every site."""
