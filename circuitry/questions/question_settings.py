"""Settings of searches: for the circuits of a whole data set, and for the circuit of one class.

Does not import torch.
"""

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
    """Settings of the search for the circuits of a whole data set; see `extract`.

    Example:
        >>> from circuitry.questions import ExtractionSettings
        >>> ExtractionSettings(n_images=8, method="gradient").leave_unseen
        True
    """

    sites: Annotated[tuple[str, ...] | None, DISTINCT] = None
    """The sites to score, in the encoder's order. The default depends on the budget. If the units of all sites compete,
    the default is the sites whose units count (`counted_sites`). If every site keeps the same share of its units, the
    default is all sites."""
    n_others: NOthers = 12
    """The number of images of other classes in the domain. They are taken in turn: the first image of each other class,
    then the second image of each other class. Only methods that compare classes use them: Fisher's methods and learned
    masks."""
    leave_unseen: bool = True
    """Whether at least half of the images of a class in a domain are left out of the search, to test the circuit on. In
    the study, all images were used if there were few images."""
    folds: Folds = DEFAULT_FOLDS
    items: Items = None


@checked
@dataclass(frozen=True, kw_only=True)
class OneClassSettings(FolderSettings):
    """Settings of the search for the circuit of one class, and of its tests; see `OneClass`.

    Example:
        >>> from circuitry.questions import OneClassSettings
        >>> OneClassSettings(size=0.3).method
        'iterative-fisher'
    """

    # If a selectivity is given, the search decides the size.
    NOT_BOTH: ClassVar = (("size", "selectivity"),)

    n_others: NOthers = 12
    """The number of images of other classes that are used to find the circuit. As many other images are used to test
    it."""
    method: UnitMethod = ITERATIVE
    """How units are chosen: by a score of each unit, or learned together as a mask. Learning takes minutes; it is
    worthwhile for small circuits."""
    size: Share | None = None
    """The share of the units to keep. The default depends on the kind of tower (see `DEFAULT_SIZES`). If --selectivity
    is given, the search decides the size."""
    selectivity: Selectivity | None = None
    """The selectivity that the circuit should reach with as few units as possible. With 0.8, the circuit should
    separate the class from other classes 80 % as well as the whole model does."""
    steps: Count = 300
    """The number of training steps of learned masks."""
