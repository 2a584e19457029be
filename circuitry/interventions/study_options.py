"""Options of the scripts that check circuits; the defaults are those that the quickstart leaves behind."""

from dataclasses import dataclass, replace
from pathlib import Path

from circuitry.circuits.graph_folder import GraphFolder
from circuitry.interventions.causal_settings import CausalSettings
from circuitry.interventions.study import CausalStudy
from circuitry.models.feature_basis import parse_saes
from circuitry.models.settings import ModelSettings
from circuitry.runs.errors import InputError
from circuitry.runs.workers import ALONE, Rank, WorkSettings


@dataclass(frozen=True)
class StudyOptions(WorkSettings, ModelSettings):
    """Which model, circuits and images, and how they are checked."""

    circuits: Path = Path("runs/quickstart/circuits")
    """Folder of graphs that `extract`, the quickstart or compare_circuits.py wrote."""
    n_images: int = 6
    """Images per class and domain, none of those that the circuits were found on."""
    n_others: int = 12
    """Images of other classes per class and domain."""
    metric: str | None = None
    """logit: the study's cosine logit; margin: its lead over the mean logit of the other classes (default: what the
    circuits were found by)."""
    texts: str | None = None
    """pooled: all prompt templates, averaged; own-style: the prompts of the images' own style (default: what the
    circuits were found with)."""
    baseline: str = "zero"
    """What units outside a circuit are put to: zero, mean-position, mean-unit, other-domains or counterfactual."""
    seen: bool = False
    """Test on the images that the circuits were found on, instead of others."""
    sae: tuple[str, ...] = ()
    """Sites whose units are features of a sparse autoencoder, as SITE=PATH; those that the circuits were found with."""
    keep_error: bool = False
    """Keep what autoencoders miss in every circuit, instead of putting it to the baseline, too."""

    def study(self, rank: Rank = ALONE) -> CausalStudy:
        """Read model, images and circuits, for one of the processes that work on them.

        Raises:
            InputError: for what is missing or does not fit.
        """
        if not self.circuits.is_dir():
            raise InputError(
                f"There are no circuits at {self.circuits}: run experiments/quickstart.py or compare_circuits.py "
                "first, and give their folder with --circuits."
            )
        settings = CausalSettings(
            self.n_images, self.n_others, self.metric, self.texts, self.baseline, self.seen, self.keep_error
        )
        clip = replace(self, device=rank.device(self.device)).clip()
        return CausalStudy(clip.in_basis(parse_saes(self.sae)), self.images(), GraphFolder(self.circuits), settings)
