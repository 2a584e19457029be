"""Do the circuits recover the answer of the model, and in other domains, too?

On images that the circuits were not found on: the metric with only a circuit's units active (all sites at once, and
one site at a time), with all but them, and with random units; and whether the circuit still tells its class from the
others. Then, for one circuit, the exact effects of units against their attributed scores.

A circuit works if it gives images of its class the class nearly as often as the whole model, other images hardly more
often, and recovers half of the answers. That says nothing where random units do as well, and nothing about this class
where circuits of other classes do; one with a selectivity near 0 answers its class for every image.

With --transfer: does one domain's circuit work in another? The causal sense of shared circuitry, beside the structural
one. For every class, only the circuit of domain A is kept while images of domain B run through the encoder, at all
sites at once and at one site at a time. And the activations of A's circuit, from images of A, replace those of runs on
images of B. Circuits are shared if faithfulness and selectivity stay as high off the diagonal as on it. Structural
similarity is meaningful if it predicts transfer; a rank correlation near 0 over the pairs of domains refutes it. Where
circuits are kept at all sites at once, look at selectivity before faithfulness.

    circuitry check                  # the circuits of the quickstart
    circuitry check --transfer
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
    """Settings of the check; the defaults are the quickstart's model, images and circuits."""

    circuits: Path = Path("runs/quickstart/circuits")
    """Folder of circuits that the quickstart, circuitry find or circuitry compare left; model and images are those of
    that run, unless a model or images are given."""
    transfer: bool = False
    """Check circuits in other domains, instead of each in its own."""
    out: Path | None = None
    """Folder of the results: curves or tables, and the report (default: check beside the circuits, with
    --transfer check-transfer)."""
    results: SmallTables = None
    random_draws: Natural = 5
    """Random circuits of every size."""
    one_site: bool = True
    """With --transfer: also keep circuits at one site at a time."""

    @property
    def folder(self) -> Path:
        """Where curves, tables and the report go."""
        # Two folders, so that curves and transfer of the same circuits can lie beside each other.
        name = "check-transfer" if self.transfer else "check"
        return self.out or self.circuits.parent / name

    def analysis(self, rank: Rank = ALONE) -> "Analysis":
        """Read model, images and circuits, for one of the processes that work on them."""
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
    """Measure, write, and say where the report is."""
    # Of several processes one goes on to the report; the others only measure their share.
    if not config.share_out(partial(measure, config), config.folder / "jobs"):
        return None
    work = config.work()
    # Everything is measured now, also by other processes, and is read.
    run = measure(config, work)
    model = run.clip.name
    n_circuits = len(run.checks.chosen.tested)
    images = run.checks.chosen.in_words
    if config.transfer:
        title = f"Do the circuits of {model} work in other domains?"
        done = f"{n_circuits} circuits, each kept on images of every domain of its class, on {images}."
    else:
        # One circuit, since exact effects take a run for each unit.
        run.scores(work=work)
        title = f"Do the circuits of {model} recover its answer?"
        done = f"Causal checks of {n_circuits} circuits, on {images}."
    return run.report(title, done, results=config.results)


def measure(config: Config, work: Work) -> "Analysis":
    """Measure one process's share; what is finished is read."""
    run = config.analysis(work.rank)
    if config.transfer:
        run.transfer(work, one_site=config.one_site, exchange=True)
    else:
        run.curves(work, RANKINGS, config.random_draws)
        run.curves_by_site(work, config.random_draws)
    return run
