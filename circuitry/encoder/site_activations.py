"""Return activations of an encoder at some sites, and check that the sites exist and the activations are finite."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from circuitry.encoder.encoder import Encoder
from circuitry.runs.arguments import Names
from circuitry.runs.errors import InputError


def clean_activations(
    encoder: Encoder, images: Tensor, sites: Sequence[str]
) -> dict[str, Tensor]:
    """Return the activations of ``images`` at ``sites``, checked to be finite."""
    wanted = set(sites)
    with torch.no_grad():
        # Stages behind the last wanted site need not run.
        last = max(sites, key=encoder.position, default=None)
        _, cache = encoder.run_with_cache(
            images, stop=last, names_filter=lambda name: name in wanted
        )
    check_finite(cache)
    return dict(cache)


def check_finite(activations: Mapping[str, Tensor], what: str = "Activations") -> None:
    """Raise `InputError` for the first site with a NaN or infinite value; ``what`` begins the message."""
    verdicts = [activation.isfinite().all() for activation in activations.values()]
    if not verdicts:
        return
    # One answer for all sites: each answer that Python reads waits for the GPU.
    finite = torch.stack([verdict.to(verdicts[0].device) for verdict in verdicts])
    if bool(finite.all()):
        return
    site = list(activations)[int(finite.int().argmin())]
    raise InputError(
        f"{what} at site {site!r} are not finite (NaN or infinite): look at the images and at "
        "the weights of the stages up to it."
    )


def checked_sites(encoder: Encoder, sites: Names | None) -> tuple[str, ...]:
    """Return ``sites`` (default: all) after checking that they exist and are in the encoder's order."""
    if sites is None:
        return encoder.sites
    order = [encoder.position(site) for site in sites]
    if not order or order != sorted(set(order)):
        raise InputError(
            f"Sites are given once each, in the encoder's order, but {', '.join(sites) or 'none'} was given; "
            f"the order is {', '.join(encoder.sites)}."
        )
    return tuple(sites)
