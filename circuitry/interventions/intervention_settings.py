"""Settings of searches, measurements and checks of circuits. Does not import torch."""

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
"""The largest selectivity that may be asked for. A circuit may separate its class from other classes better than the
model does, but a larger target is a mistake."""
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
    """Which circuits are measured, and the number of random circuits to compare them with.

    Example:
        >>> AblationSettings(sizes=(0.1, 0.5), ranking="signed", random_draws=10).budget
    """

    HOW_TO_GET: ClassVar = "give AblationSettings(...)"

    ranking: Annotated[str, one_of(*RANKINGS)] = "absolute"
    """How units are ranked: by ``absolute`` or by ``signed`` score (`budgets.RANKINGS`). A circuit keeps the units that
    come first."""
    budget: BudgetName | None = None
    """How the size of a circuit is divided among the sites; see `circuitry.circuits.budgets`. By default every site
    keeps the same share, as in the study."""
    sizes: Annotated[Sequence[Share], SOME] = MIB_SIZES
    """The sizes of the circuits of a curve, as shares of the units in (0, 1], in ascending order."""
    random_draws: Natural = 5
    """The number of random circuits of every size. Random circuits are nested like the circuits themselves."""
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
    """Settings of `CausalChecks`.

    If ``baseline`` is the name of a mean baseline or ``counterfactual``, the baseline is computed from images. These
    images are chosen with the number of images and the seed that were used to find the circuits, and not with
    ``n_images`` and ``seed`` of these settings. `as_found` returns these settings with the metric, texts, baseline and
    budget of the circuits in place of None.

    Example:
        >>> settings = CheckSettings(n_images=2, n_others=3)
        >>> settings.as_found(graphs.manifest["config"]).baseline
    """

    n_images: NImages = 6
    """The number of images to check each circuit on; unless ``seen`` is given, these images were not used to find the
    circuit."""
    n_others: NOthers = 12
    """The number of unseen images of other classes in the domain. They are taken in turn: the first image of each other
    class, then the second image of each other class."""
    metric: MetricChoice = None
    """Metric of the checks (default: the metric of the circuits)."""
    texts: TextsChoice = None
    """Texts of the candidate classes (default: the texts of the circuits)."""
    baseline: BaselineChoice = None
    """Baseline of ablated units (default: the baseline of the circuits)."""
    seen: bool = False
    """Check on the images that were used to find the circuits, instead of other images."""
    budget: Annotated[str | None, one_of(*BUDGETS), option(choices=BUDGETS)] = None
    """How the size of a circuit is divided among the sites: same-share or global; see `AblationSettings` (default: the
    budget of the circuits)."""

    def __post_init__(self) -> None:
        if self.baseline is None or isinstance(self.baseline, str):
            return
        # The images of a folder are not known here, so a baseline cannot have an activation for each of them.
        if encoder.as_baseline(self.baseline).n_images is not None:
            raise InputError(
                "Causal checks use one baseline for many images, but one with an activation for every image was given: "
                "give the name 'counterfactual', or a baseline for all images."
            )

    def as_found(self, config: Mapping[str, Any]) -> "CheckSettings":
        """Return these settings, completed by the settings that the circuits were found with.

        Metric, texts, baseline and budget are taken from the circuits if these settings do not give them.

        Args:
            config: The configuration in the manifest of the circuits.

        Raises:
            InputError: if no baseline is given, and the circuits were found with activations as baseline, which are not
                stored.
        """
        found = dict[str, Any]()
        for name in ("metric", "texts", "baseline", "budget"):
            if getattr(self, name) is None:
                # If a manifest names no budget, the circuits keep the same share of every site.
                found[name] = config.get(name, SAME_SHARE)
        baseline = found.get("baseline", "zero")
        # Activations that were given as baseline are not stored: the manifest has only their digest.
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

    n_images: NImages = 8
    """The number of images of a class in a domain that are used to find its own part, at most half of the class's
    images."""
    n_tests: NImages | None = None
    """The largest number of other images of a class in a domain that test own parts of this class (default: as many as
    find one). Parts of other classes are tested on at most as many of them as find a part."""
    n_refit: Natural = 12
    """The largest number of further images of a class in a domain to which a new head is fitted after a lesion, to tell
    whether information is lost, too. With fewer than 4 images in a domain this is not told; 0 leaves it out."""
    second_half: bool = True
    """Also find a second part of each class in each domain, on as many further images, where enough images are left to
    test. The overlap of the two parts is the ceiling for all overlaps. It doubles the work of the search."""
    n_others: NOthers = 24
    """The number of images of other classes in the domain to contrast with. They are taken in turn: the first image of
    each other class, then the second image of each other class."""
    sites: Annotated[tuple[str, ...] | None, DISTINCT] = None
    """The sites whose units may belong to own parts (default: the sites that compute)."""
    method: UnitMethod = CONTRAST
    """How units are ranked. The default, contrast, finds own parts; other methods are for comparison."""
    shares: Annotated[tuple[OwnShare, ...], SOME] = (0.005, 0.01, 0.02)
    """The sizes of own parts, as shares of the units. The report shows the smallest share at which lesions take at
    least 80 % of the right answers from the classes. If there is no such share, the report shows the largest share."""
    depth: bool = False
    """Also find own parts of the largest share among the units of the early sites only, and of the late sites only. The
    border between early and late sites is varied."""
    random_draws: Count = 1
    """The number of random parts to compare each own part with. A random part has as many units at every site as the
    own part."""
    other_cells: Count = 12
    """On how many sets of images of another class in a domain each own part is first tested. They are spread evenly
    over the domains, and all are taken if there are no more. The number is doubled until the 95 % intervals of other
    classes are narrow (`wants_more_cells`). An own part is also tested on its own class in every domain."""
