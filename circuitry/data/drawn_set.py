"""The drawn pictures that come with this package: sixteen things in three styles, 20 of each, of 64 pixels a side.

Code painted them (``experiments/drawn`` in a checkout), and the shipped models were trained on further pictures of it,
in six styles. No torch.
"""

from circuitry.data.domains import DomainFolder
from circuitry.data.drawn_names import DRAWN_IMAGES
from circuitry.runs.arguments import Names


def drawn_images(
    *, domains: Names | None = None, classes: Names | None = None
) -> DomainFolder:
    """Return the drawn pictures that come with this package; no model was trained on them.

    Args:
        domains: Styles to keep (default: `DRAWN_STYLES`).
        classes: Things to keep (default: `DRAWN_CLASSES`).

    Example:
        >>> pictures = circuitry.data.drawn_images(domains=["real"])
        >>> len(pictures), pictures.label("clock")
        (320, 3)
        >>> pictures.select("clock", "real", n=2)[0].relative
        'real/clock/real_0000...png'
    """
    return DomainFolder(DRAWN_IMAGES, domains=domains, classes=classes)
