"""Settings of the search for the circuits of a whole data set, and for the circuit of one class. No torch."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from circuitry.circuits.circuit_settings import AttributionSettings, UnitMethod
from circuitry.circuits.methods import ITERATIVE
from circuitry.data.shared_options import DEFAULT_FOLDS, Folds, Items, NOthers
from circuitry.interventions.intervention_settings import Selectivity
from circuitry.models.options import FolderSettings
from circuitry.runs.arguments import DISTINCT, Count, Share, checked


@checked
@dataclass(frozen=True)
class ExtractionSettings(AttributionSettings, FolderSettings):
    """How to find the circuits of a whole data set; see `extract`.

    Example:
        >>> from circuitry.questions import ExtractionSettings
        >>> ExtractionSettings(n_images=8, method="gradient").leave_unseen
        True
    """

    sites: Annotated[tuple[str, ...] | None, DISTINCT] = None
    """Sites: those to score, in the encoder's order (default: with one cut over all sites those that compute, with the
    same share of every site all)."""
    n_others: NOthers = 12
    """The first of each class that follows in the domain, then the second of each, where the method of units takes
    some: Fisher's and learned."""
    leave_unseen: bool = True
    """Leave at least half of a class's images unseen, to test on; the study took all where there were few."""
    folds: Folds = DEFAULT_FOLDS
    items: Items = None


@checked
@dataclass(frozen=True, kw_only=True)
class OneClassSettings(FolderSettings):
    """How to find and test the circuit of one class; see `OneClass`.

    Example:
        >>> from circuitry.questions import OneClassSettings
        >>> OneClassSettings(size=0.3).method
        'iterative-fisher'
    """

    # A selectivity to reach decides the size itself.
    NOT_BOTH: ClassVar = (("size", "selectivity"),)

    n_others: NOthers = 12
    """As many to find on as to test on."""
    method: UnitMethod = ITERATIVE
    """How units are chosen: by a score of each; or learned together as a mask, which takes minutes and is worth it for
    small circuits."""
    size: Share | None = None
    """Share of the units to keep (default: without --selectivity by the kind of tower, see `DEFAULT_SIZES`)."""
    selectivity: Selectivity | None = None
    """What the circuit is to reach, as small as it can: 0.8 for 80 % of what separates the class from others."""
    steps: Count = 300
    """Steps that masks are learned for."""
