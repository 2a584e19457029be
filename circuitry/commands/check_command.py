"""Do the circuits recover the answer of the model?

Each circuit is tested on images that were not used to find it. The test measures the model's score for the class (the
metric) if only the units of the circuit are kept, if only all other units are kept, and if only random units are kept.
The activations of units that are not kept are replaced by a baseline. The test is made at all sites of the encoder at
once, and at one site at a time. Faithfulness is the share of the metric that the circuit alone recovers. Selectivity is
the same share for a difference: the mean metric on images of the class minus the mean metric on images of other
classes. For one circuit, the command also compares the exact effects of units with their attributed scores.

A circuit works if three things hold. It classifies images of its class correctly nearly as often as the whole model. It
assigns other images to its class hardly more often than the whole model. It recovers at least half of the model's
answers: the KL divergence of its class probabilities from those of the whole model is at most half as large as without
any unit. This result says nothing if random units pass the test, too. It says nothing about the class if circuits of
other classes pass the test, too. If a circuit classifies its images correctly but has a selectivity near 0, it assigns
every image to its class.

    circuitry check                  # the circuits of the quickstart
    circuitry explore --open         # with what the checks found
    circuitry check --circuits runs/domainnet/circuits
    torchrun --nproc-per-node 8 -m circuitry check --device cuda ...    # the curves on eight GPUs
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from circuitry import analysis
from circuitry.analysis import QuickstartModel
from circuitry.circuits.budgets import RANKINGS
from circuitry.data.shared_options import SmallTables
from circuitry.interventions import CheckSettings
from circuitry.runs import ALONE, InputError, Rank, Work, WorkSettings
from circuitry.runs.arguments import Natural

if TYPE_CHECKING:
    from circuitry.analysis import Analysis
    from circuitry.reports import Written


@dataclass(frozen=True, kw_only=True)
class Config(CheckSettings, WorkSettings, QuickstartModel):
    """Settings of the check. The defaults are the model, images and circuits of the quickstart."""

    circuits: Path = Path("runs/quickstart/circuits")
    """Folder of circuits that the quickstart, circuitry find or circuitry compare wrote. The model and images of that
    run are used, unless a model or images are given."""
    out: Path | None = None
    """Folder of the results: curves, tables and the report (default: the folder check beside the circuits)."""
    results: SmallTables = None
    random_draws: Natural = 5
    """Number of random circuits of every size."""

    @property
    def folder(self) -> Path:
        """Folder of the curves, the tables and the report."""
        return self.out or self.circuits.parent / "check"

    def analysis(self, rank: Rank = ALONE) -> "Analysis":
        """Return the `Analysis` of the model, images and circuits that the settings name, as one process runs it.

        Args:
            rank: The number of this process among the processes that share the work.
        """
        if not self.circuits.is_dir():
            raise InputError(
                f"There are no circuits at {self.circuits}: run circuitry quickstart or circuitry compare "
                "first, and give the folder circuits of their run with --circuits."
            )
        model, images = self.clip(rank, components=True), self.images()
        return analysis.Analysis(
            model, images, self.folder, checks=self, circuits=self.circuits
        )


def main(config: Config) -> "Written | None":
    """Make the tests, and write the report.

    The result is None in a process that only does its share of the tests.
    """
    # If several processes share the work, only one of them goes on to the report.
    if not config.share_out(partial(measure, config), config.folder / "jobs"):
        return None
    work = config.work()
    # All processes have finished their share, so this only reads the results.
    run = measure(config, work)
    chosen = run.checks.chosen
    # This is done for one circuit, because exact effects take a run for each unit.
    run.scores(work=work)
    title = f"Do the circuits of {run.clip.name} recover its answer?"
    done = f"Causal checks of {len(chosen.tested)} circuits, on {chosen.in_words}."
    return run.report(title, done, results=config.results)


def measure(config: Config, work: Work) -> "Analysis":
    """Make one process's share of the tests, and return the analysis that has made them.

    Tests that are finished are not made again: their results are read from the folder.
    """
    run = config.analysis(work.rank)
    run.curves(work, RANKINGS, config.random_draws)
    run.curves_by_site(work, config.random_draws)
    return run
