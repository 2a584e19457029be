"""The process in which open_clip's trainer runs: makes a model config known, then hands its arguments on.

Takes the arguments of ``open_clip_train.main``, and after ``--model`` also a JSON file. For several devices:
``torchrun --nproc_per_node 8 circuitry/training/open_clip_main.py --model my-model.json --train-data ...``.
It imports nothing of this package, so it runs as a plain file wherever the package lies.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import open_clip
from open_clip_train.main import main


def with_registered_model(arguments: Sequence[str]) -> list[str]:
    """Register the JSON file after ``--model`` with open_clip and put its name, the file's stem, in its place."""
    known = list(arguments)
    for place, argument in enumerate(known):
        if argument.endswith(".json") and known[place - 1] == "--model":
            open_clip.add_model_config(argument)
            known[place] = Path(argument).stem
    return known


if __name__ == "__main__":
    sys.exit(main(with_registered_model(sys.argv[1:])) or 0)
