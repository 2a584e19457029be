"""Find the sites whose units count in the size of a circuit.

Two roles of sites do not count, since a circuit could be small at such a site without having found anything: it could
drop the readout channels of other classes. Both roles are found by runs of the encoder, for any architecture:

- *readouts*: their units act on the embedding one by one, up to one factor for each image (a norm). The test divides
  the units into four groups, scales each group by a random factor and computes 16 such embeddings of an image. Of a
  readout they differ along five directions at most: one for each group, and one for activations carried past the units.
  Of a site whose units are mixed before a nonlinearity they differ along more.
- *repeats*: every unit depends on one unit of the site before alone, as a pooled channel does. The test zeroes half of
  the units of the site before; of a repeat the other half of the units does not change.
"""

from itertools import pairwise
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from circuitry.encoder.doubles import in_double
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.sites import INPUT
from circuitry.runs.arguments import checked
from circuitry.runs.progress import BRIEF, Bar

COUNTED = "counted"
READOUT = "readout"
REPEAT = "repeat"
IMAGE = "image"
N_GROUPS = 4
"""Number of groups into which a site's units are divided; the units of a group are scaled together."""
N_RUNS = 16
"""Number of runs, each with other factors."""
TOLERANCE = 1e-3
"""Largest share of the change that rounding may explain, at a readout or a repeat."""
N_IMAGES = 2
"""Number of noise images; all of them must agree."""
_known: WeakKeyDictionary[Encoder, dict[str, str]] = WeakKeyDictionary()


@checked
def site_roles(encoder: Encoder, *, progress: bool = True) -> dict[str, str]:
    """Return the role of each of an encoder's sites: ``counted``, ``readout``, ``repeat`` or ``image``.

    A site that is both readout and repeat is called a readout. The roles of an encoder are found once, with two images
    of noise and without hooks.

    Args:
        encoder: The encoder.
        progress: Whether to show a bar if it takes longer.

    Example:
        >>> from circuitry.encoder import site_roles
        >>> roles = site_roles(encoder, progress=False)
        >>> roles["input"], roles["attnpool"]
        ('image', 'readout')
    """
    if encoder not in _known:
        # Another encoder on the same tower: it has the same stages and none of the hooks.
        unhooked = Encoder(
            encoder.tower, encoder.stages, encoder.image_size, chain=encoder.chain
        )
        _known[encoder] = _roles(unhooked, progress)
    return dict(_known[encoder])


@checked
def counted_sites(encoder: Encoder, *, progress: bool = True) -> tuple[str, ...]:
    """Return the sites that count in a circuit's size; causal runs ablate units at no other site.

    Args:
        encoder: The encoder.
        progress: Whether to show a bar if it takes longer.

    Example:
        >>> from circuitry.encoder import counted_sites
        >>> sites = counted_sites(encoder, progress=False)
        >>> circuitry.Task(encoder, images, metric, sites=sites).sites == sites
        True
    """
    roles = site_roles(encoder, progress=progress)
    return tuple(site for site, role in roles.items() if role == COUNTED)


def _roles(encoder: Encoder, progress: bool) -> dict[str, str]:
    images = torch.randn(N_IMAGES, 3, *encoder.image_size, generator=_seeded())
    images = images.to(encoder.device, encoder.dtype)
    n_sites = len(encoder.sites) - 1
    bar = Bar(
        total=n_sites,
        desc="which sites count",
        unit="site",
        disable=not progress,
        **BRIEF,
    )
    roles = {INPUT: IMAGE}
    with encoder.running(), encoder.fast(), bar:
        clean = {site: encoder(images, stop=site) for site in encoder.sites[1:]}
        for before, site in pairwise(encoder.sites):
            # No site counts as a repeat of the image: three colours are no units that a circuit could drop.
            if _reads_out(encoder, site, clean[site]):
                roles[site] = READOUT
            elif before != INPUT and _repeats(encoder, before, site, clean):
                roles[site] = REPEAT
            else:
                roles[site] = COUNTED
            bar.update()
    return roles


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _reads_out(encoder: Encoder, site: str, clean: Tensor) -> bool:
    """Return whether units act on the embedding one by one, up to a factor for each image."""
    generator = _seeded()
    n_units = encoder.n_units(site, clean)
    n_groups = min(N_GROUPS, n_units)
    group_of_unit = torch.randperm(n_units, generator=generator) % N_GROUPS
    embeddings = []
    for _ in range(N_RUNS):
        gates = torch.rand(n_groups, generator=generator)[group_of_unit]
        embeddings.append(encoder(_scaled(encoder, site, clean, gates), site))
    runs = in_double(torch.stack(embeddings, 1))
    # Squared singular values [image, direction], largest first: how much of the difference between runs lies along
    # each direction. A readout has none beyond the groups and the carried stream.
    spread = torch.linalg.svdvals(runs - runs.mean(1, keepdim=True)).square()
    further = spread[:, n_groups + 1 :].sum(1)
    return bool((further <= TOLERANCE**2 * spread.sum(1)).all())


def _repeats(
    encoder: Encoder, before: str, site: str, clean: dict[str, Tensor]
) -> bool:
    """Return whether each unit depends on the unit of the same number at the site before alone."""
    units = _units_first(encoder, site, clean[site])
    n_units = encoder.n_units(before, clean[before])
    if len(units) != n_units:
        return False
    # A random half and its complement, so that neighbours that a grouped convolution mixes fall apart.
    half = torch.randperm(n_units, generator=_seeded()) < n_units // 2
    for left in (half, ~half):
        ablated = encoder(_scaled(encoder, before, clean[before], left), before, site)
        moved = _units_first(encoder, site, ablated) - units
        change = moved.flatten(1).norm(dim=1)
        # Written with `not` so that NaN is no repeat: no comparison with it is true.
        if not change[left].max() <= TOLERANCE * change[~left].max():
            return False
    return True


def _units_first(encoder: Encoder, site: str, activation: Tensor) -> Tensor:
    return encoder.units_of(site, activation).movedim(encoder.unit_dim(site), 0)


def _scaled(encoder: Encoder, site: str, clean: Tensor, gates: Tensor) -> Tensor:
    """Return an activation with each unit scaled by its gate; the stream carried past the units stays."""
    dim = encoder.unit_dim(site)
    factors = torch.ones(clean.shape[dim])
    factors[: len(gates)] = gates.float()
    return (clean.movedim(dim, -1) * factors.to(clean)).movedim(-1, dim)
