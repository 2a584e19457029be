"""``python -m experiments.study NAME [OPTIONS]`` runs one program of the study."""

import importlib
import sys

from circuitry.runs.command_line import end_with, run_script

PROGRAMS: dict[str, str] = {}
"""What each program does, by its name; ``NAME`` is the module ``experiments.study.name_command``."""


def main() -> None:
    """Run the program that ``sys.argv`` names, or print the list of all."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h"):
        width = max(map(len, PROGRAMS), default=0)
        print("usage: python -m experiments.study NAME [OPTIONS]\n")
        print("\n".join(f"  {known:{width}}  {said}" for known, said in PROGRAMS.items()))
    elif name not in PROGRAMS:
        end_with(f"There is no program {name!r} of the study, but {', '.join(PROGRAMS)}.")
    else:
        module = importlib.import_module(f"experiments.study.{name.replace('-', '_')}_command")
        sys.argv = [f"python -m experiments.study {name}", *arguments]
        run_script(module.Config, module.main, module.__doc__)


if __name__ == "__main__":
    main()
