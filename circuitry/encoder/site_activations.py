"""Compute activations of an encoder at some sites, and check that the sites exist and the activations are finite."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from circuitry.encoder.encoder import Encoder
from circuitry.runs.arguments import Names
from circuitry.runs.errors import InputError


def clean_activations(
    encoder: Encoder, images: Tensor, sites: Sequence[str]
) -> dict[str, Tensor]:
    """Return the activations of ``images`` at ``sites``. Raise `InputError` if an activation is not finite."""
    wanted = set(sites)
    with torch.no_grad():
        # Stages after the last wanted site need not run.
        last = max(sites, key=encoder.position, default=None)
        _, cache = encoder.run_with_cache(
            images, stop=last, names_filter=lambda name: name in wanted
        )
    check_finite(cache)
    return dict(cache)


def check_finite(activations: Mapping[str, Tensor], what: str = "Activations") -> None:
    """Raise `InputError` if a value is NaN or infinite. The message names the first site with such a value.

    Args:
        activations: Activations by site.
        what: Word for the activations. The message begins with this word.
    """
    site = first_not_finite(activations)
    if site is not None:
        raise InputError(
            f"{what} at site {site!r} are not finite (NaN or infinite): look at the images and at "
            "the weights of the stages up to it."
        )


def first_not_finite(values: Mapping[str, Tensor]) -> str | None:
    """Return the first site with a value that is NaN or infinite, or None if all values are finite.

    Args:
        values: Values by site.
    """
    # A sum is NaN or infinite if one of its numbers is. It takes a third of the time of a mask of finite numbers. The
    # sums of all sites are read together, because Python waits for the GPU at each read.
    sums = [value.detach().sum(dtype=torch.float32) for value in values.values()]
    if not sums:
        return None
    together = torch.stack([total.to(sums[0].device) for total in sums])
    if bool(together.isfinite().all()):
        return None
    # A sum may also overflow although its numbers are finite.
    for site, value in values.items():
        if not bool(value.isfinite().all()):
            return site
    return None


def checked_sites(encoder: Encoder, sites: Names | None) -> tuple[str, ...]:
    """Return ``sites`` if all of them exist and are in the encoder's order. Otherwise raise `InputError`.

    If ``sites`` is None, return all sites of the encoder.
    """
    if sites is None:
        return encoder.sites
    order = [encoder.position(site) for site in sites]
    if not order or order != sorted(set(order)):
        raise InputError(
            f"Sites are given once each, in the encoder's order, but {', '.join(sites) or 'none'} was given; "
            f"the order is {', '.join(encoder.sites)}."
        )
    return tuple(sites)
