"""The process in which open_clip's trainer runs: registers model configs, then hands its arguments on.

Takes the arguments of ``open_clip_train.main``; ``--model`` may also be a config of this package or a JSON file. Several
devices: ``torchrun --nproc_per_node 8 -m circuitry.training.open_clip_main --train-data ...``.
"""

import sys
import warnings
from pathlib import Path

import open_clip
from open_clip_train.main import main

MODEL_CONFIGS = Path(__file__).with_name("model_configs")


def register_configs(arguments: list[str]) -> list[str]:
    """Make this package's configs and a JSON file after ``--model`` known to open_clip; return the arguments with its name."""
    open_clip.add_model_config(MODEL_CONFIGS)
    arguments = list(arguments)
    if "--model" in arguments[:-1]:
        place = arguments.index("--model") + 1
        model = Path(arguments[place])
        if model.suffix == ".json":
            open_clip.add_model_config(model)
            arguments[place] = model.stem
    return arguments


if __name__ == "__main__":
    # open_clip pins memory and asks for autocast whether or not there is a GPU.
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
    sys.exit(main(register_configs(sys.argv[1:])) or 0)
