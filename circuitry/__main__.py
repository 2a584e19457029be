"""``python -m circuitry``: the command ``circuitry``, also for torchrun's ``-m``."""

from circuitry.commands import run_command

if __name__ == "__main__":
    run_command()
