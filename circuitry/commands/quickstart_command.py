"""Which parts of a small CLIP recognise a class, and are they the same in another style? An example with drawn images.

The quickstart takes five steps:

1. It takes a tiny CLIP and drawn pictures, which come with the package. The CLIP was trained on photos, cliparts,
   infographs, paintings, sketches and quickdraws. A quarter of the classes was left out of the quickdraws
   (compositional generalization, high diversity).
2. It measures whether the CLIP knows the classes. It finds the own part of every class in each style: units that the
   class needs and other classes do not. It then tests whether the CLIP still recognises the class without these units,
   in this style and in all other styles, on images that were not used to find own parts. This gives the first answer.
3. It finds circuits that are enough to recognise a class, for up to six classes in every style.
4. It tests these circuits: only the circuit is kept, on images that the circuit was not found on.
5. It compares the circuits between styles, makes cards of the units of own parts, and writes one HTML report and the
   explorer.

Two results would refute that a class has a part of its own: the ablation of random units costs the class as many right
answers, or the ablation of the part also costs other classes their right answers.

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
"""The module of the steps that run a model. It takes seconds to load."""
MOST_PROCESSES = 8
"""Largest default number of processes. With more, each process would have fewer than a dozen circuits."""


def main(config: Config) -> "Written":
    """Take all steps of the quickstart, and return short answers and the paths of the results."""
    started = time.perf_counter()
    # Each process has one core and one thread, since several threads in a process would only wait for each other.
    workers = config.processes or min(usable_cores(), MOST_PROCESSES)
    with process_pool(workers, take_one_thread, preload=[STEPS]) as pool:
        say("1/5 a tiny CLIP and drawn pictures that come with the package")

        def together(step: str) -> "AnalysisAnswers":
            """Share out a step among all processes, and return what the first process found."""
            shares = [
                pool.submit(do, step, config, worker, workers)
                for worker in range(workers)
            ]
            # All processes must finish, because the next step reads the files of every process.
            answers: list[AnalysisAnswers] = [share.result() for share in shares]
            return answers[0]

        own_parts = together("find_own_parts")
        answers = pool.submit(do, "tell_own_parts", config, own_parts).result()
        answers.curves = together("find_circuits").curves
        say("5/5 comparison, cards of units, report and explorer")
        # The cards and the report do not depend on each other, but the explorer needs both.
        cards = pool.submit(do, "make_cards", config)
        written: Written = pool.submit(do, "conclude", config, answers).result()
        cards.result()
        pool.submit(do, "explore", config).result()
    print(f"{time.perf_counter() - started:.0f} s in all")
    return written


def take_one_thread() -> None:
    """Let PyTorch use one thread in this process, since each core has a process of its own."""
    importlib.import_module("torch").set_num_threads(1)


def do(step: str, *arguments: Any) -> Any:
    """Call a step in the module `STEPS`; a process of the pool runs this function.

    Args:
        step: Name of the function.
        arguments: Arguments of the function.
    """
    return getattr(importlib.import_module(STEPS), step)(*arguments)
