"""Options of the scripts that check circuits; the defaults are those that the quickstart leaves behind."""

from dataclasses import dataclass
from pathlib import Path

from circuitry.circuits.graph_folder import GraphFolder
from circuitry.interventions.causal_settings import CausalSettings
from circuitry.interventions.study import CausalStudy
from circuitry.models.baselines import BaselineName
from circuitry.models.metrics import MetricName
from circuitry.models.settings import BasisSettings, MetricSettings
from circuitry.runs.errors import InputError
from circuitry.runs.workers import ALONE, Rank, WorkSettings


@dataclass(frozen=True)
class StudyOptions(WorkSettings, BasisSettings):
    """Which model, circuits and images, and how they are checked."""

    circuits: Path = Path("runs/quickstart/circuits")
    """Folder of graphs that `extract`, the quickstart or compare_circuits.py wrote."""
    n_images: int = 6
    """Images per class and domain, none of those that the circuits were found on."""
    n_others: int = 12
    """Images of other classes per class and domain."""
    metric: MetricName | None = None
    """logit: the study's cosine logit; margin: its lead over the mean logit of the other classes (default: what the
    circuits were found by)."""
    texts: tuple[str, ...] | None = None
    """Texts of a class: pooled, own-style, or templates such as "a photo of a {}." (default: what the circuits were
    found with)."""
    baseline: BaselineName = "zero"
    """What units outside a circuit are put to: zero; mean-position, mean-unit (means over the images that circuits were
    found on); other-domains (the class's mean in the other domains); counterfactual (images of other classes in the
    domain)."""
    seen: bool = False
    """Test on the images that the circuits were found on, instead of others."""
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
        texts = None if self.texts is None else MetricSettings(texts=self.texts).class_texts
        settings = CausalSettings(
            self.n_images, self.n_others, self.metric, texts, self.baseline, self.seen, self.keep_error
        )
        return CausalStudy(self.clip(rank), self.images(), GraphFolder(self.circuits), settings)
