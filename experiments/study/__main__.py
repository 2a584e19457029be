"""``python -m experiments.study NAME [OPTIONS]`` runs one program of the study."""

import importlib
import sys

from circuitry.runs import run_script

PROGRAMS = {
    "plan": "the commands that redo the whole study",
    "toy": "the study in small: does its line of argument hold?",
    "mixtures": "write tables of training images: which domains see which classes",
    "train-supervised": "train a classifier in place of a CLIP",
    "generalization": "what must a model have seen to recognise new classes of a domain?",
    "represent": "do domains share representations, layer by layer?",
    "separation": "do domains lie apart in the embedding space?",
    "features": "do domains share the features of an autoencoder?",
    "features-over-settings": "do models that saw more share more features?",
    "shared-circuitry": "do models generalize where domains share circuitry?",
    "scoreboard": "which way to find circuits works best on my model?",
    "figures": "draw figures by name, from tables",
}
"""What each program does, by its name; ``NAME`` is the module ``experiments.study.name_command``."""


def main() -> None:
    """Run the program that ``sys.argv`` names, or print the list of all."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h"):
        width = max(map(len, PROGRAMS), default=0)
        print("usage: python -m experiments.study NAME [OPTIONS]\n")
        print(
            "\n".join(f"  {known:{width}}  {said}" for known, said in PROGRAMS.items())
        )
    elif name not in PROGRAMS:
        sys.exit(
            f"error: There is no program {name!r} of the study, but {', '.join(PROGRAMS)}."
        )
    else:
        module = importlib.import_module(
            f"experiments.study.{name.replace('-', '_')}_command"
        )
        sys.argv = [f"python -m experiments.study {name}", *arguments]
        run_script(module.Config, module.main, module.__doc__)


if __name__ == "__main__":
    main()
