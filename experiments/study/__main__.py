"""``python -m experiments.study NAME [OPTIONS]`` runs one program of the study."""

import importlib
import sys

from circuitry.runs import run_script

PROGRAMS = {
    "plan": "the commands that redo the whole study",
    "array": "run lines of the plan as an array of jobs",
    "real": "the study on real pictures: does its line of argument hold?",
    "style": "what holds a CLIP back in a style, and what gives it back?",
    "style-path": "how does a style keep a CLIP from answering held-out classes?",
    "mark": "does removing the part of a mark take out what a CLIP learned of it?",
    "mixtures": "write tables of training images: which domains see which classes",
    "train-supervised": "train a classifier in place of a CLIP",
    "generalization": "what must a model have seen to recognise new classes of a domain?",
    "represent": "do domains share representations, layer by layer?",
    "separation": "do domains lie apart in the embedding space?",
    "features": "do domains share the features of an autoencoder?",
    "features-over-settings": "do models that saw more share more features?",
    "claims": "do the study's claims hold for these models?",
    "scoreboard": "which way to find circuits works best on my model?",
    "figures": "draw figures by name, from tables",
}
"""What each program does, by the name of the program. The module of ``NAME`` is ``experiments.study.name_command``."""


def main() -> None:
    """Run the program that ``sys.argv`` names, or print the list of all programs."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h"):
        width = max(map(len, PROGRAMS))
        print("usage: python -m experiments.study NAME [OPTIONS]\n")
        for program, purpose in PROGRAMS.items():
            print(f"  {program:{width}}  {purpose}")
    elif name not in PROGRAMS:
        sys.exit(
            f"error: There is no program {name!r} of the study, but {', '.join(PROGRAMS)}."
        )
    else:
        # A program is imported only when it runs, so that the list comes at once, without torch.
        module = importlib.import_module(
            f"experiments.study.{name.replace('-', '_')}_command"
        )
        # The parser of options shows the first word as the name of the program.
        sys.argv = [f"python -m experiments.study {name}", *arguments]
        run_script(module.Config, module.main, module.__doc__)


if __name__ == "__main__":
    main()
