"""How tests carry out work."""

from circuitry.runs import Work

QUIET = Work(progress=False)
"""Without progress bars."""
