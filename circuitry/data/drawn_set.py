"""The drawn pictures that come with this package: 20 pictures of each of sixteen classes in each of three styles.

A picture has 64 x 64 pixels. A program painted the pictures (``experiments/drawn`` in a checkout). The shipped models
were trained on other pictures by the same program, in six styles. Does not import torch.
"""

from circuitry.data.domains import DomainFolder
from circuitry.data.drawn_names import DRAWN_IMAGES
from circuitry.runs.arguments import Names


def drawn_images(
    *, domains: Names | None = None, classes: Names | None = None
) -> DomainFolder:
    """Return the drawn pictures that come with this package. The shipped models were not trained on these pictures.

    Args:
        domains: Styles to keep (default: all `DRAWN_STYLES`).
        classes: Classes to keep (default: all `DRAWN_CLASSES`).

    Example:
        >>> pictures = circuitry.data.drawn_images(domains=["real"])
        >>> len(pictures), pictures.label("clock")
        (320, 3)
        >>> pictures.select("clock", "real", n=2)[0].relative
        'real/clock/real_0000...png'
    """
    return DomainFolder(DRAWN_IMAGES, domains=domains, classes=classes)
