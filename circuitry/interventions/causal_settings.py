"""What causal checks are made with."""

from collections.abc import Sequence
from dataclasses import dataclass

from circuitry.models.baselines import AnyBaseline, as_baseline
from circuitry.models.metrics import MetricOfClass
from circuitry.models.prompts import Template
from circuitry.runs.errors import InputError


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
