"""The test of the circuits of one extraction, which its report begins with."""

from pathlib import Path

from circuitry.circuits.extraction import Extraction
from circuitry.circuits.graph_folder import GraphFolder
from circuitry.interventions.circuit_checks import CausalChecks
from circuitry.interventions.curves import FaithfulnessCurve
from circuitry.interventions.intervention_settings import CheckSettings
from circuitry.runs.workers import Work


def curves_on_unseen(plan: Extraction, n_images: int, out: Path, work: Work) -> list[FaithfulnessCurve]:
    """Return the curves of the circuits of a finished extraction on images that they were not found on.

    None for no images, and where a class has no others in a domain.

    Args:
        plan: The extraction.
        n_images: Images per class and domain.
        out: Folder of the curves.
        work: Processes, memory, progress.
    """
    fewest = min((len(plan.images.select(*key)) for key, records in plan.selection.items() if records), default=0)
    if not n_images or fewest <= plan.settings.n_images:
        return []
    settings = CheckSettings(n_images=n_images, baseline=plan.settings.baseline)
    checks = CausalChecks(plan.clip, plan.images, GraphFolder(plan.out), settings)
    return checks.extract_faithfulness(out, rankings=("absolute",), random_draws=2, work=work)
