"""The command ``circuitry``: what each of its names does, from options to the printed result.

A module ``<name>_command.py`` is one name: its docstring is the help, `Config` its options, `main` its work.
"""

import lazy_loader

import circuitry.runs.command_line  # noqa: F401  before torch: OpenMP reads what it sets when torch is loaded

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
