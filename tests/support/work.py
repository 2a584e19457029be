"""How tests carry out work, and how the study ranks units."""

from typing import Any

from circuitry.runs import Work

QUIET = Work(progress=False)
"""Without progress bars."""
AS_STUDIED: dict[str, Any] = {"method": "site-path", "budget": "same-share"}
"""Units of every site by integrated gradients, whose numbers oracles and golden files know."""
