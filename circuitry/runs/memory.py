"""How much memory this process has taken."""

import resource
import sys


def peak_memory_gib() -> float:
    """Return the largest resident memory of this process so far, in GiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
