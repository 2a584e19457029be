"""Find the sites whose units count in the size of a circuit.

Sites with the role *readout* or *repeat* do not count, because a small circuit at such a site says little about the
model. At a readout, for example, a circuit can be small only because it drops the units from which other classes are
read. Both roles are found by runs of the encoder, so they are defined for any architecture:

- *readout*: each unit of the site adds to the embedding independently of the other units, up to one factor for each
  image, which a norm may apply. The test divides the units into four groups. It runs an image 16 times, and in each run
  multiplies each group by a random factor. If the site is a readout, the 16 embeddings differ along at most five
  directions: one direction for each group, and one for a residual stream that is carried past the units. If the units
  pass a nonlinearity together, the embeddings differ along more directions. Readouts lie at the end of the chain, so
  the test goes backward from the last site, and stops at the first site that is no readout.
- *repeat*: each unit of the site depends on a single unit of the site before, as a pooled channel does. The test sets
  half of the units of the site before to zero. If the site is a repeat, the units that depend on the other half do not
  change.
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
"""Number of groups into which a site's units are divided. The units of a group are scaled together."""
N_RUNS = 16
"""Number of runs of the test of a readout. Each run has its own random factors."""
TOLERANCE = 1e-3
"""Largest share of the change of an activation that is taken for rounding.

At a readout, this is the change along further directions. At a repeat, it is the change of units that depend on the
unchanged half."""
N_IMAGES = 2
"""Number of noise images. A site has a role only if the test holds for all of these images."""
_known: WeakKeyDictionary[Encoder, dict[str, str]] = WeakKeyDictionary()


@checked
def site_roles(encoder: Encoder, *, progress: bool = True) -> dict[str, str]:
    """Return the role of each site of an encoder: ``counted``, ``readout``, ``repeat`` or ``image``.

    Only the units of ``counted`` sites count in the size of a circuit. At a ``readout`` each unit adds to the embedding
    independently of the other units. At a ``repeat`` each unit depends on a single unit of the site before. A site that
    is both has the role ``readout``. The role ``image`` belongs to the site ``input``. The roles are computed once for
    each encoder, with two images of noise and without the hooks at sites.

    Args:
        encoder: The encoder.
        progress: Whether to show a progress bar if the computation takes long.

    Returns:
        A dictionary from sites to roles.

    Example:
        >>> from circuitry.encoder import site_roles
        >>> roles = site_roles(encoder, progress=False)
        >>> roles["input"], roles["attnpool"]
        ('image', 'readout')
    """
    if encoder not in _known:
        # A second encoder on the same tower has the same stages, but no hooks at sites. It runs in the type of the
        # weights, because lower precision rounds by more than the tolerance.
        unhooked = Encoder(
            encoder.tower, encoder.stages, encoder.image_size, chain=encoder.chain
        ).in_precision("float32")
        _known[encoder] = _roles(unhooked, progress)
    return dict(_known[encoder])


@checked
def counted_sites(encoder: Encoder, *, progress: bool = True) -> tuple[str, ...]:
    """Return the sites whose units count in the size of a circuit. Causal runs ablate units at these sites only.

    Args:
        encoder: The encoder.
        progress: Whether to show a progress bar if the computation takes long.

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
    roles = {INPUT: IMAGE} | dict.fromkeys(encoder.sites[1:], COUNTED)
    with encoder.running(), encoder.fast(), bar:
        clean = encoder.read_unhooked(images, encoder.sites[1:])
        # Readouts lie at the end of the chain: what follows a readout adds up, too. So the test, which takes many runs
        # from the site to the end, goes backward and stops at the first site that is no readout. Runs from early sites
        # would cost hundreds of forward runs.
        n_others = n_sites
        while n_others:
            site = encoder.sites[n_others]
            if not _reads_out(encoder, site, clean[site]):
                break
            roles[site] = READOUT
            n_others -= 1
            bar.update()
        # A site after the image is never a repeat, because a circuit does not choose among the three colours.
        bar.update(min(1, n_others))
        for before, site in pairwise(encoder.sites[1 : n_others + 1]):
            if _repeats(encoder, before, site, clean):
                roles[site] = REPEAT
            bar.update()
    return roles


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _reads_out(encoder: Encoder, site: str, clean: Tensor) -> bool:
    """Return whether each unit of a site adds to the embedding independently of the other units.

    ``clean`` is the activation of the site for images of noise. The module describes the test.
    """
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
    # each direction. A readout has one direction for each group of units, and one for the carried stream.
    spread = torch.linalg.svdvals(runs - runs.mean(1, keepdim=True)).square()
    further = spread[:, n_groups + 1 :].sum(1)
    return bool((further <= TOLERANCE**2 * spread.sum(1)).all())


def _repeats(
    encoder: Encoder, before: str, site: str, clean: dict[str, Tensor]
) -> bool:
    """Return whether each unit of ``site`` depends only on the unit with the same index at the site ``before``.

    ``clean`` holds the activations of both sites for noise images.
    """
    units = _units_first(encoder, site, clean[site])
    n_units = encoder.n_units(before, clean[before])
    if len(units) != n_units:
        return False
    # The halves are random, because a grouped convolution mixes neighbouring units.
    half = torch.randperm(n_units, generator=_seeded()) < n_units // 2
    for left in (half, ~half):
        ablated = encoder(_scaled(encoder, before, clean[before], left), before, site)
        moved = _units_first(encoder, site, ablated) - units
        change = moved.flatten(1).norm(dim=1)
        # With `not`, a change of NaN gives False, because no comparison with NaN is true.
        if not change[left].max() <= TOLERANCE * change[~left].max():
            return False
    return True


def _units_first(encoder: Encoder, site: str, activation: Tensor) -> Tensor:
    return encoder.units_of(site, activation).movedim(encoder.unit_dim(site), 0)


def _scaled(encoder: Encoder, site: str, clean: Tensor, gates: Tensor) -> Tensor:
    """Return the activation ``clean`` of a site with each unit multiplied by its gate.

    Some activations also hold a residual stream, which is carried past the units. The stream is not multiplied.
    """
    dim = encoder.unit_dim(site)
    factors = torch.ones(clean.shape[dim])
    factors[: len(gates)] = gates.float()
    return (clean.movedim(dim, -1) * factors.to(clean)).movedim(-1, dim)
