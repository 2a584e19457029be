"""Are the circuits of a small CLIP shared between styles? The whole study in miniature, on drawn images.

1. draw the toy data set: six styles with DomainNet's names, sixteen everyday things;
2. take a tiny CLIP that comes with the package, or train it: on photos, cliparts, infographs, paintings, sketches and
   quickdraws, with a quarter of the classes left out of the quickdraws (compositional generalization, high diversity);
3. measure its zero-shot accuracy per domain, held-out and seen classes apart, and what the former's mixes;
4. find the circuit of every class in every domain, and of parts of the images;
5. test them: keep only the circuit, in its own domain and in others, on images that it was not found on;
6. compare them between domains and write tables, one HTML report and the explorer.

The claim of the study, that quickdraw's circuits are the least similar to those of the other domains, would be
refuted here by a domain whose circuits are significantly less similar than quickdraw's.

    circuitry quickstart
    circuitry quickstart --fast                     # a part of the classes and styles, few images
    circuitry quickstart --train                    # everything from nothing
    circuitry quickstart --model vit-tiny           # circuits of attention heads and MLP neurons
    circuitry quickstart --n-images 14 --n-others 6      # as in experiments/results/quickstart
"""

import importlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from circuitry.analysis.quickstart_settings import DRAWN_IMAGES, QuickstartSettings, say
from circuitry.data.drawn.drawing import write_toy
from circuitry.runs.processes import process_pool, usable_cores

if TYPE_CHECKING:
    from circuitry.reports.page import Written

Config = QuickstartSettings
STEPS = "circuitry.analysis.quickstart_steps"
"""The module of the steps that run a model: it takes seconds to load, meanwhile images are drawn."""
MOST_PROCESSES = 8
"""As many as have a dozen circuits each."""
FAST = {"n_test": 6, "n_images": 4, "n_unseen": 2, "n_others": 4}
"""Settings of ``--fast``."""


def main(config: Config) -> "Written":
    """Run all steps, and return the table, the answer in short, and where the report is."""
    config = replace(config, **FAST) if config.fast else config  # type: ignore[arg-type]
    started = time.perf_counter()
    workers = config.processes or min(usable_cores(), MOST_PROCESSES)
    with process_pool(workers, take_one_thread, preload=[STEPS]) as pool:
        say("1/6 draw the toy data set")
        root = write_toy(config.folder / DRAWN_IMAGES, config.drawing, workers=None if config.train else 1)
        say(f"2/6 {'train a tiny CLIP' if config.train else 'a tiny CLIP that comes with the package'}")
        checkpoint = pool.submit(do, "train", config, root).result() if config.train else None
        given = config, checkpoint, root
        shares = [pool.submit(do, "find_and_test", *given, worker, workers) for worker in range(workers)]
        found = {name: one for share in shares for name, one in share.result().items()}
        written: Written = pool.submit(do, "conclude", *given, found).result()
    print(f"{time.perf_counter() - started:.0f} s in all")
    return written


def take_one_thread() -> None:
    """Leave the other cores to the other processes."""
    importlib.import_module("torch").set_num_threads(1)


def do(step: str, *arguments: Any) -> Any:
    """Do a step of `STEPS`, in the process that this is called in."""
    return getattr(importlib.import_module(STEPS), step)(*arguments)
