"""Which parts of a small CLIP recognise a class, and are they the same in another style? On drawn images.

1. take a tiny CLIP and drawn pictures that come with the package: the CLIP was trained on photos, cliparts, infographs,
   paintings, sketches and quickdraws, with a quarter of the classes left out of the quickdraws (compositional
   generalization, high diversity);
2. measure whether it knows the classes, find the own part of every class in three styles, and look whether the class is
   lost without it, in these and in the other styles, on images that found no part: the first answer;
3. find circuits that are enough, for six classes in every style;
4. test them: keep only the circuit, on images that it was not found on;
5. compare circuits between styles, make cards of the units of own parts, and write one HTML report and the explorer.

That a class has a part of its own would be refuted here by random units that take as much, or by other classes that are
lost, too.

    circuitry quickstart
    circuitry quickstart --domains real quickdraw --classes clock fish key car
    circuitry quickstart --model vit-tiny           # attention heads and MLP neurons
    circuitry compare --model ViT-B-32 --pretrained openai --data DomainNet      # your model and images
"""

import importlib
import time
from typing import TYPE_CHECKING, Any

from circuitry.analysis.quickstart_settings import QuickstartSettings, say
from circuitry.runs.processes import process_pool, usable_cores

if TYPE_CHECKING:
    from circuitry.analysis.analysis_answers import AnalysisAnswers
    from circuitry.reports.page import Written

Config = QuickstartSettings
STEPS = "circuitry.analysis.quickstart_steps"
"""The module of the steps that run a model: it takes seconds to load."""
MOST_PROCESSES = 8
"""As many as have a dozen circuits each."""


def main(config: Config) -> "Written":
    """Run all steps, and return the answer in short, and where the report is."""
    started = time.perf_counter()
    # A core for each process: more threads in one would only wait for each other.
    workers = config.processes or min(usable_cores(), MOST_PROCESSES)
    with process_pool(workers, take_one_thread, preload=[STEPS]) as pool:
        say("1/5 a tiny CLIP and drawn pictures that come with the package")

        def together(step: str) -> "AnalysisAnswers":
            """Do a step in all processes; the first of them has asked everything."""
            shares = [
                pool.submit(do, step, config, worker, workers)
                for worker in range(workers)
            ]
            # All are waited for: the next step reads the files of every process.
            answers: list[AnalysisAnswers] = [share.result() for share in shares]
            return answers[0]

        own_parts = together("find_own_parts")
        answers = pool.submit(do, "tell_own_parts", config, own_parts).result()
        answers.curves = together("find_circuits").curves
        say("5/5 comparison, cards of units, report and explorer")
        # Cards and report need nothing of each other; the explorer needs both.
        cards = pool.submit(do, "make_cards", config)
        written: Written = pool.submit(do, "conclude", config, answers).result()
        cards.result()
        pool.submit(do, "explore", config).result()
    print(f"{time.perf_counter() - started:.0f} s in all")
    return written


def take_one_thread() -> None:
    """Run PyTorch in one thread, as each core has a process of its own."""
    importlib.import_module("torch").set_num_threads(1)


def do(step: str, *arguments: Any) -> Any:
    """Do a step of `STEPS`, in the process that this is called in."""
    return getattr(importlib.import_module(STEPS), step)(*arguments)
