"""Check circuits by ablation, and write the report."""

from functools import partial

from circuitry.analysis import Analysis
from circuitry.circuits.budgets import RANKINGS
from circuitry.commands.check_command import Config
from circuitry.reports.page import Written
from circuitry.runs import Work


def main(config: Config) -> Written | None:
    """Measure, write, and say where the report is."""
    if not config.share_out(partial(measure, config), config.folder / "jobs"):
        return None
    run, work = measure(config, config.work()), config.work()
    chosen, model = run.checks.chosen, run.clip.name
    if config.transfer:
        title = f"Do the circuits of {model} work in other domains?"
        done = f"{len(chosen.tested)} circuits, each kept on images of every domain of its class, on {chosen.in_words}."
    else:
        run.scores(work=work)
        title = f"Do the circuits of {model} recover its answer?"
        done = f"Causal checks of {len(chosen.tested)} circuits, on {chosen.in_words}."
    return run.report(title, done, results=config.results)


def measure(config: Config, work: Work) -> Analysis:
    """Measure one process's share; what is finished is read."""
    run = config.analysis(work.rank)
    if config.transfer:
        run.transfer(work, one_site=config.one_site, exchange=True)
    else:
        run.curves(work, RANKINGS, config.random_draws)
        run.curves_by_site(work, config.random_draws)
    return run
