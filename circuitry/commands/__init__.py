"""The program ``circuitry``, which users call from the command line, and its commands.

Each command has a module ``<name>_command.py``: the docstring of the module is the help text of the command, the class
`Config` has its options, and the function `main` does its work.
"""

import lazy_loader

import circuitry.runs.command_line  # noqa: F401  before torch: OpenMP reads what it sets when torch is loaded

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
