"""How many runs of a tower the main jobs take, for data of a given size and the default settings."""

from itertools import product

from circuitry.circuits.own_part_of_class import own_part_forwards
from circuitry.circuits.unit_methods import Counts
from circuitry.circuits.unit_scores import scoring_forwards
from circuitry.data.folds import Key
from circuitry.interventions.ablated_units import lesion_forwards
from circuitry.interventions.faithfulness import curve_forwards
from circuitry.interventions.intervention_settings import MIB_SIZES, OwnPartSettings
from circuitry.questions.checks import CURVE_DRAWS, FOREIGN
from circuitry.questions.lesion_design import LesionDesign
from circuitry.questions.question_settings import ExtractionSettings
from circuitry.runs.arguments import Count, checked
from circuitry.runs.plan import Forwards, Step


@checked
def main_jobs(n_classes: Count, n_domains: Count, n_images: Count) -> list[Step]:
    """Return the main jobs, with the forwards that they take. Edges are left out, because they depend on the tower.

    Args:
        n_classes: Number of classes.
        n_domains: Number of domains.
        n_images: Number of images of each class in each domain on which circuits are found. As many images find own
            parts a second time, and as many test them. New heads, which need further images, are left out.

    Example:
        >>> from circuitry.questions import main_jobs
        >>> [step.name for step in main_jobs(50, 3, 12)]
        ['evaluate', 'own parts', 'lesions, first wave', 'circuits', 'curves']
    """
    settings = OwnPartSettings()
    cells: list[Key] = [
        (f"class {i}", f"domain {j}")
        for i, j in product(range(n_classes), range(n_domains))
    ]
    n_cells = len(cells)
    of_circuits = ExtractionSettings(n_images=n_images)
    n_looked_at = n_images + of_circuits.n_others
    # No default method needs the numbers of sites and units.
    counts = Counts(n_images, of_circuits.n_others, sites=0, units=0)
    ranking = scoring_forwards(of_circuits, counts, of_circuits.folds)
    n_foreign = min(FOREIGN, n_classes - 1)
    curve = curve_forwards(n_looked_at, MIB_SIZES, CURVE_DRAWS, n_foreign)
    n_contrasted = n_images + settings.n_others
    part = own_part_forwards(n_images, settings.n_others, max(settings.shares))
    lesions = Forwards()
    design = LesionDesign(cells, settings.other_cells, seed=0)
    for cell, tests in design.parts_by_cell(0).items():
        # Each part is ablated, and on some cells as many random units. Parts of the second half are tested on their
        # class alone.
        n_second = sum(part[0] == cell[0] for part in tests)
        n_lesions = len(tests) + sum(tests.values()) + n_second
        lesions += lesion_forwards(n_images, n_lesions * len(settings.shares))
    n_evaluated = 2 * n_images * n_cells
    n_parts = 2 * n_cells
    return [
        Step("evaluate", 1, Forwards(alone=n_evaluated), n_evaluated),
        Step("own parts", n_parts, part * n_parts, n_contrasted * n_parts),
        Step("lesions, first wave", n_cells, lesions, n_images * n_cells),
        Step("circuits", n_cells, ranking * n_cells, n_looked_at * n_cells),
        Step("curves", n_cells, curve * n_cells, n_looked_at * n_cells),
    ]
