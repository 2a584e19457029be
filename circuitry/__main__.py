"""Run the command ``circuitry`` by ``python -m circuitry`` or by ``torchrun -m circuitry``."""

from circuitry.commands import run_command

if __name__ == "__main__":
    run_command()
