"""How the circuits of a whole data set are found. No torch."""

from dataclasses import dataclass
from typing import Annotated

from circuitry.circuits.circuit_settings import AttributionSettings
from circuitry.data.shared_options import DEFAULT_PARTS, Items, NOthers, Parts
from circuitry.models.options import FolderSettings
from circuitry.runs.given import DISTINCT, checked


@checked
@dataclass(frozen=True)
class ExtractionSettings(AttributionSettings, FolderSettings):
    """How to find the circuits of a whole data set; see `extract`."""

    sites: Annotated[tuple[str, ...] | None, DISTINCT] = None
    """Sites: those to score, in the encoder's order (default: with one cut over all sites those that compute, with the
    same share of every site all)."""
    n_others: NOthers = 12
    """One from each class that follows in the domain, where the method of units takes some: Fisher's and learned."""
    parts: Parts = DEFAULT_PARTS
    items: Items = None
