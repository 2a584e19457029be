"""How tests carry out work."""

from circuitry.runs.workers import Work

QUIET = Work(progress=False)
"""Without progress bars."""
